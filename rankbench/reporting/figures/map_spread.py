"""The spread of maps drawn alike: sigma_map, what the best of them would gain, and every arm among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.comparison import Comparison
from rankbench.analysis.map_spread import MapSpread, frame_of
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.amounts import amount_of
from rankbench.reporting.figures.layout import (
    arm_labels,
    best_first,
    chosen,
    draw_frame,
    draw_interval,
    labelled_rows,
    panel_titles,
)
from rankbench.reporting.plotting import GREY, INK, ReportFigure, Styles
from rankbench.statistics.map_effect import BEST_OF
from rankbench.studies.panels import Panel

Member = tuple[Panel, Comparison, MapSpread]
MAPS = "all maps"
SIGMA, CEILING = "#dddddd", "#f3ead2"


def draw_spread(name: str, title: str, members: Sequence[Member], styles: Styles) -> ReportFigure | None:
    """Every map and every arm by its gain over the mean map, and sigma_map; None where no maps can be compared."""
    if not members:
        return None
    frames = [(member, frame_of(member[2])) for member in members]
    drawn, left_out = chosen(frames, [panel.cell for (panel, *_), _ in frames])
    arms = best_first(data["arm"][~data["map"]] for _, data in drawn)
    titles = panel_titles([panel.short for (panel, *_), _ in drawn])
    figure, all_axes = labelled_rows(titles, [MAPS, *arm_labels(arms)])
    for axes, ((_, comparison, spread), data) in zip(all_axes, drawn, strict=True):
        _draw_panel(axes, comparison, spread, data, arms, styles)
    numbers = pd.concat([data.assign(panel=panel.title) for (panel, *_), data in frames])
    note = (
        "Gain over the mean of the maps, right is better; each with its own 95 % interval over seeds. Grey: one "
        f"sigma_map to both sides; dashed: expected best of {BEST_OF} such maps, with its interval.{left_out}"
    )
    return ReportFigure(name, title, figure, numbers, note)


def _draw_panel(
    axes: Axes, comparison: Comparison, spread: MapSpread, data: pd.DataFrame, arms: Sequence[str], styles: Styles
) -> None:
    def x(gain: float) -> float:
        return amount_of(comparison.terms, gain, bool(higher_is_better(comparison.metrics[0])))

    shown = data.assign(**{end: data[end].map(x) for end in ("mean", "low", "high")})
    sigma, ceiling = spread.effect.deviation, spread.effect.ceiling
    axes.axvspan(x(-sigma.value), x(sigma.value), color=SIGMA, lw=0, zorder=0)
    if ceiling.low is not None and ceiling.high is not None:
        axes.axvspan(x(ceiling.low), x(ceiling.high), color=CEILING, lw=0, zorder=-1)
    axes.axvline(x(ceiling.value), color="#b08d2f", ls="--", lw=0.9)
    axes.axvline(0, color=GREY, lw=0.7)
    axes.plot(shown["mean"][shown["map"]], [0] * int(shown["map"].sum()), "|", color=INK, ms=7)
    for row in shown[~shown["map"]].to_dict("records"):
        interval = (row["low"], row["mean"], row["high"])
        draw_interval(axes, arms.index(row["arm"]) + 1, interval, styles[row["arm"]])
    ends = [*shown[["low", "mean", "high"]].to_numpy(float).ravel(), x(-sigma.value), x(ceiling.value)]
    finite = [end for end in ends if np.isfinite(end)]
    low, high = min(finite), max(finite)  # the interval of the ceiling may be far wider
    axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    draw_frame(axes, f"gain over the mean map{', %' * comparison.terms.log}")
