"""How noisy is a run, and how many seeds does a difference need?

`rankbench noise method=igu model=tiny task=planted [--seeds 0-9] [--reruns 3] [--against method=lora]`: one
configuration at several seeds, and its first seed again, each time in a folder of its own. The same seed differs where
threads or devices do; train.threads fixes the former. What is done already is not done again: noise/ in the results
folder holds the reruns. Markdown; exit code 0 if every run ended with status ok.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rankbench.config.overrides import examiner
from rankbench.config.schema import ConfigError
from rankbench.launching import jobs, local_pool
from rankbench.launching.progress import SweepProgress, stopping
from rankbench.records.frozen_run import Order
from rankbench.records.record import RunRecord, run_id
from rankbench.reporting.table import markdown_of_frame
from rankbench.statistics.estimates import deviation, seeds_needed
from rankbench.sweeps.experiment_files import usual_metric

PLACE = "noise"  # in results_dir
POINTS = {"accuracy", "exact_match", "f1", "matthews", "pearson", "spearman"}  # told in points: per cent of 1
EFFECTS = (0.1, 0.2, 0.5, 1.0, 2.0)  # points; of other metrics, shares of the deviation between seeds
CORRELATIONS = (0.0, 0.5, 0.9)  # of two methods over seeds, where none was measured
LEGEND = (
    "Seeds for 80 % power at 95 %. Unpaired: of each of two methods with this deviation. Paired: of both, where their "
    "values over the same seeds correlate by r."
)


@dataclass(frozen=True)
class Runs:
    """Values of one metric; failed runs have none.

    Attributes:
        first: the seed that was run again.
        seeds: seed -> value.
        again: of the first seed, run again.
        against: seed -> value of the other configuration; {} without one.
    """

    first: int
    seeds: dict[int, float]
    again: list[float]
    against: dict[int, float]

    def scaled(self, factor: float) -> Runs:
        """In another unit."""
        seeds, against = ({seed: factor * held for seed, held in part.items()} for part in (self.seeds, self.against))
        return Runs(self.first, seeds, [factor * held for held in self.again], against)


def frozen(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of one run, as plain values.

    Args:
        overrides: as on the command line; a later one of a key wins.

    Raises:
        ConfigError: every mistake.
    """
    typed = {override.partition("=")[0]: override for override in overrides}
    with examiner() as examine:
        config, problems = examine.job(list(typed.values()))
    if problems:
        raise ConfigError(problems)
    return config.plain()


def orders(config: Mapping[str, Any], seeds: Sequence[int]) -> list[Order]:
    """A run for each seed, in the results folder itself: such as any sweep would do."""
    made = [{**copy.deepcopy(dict(config)), "seed": seed} for seed in seeds]
    return [Order(run_id(one), one, f"{one['method']['name']} seed={one['seed']}") for one in made]


def reruns(first: Order, count: int) -> list[Order]:
    """The same run again, in folders of its own: it has the same name."""
    place = Path(first.config["results_dir"]) / PLACE / first.run_id
    return [
        Order(
            first.run_id,
            {**first.config, "results_dir": str(place / f"rerun-{number}")},
            f"{first.title} again ({number})",
        )
        for number in range(1, count + 1)
    ]


def perform(wanted: Sequence[Order], place: Path, slots: int | None) -> list[RunRecord | None]:
    """Do the runs that are not done; the record of each, in their order.

    Args:
        place: folder for the frozen runs.
        slots: runs at a time; None: one for each device, or one.
    """
    place.mkdir(parents=True, exist_ok=True)
    files = [place / f"{number}.json" for number in range(len(wanted))]
    for order, file in zip(wanted, files, strict=True):
        order.write(file)
    settings = jobs.LaunchSettings(slots=slots, devices=jobs.devices())
    rooms = settings.rooms()
    progress = SweepProgress(len(files), len(rooms), rooms[0].threads)

    return [ended.record for ended in local_pool.launch(files, settings, progress.show, stopping)]


def value(record: RunRecord | None, metric: str) -> float | None:
    """Of a column such as "test/kl"; None where the run failed or did not measure it."""
    split, _, name = metric.partition("/")
    if record is None or record.status != "ok":
        return None
    return ((record.metrics or {}).get(split) or {}).get(name)


def report(found: Runs, metric: str) -> str:
    """Markdown: spread between reruns and between seeds, and the seeds that effects need.

    Args:
        metric: what the values are of.
    """
    in_points = metric.rpartition("/")[2] in POINTS
    found, unit = (found.scaled(100), " points") if in_points else (found, "")
    lines = [_between_reruns(found, unit), _between_seeds(found, unit)]
    if len(found.seeds) > 1 and (spread := deviation(list(found.seeds.values())).value) > 0:
        lines += [markdown_of_frame(_needs(found, spread, in_points)), LEGEND]
    return "\n\n".join(lines)


