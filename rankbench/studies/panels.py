"""Panels of a study: its runs at each point of the axes, seeds aside; a report compares runs of one panel alone.

A run that is missing is a row like any other, without numbers.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from rankbench.analysis.frame import SelectionError, frame
from rankbench.analysis.labels import file_name, labels, sort_key
from rankbench.analysis.mixed_records import differences, differing_code, refuse
from rankbench.analysis.selection import refuse_doubt
from rankbench.analysis.terms import Terms
from rankbench.records.record import RunRecord
from rankbench.studies.declared_terms import terms_of
from rankbench.studies.study import Study
from rankbench.sweeps import cells, experiment, experiment_files
from rankbench.sweeps.grid import CELL
from rankbench.sweeps.manifest import Job
from rankbench.sweeps.report_settings import Report

MISSING = "missing"  # status of a run without a record
FACTS = ("model", "task", "budget")  # every panel has one of each
# A frame has them though no run left a record, or none was asked for yet.
COLUMNS = ("label", "seed", "run_id", "status", "learning_rate", "match", "unit", "target", "at_edge")
ARM = ("method", "experiment", "scale", "arms", "cells", "seed")  # what is typed and is no axis of panels


@dataclass(frozen=True)
class StudyRun:
    """A run that was asked for.

    Attributes:
        arm: label of its arm.
        seed: None where it is not known: no record, and not typed.
        record: None: missing, or still running.
    """

    job: Job
    arm: str
    seed: int | None
    record: RunRecord | None

    @property
    def status(self) -> str:
        """Status of the record; MISSING without one."""
        return MISSING if self.record is None else self.record.status


@dataclass(frozen=True)
class Panel:
    """The runs at one point of the axes.

    Attributes:
        name: stem of file names and anchors.
        title: model, task, budget, and the other axes.
        short: the part of the title in which the panels of a study differ; all of it for a single one.
        facts: model, task, budget; "?" where no run and no word tells.
        rest: values of the other axes ("task.map=few").
        arms: labels, in the order of the experiment.
        runs: runs that are reported.
        trials: tuning trials.
        metric: column of the frame that is shown for the task.
        terms: on what terms its arms are judged, but for the size of the family.
        data: frame with a row per run; missing ones have the status MISSING and no numbers.
    """

    name: str
    title: str
    short: str
    facts: dict[str, str]
    rest: tuple[str, ...]
    arms: list[str]
    runs: list[StudyRun]
    trials: list[StudyRun]
    metric: str
    terms: Terms
    data: pd.DataFrame

    @property
    def cell(self) -> str | None:
        """Name of its cell of the experiment; None in one without cells."""
        return next((run.job.cell for run in [*self.runs, *self.trials]), None)

    @property
    def records(self) -> list[RunRecord]:
        """Records of the runs that left one."""
        return [run.record for run in self.runs if run.record is not None]

    def measured(self, arm: str) -> pd.Series:
        """The metric of an arm's runs that are ok and have it."""
        if self.metric not in self.data:
            return pd.Series(dtype=float)
        return self.data[self.metric][(self.data["label"] == arm) & (self.data["status"] == "ok")].dropna()

    def meets(self, condition: str) -> bool:
        """Whether the panel has headroom, and its runs the settings of a condition ("task=planted task.map=few")."""
        settings = {f"{key}={value}" for run in self.runs[:1] for key, value in _words(run.job).items()}
        facts = {f"{key}={value}" for key, value in self.facts.items()}
        return self.terms.headroom and set(condition.split()) <= settings | facts

    @property
    def names(self) -> list[str]:
        """Arm of each of `records`."""
        return [run.arm for run in self.runs if run.record is not None]


def report_of(study: Study) -> Report:
    """What the experiment declares; without one, what is usual, LoRA (or the first method there is) the reference.

    Raises:
        SelectionError: the study names a reference that is no arm of it, or an experiment declares another.
    """
    declared = study.sweep.experiment
    if declared is not None:
        if study.reference not in (None, declared.report.reference):
            raise SelectionError(f"reference {study.reference}: the experiment declares {declared.report.reference}")
        return declared.report
    arms = sorted(set(_arms(study.runs()) or _arms(study.runs(trial=True))), key=sort_key)
    if study.reference is not None and study.reference not in arms:
        raise SelectionError(f"reference {study.reference}: no such arm; there are {', '.join(arms)}")
    usual = "lora" if "lora" in arms or not arms else arms[0]
    return experiment_files.usual_report(study.reference or usual)


