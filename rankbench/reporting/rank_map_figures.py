"""Rank maps of methods, and how far they agree: `rankbench records maps SOURCE --out DIR [--by task.map]`.

Each figure is written as PNG and PDF, with the numbers behind it as CSV. Which records may stand together:
rankbench.analysis.selection.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import colour, labels, sort_key
from rankbench.core.sites import RankGrid, parse_site, rank_grid
from rankbench.records.record import RunRecord
from rankbench.reporting.plotting import COLOUR_MAP, MAP_TEXT, MISSING, OWN_STYLE, shade
from rankbench.statistics.estimates import rank_correlation

PANELS = 4  # in a row
LETTERS = 14  # of a title, in an inch


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


@OWN_STYLE
def draw_maps(
    means: pd.DataFrame,
    title: str,
    colours: Mapping[str, str] | None = None,
    columns: int | None = None,
    quantity: str = "rank, mean over seeds",
) -> Figure:
    """A panel per label, kinds x layers, all on one colour scale.

    Args:
        means: mean ranks, as `mean_ranks` returns them.
        title: title of the figure; "" for none.
        colours: label -> colour; None takes those of the labels' methods.
        columns: panels in a row, where it is not what fits.
        quantity: name of what the shades show.
    """
    names = list(means["label"].unique())
    ranks = {
        str(label): rank_grid({str(site): rank for site, rank in mapped.items()})
        for label, mapped in means.groupby("label", sort=False)["rank"]
    }
    whole = rank_grid({str(site): None for site in means.index})
    kinds, layers = sorted(whole.kinds), whole.layers  # records read from disk have lost the model's order
    columns = columns or min(PANELS, len(names))
    rows = math.ceil(len(names) / columns)
    margin = 0.065 * max(len(kind) for kind in kinds) + 0.1
    cell = max(0.11, 1.9 / len(layers)), max(0.14, 0.9 / len(kinds))  # inches
    width, height = cell[0] * len(layers), cell[1] * len(kinds)
    size = margin + columns * (width + 0.2) + 0.75, rows * (height + 0.45) + 0.25
    figure = Figure(size)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0))  # inches, from the upper left
    axes.axis("off")
    small: dict[str, Any] = {"fontsize": MAP_TEXT - 1, "color": "#444444"}
    every = max(1, math.ceil(len(layers) * 0.2 / width))
    most = float(means["rank"].max())
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        left, top = margin + column * (width + 0.2), 0.3 + row * (height + 0.45)
        _tiles(axes, _matrix(ranks[name], kinds, layers), most, (left, top, width, height))
        axes.text(left, top - 0.06, name, fontsize=MAP_TEXT, color=(colours or {}).get(name, colour(name)), va="bottom")
        for number, kind in enumerate(kinds if column == 0 else []):
            axes.text(left - 0.05, top + (number + 0.5) * cell[1], kind, ha="right", va="center", **small)
        below = index + columns >= len(names)  # nothing stands below it
        for number in range(0, len(layers), every) if below else ():
            x = left + (number + 0.5) * cell[0]
            axes.text(x, top + height + 0.04, _layer(layers[number]), ha="center", va="top", **small)
    axes.text(margin + columns * (width + 0.2) / 2, size[1] - 0.02, "layer", ha="center", va="bottom", **small)
    _scale(axes, quantity, most, (size[0] - 0.6, 0.3, 0.12, max(height, min(2.0, size[1] - 0.8))))
    _entitle(figure, title)
    return figure


def _matrix(grid: RankGrid[float], kinds: list[str], layers: list[int | None]) -> np.ndarray[Any, Any]:
    """Ranks (kinds, layers); NaN without a site."""
    return np.array([[grid.cells.get((layer, kind), math.nan) for layer in layers] for kind in kinds])


Box = tuple[float, float, float, float]  # left, top, width, height in inches


def _tiles(axes: Axes, values: np.ndarray[Any, Any], most: float, box: Box) -> None:
    """A matrix in a box of an axes that is in inches: an image without ticks."""
    (left, top, width, height), room = box, (axes.get_xlim(), axes.get_ylim())
    shades = matplotlib.colormaps[COLOUR_MAP].with_extremes(bad=MISSING)
    axes.imshow(
        np.ma.masked_invalid(values),
        cmap=shades,
        vmin=0,
        vmax=most,
        extent=(left, left + width, top + height, top),
        aspect="auto",
        interpolation="none",  # files keep the cells as they are
    )
    axes.set(xlim=room[0], ylim=room[1])  # which an image takes for its own


def _scale(axes: Axes, quantity: str, most: float, box: Box) -> None:
    """What the shades mean."""
    left, top, width, height = box
    _tiles(axes, np.linspace(most, 0, 64)[:, None], most, box)
    for value in MaxNLocator(5).tick_values(0, most):
        if value <= most:
            y = top + height * (1 - value / most)
            axes.text(left + width + 0.05, y, f"{value:g}", va="center", fontsize=MAP_TEXT - 1, color="#444444")
    axes.text(left - 0.07, top + height / 2, quantity, rotation=90, va="center", ha="right", fontsize=MAP_TEXT - 1)


@OWN_STYLE
def draw_agreement(table: pd.DataFrame, title: str) -> Figure:
    """A matrix of labels with the correlation in each cell; a dash where there is none."""
    names = table["label"].unique()
    values = table.pivot(index="label", columns="other", values="spearman").reindex(index=names, columns=names)
    margin = 0.068 * max(len(name) for name in names)
    side = max(1.6, 0.42 * len(names))
    figure = Figure((margin + side + 1.0, margin + side + 0.6), layout="constrained")
    axes = figure.subplots()
    image = shade(axes, values.to_numpy(float), -1, 1)
    for (row, column), value in np.ndenumerate(values.to_numpy(float)):
        text = "-" if math.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00")
        ink = "white" if value < -0.2 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=MAP_TEXT - 1, color=ink)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_color(colour(tick.get_text()))
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("Spearman; diagonal: between seeds", fontsize=MAP_TEXT)
    bar.ax.tick_params(labelsize=MAP_TEXT - 1)
    _entitle(figure, title)
    return figure


def _entitle(figure: Figure, title: str) -> None:
    """The title, its lines broken to the width of the figure, which grows by those that are added."""
    if not title:
        return
    width, height = figure.get_size_inches()
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, max(20, int(width * LETTERS)))]
    figure.set_size_inches(width, height + (len(lines) - 1) * 1.3 * (MAP_TEXT + 1) / 72)
    figure.suptitle("\n".join(lines), fontsize=MAP_TEXT + 1)


def _layer(layer: int | None) -> str:
    return "none" if layer is None else str(layer)
