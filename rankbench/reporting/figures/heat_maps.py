"""Matrices as shades: ranks, differences of ranks, correlations, a metric over two settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankbench.reporting.figures.layout import STEPS, inches, number_text, text_width
from rankbench.reporting.plotting import INK, SMALL

SHADES = "viridis"  # lightness grows with the value: it can be read in grey
DIVERGING = "RdBu_r"  # 0 is white
MISSING = "#d9d9d9"
DARK = 0.45  # lightness below which numbers are white
NUMBERS = 600  # of a figure: more are not read
FILLED = 0.85  # share of the width of a cell that its number takes at most
BAR_WIDTH = 0.09  # inches
Matrix = np.ndarray[Any, Any]


def draw_tiles(axes: Axes, values: Matrix, low: float, high: float, shades: str = SHADES, bad: str = MISSING) -> Any:
    """Draw a matrix without lines between its cells; what is NaN has the colour `bad`."""
    colours = matplotlib.colormaps[shades].with_extremes(bad=bad)
    axes.grid(visible=False)
    return axes.imshow(
        np.ma.masked_invalid(values),
        cmap=colours,
        vmin=low,
        vmax=high if high > low else low + 1,
        aspect="auto",
        interpolation="none",  # files keep the cells as they are
    )


def write_numbers(axes: Axes, values: Matrix, image: Any, form: str, without: str = "", matrices: int = 1) -> None:
    """Write the values into the cells, where all fit in each of so many matrices; `without`: where there is none."""
    texts = [[without if np.isnan(value) else number_text_of(value, form) for value in row] for row in values]
    width, height = inches(axes)
    widest = max(text_width(text, SMALL - 0.5) for row in texts for text in row)
    if widest > FILLED * width / values.shape[1] or height / values.shape[0] < 0.105:
        return
    if values.size * matrices > NUMBERS:
        return
    shades = image.cmap(image.norm(values))[..., :3] @ (0.299, 0.587, 0.114)
    for (row, column), lightness in np.ndenumerate(shades):
        colour = "white" if lightness < DARK and not np.isnan(values[row, column]) else INK
        axes.text(column, row, texts[row][column], fontsize=SMALL - 0.5, ha="center", va="center", color=colour)


def number_text_of(value: float, form: str) -> str:
    """A value in a form, without a minus before 0."""
    text = form.format(value)
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")


def colour_bar(figure: Figure, all_axes: Sequence[Axes], image: Any, quantity: str, shift: float = 0.0) -> None:
    """Say what the shades mean, to the right of the axes, in the room that `facets` left there; `shift`: inches."""
    width, height = figure.get_size_inches()
    right = max(axes.get_position().x1 for axes in all_axes)
    top = max(axes.get_position().y1 for axes in all_axes)
    low = max(min(axes.get_position().y0 for axes in all_axes), top - 1.6 / height)
    bar = figure.add_axes((right + (0.08 + shift) / width, low, BAR_WIDTH / width, top - low))
    figure.colorbar(image, cax=bar, ticks=MaxNLocator(3 if (top - low) * height < 0.8 else 5, steps=STEPS))
    bar.yaxis.set_major_formatter(lambda value, _: number_text(round(value, 6)))
    bar.set_ylabel(quantity)
    bar.grid(visible=False)