def _between_reruns(found: Runs, unit: str) -> str:
    values = [*([found.seeds[found.first]] if found.first in found.seeds else []), *found.again]
    if len(values) < 2:
        return f"Seed {found.first}: not run twice."
    if len(set(values)) == 1:
        return f"Seed {found.first}, {len(values)} runs: bit for bit the same ({values[0]:.6g}{unit})."
    span = max(values) - min(values)
    return (
        f"Seed {found.first}, {len(values)} runs: {_spread(values, unit)}, from smallest to largest {span:.3g}{unit}."
    )


def _between_seeds(found: Runs, unit: str) -> str:
    values = list(found.seeds.values())
    if len(values) < 2:
        return f"{len(values)} seed: no deviation."
    return f"{len(values)} seeds: mean {np.mean(values):.5g}{unit}, {_spread(values, unit)}."


def _spread(values: Sequence[float], unit: str) -> str:
    spread = deviation(values)
    interval = "" if spread.low is None else f" [{spread.low:.3g}, {spread.high:.3g}]"
    return f"deviation {spread.value:.3g}{interval}{unit}"


def _needs(found: Runs, spread: float, in_points: bool) -> pd.DataFrame:
    """A row per effect: seeds without pairs, and with pairs of each correlation."""
    paired = _paired_deviations(found, spread)
    rows = []
    for size in EFFECTS:
        effect = size if in_points else size * spread
        title = f"{size:g} points" if in_points else f"{effect:.3g} ({size:g} deviations)"
        needed = [seeds_needed(effect, spread, paired=False), *(seeds_needed(effect, s) for s in paired.values())]
        rows.append([title, *(f"{seeds:,}" for seeds in needed)])
    return pd.DataFrame(rows, columns=["effect", "unpaired", *paired])


def _paired_deviations(found: Runs, spread: float) -> dict[str, float]:
    """Title -> deviation of the differences: measured, or of two methods with this deviation and some correlation."""
    both = [(found.seeds[seed], found.against[seed]) for seed in found.seeds if seed in found.against]
    if len(both) < 3:
        return {f"paired, r = {r:g}": spread * (2 * (1 - r)) ** 0.5 for r in CORRELATIONS}
    a, b = np.array(both).T
    measured = float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0
    return {f"paired, r = {measured:.2f} (measured)": deviation(a - b).value}


def seeds_of(text: str) -> list[int]:
    """Numbers and spans as a command line has them ("0-3,7")."""
    spans = [part.partition("-") for part in text.split(",")]
    return [seed for low, _, high in spans for seed in range(int(low), int(high or low) + 1)]


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing and print the report."""
    parser = argparse.ArgumentParser(prog="rankbench noise", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of the run, as for python -m rankbench")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0-9"), help="such as 0-9 or 0,1,2")
    parser.add_argument("--reruns", type=int, default=3, help="of the first seed, beside its run")
    parser.add_argument("--against", action="append", default=[], metavar="KEY=VALUE", help="another configuration")
    parser.add_argument("--metric", help="such as test/loss; without, what reports show of the task")
    parser.add_argument("--slots", type=int, help="runs at a time")
    arguments = parser.parse_intermixed_args(words)
    try:
        config = frozen(arguments.overrides)
        other = frozen([*arguments.overrides, *arguments.against]) if arguments.against else None
    except ConfigError as error:
        parser.exit(2, f"rankbench.cli.noise: {error}\n")
    return _study(config, other, arguments)


def _study(config: dict[str, Any], other: dict[str, Any] | None, arguments: argparse.Namespace) -> int:
    own = orders(config, arguments.seeds)
    again = reruns(own[0], arguments.reruns)
    compared = orders(other, arguments.seeds) if other else []
    place = Path(config["results_dir"]) / PLACE / own[0].run_id
    done = perform([*own, *again, *compared], place / "frozen", arguments.slots)
    metric = arguments.metric or usual_metric(config["task"]["name"])
    values = [value(record, metric) for record in done]
    seeds = dict(zip(arguments.seeds, values[: len(own)], strict=True))
    against = dict(zip(arguments.seeds, values[len(own) + len(again) :], strict=bool(compared)))
    found = Runs(
        own[0].config["seed"],
        _measured(seeds),
        [v for v in values[len(own) :][: len(again)] if v is not None],
        _measured(against),
    )
    failed = sum(record is None or record.status != "ok" for record in done)
    print(f"# Noise of {metric}: {_title(config)}\n")
    print(report(found, metric))
    if failed:
        print(f"\n{failed} of {len(done)} runs failed and are not counted.")
    return 1 if failed else 0


def _measured(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: held for seed, held in values.items() if held is not None}


def _title(config: Mapping[str, Any]) -> str:
    names = [config[section]["name"] for section in ("method", "model", "task")]
    return f"{', '.join(names)}, budget {config['budget']['name']}"
