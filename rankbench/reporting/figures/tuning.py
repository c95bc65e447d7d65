"""Tuning trials: the metric over the learning rate, and the best of some trials drawn at random."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.metrics import higher_is_better, title_of
from rankbench.reporting.figures.layout import draw_frame, logarithmic, logarithmic_up
from rankbench.reporting.figures.lines import Curve, draw_lines
from rankbench.reporting.plotting import ReportFigure
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.sections.learning_rates import tried
from rankbench.studies.panels import Panel


def draw_learning_rates(report_data: ReportData) -> ReportFigure | None:
    """A line for each arm, the rate chosen with a ring around it; at a rate without all seeds there is no point."""
    panels = _once(tried(report_data))
    curves = [
        (title, panel, [Curve(str(arm), line["rate"], line["mean"]) for arm, line in _whole(data).groupby("arm", sort=False)])
        for title, panel, data in panels
    ]
    if not panels:
        return None

    def frame(axes: Axes, number: int) -> None:
        _, _, data = panels[number]
        best = _whole(data)[_whole(data)["chosen"]]
        for arm, rate, mean in zip(best["arm"], best["rate"], best["mean"], strict=True):
            axes.plot(rate, mean, "o", ms=7, mfc="none", mec=report_data.styles[arm].colour, mew=0.9)
        x, y = logarithmic(axes, data["rate"].tolist()), logarithmic_up(axes)
        draw_frame(axes, "learning rate", title_of(data["metric"].iloc[0]), x, y)

    figure, left_out = draw_lines(curves, report_data.styles, frame)
    numbers = pd.concat([data.assign(panel=title) for title, _, data in panels])
    note = f"Means over the tuning seeds on validation; ring: the rate chosen; no point where a seed is missing.{left_out}"
    return ReportFigure("learning-rates", "Learning rates tried on validation", figure, numbers, note)


def _whole(data: pd.DataFrame) -> pd.DataFrame:
    return data[data["missing"] == 0].sort_values("rate", kind="stable")


def _once(panels: list[tuple[Panel, pd.DataFrame]]) -> list[tuple[str, Panel, pd.DataFrame]]:
    """Title, panel and trials; panels that were tuned together, and so show the same, are one."""
    alike: dict[str, list[tuple[Panel, pd.DataFrame]]] = {}
    for panel, data in panels:
        alike.setdefault(data.to_json(), []).append((panel, data))
    return [
        (same[0][0].short if len(same) == 1 else f"{len(same)} panels, tuned together", *same[0]) for same in alike.values()
    ]


def expected_best(values: pd.Series, higher: bool) -> list[float]:
    """Expected best of k of some trials drawn without replacement, for k = 1 to their number (Dodge et al. 2019)."""
    ordered = np.sort(values.to_numpy(float))[:: 1 if higher else -1]
    count = len(ordered)
    return [
        sum(value * math.comb(place, k - 1) for place, value in enumerate(ordered)) / math.comb(count, k)
        for k in range(1, count + 1)
    ]


def draw_expected_best(report_data: ReportData) -> ReportFigure | None:
    """The best validation metric that some tuning trials find, by their number; None with fewer than three rates."""
    drawn = []
    for title, panel, data in _once(tried(report_data)):
        higher = higher_is_better(data["metric"].iloc[0])
        lines = [
            Curve(str(arm), range(1, len(line) + 1), expected_best(line["mean"], bool(higher)))
            for arm, line in _whole(data).groupby("arm", sort=False)
        ]
        if higher is not None and max((len(line.x) for line in lines), default=0) > 2:
            drawn.append((title, panel, lines, data["metric"].iloc[0]))
    if not drawn:
        return None

    def frame(axes: Axes, number: int) -> None:
        y = logarithmic_up(axes)
        draw_frame(axes, "learning rates tried", f"expected best {title_of(drawn[number][3])}", y=y)

    figure, left_out = draw_lines([(title, panel, lines) for title, panel, lines, _ in drawn], report_data.styles, frame)
    rows = [
        (title, line.label, k, value) for title, _, lines, _ in drawn for line in lines for k, value in zip(line.x, line.y, strict=True)
    ]
    note = (
        "What the best of so many learning rates of the grid, drawn at random, would show on validation: an arm that "
        f"needs more of them is harder to tune.{left_out}"
    )
    numbers = pd.DataFrame(rows, columns=["panel", "arm", "trials", "expected best"])
    return ReportFigure("expected-best", "Expected best over the number of tuning trials", figure, numbers, note)
