"""The papers' numbers beside ours."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rankbench import published
from rankbench.comparison import Comparison
from rankbench.evidence import Evidence, link
from rankbench.experiment import Published
from rankbench.panels import Panel
from rankbench.sheet import Cell, Sheet
from rankbench.stats import PairedDifference

COLUMNS = (
    "arm",
    "task",
    "metric",
    "paper",
    "paper - reference",
    "ours",
    "ours - reference",
    "n",
    "the paper's run",
    "our run",
)
UNITS = {"percent": 100.0}  # ours are shares


def sheets(evidence: Evidence) -> list[Sheet]:
    """A table for each of `report.published`."""
    return [_sheet(evidence, wanted, place) for place, wanted in enumerate(evidence.report.published, 1)]


def _sheet(evidence: Evidence, wanted: Published, place: int) -> Sheet:
    name = f"published-{place}"
    try:
        numbers = published.load(wanted.file)
    except published.PublishedError as error:
        return Sheet(name, f"{wanted.file}, {wanted.table}", ["arm"], [], [str(error)])
    chosen = numbers[(numbers["table"] == wanted.table) & (numbers["metric"] != published.AVERAGE)]
    if wanted.model is not None:
        chosen = chosen[chosen["model"] == wanted.model]
    rows, unused = _rows(evidence, wanted, chosen)
    notes = [
        "What a paper prints, with its digits, and our mean in its unit. Where models, budgets or seeds differ, the "
        "differences to the reference say more than the values.",
        *([f"{len(chosen)} numbers in that table; not run here: {', '.join(unused)}."] if unused else []),
    ]
    paper = ", ".join(sorted(set(chosen["paper"]))) or wanted.file
    return Sheet(name, f"arXiv {paper}, {wanted.table}, beside ours", COLUMNS, rows, notes)


def _rows(evidence: Evidence, wanted: Published, chosen: pd.DataFrame) -> tuple[list[list[Cell]], list[str]]:
    """Rows of the arms that stand in the paper and were run on its task, and the tasks that were not."""
    rows, there = [], set()
    for panel, comparison in evidence.compared():
        metric = comparison.metrics[0].split("/")[-1]
        quoted = chosen[(chosen["task"] == panel.facts["task"]) & (chosen["metric"] == metric)]
        if wanted.budgets:
            quoted = quoted[quoted["rank_or_budget"].isin(wanted.budgets.get(panel.facts["budget"], []))]
        for arm, theirs in wanted.arms.items() if len(quoted) else ():
            for number in quoted[quoted["method"] == theirs].to_dict("records"):
                there.add(panel.facts["task"])
                base = _reference_of(wanted.arms.get(evidence.report.reference), quoted, number)
                paper = _paper(arm, number, base)
                rows.append([*paper[:-1], *_ours(panel, comparison, arm, number["unit"], paper[-1])])
    return rows, sorted(set(chosen["task"]) - there)


def _reference_of(theirs: str | None, quoted: pd.DataFrame, number: dict[Any, Any]) -> float | None:
    """The paper's number of its reference: at the same budget, or the only one there is."""
    mine = quoted[(quoted["method"] == theirs) & (quoted["model"] == number["model"])]
    same = mine[mine["rank_or_budget"] == number["rank_or_budget"]]
    found = same if len(same) else mine
    return float(found["value"].iloc[0]) if len(found) == 1 and number["method"] != theirs else None


def _paper(arm: str, number: dict[Any, Any], reference: float | None) -> list[Cell]:
    """Arm, task, metric, value, difference, and on what, with what confidence."""
    difference = None if reference is None else number["value"] - reference
    seeds = "" if pd.isna(number["n_seeds"]) else f"{number['n_seeds']} seeds"
    where = ", ".join(filter(None, [number["model"], number["rank_or_budget"], seeds, number["confidence"]]))
    return [
        *map(Cell, (arm, number["task"], number["metric"])),
        Cell(f"{number['printed']} {_unit(number['unit'])}".strip(), number["value"]),
        Cell() if difference is None else Cell(f"{difference:+.2f}", difference),
        Cell(where),
    ]


def _unit(unit: str) -> str:
    return "%" if unit == "percent" else unit


def _ours(panel: Panel, comparison: Comparison, arm: str, unit: str, paper: Cell) -> list[Cell]:
    """Mean, difference with its interval, n, the paper's run and ours; in the paper's unit where it is per cent."""
    if arm not in panel.arms:
        return [Cell("not run"), Cell(), Cell(), paper, Cell()]
    metric, scale, where = comparison.metrics[0], UNITS.get(unit, 1.0), link(panel, arm)
    measured = panel.measured(arm) * scale
    place = Cell(", ".join([panel.facts["model"], f"budget {panel.facts['budget']}", *panel.rest]), link=where)
    if measured.empty:
        return [Cell("none ok", link=where), Cell(), Cell("0", 0), paper, place]
    found = comparison.difference(metric, arm) if arm in comparison.rows else None
    difference = Cell() if found is None else _scaled(found, scale, where)
    mean = Cell(f"{measured.mean():.2f} {_unit(unit)}".strip(), float(measured.mean()), link=where)
    return [mean, difference, Cell(str(len(measured)), len(measured)), paper, place]


def _scaled(found: PairedDifference, scale: float, where: str) -> Cell:
    text = f"{found.mean * scale:+.2f}"
    if found.low is None or found.high is None:
        return Cell(text, found.mean * scale, link=where)
    low, high = found.low * scale, found.high * scale
    return Cell(f"{text} [{low:+.2f}, {high:+.2f}]", found.mean * scale, low, high, link=where)
