"""Where a study may lie: a sweep by name, the folder of a report, a results folder, or a file of records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from rankbench.analysis.labels import flat
from rankbench.records import run_folder
from rankbench.records.record import NOT_IDENTITY, PLACES, RunRecord, complete
from rankbench.studies import study
from rankbench.studies.study import RECORDS, Study
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import Job, Sweep, SweepError

RATE = "train.learning_rate"
FACTS = ("model", "task", "budget")
# What is no axis of panels: what a method does, what names a run, and what the facts say already.
NO_AXIS = {*NOT_IDENTITY, *PLACES, "seed", "trial", *(f"{fact}.name" for fact in FACTS)}
NO_AXIS_UNDER = ("method.", "tuned.", "budget.", "tracking.")

Settings = Mapping[str, str]


def study_at(source: str | Path, results: Path) -> Study:
    """The study that a user names.

    Args:
        source: name of an experiment or sweep in `results`; or the folder of a report, a results folder, or a file of
            records (records.jsonl).
        results: results folder.

    Raises:
        SweepError: there is none.
    """
    path = Path(source)
    if (path / manifest.FILE).is_file():
        return study.study_in_folder(path)
    if path.is_file() or (path / "runs").is_dir():
        return study_of_records(path)
    if (path / RECORDS).is_file():
        return study_of_records(path / RECORDS)
    if path.exists():
        raise SweepError(f"{path} holds no study: neither {manifest.FILE}, {RECORDS} nor runs/")
    return _study_named(str(source), results)


def _study_named(name: str, results: Path) -> Study:
    if manifest.folder(results, name).is_dir():
        return study.study_of_sweep(manifest.read(manifest.folder(results, name)), results)
    try:
        return study.load([f"experiment={name}", f"results_dir={results}"])
    except SweepError as error:
        if (results / name / RECORDS).is_file():
            return study_of_records(results / name / RECORDS)
        folders = sorted(path.parent.name for path in results.glob(f"*/{RECORDS}"))
        there = f"; {results} has {', '.join(folders)}" if folders else ""
        raise SweepError(f"{name}: no folder or file of this name, and {error}{there}") from error


def study_of_records(source: Path) -> Study:
    """A study of records that no sweep lists: each record is a run that was asked for.

    Its panels differ in model, task, budget, and each setting that differs between runs of one method.

    Args:
        source: results folder or file of records.

    Raises:
        SweepError: there is no record.
    """
    records, problems = run_folder.records(source)
    if not records:
        raise SweepError(f"{source} holds no records; give a results folder, or a file of records")
    settings = [_settings(record) for record in records]
    reported = [not record.config.get("trial") for record in records]
    reported = reported if any(reported) else [True] * len(records)  # a file of trials alone is about them
    axes = _axes(records, settings, reported)
    jobs = [
        Job(None, record.run_id, not is_reported, _overrides(record, own, axes))
        for record, own, is_reported in zip(records, settings, reported, strict=True)
    ]
    name = (source.parent if source.is_file() else source).resolve().name
    words = [f"{key}=" for key in (*FACTS, *axes)]
    sweep = Sweep(name, name, 1, words, None, None, jobs)
    results_dir = None if source.is_file() else source
    return Study(sweep, {record.run_id: record for record in records}, {}, problems, results_dir)


def _settings(record: RunRecord) -> Settings:
    """Dotted keys of what may be an axis of panels, and their values as text."""
    everything = flat(complete(record.config))
    return {key: text for key, text in everything if key not in NO_AXIS and not key.startswith(NO_AXIS_UNDER)}


def _axes(records: Sequence[RunRecord], settings: Sequence[Settings], reported: Sequence[bool]) -> list[str]:
    """Settings that differ between runs of one method; the learning rate only where nothing else tells them apart."""
    runs = [
        pair for pair, is_reported in zip(zip(records, settings, strict=True), reported, strict=True) if is_reported
    ]
    keys = dict.fromkeys(key for _, own in runs for key in own if key != RATE)
    axes = [key for key in keys if _differs(key, runs, ())]
    return axes + ([RATE] if _differs(RATE, runs, axes) else [])


def _differs(key: str, runs: Iterable[tuple[RunRecord, Settings]], axes: Iterable[str]) -> bool:
    """Whether a setting differs between runs of one method, model, task, budget and point of the axes."""
    values: dict[Hashable, set[str | None]] = defaultdict(set)
    for record, own in runs:
        point = (record.method, *(getattr(record, fact) for fact in FACTS), *(own.get(axis) for axis in axes))
        values[point].add(own.get(key))
    return any(len(several) > 1 for several in values.values())


def _overrides(record: RunRecord, settings: Settings, axes: Sequence[str]) -> tuple[str, ...]:
    """Words that say which run it is, among these records."""
    facts = [f"{fact}={getattr(record, fact)}" for fact in ("method", *FACTS, "seed")]
    return (*facts, *(f"{axis}={settings[axis]}" for axis in axes if axis in settings))
