"""Maps where the true one is known: how much of it an arm found, against its gain; truth, found and difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.labels import arm_title, panel_title
from rankbench.core.sites import rank_grid
from rankbench.records.record import RunRecord
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
from rankbench.reporting.plotting import GREY, SMALL, WIDE, ReportFigure, Styles
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.estimates import mean_interval
from rankbench.studies.panels import Panel

OVERLAP = "test/map_overlap"
TRUTH = "oracle"  # method whose map is the true one
SEEDS, ARMS = 3, 14  # that are drawn
TILE = 0.1  # inches of a layer
OVERLAPS = 0.3  # inches of the numbers beside the ranks
TRUE = "true ranks"
Matrix = np.ndarray[Any, Any]


def differs_by_seed(panel: Panel) -> bool:
    """Whether every seed has a true map of its own, so that a mean over seeds is a mean of different things."""
    tasks = [record.config.get("task", {}) for record in panel.records]
    return any("map_seed" in task and task["map_seed"] is None for task in tasks)


def overlaps(group: Group, arms: Sequence[str]) -> pd.DataFrame:
    """Frame of arm, mean overlap with the true map with its interval, and mean gain with its interval."""
    rows = []
    for arm in arms:
        measured = pd.concat(
            [
                panel.data[OVERLAP][(panel.data["label"] == arm) & (panel.data["status"] == "ok")]
                for panel, _ in group.members
                if OVERLAP in panel.data
            ]
            or [pd.Series(dtype=float)]
        ).dropna()
        gain = mean_gain(group, arm)
        if len(measured) and gain is not None:
            overlap = mean_interval(measured)
            rows.append((arm, overlap.mean, overlap.low, overlap.high, *gain, len(measured)))
    columns = ["arm", "overlap", "overlap low", "overlap high", "gain", "gain low", "gain high", "n"]
    return pd.DataFrame(rows, columns=columns).astype({name: float for name in columns[1:7]})


def draw_found_against_gain(report_data: ReportData) -> ReportFigure | None:
    """Overlap with the true map against the gain, per arm; None where no run has a true map."""
    groups = [(group, overlaps(group, report_data.arms)) for group in groups_of(report_data)]
    groups = [(group, data) for group, data in groups if len(data) > 1]
    if not groups:
        return None
    arms = list(dict.fromkeys(arm for _, data in groups for arm in data["arm"]))
    labels, styles = [arm_labels(arms)] if len(groups) == 1 and len(arms) <= FEW_ARMS else [], report_data.styles
    titles = panel_titles([group.title for group, _ in groups])
    figure, all_axes = labelled_facets(titles, arm_handles(arms, styles, lines=False), labels, 1.7)
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
    for row in data.to_dict("records"):
        style = styles[row["arm"]]
        ends = [[[row[name] - row[f"{name} low"]], [row[f"{name} high"] - row[name]]] for name in ("overlap", "gain")]
        axes.errorbar(
            row["overlap"], row["gain"], yerr=ends[1], xerr=ends[0], fmt="none", ecolor=style.colour, elinewidth=0.6
        )
        axes.plot(row["overlap"], row["gain"], ms=4.2, **style.points)


def draw_found_maps(name: str, panels: Sequence[Panel], report_data: ReportData) -> ReportFigure | None:
    """True ranks, those that each arm found, and the difference, seed by seed, in the first of some panels.

    Without runs of the true map the arms are drawn alone. None where no run that is ok has ranks.
    """
    panel = panels[0]
    maps = _maps_by_seed(panel)
    arms = [arm for arm in report_data.arms if arm in maps]
    truth = next((arm for arm in arms if _method(panel, arm) == TRUTH), None)
    if not arms:
        return None
    seeds = sorted(maps[truth] if truth else {seed for arm in arms for seed in maps[arm]})
    seeds = seeds[: SEEDS if truth else 2 * SEEDS]
    arms = [arm for arm in arms if set(seeds) & set(maps[arm])]
    drawn = _drawn(arms, truth, maps, report_data)
    figure, numbers = _draw_blocks(panel, maps, drawn, seeds, truth)
    where = panel_title(panel.title)
    of_group = f" One of {len(panels)} panels." if len(panels) > 1 else ""
    what = "True ranks, ranks found, and the difference" if truth else "Ranks found"
    note = (
        f"{what}, seed by seed: every seed has a true map of its own, so that a mean over seeds would mean nothing. "
        f"Down each tile the layers, across it the kinds of sites in alphabetical order. {len(drawn)} of "
        f"{len(arms)} arms and {len(seeds)} seeds are drawn; the numbers: mean overlap with the true ranks.{of_group}"
    )
    return ReportFigure(name, f"{what}: {where}", figure, numbers, note)


def _drawn(
    arms: Sequence[str], truth: str | None, maps: Mapping[str, Mapping[int, RunRecord]], report_data: ReportData
) -> list[str]:
    """The true map, then other arms by overlap: those of which something is claimed, and controls if there is room."""
    apart, reference = report_data.report.without_claim, report_data.report.reference
    overlap = {arm: _mean_overlap(maps[arm]) for arm in arms if arm != truth}
    rest = sorted(overlap, key=lambda arm: (arm != reference, arm in apart, -overlap[arm]))[: ARMS - bool(truth)]
    rest.sort(key=lambda arm: -overlap[arm])
    return [*([truth] if truth else []), *rest]


def _method(panel: Panel, arm: str) -> str | None:
    return next((run.record.method for run in panel.runs if run.arm == arm and run.record is not None), None)


def _maps_by_seed(panel: Panel) -> dict[str, dict[int, RunRecord]]:
    maps: dict[str, dict[int, RunRecord]] = {}
    for run in panel.runs:
        if run.record is not None and run.status == "ok" and run.record.ranks:
            maps.setdefault(run.arm, {})[run.record.seed] = run.record
    return maps


def _draw_blocks(
    panel: Panel,
    maps: Mapping[str, Mapping[int, RunRecord]],
    arms: Sequence[str],
    seeds: Sequence[int],
    truth: str | None,
) -> tuple[Any, pd.DataFrame]:
    whole = rank_grid({site: None for arm in arms for record in maps[arm].values() for site in record.ranks or {}})
    kinds, layers = sorted(whole.kinds), whole.layers

    def tile(arm: str, seed: int) -> Matrix:
        record = maps[arm].get(seed)
        cells = rank_grid(record.ranks or {}).cells if record else {}
        return np.array([[cells.get((layer, kind), math.nan) for kind in kinds] for layer in layers], float)

    tiles = {arm: [tile(arm, seed) for seed in seeds] for arm in arms}
    labels = [TRUE if arm == truth else arm_label(arm) for arm in arms]
    blocks = [_composite(tiles.values())]
    if truth:
        away = [[mine - true for mine, true in zip(tiles[arm], tiles[truth], strict=True)] for arm in arms]
        blocks.append(_composite([[np.full_like(true, np.nan) for true in tiles[truth]], *away[1:]]))
    figure, all_axes = facets(
        ["ranks found, and overlap", "found \N{MINUS SIGN} true"][: len(blocks)],
        room=Room(widest(labels) + 0.08, 0.55 + OVERLAPS, 0.2),
        height=(TILE * len(layers) + 0.05) * len(arms),
        width=WIDE,
        shared=True,
    )
    step, rows = len(kinds) + 1, len(layers) + 1
    for axes, block, name in zip(all_axes, blocks, ("rank", "difference"), strict=False):
        high = float(np.nanmax(np.abs(block), initial=1))
        low, shades = (0.0, SHADES) if name == "rank" else (-high, DIVERGING)
        image = draw_tiles(axes, block, low, high, shades, "white")
        axes.set_yticks([rows * index + (len(layers) - 1) / 2 for index in range(len(arms))], labels)
        axes.set_xticks(
            [step * index + (len(kinds) - 1) / 2 for index in range(len(seeds))], [f"seed {s}" for s in seeds]
        )
        axes.spines[:].set_visible(False)
        colour_bar(figure, [axes], image, name, OVERLAPS * (name == "rank"))
    first = all_axes[0]
    for index, arm in enumerate(arms):
        if not math.isnan(mean := _mean_overlap(maps[arm])):
            place = (1.01, rows * index + (len(layers) - 1) / 2)
            first.text(*place, f"{mean:.2f}", transform=first.get_yaxis_transform(), va="center", fontsize=SMALL)
    return figure, _numbers(maps, arms, truth)


def _composite(tiles: Any) -> Matrix:
    """Rows of tiles as one matrix, with a line of NaN between neighbours."""
    rows = [np.hstack([np.pad(tile, ((0, 1), (0, 1)), constant_values=np.nan) for tile in row]) for row in tiles]
    return np.vstack(rows)[:-1, :-1]


def _mean_overlap(records: Mapping[int, RunRecord]) -> float:
    measured = [((record.metrics or {}).get("test") or {}).get("map_overlap") for record in records.values()]
    values = [value for value in measured if value is not None]
    return float(np.mean(values)) if values else math.nan


def _numbers(maps: Mapping[str, Mapping[int, RunRecord]], arms: Sequence[str], truth: str | None) -> pd.DataFrame:
    rows = [
        (
            arm,
            seed,
            site,
            rank,
            ((maps[truth].get(seed) or record).ranks or {}).get(site) if truth and seed in maps[truth] else None,
        )
        for arm in arms
        for seed, record in maps[arm].items()
        for site, rank in (record.ranks or {}).items()
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "site", "rank", "true rank"])
