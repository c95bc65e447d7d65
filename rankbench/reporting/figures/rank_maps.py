"""Rank maps of methods, and how far they agree: `rankbench records maps SOURCE --out DIR [--by task.map]`.

Each figure is written as PNG and PDF, with the numbers behind it as CSV. Which records may stand together:
rankbench.analysis.selection.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import arm_title, labels, sort_key
from rankbench.core.sites import parse_site
from rankbench.records.record import RunRecord
from rankbench.reporting.figures.heat_maps import DIVERGING, colour_bar, draw_tiles, write_numbers
from rankbench.reporting.figures.layout import GAP, Room, facets, inches, text_width, widest, wrapped
from rankbench.reporting.plotting import COLUMN, PAGE, WIDE, own_style
from rankbench.studies.panels import Panel

ROW = 0.115  # inches of a kind of site: a line of numbers
BAR = 0.55  # inches of a colour bar and its numbers
OUTSIDE = "\N{EN DASH}"  # title of the column of sites that are in no layer
LABEL = 1.2  # inches of a line of a label of the agreement


def rank_maps(records: Sequence[RunRecord], names: Sequence[str] | None = None) -> pd.DataFrame:
    """Ranks of the runs that are ok: label, seed, site, layer (NaN without one), kind, rank; labels in their order.

    Args:
        names: labels of the runs, where they tell apart more records than these.

    Raises:
        SelectionError: no run that is ok has ranks.
    """
    pairs = sorted(zip(records, names or labels(records), strict=True), key=lambda pair: sort_key(pair[1]))
    maps = _sites(pairs)
    if maps.empty:
        raise SelectionError(f"none of {len(records)} runs is ok and has ranks: there is no map to draw")
    return maps


def panel_maps(panel: Panel, arms: Sequence[str]) -> pd.DataFrame:
    """`rank_maps` of some arms of a panel, in the order of its runs; without rows where there is none."""
    return _sites([pair for pair in zip(panel.records, panel.names, strict=True) if pair[1] in arms])


def _sites(pairs: Sequence[tuple[RunRecord, str]]) -> pd.DataFrame:
    """A row for each site of the runs that are ok; `pairs`: runs with their labels."""
    parse = functools.cache(parse_site)
    rows = [
        (label, record.seed, site, *parse(site), rank)
        for record, label in pairs
        if record.status == "ok"
        for site, rank in (record.ranks or {}).items()
    ]
    return pd.DataFrame(rows, columns=["label", "seed", "site", "layer", "kind", "rank"])


def count_drawn(records: Sequence[RunRecord], names: Sequence[str]) -> list[str]:
    """How many runs of each label have a map, and what became of the others: "igu: 3 of 5 runs drawn, 2 inert"."""
    statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record, name in zip(records, names, strict=True):
        statuses[name]["without ranks" if record.status == "ok" and not record.ranks else record.status] += 1
    return [
        ", ".join(
            [f"{name}: {counts['ok']} of {counts.total()} runs drawn"]
            + [f"{count} {status}" for status, count in counts.items() if status != "ok"]
        )
        for name, counts in sorted(statuses.items(), key=lambda pair: sort_key(pair[0]))
    ]


def mean_ranks(maps: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of each label and site: label, kind, layer, rank, seeds."""
    groups = maps.groupby(["label", "kind", "layer"], sort=False, dropna=False)
    return groups.agg(rank=("rank", "mean"), seeds=("seed", "nunique")).reset_index()


