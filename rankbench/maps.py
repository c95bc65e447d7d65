"""Heat maps of a report: the ranks of each arm by site, and the metric over two settings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import file_name
from rankbench.curves import points_of
from rankbench.drawing import TEXT, Drawing, draw_frame, facets, few, last_part
from rankbench.evidence import Evidence
from rankbench.figures import draw_maps, drawn, mean_ranks, rank_maps, shade
from rankbench.studies.ablations import Ablation
from rankbench.studies.panels import Panel

WIDE = 5  # rank maps in a row


def draw_rank_maps(title: str, panels: Sequence[Panel], evidence: Evidence) -> Drawing | None:
    """Ranks of the arms, means over seeds; None where no run that is ok has any.

    Args:
        title: what the panels share.
        panels: of different budgets; several are drawn beside each other, in shares of their mean rank.
        evidence: has the arms and their colours.
    """
    means = [(panel, data) for panel in panels for data in [_means(panel, evidence.arms)] if data is not None]
    if not means:
        return None
    several, styles = len(panels) > 1, evidence.looks
    found = [rows.sort_values(["kind", "layer"]).assign(budget=panel.facts["budget"]) for panel, rows in means]
    data = pd.concat([rows[rows["label"] == arm] for arm in evidence.arms for rows in found], ignore_index=True)
    if several:
        data["rank"] = data["rank"] / data.groupby(["label", "budget"], sort=False)["rank"].transform("mean")
    shown = data.assign(label=data["label"] + ", " + data["budget"]) if several else data
    colours = dict(zip(shown["label"], [styles[arm].colour for arm in data["label"]], strict=True))
    words = "rank / mean rank" if several else "mean rank"
    figure = draw_maps(shown, "", colours, min(WIDE, len(panels)) if several else None, words)
    note = f"{words.capitalize()}, over seeds; one scale for all. " + "; ".join(_partly(panels, evidence.arms))
    return Drawing(f"ranks-{file_name(title)}", f"Ranks: {title}", figure, data, note.strip())


def _means(panel: Panel, arms: Sequence[str]) -> pd.DataFrame | None:
    pairs = [(record, name) for record, name in zip(panel.records, panel.names, strict=True) if name in arms]
    try:
        return mean_ranks(rank_maps([record for record, _ in pairs], [name for _, name in pairs]))
    except SelectionError:
        return None


def _partly(panels: Sequence[Panel], arms: Sequence[str]) -> list[str]:
    """Arms that are drawn without some of their runs."""
    pairs = [pair for panel in panels for pair in zip(panel.records, panel.names, strict=True) if pair[1] in arms]
    return [line for line in drawn([record for record, _ in pairs], [name for _, name in pairs]) if "," in line]


def draw_grid(ablation: Ablation, evidence: Evidence) -> Drawing | None:
    """The metric over two settings: a heat map for each panel, each with a scale of its own."""
    (down, across), found = ablation.keys, points_of(ablation, evidence)
    if not found:
        return None
    shown, left_out = few(found)
    figure, places = facets([panel.short for panel, _ in shown], left=0.75)
    for axes, (_, data) in zip(places, shown, strict=True):
        table = data.drop_duplicates([down, across]).pivot(index=down, columns=across, values="mean")
        table = table.reindex(index=_sorted(table.index), columns=_sorted(table.columns))
        shade(axes, table.to_numpy(float), *_ends(table))
        for (row, column), value in np.ndenumerate(table.to_numpy(float)):
            if not math.isnan(value):
                low, high = _ends(table)
                ink = "white" if value < low + 0.6 * (high - low) else "black"
                axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=TEXT - 1, color=ink)
        x, y = ({float(place): str(value) for place, value in enumerate(held)} for held in (table.columns, table.index))
        draw_frame(axes, last_part(across), last_part(down), x, y)
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in found])
    note = "Means over seeds; light is more; each panel has a scale of its own; grey: not run, or no run that is ok."
    note += left_out
    return Drawing(ablation.name, ablation.title, figure, numbers, note)


def _ends(table: pd.DataFrame) -> tuple[float, float]:
    values = table.to_numpy(float)
    return float(np.nanmin(values)), float(np.nanmax(values))


def _sorted(values: Sequence[str] | pd.Index) -> list[str]:
    """By number where all are numbers."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return list(values)
