"""The papers' numbers beside ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from rankbench.analysis.comparison import Comparison
from rankbench.analysis.labels import task_title
from rankbench.published.numbers import AVERAGE, PublishedError, load
from rankbench.published.verification import Verification, findings, measures
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.section import Section
from rankbench.reporting.table import Cell, Table, arm_cell, interval_cell
from rankbench.statistics.estimates import PairedDifference
from rankbench.studies.panels import Panel
from rankbench.sweeps.report_settings import Published

COLUMNS = (
    *("arm", "task", "metric", "paper", "paper - reference", "ours", "ours - reference", "n"),
    *("verified", "the paper's run", "our run", "why"),
)
KEY = ("table", "model", "task", "metric", "method", "rank_or_budget")  # identify a number within a file
KINDS = {
    "equivalent": "works",
    "consistent": "open",
    "contradicted": "harmful",
    "not comparable": "withheld",
    "not run": "untested",
}
Judged = Mapping[tuple[Any, ...], Verification]
UNITS = {"percent": 100.0}  # ours are shares


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where no paper is named."""
    return Section("published", "Published numbers", (), published_tables(report_data))


def published_tables(report_data: ReportData) -> list[Table]:
    """A table for each of `report.published`."""
    wanted = report_data.report.published
    try:
        verifications = findings(report_data.study) if wanted else []
        judged = {_key(verification.row): verification for verification in verifications}
        return [_published_table(report_data, table, number, judged) for number, table in enumerate(wanted, 1)]
    except PublishedError as error:
        return [Table("published", "Numbers that cannot be read", ["file"], [], [str(error)])]


def _key(number: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(number[key] for key in KEY)


def _published_table(report_data: ReportData, wanted: Published, number: int, judged: Judged) -> Table:
    numbers = load(wanted.file)
    chosen = numbers[(numbers["table"] == wanted.table) & (numbers["metric"] != AVERAGE)]
    if wanted.model is not None:
        chosen = chosen[chosen["model"] == wanted.model]
    rows, unused = _rows(report_data, wanted, chosen, judged)
    outcomes = Counter(judged[_key(row)].outcome for row in chosen.to_dict("records") if _key(row) in judged)
    notes = [
        f"{len(chosen)} numbers in that table: {', '.join(f'{count} {name}' for name, count in outcomes.items())}.",
        "What a paper prints, with its digits, and our mean in its unit. Verified: by the rule of "
        "rankbench verify, which asks for the paper's model, budget and data; where these differ, "
        "differences to the reference say more than values.",
        *([f"No run that is ok on {', '.join(unused)}."] if unused else []),
    ]
    paper = ", ".join(sorted(set(chosen["paper"]))) or wanted.file
    title = f"arXiv {paper}, {wanted.table}, beside ours"
    return Table(f"published-{number}", title, COLUMNS, rows, notes, details=["why"])


def _rows(
    report_data: ReportData, wanted: Published, chosen: pd.DataFrame, judged: Judged
) -> tuple[list[list[Cell]], list[str]]:
    """Rows of the arms that stand in the paper and were run on its task, and the tasks that were not."""
    rows, tasks_run = [], {panel.facts["task"] for panel, _ in report_data.compared()}
    for panel, comparison in report_data.compared():
        metric = comparison.metrics[0].split("/")[-1]
        named = [theirs for theirs in chosen["metric"].unique() if measures(metric, theirs)]
        quoted = chosen[(chosen["task"] == panel.facts["task"]) & chosen["metric"].isin(named)]
        if wanted.budgets:
            quoted = quoted[quoted["rank_or_budget"].isin(wanted.budgets.get(panel.facts["budget"], []))]
        for arm, theirs in wanted.arms.items() if len(quoted) else ():
            for number in quoted[quoted["method"] == theirs].to_dict("records"):
                base = _reference_of(wanted.arms.get(report_data.report.reference), quoted, number)
                *paper, their_run = _paper(arm, number, base)
                *ours, our_run = _ours(panel, comparison, arm, number["unit"])
                outcome, why = _verified(judged.get(_key(number)))
                rows.append([*paper, *ours, outcome, their_run, our_run, why])
    return rows, sorted(set(chosen["task"]) - tasks_run)


def _reference_of(theirs: str | None, quoted: pd.DataFrame, number: dict[Any, Any]) -> float | None:
    """The paper's number of its reference: at the same budget, or the only one there is."""
    mine = quoted[(quoted["method"] == theirs) & (quoted["model"] == number["model"])]
    same = mine[mine["rank_or_budget"] == number["rank_or_budget"]]
    candidates = same if len(same) else mine
    return float(candidates["value"].iloc[0]) if len(candidates) == 1 and number["method"] != theirs else None


def _paper(arm: str, number: dict[Any, Any], reference: float | None) -> list[Cell]:
    """Cells of the paper: arm, task, metric, value, difference, and its run with the confidence in the number."""
    difference = None if reference is None else number["value"] - reference
    seeds = "" if pd.isna(number["n_seeds"]) else f"{number['n_seeds']} seeds"
    where = ", ".join(filter(None, [number["model"], number["rank_or_budget"], seeds, number["confidence"]]))
    return [
        *(arm_cell(arm), Cell(task_title(number["task"])), Cell(number["metric"])),
        Cell(f"{number['printed']} {_unit(number['unit'])}".strip(), number["value"]),
        Cell() if difference is None else Cell(f"{difference:+.2f}", difference),
        Cell(where),
    ]


def _unit(unit: str) -> str:
    return "%" if unit == "percent" else unit


def _verified(verification: Verification | None) -> tuple[Cell, Cell]:
    """Cells of the outcome and its reason."""
    if verification is None:
        return Cell(), Cell()
    return Cell(verification.outcome, kind=KINDS[verification.outcome]), Cell(verification.reason)


def _ours(panel: Panel, comparison: Comparison, arm: str, unit: str) -> list[Cell]:
    """Our cells: mean, difference with its interval, n, and our run; in the paper's unit where it is per cent."""
    if arm not in panel.arms:
        return [Cell("not run"), Cell(), Cell(), Cell()]
    metric, scale, where = comparison.metrics[0], UNITS.get(unit, 1.0), link(panel, arm)
    measured = panel.measured(arm) * scale
    our_run = Cell(", ".join([panel.facts["model"], f"budget {panel.facts['budget']}", *panel.rest]), link=where)
    if measured.empty:
        return [Cell("none ok", link=where), Cell(), Cell("0", 0), our_run]
    in_units = arm in comparison.rows and not comparison.terms.log
    paired = comparison.difference(metric, arm) if in_units else None
    difference = Cell() if paired is None else _scaled(paired, scale, where)
    mean = Cell(f"{measured.mean():.2f} {_unit(unit)}".strip(), float(measured.mean()), link=where)
    return [mean, difference, Cell(str(len(measured)), len(measured)), our_run]


def _scaled(difference: PairedDifference, scale: float, where: str) -> Cell:
    low, high = (None if end is None else end * scale for end in (difference.low, difference.high))
    return replace(interval_cell(difference.mean * scale, low, high, "+.2f", without=""), link=where)