def agreement(maps: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation of rank maps: label, other, spearman (NaN: not measured), pairs.

    Two methods are compared at the same seed, a method with itself at different seeds; the mean over those pairs, each
    over the sites that both have. A uniform map has no order, so pairs with one are left out. Where the truth is drawn
    with the seed (planted), different seeds have nothing to agree on.
    """
    table = maps.pivot(index="site", columns=["label", "seed"], values="rank").corr("spearman")
    table = table.rename_axis(index=["label", "seed"], columns=["other", "other seed"])
    pairs = table.melt(ignore_index=False, value_name="spearman").reset_index()
    same_label, order = pairs["label"] == pairs["other"], pairs["seed"] - pairs["other seed"]
    kept = pairs[(same_label & (order < 0)) | (~same_label & (order == 0))]
    means = kept.groupby(["label", "other"]).agg(spearman=("spearman", "mean"), pairs=("spearman", "count"))
    names = maps["label"].unique()
    every = pd.MultiIndex.from_product([names, names], names=["label", "other"])
    return means.reindex(every).fillna({"pairs": 0}).astype({"pairs": int}).reset_index()


@own_style
def draw_maps(means: pd.DataFrame, title: str, columns: int | None = None, quantity: str = "mean rank") -> Figure:
    """A panel per label, kinds x layers, all on one colour scale; `means`: as `mean_ranks` returns them."""
    names = [str(name) for name in means["label"].unique()]
    sites = means.assign(layer=means["layer"].astype(float).fillna(np.inf))  # outside the layers: behind them
    kinds, layers = sorted(sites["kind"].unique()), sorted(sites["layer"].unique())  # disk has lost the model's order
    width = PAGE if len(names) <= 3 else WIDE
    columns = columns or min(len(names), _fitting(width - BAR - widest(kinds), len(layers)))
    figure, all_axes = facets(
        [_title(name) for name in names],
        room=Room(widest(kinds) + 0.08, 0.0, 0.05, BAR, 0.26),
        height=ROW * len(kinds),
        width=width,
        columns=columns,
        shared=True,
        heading=title,
    )
    most = float(means["rank"].max())
    form = "{:.0f}" if (means["rank"] % 1 == 0).all() or most >= 10 else "{:.1f}"
    for index, (name, axes) in enumerate(zip(names, all_axes, strict=True)):
        table = sites[sites["label"] == name].pivot(index="kind", columns="layer", values="rank")
        matrix = table.reindex(index=kinds, columns=layers).to_numpy(float)
        image = draw_tiles(axes, matrix, 0, most)
        write_numbers(axes, matrix, image, form, matrices=len(names))
        axes.set_yticks(range(len(kinds)), kinds)
        every = math.ceil(len(layers) * 0.2 / inches(axes)[0])
        shown = range(0, len(layers), every) if index + columns >= len(names) else []  # nothing stands below it
        axes.set_xticks(shown, [OUTSIDE if math.isinf(layers[place]) else f"{layers[place]:.0f}" for place in shown])
    all_axes[-1].set_xlabel("layer")
    colour_bar(figure, all_axes, image, quantity)
    return figure


def _title(label: str) -> str:
    """Display name of a label, and the budget that stands behind it."""
    arm, comma, budget = label.partition(", ")
    return f"{arm_title(arm)}{comma}{budget}" if "(" not in arm or ")" in arm else arm_title(label)


def _fitting(width: float, layers: int) -> int:
    """Number of maps in a row: six where they are small, two where there are many layers."""
    return max(2, min(6, int(width / max(0.8, 0.055 * layers))))


@own_style
def draw_agreement(table: pd.DataFrame, title: str) -> Figure:
    """A matrix of labels with the correlation in each cell; a dash where there is none."""
    names = [str(name) for name in table["label"].unique()]
    values = table.pivot(index="label", columns="other", values="spearman").reindex(index=names, columns=names)
    labels_shown = [wrapped(arm_title(name), LABEL) for name in names]
    margin = widest([line for label in labels_shown for line in label.split("\n")]) + 0.1
    needed = (text_width("-0.000") + 0.06) * len(names) + margin + BAR + 2 * GAP
    figure, (axes,) = facets(
        [""],
        room=Room(margin, 0.0, margin, BAR),
        height=max(0.6, 0.27 * len(names)),
        width=next((width for width in (COLUMN, PAGE, WIDE) if width >= needed), needed),
        heading=title,
    )
    matrix = values.to_numpy(float)
    image = draw_tiles(axes, matrix, -1, 1, DIVERGING)
    write_numbers(axes, matrix, image, "{:.2f}", "\N{EN DASH}")
    axes.set_xticks(range(len(names)), labels_shown, rotation=90)
    axes.set_yticks(range(len(names)), labels_shown)
    colour_bar(figure, [axes], image, "Spearman (diagonal: between seeds)")
    return figure
