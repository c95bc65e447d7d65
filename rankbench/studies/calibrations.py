"""The finished runs whose rank maps make one: those of a study, of results folders or of files of records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rankbench import RankbenchError
from rankbench.analysis.metrics import directions, higher_is_better
from rankbench.records import run_folder
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder
from rankbench.studies import study

SCORES = "scores.json"
WITH_MAP = ("ok", "inert")  # of an inert run the map is uniform


class MapError(RankbenchError, ValueError):
    """Runs that make no map; the message says why, and what to give."""


@dataclass(frozen=True)
class Calibration:
    """A run that gave the sites ranks.

    Attributes:
        arm: label of its arm; None outside experiments.
        record: its record.
        scores: site -> score, where the method scored sites before training and the run's folder is there.
    """

    arm: str | None
    record: RunRecord
    scores: dict[str, float] | None


def calibrations(words: Sequence[str], results_dir: Path) -> tuple[list[Calibration], list[str]]:
    """The finished runs that words name, without tuning trials, and a sentence on each that is left out.

    Raises:
        MapError: a word names nothing, or no run is left.
    """
    if any("=" in word for word in words):
        loaded = study.load(words, curves=False)
        missing = [f"{job.title}: no record" for job, record in loaded.runs() if record is None]
        runs = [(job.arm, record, results_dir) for job, record in loaded.runs() if record is not None]
        missing += loaded.problems
    else:
        runs, missing = [], []
        for word in words:
            of_word, problems = _named(word, results_dir)
            runs += [(None, record, folder) for record, folder in of_word]
            missing += problems
    chosen = []
    for arm, record, folder in runs:
        if record.config.get("trial"):
            continue
        if record.status in WITH_MAP and record.ranks and any(record.ranks.values()):
            scores = RunFolder(folder, record.run_id).json(SCORES)
            chosen.append(Calibration(arm, record, scores))
        else:
            missing.append(f"{arm or record.method} seed={record.seed}: status {record.status}, no rank map")
    if not chosen:
        raise MapError(f"{' '.join(words)}: no finished run with a rank map; {'; '.join(missing) or 'give others'}")
    return chosen, missing


def _named(word: str, results_dir: Path) -> tuple[list[tuple[RunRecord, Path]], list[str]]:
    """Records of a results folder, a file of records or a run, each with the results folder that its own is in."""
    paths = run_folder.places(word, results_dir)
    run = next((path for path in paths if (path / run_folder.RECORD).is_file()), None)
    if run is not None:
        record = RunFolder.from_path(run).record()
        return ([(record, run.parent.parent)] if record else []), []
    if not paths[0].is_file() and not (paths[0] / "runs").is_dir():
        raise MapError(f"{word}: no results folder, no file of records, and no run of {results_dir}")
    records, problems = run_folder.records(paths[0])
    return [(record, paths[0]) for record in records], problems


def grouped(runs: Sequence[Calibration], by: Sequence[str]) -> Iterator[tuple[str, list[Calibration]]]:
    """Runs that make one map, with its name PANEL/ARM: model, task, budget and the settings `by`, then arm or method.

    Raises:
        SelectionError: a key that no record has.
    """
    from rankbench.analysis.frame import split  # pandas takes a moment to import
    from rankbench.analysis.labels import file_name, labels

    calibration = {id(run.record): run for run in runs}
    for title, records in split([run.record for run in runs], by):
        members: dict[str, list[Calibration]] = defaultdict(list)
        for record, label in zip(records, labels(records), strict=True):
            run = calibration[id(record)]
            members[run.arm or label].append(run)
        for label, alike in members.items():
            yield f"{file_name(title)}/{file_name(label)}", sorted(alike, key=lambda run: run.record.seed)


def refuse(name: str, runs: Sequence[Calibration]) -> None:
    """Refuse runs that are not one calibration at several seeds.

    Raises:
        MapError: they have one seed, a seed twice, or several learning rates.
    """
    seeds = [run.record.seed for run in runs]
    rates = sorted({run.record.config["train"]["learning_rate"] for run in runs})
    if len(rates) > 1:
        listed = ", ".join(f"{rate:g}" for rate in rates)
        raise MapError(f"{name}: the runs differ in train.learning_rate ({listed}); give those of one rate")
    if len(set(seeds)) < len(seeds):
        raise MapError(f"{name}: several runs of one seed ({', '.join(map(str, seeds))}); give one each")
    if len(seeds) == 1:
        raise MapError(f"{name}: one run alone (seed {seeds[0]}); give it as method.source_run, or runs at more seeds")


def best(groups: Mapping[str, Sequence[Calibration]], metric: str) -> dict[str, tuple[str, dict[str, float]]]:
    """The best map of each panel by the mean of a validation metric over seeds: what a search over these maps finds.

    Candidates have one map at all seeds, and not a uniform one. Its runs are seen and chosen: what the map is worth is
    told by other seeds.

    Args:
        groups: name of a map, PANEL/ARM, -> its runs.
        metric: name of the metric ("validation/loss").

    Returns:
        Panel -> name of its best map, and the mean of every candidate.

    Raises:
        MapError: a metric that is not of validation or has no direction; a panel with fewer than two candidates, or
            whose candidates lack the metric or have other seeds.
    """
    higher, split_name = higher_is_better(metric), metric.partition("/")[0]
    if higher is None or split_name != "validation":
        raise MapError(f"--best {metric}: choose by a metric of validation, such as validation/loss; {directions()}")
    panels: dict[str, dict[str, Sequence[Calibration]]] = defaultdict(dict)
    for name, runs in groups.items():
        maps = [run.record.ranks or {} for run in runs]
        if all(own == maps[0] for own in maps) and len(set(maps[0].values())) > 1:
            panels[name.rpartition("/")[0]][name] = runs
    if not panels:
        raise MapError(f"--best {metric}: no arm has one map at all of its seeds; give transplanted or permuted maps")
    chosen = {}
    for panel, candidates in panels.items():
        seeds = {name: [run.record.seed for run in runs] for name, runs in candidates.items()}
        if len(candidates) < 2 or len({tuple(own) for own in seeds.values()}) > 1:
            raise MapError(f"{panel}: the best of maps is told from two or more at the same seeds, not from {seeds}")
        means = {name: _mean(name, runs, metric) for name, runs in candidates.items()}
        chosen[panel] = (max(means, key=means.__getitem__) if higher else min(means, key=means.__getitem__), means)
    return chosen


def _mean(name: str, runs: Sequence[Calibration], metric: str) -> float:
    split_name, _, key = metric.partition("/")
    values = [((run.record.metrics or {}).get(split_name) or {}).get(key) for run in runs]
    if lost := [run.record.run_id for run, value in zip(runs, values, strict=True) if value is None]:
        raise MapError(f"{name}: run {lost[0]} has no {metric}")
    return fmean(value for value in values if value is not None)
