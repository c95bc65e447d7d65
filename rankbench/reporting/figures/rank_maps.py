"""Rank maps of methods, and how far they agree: `rankbench records maps SOURCE --out DIR [--by task.map]`.

Each figure is written as PNG and PDF, with the numbers behind it as CSV. Which records may stand together:
rankbench.analysis.selection.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import arm_title, labels, sort_key
from rankbench.core.sites import RankGrid, parse_site, rank_grid
from rankbench.records.record import RunRecord
from rankbench.reporting.figures.heat_maps import DIVERGING, colour_bar, draw_tiles, write_numbers
from rankbench.reporting.figures.layout import GAP, Room, facets, inches, text_width, widest, wrapped
from rankbench.reporting.plotting import COLUMN, PAGE, WIDE, own_style
from rankbench.statistics.estimates import rank_correlation

ROW = 0.115  # inches of a kind of site: a line of numbers
BAR = 0.55  # inches of a colour bar and its numbers
LABEL = 1.2  # inches of a line of a label of the agreement


def rank_maps(records: Sequence[RunRecord], names: Sequence[str] | None = None) -> pd.DataFrame:
    """Ranks of the runs that are ok: label, seed, site, layer (NaN without one), kind, rank; labels in their order.

    Args:
        records: finished runs.
        names: their labels, where they tell apart more records than these.

    Raises:
        SelectionError: no run that is ok has ranks.
    """
    pairs = sorted(zip(records, names or labels(records), strict=True), key=lambda pair: sort_key(pair[1]))
    mapped = [(record, label) for record, label in pairs if record.status == "ok" and record.ranks]
    if not mapped:
        raise SelectionError(f"none of {len(records)} runs is ok and has ranks: there is no map to draw")
    sites = [site for record, _ in mapped for site in record.ranks or {}]
    sizes = [len(record.ranks or {}) for record, _ in mapped]
    parsed = {site: parse_site(site) for site in set(sites)}
    return pd.DataFrame(
        {
            "label": np.repeat([label for _, label in mapped], sizes).astype(object),
            "seed": np.repeat([record.seed for record, _ in mapped], sizes),
            "site": sites,
            "layer": [parsed[site][0] for site in sites],
            "kind": [parsed[site][1] for site in sites],
            "rank": [rank for record, _ in mapped for rank in (record.ranks or {}).values()],
        }
    )


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
    """Mean over seeds of each label and site: label, kind, layer, rank, seeds; the site is the index."""
    groups = maps.groupby(["label", "kind", "layer"], sort=False, dropna=False)
    means = groups.agg(rank=("rank", "mean"), seeds=("seed", "nunique"), site=("site", "first"))
    return means.reset_index().set_index("site")


def agreement(maps: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation of rank maps: label, other, spearman (NaN: not measured), pairs.

    Two methods are compared at the same seed, a method with itself at different seeds; the mean over those pairs. A
    uniform map has no order, so pairs with one are left out. Where the truth is drawn with the seed
    (planted), different seeds have nothing to agree on.
    """
    runs = {
        (label, seed): run.set_index("site")["rank"]
        for (label, seed), run in maps.groupby(["label", "seed"], sort=False)
    }
    names = [str(label) for label in maps["label"].unique()]
    rows = []
    for label in names:
        for other in names:
            pairs = [_correlation(runs[a], runs[b]) for a, b in _pairs(list(runs), label, other)]
            measured = [value for value in pairs if value is not None]
            mean = float(np.mean(measured)) if measured else math.nan
            rows.append({"label": label, "other": other, "spearman": mean, "pairs": len(measured)})
    return pd.DataFrame(rows)


LabelAndSeed = tuple[Any, Any]


def _pairs(runs: Sequence[LabelAndSeed], label: str, other: str) -> list[tuple[LabelAndSeed, LabelAndSeed]]:
    if label == other:
        return list(combinations([run for run in runs if run[0] == label], 2))
    return [((label, seed), (other, seed)) for name, seed in runs if name == label and (other, seed) in runs]


def _correlation(first: pd.Series, second: pd.Series) -> float | None:
    """Over the sites both have."""
    both = pd.concat([first, second], axis=1, join="inner")
    return rank_correlation(both.iloc[:, 0], both.iloc[:, 1]).spearman if len(both) else None


@own_style
def draw_maps(means: pd.DataFrame, title: str, columns: int | None = None, quantity: str = "mean rank") -> Figure:
    """A panel per label, kinds x layers, all on one colour scale.

    Args:
        means: mean ranks, as `mean_ranks` returns them.
        title: title of the figure; "" for none.
        columns: panels in a row, where it is not what fits.
        quantity: name of what the shades show.
    """
    names = [str(name) for name in means["label"].unique()]
    grids = {
        str(label): rank_grid({str(site): rank for site, rank in mapped.items()})
        for label, mapped in means.groupby("label", sort=False)["rank"]
    }
    whole = rank_grid({str(site): None for site in means.index})
    kinds, layers = sorted(whole.kinds), whole.layers  # records read from disk have lost the model's order
    width = PAGE if len(names) <= 3 else WIDE
    columns = columns or min(len(names), _fitting(width - BAR - widest(kinds), len(layers)))
    figure, all_axes = facets(
        [_title(name) for name in names],
        room=Room(widest(kinds) + 0.08, 0.0, 0.05),
        height=ROW * len(kinds),
        width=width,
        columns=columns,
        shared=True,
        heading=title,
        bar=BAR,
        foot=0.26,
    )
    most = float(means["rank"].max())
    form = "{:.0f}" if (means["rank"] % 1 == 0).all() or most >= 10 else "{:.1f}"
    for index, (name, axes) in enumerate(zip(names, all_axes, strict=True)):
        matrix = _matrix(grids[name], kinds, layers)
        image = draw_tiles(axes, matrix, 0, most)
        write_numbers(axes, matrix, image, form, least=len(names))
        axes.set_yticks(range(len(kinds)), kinds)
        every = math.ceil(len(layers) * 0.2 / inches(axes)[0])
        shown = range(0, len(layers), every) if index + columns >= len(names) else []  # nothing stands below it
        axes.set_xticks(shown, [layer_title(layers[place]) for place in shown])
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


def layer_title(layer: int | None) -> str:
    """Title of a column of the grid; sites outside the layers have one of their own."""
    return "\N{EN DASH}" if layer is None else str(layer)


def _matrix(grid: RankGrid[float], kinds: list[str], layers: list[int | None]) -> np.ndarray[Any, Any]:
    """Ranks (kinds, layers); NaN without a site."""
    return np.array([[grid.cells.get((layer, kind), math.nan) for layer in layers] for kind in kinds])


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
        room=Room(margin, 0.0, margin),
        height=max(0.6, 0.27 * len(names)),
        width=next((width for width in (COLUMN, PAGE, WIDE) if width >= needed), needed),
        heading=title,
        bar=BAR,
    )
    matrix = values.to_numpy(float)
    image = draw_tiles(axes, matrix, -1, 1, DIVERGING)
    write_numbers(axes, matrix, image, "{:.2f}", "\N{EN DASH}")
    axes.set_xticks(range(len(names)), labels_shown, rotation=90)
    axes.set_yticks(range(len(names)), labels_shown)
    colour_bar(figure, [axes], image, "Spearman (diagonal: between seeds)")
    return figure
