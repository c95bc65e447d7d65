"""Lines of a report: the rank total over the steps, and the metric over a setting that was varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rankbench.drawing import FAR, GREY, Drawing, arm_handles, draw_frame, facets, few, last_part, logarithmic
from rankbench.evidence import Evidence
from rankbench.statistics.estimates import mean_interval
from rankbench.studies.ablations import Ablation
from rankbench.studies.panels import Panel
from rankbench.studies.study import Curve

TICKS = 6  # of x, where values are numbers


def rank_totals(panel: Panel, curves: Mapping[str, Curve], arms: Sequence[str]) -> pd.DataFrame:
    """arm, step, mean, low, high (over seeds) and n of the rank total, of runs that are ok."""
    rows = []
    for arm in arms:
        runs = [
            curves[run.job.run_id]
            for run in panel.runs
            if run.arm == arm and run.status == "ok" and curves.get(run.job.run_id)
        ]
        if runs:
            steps = sorted({step for run in runs for step, _ in run})
            held = pd.DataFrame([dict(run) for run in runs], columns=steps).ffill(axis=1).bfill(axis=1)
            rows += [
                (arm, step, float(held[step].mean()), int(held[step].min()), int(held[step].max()), len(runs))
                for step in steps
            ]
    return pd.DataFrame(rows, columns=["arm", "step", "mean", "low", "high", "n"])


def draw_rank_totals(evidence: Evidence) -> Drawing | None:
    """Steps of the mean over seeds, with the range of the seeds behind it; None where no run logged any."""
    curves, style = evidence.study.curves, evidence.looks
    found = [(panel, rank_totals(panel, curves, evidence.arms)) for panel in evidence.panels]
    found = [(panel, data) for panel, data in found if len(data)]
    if not found:
        return None
    arms = list(dict.fromkeys(arm for _, data in found for arm in data["arm"]))
    shown, left_out = few(found)
    figure, places = facets([panel.short for panel, _ in shown], arm_handles(arms, style))
    for axes, (_, data) in zip(places, shown, strict=True):
        for arm, line in data.groupby("arm", sort=False):
            look, every = style[str(arm)], max(1, len(line) // 6)
            if (line["low"] < line["high"]).any():
                ends = (line["low"], line["high"])
                axes.fill_between(line["step"], *ends, step="post", color=look.colour, alpha=0.07, lw=0)
            axes.plot(
                line["step"],
                line["mean"],
                drawstyle="steps-post",
                color=look.colour,
                ls=look.dash,
                lw=1.2,
                marker=look.marker,
                ms=3,
                markevery=every,
            )
        axes.set_ylim(0, data["high"].max() * 1.08)
        draw_frame(axes, "step", "rank total")
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in found])
    note = f"Mean over seeds; band: their range.{left_out}"
    return Drawing("rank-totals", "Rank total over the steps", figure, numbers, note)


def ablation_points(panel: Panel, ablation: Ablation) -> pd.DataFrame:
    """A row for each arm with a run that is ok: its values of the keys, mean, low, high and n of the panel's metric."""
    rows = []
    for arm in ablation.arms:
        values = ablation.values(panel, arm)
        measured = panel.measured(arm)
        if values is not None and len(measured):
            found = mean_interval(measured)
            rows.append((arm, *values, arm == ablation.base, found.mean, found.low, found.high, found.n))
    columns = ["arm", *ablation.keys, "base", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})  # NaN without an interval


def points_of(ablation: Ablation, evidence: Evidence) -> list[tuple[Panel, pd.DataFrame]]:
    """`ablation_points` of the panels that have any."""
    found = [(panel, ablation_points(panel, ablation)) for panel in evidence.panels]
    return [(panel, data) for panel, data in found if len(data)]


def draw_ablation(ablation: Ablation, evidence: Evidence) -> Drawing | None:
    """The metric over one setting: an axes for each panel. None where no run that is ok has it."""
    found = [(panel.short, ablation, panel, data) for panel, data in points_of(ablation, evidence)]
    return _draw_curves(found, evidence, ablation.name, ablation.title)


