"""Missing and failed runs, reasons of failure, and files that could not be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from rankbench.analysis.labels import arm_title, metric_title, panel_title
from rankbench.analysis.mixed_records import differing_code
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.section import Section, present, rows_of_panels
from rankbench.reporting.table import Cell, Table, arm_cell, count_statuses
from rankbench.studies.panels import MISSING, StudyRun

ROWS = 12  # more are folded on the page
LETTERS = 160  # of a reason that are shown


def make(report_data: ReportData) -> Section:
    """Return the section that is always there."""
    tables = [missing_runs_table(report_data), failures_table(report_data)]
    return Section("holes", "Missing runs and failures", sentences(report_data), present(tables))


def sentences(report_data: ReportData) -> list[str]:
    """Counts of runs and tuning trials, and everything that keeps a number out of the tables."""
    runs = [run for panel in report_data.panels for run in panel.runs]
    trials = [run for panel in report_data.panels for run in panel.trials]
    lines = [_counted("runs", runs), *([_counted("tuning trials", trials)] if trials else [])]
    compared = {panel.name for panel, _ in report_data.compared()}
    empty = [(panel.title, panel.metric) for panel in report_data.panels if panel.name not in compared]
    lines += [
        f"No run that is ok has {metric_title(metric)} on {panel_title(title)}: it has no table."
        for title, metric in empty
    ]
    without = [panel_title(panel.title) for panel, comparison in report_data.compared() if comparison.reference is None]
    lines += [f"No {report_data.report.reference} on {title}: its arms are compared with nothing." for title in without]
    lines += [f"Not read: {problem}" for problem in report_data.study.problems]
    lines += _of_other_code(report_data)
    lines += [f"Waiting: {sentence}" for sentence in report_data.study.sweep.waiting]
    return lines + [f"Mixed, and allowed by name: {line}" for line in report_data.mixed]


def _of_other_code(report_data: ReportData) -> list[str]:
    """A sentence if the tuning trials had another code or other versions than the runs; else none."""
    runs = [record for panel in report_data.panels for record in panel.records]
    trials = [run.record for panel in report_data.panels for run in panel.trials if run.record is not None]
    among = set(differing_code(runs))
    differing = [line for line in differing_code([*runs, *trials]) if line not in among]
    if not differing:
        return []
    return [f"Learning rates were chosen by trials of other code or versions: {'; '.join(differing)}."]


def _counted(what: str, runs: list[StudyRun]) -> str:
    lost = [run.status for run in runs if run.status != "ok"]
    return f"{len(runs) - len(lost):,} of {len(runs):,} {what} are ok{f'; {count_statuses(lost)}' if lost else ''}."


def missing_runs_table(report_data: ReportData) -> Table | None:
    """A row for each arm of a panel that lacks runs that are ok; None where all are."""
    rows = []
    for panel in report_data.panels:
        for arm in panel.arms:
            runs = [run for run in panel.runs if run.arm == arm]
            not_ok = [run for run in runs if run.status != "ok"]
            if not_ok:
                statuses = count_statuses(run.status for run in not_ok)
                seeds = ", ".join("?" if run.seed is None else str(run.seed) for run in not_ok)
                where = link(panel, arm)
                texts = [f"{len(runs) - len(not_ok)}/{len(runs)}", statuses, seeds]
                head = [Cell(panel_title(panel.short), link=where), arm_cell(arm, where)]
                rows.append([*head, *(Cell(text, link=where) for text in texts)])
    columns = ["where", "arm", "ok/all", "lost", "seeds"]
    note = "They are counted, never averaged."
    table = Table("holes", "Arms that lack runs", columns, rows, [note], folded=len(rows) > ROWS)
    return rows_of_panels(report_data, table)


def failures_table(report_data: ReportData) -> Table | None:
    """Reasons of failure, the most frequent first, with the runs that failed so; None without a failure."""
    alike: dict[tuple[str, str], list[tuple[str, StudyRun]]] = defaultdict(list)
    for panel in report_data.panels:
        for run in [*panel.runs, *panel.trials]:
            if run.status not in ("ok", MISSING) and run.record is not None:
                reason = (run.record.reason or "no reason given").splitlines()[0][:LETTERS]
                alike[run.status, reason].append((link(panel, run.arm), run))
    rows = [
        [
            Cell(status),
            Cell(str(len(failed)), len(failed)),
            Cell(reason),
            Cell(_listed(arm_title(run.arm) for _, run in failed)),
            Cell(_listed(run.job.run_id for _, run in failed), link=failed[0][0]),
        ]
        for (status, reason), failed in sorted(alike.items(), key=lambda pair: -len(pair[1]))
    ]
    columns = ["status", "runs", "reason", "arms", "run ids"]
    return Table("failures", "Why runs failed", columns, rows) if rows else None


def _listed(names: Iterator[str]) -> str:
    """The first four, and how many more."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:4]) + (f" and {len(unique) - 4} more" if len(unique) > 4 else "")
