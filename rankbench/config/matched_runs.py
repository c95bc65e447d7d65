"""What a run takes from another run to be matched to it: that run's peak as its budget, its passes as its steps.

Both figures go into the configuration itself before it is frozen, so that a run's identity and its record hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from rankbench.config import control_sources, schema
from rankbench.config.schema import Mistake
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import places

SPENT = ("calibration", "training", "allocation")  # phases whose passes are matched
FINISHED = ("ok", "inert", "over_budget")  # statuses of runs that trained to their end


def peak(place: str, budget: Mapping[str, Any], results_dir: Path) -> dict[str, Any]:
    """The target of a budget section at the peak of a run: its largest adapter on the way, in the section's unit.

    Args:
        place: the run's folder, its record.json or its run_id under results_dir.
        budget: the section.
        results_dir: folder of all results.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: it did not train to its end.
    """
    figures = (_finished(place, results_dir).ledger or {})["peak"]
    return {"target": figures.get(budget["unit"])}


def passes(place: str, train: Mapping[str, Any], results_dir: Path) -> dict[str, Any]:
    """The steps of a train section that take as many passes as a run did, calibration and allocation included.

    A run of s steps with c passes beside t passes of those steps is matched by s * (t + c) / t steps, rounded to the
    nearest whole one: passes forward and backward then agree within half a step.

    Args:
        place, results_dir: as in `peak`.
        train: the section.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: it did not train to its end, or its steps are of another size.
    """
    record = _finished(place, results_dir)
    cost, settings = record.cost or {}, record.config["train"]
    if settings["batch_size"] != train["batch_size"]:
        raise ValueError(
            f"its batches are of {settings['batch_size']} examples, those of this run of {train['batch_size']}; set "
            f"train.batch_size={settings['batch_size']}"
        )
    spent = {phase: cost[phase]["forward_passes"] + cost[phase]["backward_passes"] for phase in SPENT}
    return {"steps": round(settings["steps"] * sum(spent.values()) / spent["training"])}


Read = Callable[[str, Mapping[str, Any], Path], dict[str, Any]]
FIGURES: dict[str, Read] = {"budget.peak_of": peak, "train.passes_of": passes}
SOURCE_RUN = "method.source_run"


def complete(
    data: Mapping[str, Any], results_dir: Path, skip: Collection[str] = ()
) -> tuple[dict[str, Any], list[Mistake]]:
    """The configuration with the figures of the runs that it names filled in, and every mistake in what it names.

    Args:
        data: plain nested dictionaries; a key that stands for an arm ("{igu}") is left to the sweep.
        results_dir: folder of all results.
        skip: sections that are left as they are.
    """
    completed, mistakes = dict(data), []
    for key, read in FIGURES.items():
        section, _, leaf = key.partition(".")
        values = {} if section in skip else _section(data, key)
        place = values.get(leaf)
        if place in (None, schema.MISSING) or control_sources.ARM.fullmatch(str(place)):
            continue
        try:
            completed[section] = {**values, **read(str(place), values, results_dir)}
        except (OSError, ValueError) as error:
            mistakes.append(Mistake(key, f"{key}={place}: {error}"))
    return completed, mistakes


def awaited(config: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a configuration that wait for the run of an arm of the experiment -> that arm."""
    return arms_in({key: _section(config, key).get(key.partition(".")[2]) for key in (SOURCE_RUN, *FIGURES)})


def arms_in(settings: Mapping[str, Any]) -> dict[str, str]:
    """`awaited` of dotted keys and their values."""
    matches = {key: control_sources.ARM.fullmatch(str(settings.get(key))) for key in (SOURCE_RUN, *FIGURES)}
    return {key: match[1] for key, match in matches.items() if match}


def unresolved(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a run that is started although it waits for an arm."""
    return [
        f"{key}={{{arm}}}: an arm stands for its run in an experiment alone" for key, arm in awaited(config).items()
    ]


def with_run(config: Mapping[str, Any], run: str, results_dir: Path) -> dict[str, Any]:
    """The configuration with a run in place of the arm that it waits for, and what is taken from that run.

    Args:
        config: plain nested dictionaries.
        run: run_id of the arm's run.
        results_dir: folder of all results.

    Raises:
        FileNotFoundError: the run has not finished.
        ValueError: there is nothing to take from it.
    """
    completed = dict(config)
    for key in awaited(config):
        section, _, leaf = key.partition(".")
        values = completed[section]
        figures = (
            control_sources.rank_map(run, results_dir) if key == SOURCE_RUN else FIGURES[key](run, values, results_dir)
        )
        completed[section] = {**values, leaf: run, **figures}
    return completed


def _finished(place: str, results_dir: Path) -> RunRecord:
    paths = places(place, results_dir)
    files = [file for path in paths for file in (path / "record.json", path) if file.is_file()]
    if not files:
        raise FileNotFoundError(f"no run there (looked for {paths[0]} and {paths[1]})")
    record = RunRecord.from_json(files[0].read_text(), str(files[0]))
    if record.status not in FINISHED:
        raise ValueError(f"{files[0]}: the run ended with status {record.status}; finish it first")
    return record


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The section of a dotted key; {} where something else stands there, which has its own message."""
    section = config.get(key.partition(".")[0])
    return section if isinstance(section, Mapping) else {}
