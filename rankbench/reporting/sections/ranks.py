"""Ranks in a report: the rank total over the steps, and the ranks of each arm by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import file_name
from rankbench.core.sites import LARGE_SHARE, MOST_SITES, UNEVEN
from rankbench.reporting.plotting import ReportFigure, Sketch, arm_handles, at_most_twelve, draw_frame, facets
from rankbench.reporting.rank_map_figures import count_drawn, draw_maps, mean_ranks, rank_maps
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.section import Section
from rankbench.studies.panels import Panel, families
from rankbench.studies.study import Curve


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where no run has ranks."""
    figures = ["rank-totals", *(figure_name(title) for title in _groups(report_data))]
    return Section("ranks", "Ranks", sentences(report_data), figures)


def sketches(report_data: ReportData) -> list[Sketch]:
    """Return the rank totals, and the rank maps of each group of panels."""
    maps = (partial(draw_rank_maps, title, panels, report_data) for title, panels in _groups(report_data).items())
    return [partial(draw_rank_totals, report_data), *maps]


def figure_name(title: str) -> str:
    """Name of the rank maps of a group of panels."""
    return f"ranks-{file_name(title)}"


def _groups(report_data: ReportData) -> dict[str, list[Panel]]:
    """Title -> panels whose rank maps are one figure: those that differ in their budget alone."""
    groups = families(report_data.panels).items()
    return {title if len(panels) > 1 else panels[0].title: panels for title, panels in groups}


def rank_totals(panel: Panel, curves: Mapping[str, Curve], arms: Sequence[str]) -> pd.DataFrame:
    """Frame of arm, step, mean, low, high (over seeds) and n of the rank total, for runs that are ok and have ranks."""
    rows = []
    for arm in arms:
        runs = [
            curves[run.job.run_id]
            for run in panel.runs
            if run.arm == arm and run.status == "ok" and run.record and run.record.ranks and curves.get(run.job.run_id)
        ]
        if runs:
            steps = sorted({step for run in runs for step, _ in run})
            totals = pd.DataFrame([dict(run) for run in runs], columns=steps).ffill(axis=1).bfill(axis=1)
            rows += [
                (arm, step, float(totals[step].mean()), int(totals[step].min()), int(totals[step].max()), len(runs))
                for step in steps
            ]
    return pd.DataFrame(rows, columns=["arm", "step", "mean", "low", "high", "n"])


def draw_rank_totals(report_data: ReportData) -> ReportFigure | None:
    """Rank totals as step functions, means over seeds with their range; None where no run logged its steps."""
    curves, style = report_data.study.curves, report_data.styles
    curves_of = [(panel, rank_totals(panel, curves, report_data.arms)) for panel in report_data.panels]
    curves_of = [(panel, data) for panel, data in curves_of if len(data)]
    if not curves_of:
        return None
    arms = list(dict.fromkeys(arm for _, data in curves_of for arm in data["arm"]))
    first, left_out = at_most_twelve(curves_of)
    figure, all_axes = facets([panel.short for panel, _ in first], arm_handles(arms, style))
    for axes, (_, data) in zip(all_axes, first, strict=True):
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
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in curves_of])
    note = f"Mean over seeds; band: their range.{left_out}"
    return ReportFigure("rank-totals", "Rank total over the steps", figure, numbers, note)


def sentences(report_data: ReportData) -> list[str]:
    """One sentence on the arms whose allocations are uneven, by panel; [] where none is."""
    places = []
    for panel in report_data.panels:
        for arm in report_data.arms:
            done = [record for record, name in zip(panel.records, panel.names, strict=True) if name == arm]
            uneven = [any(note.startswith(UNEVEN) for note in record.notes) for record in done if record.status == "ok"]
            if any(uneven):
                places.append(f"{arm} on {panel.short}, {sum(uneven)} of {len(uneven)} runs")
    what = f"one site holds {LARGE_SHARE:.0%} of what is spent, or {MOST_SITES:.0%} of the sites have at most rank 1"
    return [f"Uneven allocations ({what}): {'; '.join(places)}."] if places else []


WIDE = 5  # rank maps in a row


def draw_rank_maps(title: str, panels: Sequence[Panel], report_data: ReportData) -> ReportFigure | None:
    """Ranks of the arms, means over seeds; None where no run that is ok has any.

    Args:
        title: facts that the panels share.
        panels: panels that differ in their budget alone; several are drawn side by side, as shares of their mean rank.
        report_data: has the arms and their colours.
    """
    means = [(panel, data) for panel in panels for data in [_means(panel, report_data.arms)] if data is not None]
    if not means:
        return None
    several, styles = len(panels) > 1, report_data.styles
    per_panel = [rows.sort_values(["kind", "layer"]).assign(budget=panel.facts["budget"]) for panel, rows in means]
    data = pd.concat([rows[rows["label"] == arm] for arm in report_data.arms for rows in per_panel])
    if several:
        data["rank"] = data["rank"] / data.groupby(["label", "budget"], sort=False)["rank"].transform("mean")
    labelled = data.assign(label=data["label"] + ", " + data["budget"]) if several else data
    colours = dict(zip(labelled["label"], [styles[arm].colour for arm in data["label"]], strict=True))
    words = "rank / mean rank" if several else "mean rank"
    figure = draw_maps(labelled, "", colours, min(WIDE, len(panels)) if several else None, words)
    note = f"{words.capitalize()}, over seeds; one scale for all. " + "; ".join(_partly(panels, report_data.arms))
    return ReportFigure(figure_name(title), f"Ranks: {title}", figure, data, note.strip())


def _means(panel: Panel, arms: Sequence[str]) -> pd.DataFrame | None:
    pairs = [(record, name) for record, name in zip(panel.records, panel.names, strict=True) if name in arms]
    try:
        return mean_ranks(rank_maps([record for record, _ in pairs], [name for _, name in pairs]))
    except SelectionError:
        return None


def _partly(panels: Sequence[Panel], arms: Sequence[str]) -> list[str]:
    """Arms that are drawn without some of their runs."""
    pairs = [pair for panel in panels for pair in zip(panel.records, panel.names, strict=True) if pair[1] in arms]
    return [line for line in count_drawn([record for record, _ in pairs], [name for _, name in pairs]) if "," in line]
