"""Maps where the true one is known: how much of it an arm found, against its gain; truth, found and difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbench.analysis.labels import arm_title, panel_title
from rankbench.reporting.figures.heat_maps import DIVERGING, SHADES, colour_bar, draw_tiles
from rankbench.reporting.figures.layout import (
    Room,
    arm_handles,
    arm_label,
    arm_labels,
    draw_frame,
    facets,
    panel_titles,
    widest,
)
from rankbench.reporting.figures.lines import FEW_ARMS, Line, label_ends, labelled_facets
from rankbench.reporting.figures.panel_groups import Group, groups_of, mean_gain
from rankbench.reporting.figures.rank_maps import panel_maps
from rankbench.reporting.plotting import GREY, SMALL, WIDE, ReportFigure, Styles
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.estimates import mean_interval
from rankbench.studies.panels import Panel
from rankbench.sweeps.report_settings import Report

OVERLAP = "test/map_overlap"
TRUTH = "oracle"  # method whose map is the true one
SEEDS, ARMS = 3, 14  # that are drawn
TILE = 0.1  # inches of a layer
OVERLAPS = 0.3  # inches of the numbers beside the ranks
TRUE = "true ranks"
BETWEEN = -1.0  # layer, and as a text kind, of the lines between tiles
Matrix = np.ndarray[Any, Any]


def differs_by_seed(panel: Panel) -> bool:
    """Whether every seed has a true map of its own, so that a mean over seeds is a mean of different things."""
    tasks = [record.config.get("task", {}) for record in panel.records]
    return any("map_seed" in task and task["map_seed"] is None for task in tasks)


def overlaps(group: Group, arms: Sequence[str]) -> pd.DataFrame:
    """Frame of arm, mean overlap with the true map with its interval, and mean gain with its interval."""
    measured = pd.concat([_measured(panel) for panel, _ in group.members])
    rows = []
    for arm in arms:
        values, gain = measured["overlap"][measured["arm"] == arm], mean_gain(group, arm)
        if len(values) and gain is not None:
            overlap = mean_interval(values)
            rows.append((arm, overlap.mean, overlap.low, overlap.high, *gain, overlap.n))
    columns = ["arm", "overlap", "overlap low", "overlap high", "gain", "gain low", "gain high", "n"]
    return pd.DataFrame(rows, columns=columns).astype({name: float for name in columns[1:7]})


def _measured(panel: Panel) -> pd.DataFrame:
    """Arm and overlap of every run that is ok and has one."""
    runs = panel.data[panel.data["status"] == "ok"].reindex(columns=["label", OVERLAP])
    return runs.set_axis(["arm", "overlap"], axis=1).astype({"overlap": float}).dropna()


def draw_found_against_gain(report_data: ReportData) -> ReportFigure | None:
    """Overlap with the true map against the gain, per arm; None where no run has a true map."""
    groups = [(group, overlaps(group, report_data.arms)) for group in groups_of(report_data)]
    groups = [(group, data) for group, data in groups if len(data) > 1]
    if not groups:
        return None
    arms = list(dict.fromkeys(arm for _, data in groups for arm in data["arm"]))
    labels, styles = [arm_labels(arms)] if len(groups) == 1 and len(arms) <= FEW_ARMS else [], report_data.styles
    titles = panel_titles([group.title for group, _ in groups])
    figure, all_axes = labelled_facets(titles, arm_handles(arms, styles, lines=False), labels, 1.9)
    for axes, (group, data) in zip(all_axes, groups, strict=True):
        _draw_points(axes, data, styles)
        draw_frame(axes, "overlap with the true ranks", group.gain_title)
        places = zip(data["arm"], data["overlap"], data["gain"], strict=True)
        if labels:
            label_ends(axes, [Line(arm_label(arm), styles[arm].colour, [x], [y]) for arm, x, y in places])
    numbers = pd.concat([data.assign(panel=group.title) for group, data in groups])
    reference = arm_title(report_data.report.reference)
    note = (
        f"Share of the true ranks that an arm found (1: all) and its gain over {reference} (above 0 is better), means "
        "with 95 % intervals of their own over seeds."
    )
    return ReportFigure("found-against-gain", "Maps found, and what they gain", figure, numbers, note)


def _draw_points(axes: Axes, data: pd.DataFrame, styles: Styles) -> None:
    axes.axhline(0, color=GREY, lw=0.8, zorder=0)
    across, up = ([data[name] - data[f"{name} low"], data[f"{name} high"] - data[name]] for name in ("overlap", "gain"))
    colours: Any = [styles[arm].colour for arm in data["arm"]]
    axes.errorbar(data["overlap"], data["gain"], up, across, fmt="none", ecolor=colours, elinewidth=0.6)
    for arm, overlap, gain in zip(data["arm"], data["overlap"], data["gain"], strict=True):
        axes.plot(overlap, gain, ms=4.2, **styles[arm].points)


def draw_found_maps(name: str, panels: Sequence[Panel], report_data: ReportData) -> ReportFigure | None:
    """True ranks, those that each arm found, and the difference, seed by seed, in the first of some panels.

    Without runs of the true map the arms are drawn alone. None where no run that is ok has ranks.
    """
    panel = panels[0]
    maps = panel_maps(panel, report_data.arms).drop_duplicates(["label", "seed", "site"], keep="last")
    seeds_of = {str(arm): set(seeds) for arm, seeds in maps.groupby("label")["seed"]}
    if not seeds_of:
        return None
    truth = next((run.arm for run in panel.runs if run.record and run.record.method == TRUTH), None)
    truth = truth if truth in seeds_of else None
    seeds = sorted(seeds_of[truth])[:SEEDS] if truth else sorted(set.union(*seeds_of.values()))[: 2 * SEEDS]
    present = [arm for arm in report_data.arms if seeds_of.get(arm, set()) & set(seeds)]
    overlap = _measured(panel).groupby("arm")["overlap"].mean()
    arms = _arms_drawn(present, truth, overlap, report_data.report)
    numbers = _with_truth(maps, arms, truth)
    what = "True ranks, ranks found, and the difference" if truth else "Ranks found"
    note = (
        f"{what}, seed by seed: every seed has a true map of its own, so that a mean over seeds would mean nothing. "
        f"Down each tile the layers, across it the kinds of sites in alphabetical order. {len(arms)} of "
        f"{len(present)} arms and {len(seeds)} seeds are drawn; the numbers: mean overlap with the true ranks."
    )
    note += f" One of {len(panels)} panels." * (len(panels) > 1)
    figure = _draw_blocks(numbers, arms, seeds, truth, overlap)
    columns = ["arm", "seed", "site", "rank", "true rank"]
    return ReportFigure(name, f"{what}: {panel_title(panel.title)}", figure, numbers[columns], note)


def _arms_drawn(present: Sequence[str], truth: str | None, overlap: pd.Series, report: Report) -> list[str]:
    """The true map, then other arms by overlap: those of which something is claimed, and controls if there is room."""
    known = overlap.reindex(list(present)).fillna(-1.0)
    others = [arm for arm in present if arm != truth]
    others.sort(key=lambda arm: (arm != report.reference, arm in report.without_claim, -known[arm]))
    return [*([truth] if truth else []), *sorted(others[: ARMS - bool(truth)], key=lambda arm: -known[arm])]


def _with_truth(maps: pd.DataFrame, arms: Sequence[str], truth: str | None) -> pd.DataFrame:
    """The maps of some arms, in their order, with the true rank of each site and the difference to it."""
    maps = pd.concat([maps[maps["label"] == arm] for arm in arms]).rename(columns={"label": "arm"})
    if truth is None:
        return maps.assign(**{"true rank": None})
    true = maps[maps["arm"] == truth].set_index(["seed", "site"])["rank"].rename("true rank")
    both = maps.join(true, on=["seed", "site"])
    return both.assign(difference=(both["rank"] - both["true rank"]).mask(both["arm"] == truth))


def _draw_blocks(
    numbers: pd.DataFrame, arms: Sequence[str], seeds: Sequence[int], truth: str | None, overlap: pd.Series
) -> Figure:
    """Draw a block of ranks and, where there is a true map, one of differences: an arm down, a seed across."""
    labels = [TRUE if arm == truth else arm_label(arm) for arm in arms]
    kinds, layers = numbers["kind"].nunique(), numbers["layer"].nunique(dropna=False)
    blocks = {"rank": "ranks found, and overlap", "difference": "found \N{MINUS SIGN} true"}
    figure, all_axes = facets(
        list(blocks.values())[: 2 if truth else 1],
        room=Room(widest(labels) + 0.08, 0.55 + OVERLAPS, 0.2),
        height=(TILE * layers + 0.05) * len(arms),
        width=WIDE,
        shared=True,
    )
    middles = [(layers + 1) * index + (layers - 1) / 2 for index in range(len(arms))]
    for axes, value in zip(all_axes, blocks, strict=False):
        block = _tiles(numbers, value, arms, seeds)
        high = float(np.nanmax(np.abs(block), initial=1))
        low, shades = (0.0, SHADES) if value == "rank" else (-high, DIVERGING)
        image = draw_tiles(axes, block, low, high, shades, "white")
        axes.set_yticks(middles, labels)
        across = [(kinds + 1) * index + (kinds - 1) / 2 for index in range(len(seeds))]
        axes.set_xticks(across, [f"seed {seed}" for seed in seeds])
        axes.spines[:].set_visible(False)
        colour_bar(figure, [axes], image, value, OVERLAPS * (value == "rank"))
    beside = all_axes[0].get_yaxis_transform()
    for middle, mean in zip(middles, overlap.reindex(list(arms)), strict=True):
        text = "" if np.isnan(mean) else f"{mean:.2f}"
        all_axes[0].text(1.01, middle, text, transform=beside, va="center", fontsize=SMALL)
    return figure


def _tiles(numbers: pd.DataFrame, value: str, arms: Sequence[str], seeds: Sequence[int]) -> Matrix:
    """Layers of each arm down, kinds of sites of each seed across, with a line of NaN between neighbours."""
    numbers = numbers.assign(layer=numbers["layer"].astype(float).fillna(np.inf))  # outside the layers: below them
    table = numbers.pivot(index=["arm", "layer"], columns=["seed", "kind"], values=value)
    down = pd.MultiIndex.from_product([arms, [*sorted(numbers["layer"].unique()), BETWEEN]])
    across = pd.MultiIndex.from_product([seeds, [*sorted(numbers["kind"].unique()), str(BETWEEN)]])
    return table.reindex(index=down[:-1], columns=across[:-1]).to_numpy(float)
