"""How noisy is a run, and how many seeds does a difference need?

`rankbench noise method=igu model=tiny task=planted [--seeds 0-9] [--reruns 3] [--against method=lora]` does one
configuration at several seeds, and repeats the run of its first seed, each time in a folder of its own. Repetitions
differ where threads or devices do; train.threads fixes the former.

What is done already is not done again: noise/ in the results folder holds the repetitions. The report is Markdown.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankbench.cli.arguments import add_results, with_results
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import FAILED, OK
from rankbench.cli.run import say
from rankbench.config.schema import ConfigError
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import RunRecord, run_id
from rankbench.terminal import print_text

PLACE = "noise"  # folder in results_dir
SECOND = "overrides of a second configuration; may be repeated"


def frozen(overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of one run, as plain values.

    Args:
        overrides: words of the command line; a later one of a key wins.

    Raises:
        ConfigError: every mistake.
    """
    from rankbench.config.overrides import one_run

    return one_run(overrides).config.plain()


def frozen_runs(config: Mapping[str, Any], seeds: Sequence[int]) -> list[FrozenRun]:
    """A run for each seed, in the results folder itself, as any sweep would do it."""
    configs = [{**copy.deepcopy(dict(config)), "seed": seed} for seed in seeds]
    return [FrozenRun(run_id(one), one, f"{one['method']['name']}, seed {one['seed']}") for one in configs]


def reruns(first: FrozenRun, count: int) -> list[FrozenRun]:
    """Repetitions of a run, each in a results folder of its own, since all have the same run_id."""
    folder = Path(first.config["results_dir"]) / PLACE / first.run_id
    return [
        FrozenRun(
            first.run_id,
            {**first.config, "results_dir": str(folder / f"rerun-{number}")},
            f"{first.title}, again ({number})",
        )
        for number in range(1, count + 1)
    ]


def perform(rows: Mapping[str, Sequence[FrozenRun]], folder: Path, slots: int | None) -> list[RunRecord | None]:
    """Do the runs that are not done; the record of each, in their order.

    Args:
        rows: name of a row of the table of progress -> frozen runs.
        folder: where their files are written.
        slots: runs at a time; None: one for each device, or one.
    """
    from rankbench.launching import jobs, local_pool
    from rankbench.launching.progress import PlannedRun, SweepProgress, stopping

    runs = [run for members in rows.values() for run in members]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.json" for number in range(len(runs))]
    for run, file in zip(runs, files, strict=True):
        run.write(file)
    settings = jobs.LaunchSettings(slots=slots, devices=jobs.devices())
    rooms = settings.rooms()
    progress = SweepProgress()
    progress.plan(
        [PlannedRun(row, run.title, run.config, run.folder.path) for row, members in rows.items() for run in members]
    )
    with progress:
        progress.use(len(rooms), rooms[0].threads)
        return [ended.record for ended in local_pool.launch(files, settings, progress.show, stopping, progress.start)]


def value(record: RunRecord | None, metric: str) -> float | None:
    """The value of a column such as "test/kl"; None where the run failed or did not measure it."""
    split, _, name = metric.partition("/")
    if record is None or record.status != "ok":
        return None
    return ((record.metrics or {}).get(split) or {}).get(name)


def seeds_of(text: str) -> list[int]:
    """Numbers and spans as a command line has them ("0-3,7")."""
    spans = [part.partition("-") for part in text.split(",")]
    return [seed for low, _, high in spans for seed in range(int(low), int(high or low) + 1)]


def main(words: Sequence[str]) -> int:
    """Do the runs that are missing and print the report; 0 if every run ended with status ok, else 1.

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
    """
    parser = command_parser("noise", __doc__ or "")
    parser.add_argument("overrides", nargs="*", metavar="WORD", help="overrides of the run, as for rankbench")
    add_results(parser)
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0-9"), help="such as 0-9 or 0,1,2")
    parser.add_argument("--reruns", type=int, default=3, help="repetitions of the first seed's run (%(default)s)")
    parser.add_argument("--against", action="append", default=[], metavar="KEY=VALUE", help=SECOND)
    parser.add_argument("--metric", help="such as test/loss; without it, what reports show of the task")
    parser.add_argument("--slots", type=int, help="runs at a time")
    arguments = parser.parse_intermixed_args(words)
    if arguments.slots is not None and arguments.slots < 1:
        raise ConfigError([f"--slots {arguments.slots}: expected a number >= 1"])
    say("loading torch ...")
    overrides = with_results(arguments.overrides, arguments)
    config = frozen(overrides)
    other = frozen([*overrides, *arguments.against]) if arguments.against else None
    return _study(config, other, arguments)


def _study(config: dict[str, Any], other: dict[str, Any] | None, arguments: argparse.Namespace) -> int:
    from rankbench.reporting.noise_report import LEGEND, Runs, needed_seeds, spread_sentences  # pandas takes a moment
    from rankbench.reporting.record_tables import print_frame
    from rankbench.sweeps.experiment_files import usual_metric

    own = frozen_runs(config, arguments.seeds)
    again = reruns(own[0], arguments.reruns)
    compared = frozen_runs(other, arguments.seeds) if other else []
    folder = Path(config["results_dir"]) / PLACE / own[0].run_id
    name = config["method"]["name"]
    rows = {name: own, f"{name}, again": again, "against": compared}
    records = perform(rows, folder / "frozen", arguments.slots)
    metric = arguments.metric or usual_metric(config["task"]["name"])
    values = [value(record, metric) for record in records]
    seeds = dict(zip(arguments.seeds, values[: len(own)], strict=True))
    against = dict(zip(arguments.seeds, values[len(own) + len(again) :], strict=bool(compared)))
    measured = Runs(
        own[0].config["seed"],
        _measured(seeds),
        [v for v in values[len(own) :][: len(again)] if v is not None],
        _measured(against),
    )
    failed = sum(record is None or record.status != "ok" for record in records)
    print(f"# Noise of {metric}: {_title(config)}\n")
    print_text("\n\n".join(spread_sentences(measured, metric)))
    if (needed := needed_seeds(measured, metric)) is not None:
        print()
        print_frame(needed)
        print_text(f"\n{LEGEND}")
    if failed:
        print(f"\n{failed} of {len(records)} runs failed and are not counted.")
    return FAILED if failed else OK


def _measured(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value is not None}


def _title(config: Mapping[str, Any]) -> str:
    names = [config[section]["name"] for section in ("method", "model", "task")]
    return f"{', '.join(names)}, budget {config['budget']['name']}"