def draw_ablations(evidence: Evidence) -> Drawing | None:
    """Several settings in a single panel: an axes for each setting, on one scale."""
    curves = [ablation for ablation in evidence.ablations if len(ablation.keys) == 1]
    found = [(each.title, each, panel, data) for each in curves for panel, data in points_of(each, evidence)]
    return _draw_curves(found, evidence, "curves", "Settings varied, one at a time")


def _draw_curves(
    found: Sequence[tuple[str, Ablation, Panel, pd.DataFrame]], evidence: Evidence, name: str, title: str
) -> Drawing | None:
    """An axes each, 95 % intervals of the mean; the reference as a band. Axes of one metric have one scale."""
    if not found:
        return None
    shown, left_out = few(found)
    figure, places = facets([short for short, *_ in shown])
    reference, style = evidence.report.reference, evidence.looks
    drawn = []
    for axes, (_, ablation, panel, data) in zip(places, shown, strict=True):
        _band(axes, panel, reference)
        drawn.append(_draw_curve(axes, data, ablation.keys[0], style[str(data["arm"].iloc[0])].colour))
    for metric in {panel.metric for _, _, panel, _ in shown}:
        _share_scale([axes for axes, (_, _, panel, _) in zip(places, shown, strict=True) if panel.metric == metric])
    for axes, ticks, (_, ablation, panel, _) in zip(places, drawn, shown, strict=True):
        draw_frame(axes, last_part(ablation.keys[0]), panel.metric, ticks)
    note = (
        "Means over seeds and their 95 % intervals; ring: the arm that is varied, as it is by default; grey: "
        f"{reference} and its interval. Seeds are shared, so differences are seen more finely than these intervals: "
        f"see the tables.{left_out}"
    )
    numbers = [
        data.rename(columns={ablation.keys[0]: "value"}).assign(setting=ablation.keys[0], panel=panel.title)
        for _, ablation, panel, data in found
    ]
    return Drawing(name, title, figure, pd.concat(numbers), note)


def _draw_curve(axes: Axes, data: pd.DataFrame, key: str, colour: str) -> dict[float, str]:
    """One line; the ticks of its x."""
    places, ticks = _along(axes, data[key].tolist())
    points = data.assign(x=[places[value] for value in data[key]]).sort_values("x")
    points = points.drop_duplicates("x")  # the base and an arm that names the same value
    errors = [points["mean"] - points["low"], points["high"] - points["mean"]]
    lines: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.2, "elinewidth": 0.9, "capsize": 2}
    axes.errorbar(points["x"], points["mean"], yerr=errors, color=colour, **lines)
    base = points[points["base"]]
    axes.plot(base["x"], base["mean"], "o", ms=9, mfc="none", mec=colour, mew=1.1)
    return ticks


def _share_scale(places: Sequence[Axes]) -> None:
    lows, highs = zip(*(axes.get_ylim() for axes in places), strict=True)
    for axes in places:
        axes.set_ylim(min(lows), max(highs))


def _along(axes: Axes, values: Sequence[str]) -> tuple[dict[str, float], dict[float, str]]:
    """Where each value stands on x, and the ticks: words in a row, numbers by size, by their logarithm if far apart."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        there = {value: float(place) for place, value in enumerate(dict.fromkeys(values))}
        return there, {place: value for value, place in there.items()}
    if min(numbers.values()) > 0 and max(numbers.values()) > FAR * min(numbers.values()):
        return numbers, logarithmic(axes, list(numbers.values()))
    ordered = sorted(numbers.items(), key=lambda pair: pair[1])
    return numbers, {number: value for value, number in ordered[:: math.ceil(len(ordered) / TICKS)]}


def _band(axes: Axes, panel: Panel, reference: str) -> None:
    """Mean and interval of the reference, all along x."""
    measured = panel.measured(reference)
    if measured.empty:
        return
    found = mean_interval(measured)
    axes.axhline(found.mean, color=GREY, lw=1)
    if found.low is not None and found.high is not None:
        axes.axhspan(found.low, found.high, color=GREY, alpha=0.15, lw=0)