def panels(study: Study) -> list[Panel]:
    """All panels of a study, in the order in which its jobs name them."""
    jobs, trials = study.runs(), study.runs(trial=True)
    axes, report = _axes(study), report_of(study)
    groups: dict[tuple[str, ...], tuple[list[StudyRun], list[StudyRun]]] = defaultdict(lambda: ([], []))
    for kind, pairs in enumerate((jobs, trials)):
        for (job, record), arm in zip(pairs, _arms(pairs), strict=True):
            words = _words(job)
            seed = record.seed if record else _integer(words.get("seed"))
            groups[tuple(words.get(axis, "") for axis in axes)][kind].append(StudyRun(job, arm, seed, record))
    rest = [axis for axis in axes if axis not in FACTS]
    taken: Counter[str] = Counter()
    return _shortened(
        [
            _panel(
                study,
                report,
                {axis: value for axis, value in zip(axes, point, strict=True) if axis in rest},
                *runs,
                taken,
            )
            for point, runs in groups.items()
        ]
    )


def _shortened(all_panels: Sequence[Panel]) -> list[Panel]:
    """The panels with their `short` titles."""
    parts = [panel.title.split(", ") for panel in all_panels]
    common = set.intersection(*map(set, parts)) if len(all_panels) > 1 else set()
    titles = [", ".join(part for part in title if part not in common) for title in parts]
    return [replace(panel, short=title) for panel, title in zip(all_panels, titles, strict=True)]


def _panel(
    study: Study,
    report: Report,
    rest: Mapping[str, str],
    runs: list[StudyRun],
    trials: list[StudyRun],
    taken: Counter[str],
) -> Panel:
    facts = {key: _fact(key, [*runs, *trials], study) for key in FACTS}
    points = tuple(f"{axis}={value}" for axis, value in rest.items() if value)
    title = ", ".join([facts["model"], facts["task"], f"budget {facts['budget']}", *points])
    name = file_name(title)
    taken[name] += 1
    name = name if taken[name] == 1 else f"{name}-{taken[name]}"
    declared = study.sweep.experiment
    position = {arm: number for number, arm in enumerate(experiment.arms(declared))} if declared else {}
    present = dict.fromkeys(run.arm for run in [*runs, *trials])
    arms = sorted(
        present, key=lambda arm: (position.get(arm, len(position)), sort_key(arm) if not position else (0, ""))
    )
    task = facts["task"]
    asked = {arm: {run.seed for run in runs if run.arm == arm and run.seed is not None} for arm in arms}
    terms = terms_of(study, report, task, [run.job for run in [*runs, *trials]], asked)
    return Panel(name, title, title, facts, points, arms, runs, trials, report.metric_of(task), terms, _frame(runs))


def _axes(study: Study) -> list[str]:
    """Keys that are declared or typed and differ among the jobs; the arm and the seed are none."""
    parts = cells.parts(study.sweep.experiment) if study.sweep.experiment else {}
    declared = [axis for part in parts.values() for axis in part.axes]
    typed = [word.partition("=")[0].lstrip("+") for word in study.sweep.words if "=" in word]
    of_cells = FACTS if study.sweep.experiment and study.sweep.experiment.cells else ()
    keys = [
        key for key in dict.fromkeys([*of_cells, *declared, *typed]) if key not in ARM and not key.startswith("method.")
    ]
    words = [_words(job) for job in study.sweep.jobs]
    axes = [key for key in keys if len({each.get(key) for each in words}) > 1]
    points = {tuple(each.get(axis) for axis in [*axes, CELL]) for each in words}
    apart = len({point[:-1] for point in points}) == len(points)
    return axes if apart else [*axes, CELL]  # cells that differ in no axis are told apart by their names


