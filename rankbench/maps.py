"""Heat maps of a report: the ranks of each arm by site, and the metric over two settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rankbench.ablations import Ablation
from rankbench.drawing import TEXT, Drawing, Look, draw_frame, facets, last_part
from rankbench.figures import draw_maps, drawn, mean_ranks, rank_maps, shade
from rankbench.panels import Panel
from rankbench.rates import SelectionError


def draw_rank_maps(panel: Panel, arms: Sequence[str], style: Mapping[str, Look]) -> Drawing | None:
    """Ranks of the arms, means over seeds; None where no run that is ok has any."""
    pairs = [(record, name) for record, name in zip(panel.records, panel.names, strict=True) if name in arms]
    records, names = [record for record, _ in pairs], [name for _, name in pairs]
    try:
        means = mean_ranks(rank_maps(records, names, {arm: place for place, arm in enumerate(arms)}))
    except SelectionError:
        return None
    figure = draw_maps(means, "", {arm: look.colour for arm, look in style.items()})
    partly = [line for line in drawn(records, names) if "," in line]
    note = "Mean ranks over seeds, one scale for all. " + "; ".join(partly)
    return Drawing(f"ranks-{panel.name}", f"Ranks: {panel.title}", figure, means, note.strip())


def draw_grid(found: Sequence[tuple[Panel, pd.DataFrame]], ablation: Ablation, name: str) -> Drawing:
    """The metric over two settings: a heat map for each panel, each with a scale of its own."""
    down, across = ablation.keys
    figure, places = facets([panel.short for panel, _ in found], left=0.75)
    for axes, (_, data) in zip(places, found, strict=True):
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
    return Drawing(name, ablation.title, figure, numbers, note)


def _ends(table: pd.DataFrame) -> tuple[float, float]:
    values = table.to_numpy(float)
    return float(np.nanmin(values)), float(np.nanmax(values))


def _sorted(values: Sequence[str] | pd.Index) -> list[str]:
    """By number where all are numbers."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return list(values)
