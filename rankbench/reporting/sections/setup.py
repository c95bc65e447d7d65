"""The design of a study as a table: its arms and what they set."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rankbench.analysis.labels import arm_title, model_title, setting_text, task_title
from rankbench.core.sites import UNEVEN
from rankbench.records.record import RunRecord
from rankbench.reporting.report_data import ReportData, span
from rankbench.reporting.section import Section, present
from rankbench.reporting.table import Cell, Table, arm_cell
from rankbench.sweeps import experiment
from rankbench.sweeps.grid import spell
from rankbench.sweeps.report_settings import DottedSettings
from rankbench.terminal import duration


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty without an experiment."""
    tables = [arms_table(report_data), deviations_table(report_data)]
    return Section("setup", "What was run", sentences(report_data), present(tables))


def arms_table(report_data: ReportData) -> Table | None:
    """Arms, their own settings, and whose learning rate they take; None without an experiment."""
    declared = report_data.study.sweep.experiment
    if declared is None:
        return None
    tuned = report_data.study.sweep.tuned
    sharing = experiment.rates_of(declared) if tuned else {}
    runs = Counter(run.arm for panel in report_data.panels for run in panel.runs)
    rows = [
        [
            arm_cell(arm),
            Cell(_listed(settings)),
            arm_cell(sharing[arm]) if arm in sharing else Cell("its own" if tuned else "given"),
            Cell(str(runs[arm]) if runs[arm] else "none of its own"),
        ]
        for arm, settings in experiment.arms(declared).items()
    ]
    shared = [f"Every run: {_listed(declared.settings)}."] if declared.settings else []
    axes = [f"Axes: {_listed({key: values for key, values in declared.axes.items()})}."]
    when = [f"Where {condition}: {_listed(settings)}." for condition, settings in declared.when.items()]
    typed = [f"Typed: python -m rankbench -m {shlex.join(report_data.study.sweep.words)}"]
    alike = ["An arm without runs of its own is, setting by setting, another one."] * (len(runs) < len(rows))
    return Table(
        "arms", "Arms", ["arm", "settings", "learning rate of", "runs"], rows, [*alike, *axes, *shared, *when, *typed]
    )


def sentences(report_data: ReportData) -> list[str]:
    """What the records note, with the number of runs that do; uneven allocations stand with the rank maps."""
    records = [record for panel in report_data.panels for record in panel.records]
    notes = Counter(note for record in records for note in record.notes if not note.startswith(UNEVEN))
    return [f"Noted in {count} of {len(records)} runs: {note}." for note, count in notes.items()]


def deviations_table(report_data: ReportData) -> Table | None:
    """How the methods differ from their sources, a sentence each, as the records say; None where none does."""
    arms: dict[str, list[str]] = {}
    for panel in report_data.panels:
        for run in panel.runs:
            for sentence in (run.record.provenance.get("deviations") or []) if run.record is not None else []:
                arms.setdefault(sentence, []).append(run.arm)
    rows = [[Cell(_different(map(arm_title, names))), Cell(sentence)] for sentence, names in arms.items()]
    return (
        Table("deviations", "Differences from the sources", ["arms", "difference"], rows, folded=True) if rows else None
    )


def _listed(settings: DottedSettings) -> str:
    return ", ".join(spell(key, value) for key, value in settings.items())


def facts(report_data: ReportData) -> list[tuple[str, str]]:
    """What stands at the head of a report: names and values."""
    runs = [run for panel in report_data.panels for run in panel.runs]
    good = sum(run.status == "ok" for run in runs)
    records = [run.record for run in runs if run.record is not None]
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    declaration = report_data.study.sweep.declaration
    pairs = {
        "declared": span(panel.date[:10] for panel in declaration.panels) if declaration and declaration.panels else "",
        "runs ok": f"{good:,} of {len(runs):,}",
        "seeds": f"{len(seeds)} ({_in_words(seeds)})" if seeds else "?",
        "run time": _run_time(report_data.study.records.values()),
        "models": _different(model_title(record.model) for record in records),
        "tasks": _different(task_title(record.task) for record in records),
        "budgets": _different(setting_text("budget", record.budget) for record in records),
        "code": _different(_code(record) for record in records),
        "torch": _different((record.provenance.get("packages") or {}).get("torch") or "?" for record in records),
        "device": _different(str(record.provenance.get("device") or "?") for record in records),
    }
    return [(name, value) for name, value in pairs.items() if value]


def _run_time(records: Iterable[RunRecord]) -> str:
    """Time that all runs and tuning trials took, one after the other."""
    phases = [phase for record in records for phase in (record.cost or {}).values() if isinstance(phase, Mapping)]
    return duration(sum(phase.get("seconds") or 0.0 for phase in phases))


def _different(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _code(record: RunRecord) -> str:
    """The commit of a run, and the identity of the code that all runs share."""
    commit = record.provenance.get("git_commit")
    text = (commit[:10] if commit else "unknown commit") + (", changed" if record.provenance.get("git_dirty") else "")
    shared = record.provenance.get("shared_code")
    return f"{text}, shared code {shared}" if shared else text


def _in_words(seeds: Sequence[int]) -> str:
    """Seeds in words: 0 to 4 where none is left out."""
    whole = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))