def _arms(pairs: Sequence[tuple[Job, RunRecord | None]]) -> list[str]:
    """The label of each job; without an experiment as `labels` has it, and a missing run as the others of its words."""
    if all(job.arm is not None for job, _ in pairs):
        return [str(job.arm) for job, _ in pairs]
    records = [record for _, record in pairs if record is not None]
    label_of_record = iter(labels(records))
    named = [next(label_of_record) if record is not None else None for _, record in pairs]
    alike: dict[str, str] = {}
    for (job, _), name in zip(pairs, named, strict=True):
        if name is not None:
            alike.setdefault(_own_words(job), name)
    own = [_own_words(job) for job, _ in pairs]
    return [name or alike.get(words, words or "?") for name, words in zip(named, own, strict=True)]


def _own_words(job: Job) -> str:
    """What tells the method of a job without a label: "igu", "igu (beta1=0.5)"."""
    words = _words(job)
    settings = [f"{key.removeprefix('method.')}={value}" for key, value in words.items() if key.startswith("method.")]
    return words.get("method", "") + (f" ({', '.join(settings)})" if settings else "")


def _words(job: Job) -> Mapping[str, str]:
    """Key -> value of the overrides of a job, and the name of its cell under CELL."""
    return _parsed(job.overrides) if job.cell is None else {**_parsed(job.overrides), CELL: job.cell}


@functools.lru_cache(maxsize=100_000)
def _parsed(overrides: tuple[str, ...]) -> Mapping[str, str]:
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs}


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _fact(key: str, runs: Iterable[StudyRun], study: Study) -> str:
    """A fact of a panel: from its records, its words, or the whole study where all records agree."""
    runs = list(runs)
    mine = (str(getattr(run.record, key)) for run in runs if run.record is not None)
    typed = (words[key] for run in runs for words in [_words(run.job)] if key in words)
    return next(itertools.chain(mine, typed, _everywhere(key, study)))


def _everywhere(key: str, study: Study) -> Iterator[str]:
    values = {str(getattr(record, key)) for record in study.records.values()}
    yield values.pop() if len(values) == 1 else "?"


def _frame(runs: Sequence[StudyRun]) -> pd.DataFrame:
    """A row per run, those without a record too."""
    done = [run for run in runs if run.record is not None]
    data = frame([run.record for run in done if run.record], names=[run.arm for run in done])
    missing = [run for run in runs if run.record is None]
    rows = [{"label": run.arm, "seed": run.seed, "run_id": run.job.run_id, "status": MISSING} for run in missing]
    whole = pd.concat([data, pd.DataFrame(rows)], ignore_index=True) if rows else data
    whole = whole.reindex(columns=list(dict.fromkeys([*whole, *COLUMNS])))
    return whole.astype(dict.fromkeys(("label", "status", "match", "unit"), object))  # looked up often, or empty


def families(members: Sequence[Panel]) -> dict[str, list[Panel]]:
    """Panels that differ in their budget alone, by what they share: model, task and the other axes."""
    groups: dict[str, list[Panel]] = defaultdict(list)
    for panel in members:
        groups[", ".join([panel.facts["model"], panel.facts["task"], *panel.rest])].append(panel)
    return groups


def refuse_mixed(study: Study, all_panels: Sequence[Panel], allowed: Sequence[str]) -> list[str]:
    """Refuse mixed records; what differs and was allowed by name is returned, what arms declare may differ anyway.

    Code and versions are to be one in all panels: some tables stand over several.

    Raises:
        SelectionError: code, versions or settings differ that may not, in all panels at once; several learning rates
            of an arm, or several runs of an arm and seed.
    """
    declared = study.sweep.experiment
    own = {key for settings in experiment.arms(declared).values() for key in settings} if declared else set()
    everywhere = differing_code([record for panel in all_panels for record in panel.records])
    names = {line.partition(": ")[0] for line in everywhere}
    mixed = {"all tables": everywhere} | {
        panel.title: [line for line in differences(panel.records, own) if line.partition(": ")[0] not in names]
        for panel in all_panels
    }
    refuse(mixed, allowed, "Do the runs again with one code and one set of versions")
    for panel in all_panels:
        refuse_doubt(panel.title, panel.data)
    return sorted({line for names in mixed.values() for line in names})


def methods_of(all_panels: Sequence[Panel]) -> dict[str, Any]:
    """Arm -> its method, of the arms that have a record."""
    methods: dict[str, Any] = {}
    for panel in all_panels:
        for run in [*panel.runs, *panel.trials]:
            if run.record is not None:
                methods.setdefault(run.arm, run.record.method)
    return methods
