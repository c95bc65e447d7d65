"""The papers' numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from rankbench import published
from rankbench.comparison import Comparison
from rankbench.evidence import Evidence, link
from rankbench.experiment import Published
from rankbench.panels import Panel
from rankbench.sheet import Cell, Sheet

COLUMNS = ("arm", "task", "metric", "model", "budget", "paper", "paper - reference", "seeds", "confidence")
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
    columns = [*COLUMNS, "ours", "ours - reference", "n", "ours on"]
    rows, unused = _rows(evidence, wanted, chosen)
    notes = [
        "What a paper prints, with its digits, and our mean in its unit. Models, budgets and seeds are those of each "
        "side: where they differ, the differences to the reference say more than the values.",
        *([f"{len(chosen)} numbers in that table; not run here: {', '.join(unused)}."] if unused else []),
    ]
    paper = ", ".join(sorted(set(chosen["paper"]))) or wanted.file
    return Sheet(name, f"arXiv {paper}, {wanted.table}, beside ours", columns, rows, notes)


def _rows(evidence: Evidence, wanted: Published, chosen: pd.DataFrame) -> tuple[list[list[Cell]], list[str]]:
    """Rows of the arms that stand in the paper and were run on its task, and the tasks that were not."""
    rows, there = [], set()
    for panel, comparison in evidence.compared():
        quoted = chosen[chosen["task"] == panel.facts["task"]]
        metric = comparison.metrics[0].split("/")[-1]
        for arm, theirs in wanted.arms.items():
            if arm not in comparison.rows:
                continue
            budgets = wanted.budgets.get(panel.facts["budget"])
            fitting = quoted[(quoted["method"] == theirs) & (quoted["metric"] == metric)]
            for number in fitting[fitting["rank_or_budget"].isin(budgets or fitting["rank_or_budget"])].to_dict(
                "records"
            ):
                there.add(panel.facts["task"])
                theirs_at = _reference_of(evidence, wanted, quoted, number)
                rows.append([*_paper(arm, number, theirs_at), *_ours(panel, comparison, arm, number["unit"])])
    return rows, sorted(set(chosen["task"]) - there)


def _reference_of(evidence: Evidence, wanted: Published, quoted: pd.DataFrame, number: dict[Any, Any]) -> float | None:
    """The paper's number of the reference, at the same budget and metric of the same model."""
    same = ["model", "metric", "rank_or_budget"]
    mine = quoted[quoted["method"] == wanted.arms.get(evidence.report.reference)]
    found = mine[(mine[same] == pd.Series({key: number[key] for key in same})).all(axis=1)]["value"]
    return float(found.iloc[0]) if len(found) == 1 else None


def _paper(arm: str, number: dict[Any, Any], reference: float | None) -> list[Cell]:
    difference = None if reference is None else number["value"] - reference
    seeds = "" if pd.isna(number["n_seeds"]) else str(number["n_seeds"])
    texts = [arm, number["task"], number["metric"], number["model"], number["rank_or_budget"]]
    shown = Cell("") if difference is None or number["method"] == reference else Cell(f"{difference:+.2f}", difference)
    return [
        *map(Cell, texts),
        Cell(f"{number['printed']} {_unit(number['unit'])}".strip(), number["value"]),
        shown,
        Cell(seeds),
        Cell(number["confidence"]),
    ]


def _unit(unit: str) -> str:
    return "%" if unit == "percent" else unit


def _ours(panel: Panel, comparison: Comparison, arm: str, unit: str) -> Sequence[Cell]:
    """Mean, difference with its interval, n, and on what; in the paper's unit where it is per cent."""
    metric, scale = comparison.metrics[0], UNITS.get(unit, 1.0)
    measured = comparison.values[metric][arm].dropna() * scale
    where = link(panel, arm)
    place = Cell(", ".join([panel.facts["model"], f"budget {panel.facts['budget']}", *panel.rest]), link=where)
    if measured.empty:
        return [Cell("none ok", link=where), Cell(), Cell("0", 0), place]
    found = comparison.difference(metric, arm)
    difference = Cell()
    if found is not None:
        ends = [None if end is None else end * scale for end in (found.low, found.high)]
        text = f"{found.mean * scale:+.2f}" + ("" if ends[0] is None else f" [{ends[0]:+.2f}, {ends[1]:+.2f}]")
        difference = Cell(text, found.mean * scale, *ends, link=where)
    mean = Cell(f"{measured.mean():.2f} {_unit(unit)}".strip(), float(measured.mean()), link=where)
    return [mean, difference, Cell(str(len(measured)), len(measured)), place]
