"""What all figures of a report share: panels side by side, the look of an arm, files and inline SVG."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from rankbench.analysis.labels import display
from rankbench.studies.panels import Panel, methods_of

TEXT = 9  # points
COLUMNS = 3  # panels in a row
MOST = 12  # panels of a figure: nobody compares more of them
CELL = (2.85, 1.95)  # inches, of the axes of a panel
GAP = (0.7, 0.68)  # inches, left of an axes and above it
LETTER = 0.07  # inches of a letter of a title
MARKERS = "osD^vP*X<>phd"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
FAR = 8  # times: values that are so far apart are drawn by their logarithm
GREY = "#8a8a8a"
INK = "#222222"
# A decorator: a user's matplotlibrc does not change the figures of a report.
OWN_STYLE = matplotlib.style.context("default")


T = TypeVar("T")


@dataclass(frozen=True)
class ReportFigure:
    """A figure and what belongs to it.

    Attributes:
        name: stem of its files' names.
        title: one line.
        figure: the drawn figure.
        numbers: the numbers behind it, for its CSV.
        note: sentences on how to read it.
    """

    name: str
    title: str
    figure: Figure
    numbers: pd.DataFrame
    note: str


Sketch = Callable[[], ReportFigure | None]  # draws when it is called; None: there is nothing to draw


@dataclass(frozen=True)
class SavedFigure:
    """A figure that is drawn and written.

    Attributes:
        name, title, note: as in ReportFigure.
        svg: the figure as an element of the page.
        files: its PNG, PDF and CSV.
    """

    name: str
    title: str
    note: str
    svg: str
    files: list[Path]


@OWN_STYLE
def finish(sketch: Sketch, folder: Path) -> SavedFigure | None:
    """Draw, and write the files; None where there is nothing to draw."""
    figure = sketch()
    if figure is None:
        return None
    files = write(figure.figure, figure.numbers, folder / figure.name)
    return SavedFigure(figure.name, figure.title, figure.note, svg(figure.figure, figure.name), files)


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn: in its method's colour; marker and dash tell arms apart without it.

    Attributes:
        title: display name of its method; "" where there is none.
        colour: hexadecimal.
        marker, dash: line style, in matplotlib's notation.
    """

    title: str
    colour: str
    marker: str
    dash: Any


def arm_styles(panels: Sequence[Panel]) -> dict[str, ArmStyle]:
    """Arm -> its style, the same in all figures of a report.

    The first arm of a method has the marker that its YAML says, the others the next ones that are free.
    """
    methods = methods_of(panels)
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.arms))
    members: dict[str, list[str]] = {}
    for arm in arms:
        members.setdefault(methods.get(arm, arm), []).append(arm)
    markers: dict[str, str] = {}
    for method, arm in [*((method, same[0]) for method, same in members.items()), *(("", arm) for arm in arms)]:
        if arm not in markers:
            markers[arm] = _marker(display(method).marker, markers.values(), len(markers))
    styles = {}
    for method, same in members.items():
        method_display = display(method)
        for index, arm in enumerate(same):
            styles[arm] = ArmStyle(
                method_display.title, method_display.colour, markers[arm], DASHES[index % len(DASHES)]
            )
    return {arm: styles[arm] for arm in arms}


def _marker(wanted: str, taken: Collection[str], count: int) -> str:
    """The marker wanted, else the first that is free, else one of those that are drawn twice."""
    free = [marker for marker in (wanted, *MARKERS) if marker and marker not in taken]
    return free[0] if free else MARKERS[count % len(MARKERS)]


def facets(
    titles: Sequence[str],
    handles: Sequence[Artist] = (),
    cell: tuple[float, float] = CELL,
    left: float = GAP[0],
) -> tuple[Figure, list[Axes]]:
    """Axes side by side, at most COLUMNS in a row, and a legend: beside a short row, else below.

    Args:
        titles: one for each axes; of two lines at most.
        handles: entries of the legend.
        cell: width and height of an axes, inches.
        left: room for labels left of each axes, inches.
    """
    columns = 2 if len(titles) == 4 else min(COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    width, height = columns * (cell[0] + left) + 0.15, rows * (cell[1] + GAP[1]) + 0.1
    entry = 0.66 + 0.072 * max((len(str(handle.get_label())) for handle in handles), default=0)
    beside = columns < COLUMNS
    below = 0.0 if beside or not handles else 0.1 + 0.2 * math.ceil(len(handles) / max(1, int(width / entry)))
    figure = Figure((width + (entry if beside and handles else 0.0), height + below))
    size = figure.get_size_inches()
    letters = int((cell[0] + left) / LETTER)
    axes_list = []
    for index, title in enumerate(titles):
        row, column = divmod(index, columns)
        low = below + height - (row + 1) * (cell[1] + GAP[1]) + 0.4
        box = (column * (cell[0] + left) + left, low, *cell)
        axes = figure.add_axes((box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]))
        lines = textwrap.wrap(title, letters, max_lines=2, placeholder=" ...", break_on_hyphens=False)
        axes.set_title(
            "\n".join(lines), y=1.0, fontsize=TEXT, loc="left", fontweight="bold", color=INK
        )  # y: not looked for
        axes_list.append(axes)
    if handles:
        corner = (width / size[0], 1 - 0.3 / size[1]) if beside else (0.01, 0.0)
        _legend(figure, handles, corner, beside, 1 if beside else max(1, int(width / entry)))
    return figure, axes_list


def at_most_twelve(panels: Sequence[T]) -> tuple[Sequence[T], str]:
    """Those of many panels that are drawn, and a sentence on the others."""
    sentence = f" {MOST} of {len(panels)} panels are drawn; the CSV has all." if len(panels) > MOST else ""
    return panels[:MOST], sentence


def arm_handles(arms: Sequence[str], style: Mapping[str, ArmStyle]) -> list[Artist]:
    """Legend entries of arms."""
    styles = [(arm, style[arm]) for arm in arms]
    return [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash, label=arm, ms=4, lw=1.2)
        for arm, look in styles
    ]


def _legend(figure: Figure, handles: Sequence[Artist], corner: tuple[float, float], beside: bool, columns: int) -> None:
    figure.legend(
        handles=list(handles),
        loc="upper left" if beside else "lower left",
        bbox_to_anchor=corner,
        ncols=columns,
        fontsize=TEXT - 1,
        frameon=False,
        handlelength=3,
        columnspacing=1.4,
        borderaxespad=0.0,
    )


Ticks = Mapping[float, str]


def draw_frame(axes: Axes, across: str, up: str, x: Ticks | None = None, y: Ticks | None = None) -> None:
    """Ticks, labels, the left and lower edge and a light grid, when all else is drawn.

    Args:
        axes: an axes of `facets`.
        across, up: labels of the two directions; "" for none.
        x, y: position -> label of the ticks; None: as many round numbers as there is room for.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for axis, ticks in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_minor_locator(NullLocator())
        if ticks is None:
            axis.set_major_locator(MaxNLocator(5))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))  # 10: 0.1 + 0.2 is 0.3
        else:
            axis.set_ticks(list(ticks), labels=list(ticks.values()))
    axes.set(xlim=(left, right), ylim=(low, high))  # ticks widen them
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color="#888888", linewidth=0.7)
    axes.set_axisbelow(True)
    if not axes.images:
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.tick_params(length=0, labelsize=TEXT - 1, labelcolor="#444444")
    for label, write_label in ((across, axes.set_xlabel), (up, axes.set_ylabel)):
        write_label(label, fontsize=TEXT - 1, color="#444444")


def last_part(key: str) -> str:
    """The last part of a setting's key, in words: "quadrature steps" of method.quadrature_steps."""
    return key.rpartition(".")[2].replace("_", " ")


def logarithmic(axes: Axes, values: Sequence[float]) -> dict[float, str]:
    """Make x logarithmic; ticks where there are values, at most six."""
    axes.set_xscale("log")
    ticks = sorted(set(values))
    ticks = ticks[:: math.ceil(len(ticks) / 6)]
    return {value: f"{value:,.0f}" if value >= 1000 else f"{value:g}" for value in ticks}


def logarithmic_up(axes: Axes) -> dict[float, str] | None:
    """Make y logarithmic where its values lie far apart and above 0; the ticks, None where it is left as it is."""
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([line[np.isfinite(line)] for line in lines])
    if not values.size or values.min() <= 0 or values.max() < FAR * values.min():
        return None
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = [10.0**power * digit for power in range(-12, 12) for digit in (1, 2, 5)]
    return {step: f"{step:g}" for step in steps if low <= step <= high}


def svg(figure: Figure, prefix: str) -> str:
    """The figure as an element of an HTML page: text stays text; ids begin with `prefix`; nothing points outside."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(target, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return re.sub(r'(<g|<image\b[^>]*) id="[^"]*"(?=[ />])', r"\g<1>", text)  # nothing refers to them; images repeat


COLOUR_MAP = "viridis"  # lightness grows with the value: it can be read in grey
MISSING = "#d9d9d9"
DPI = 200
PIXELS = 4e6  # of a PNG, at most
MAP_TEXT = 8  # points


def shade(axes: Axes, values: np.ndarray[Any, Any], low: float, high: float) -> Any:
    """Draw a matrix as a heat map; what is NaN is grey."""
    shades = matplotlib.colormaps[COLOUR_MAP].with_extremes(bad=MISSING)
    axes.tick_params(labelsize=MAP_TEXT - 1, length=2)
    return axes.imshow(np.ma.masked_invalid(values), cmap=shades, vmin=low, vmax=high, aspect="auto")


@OWN_STYLE
def write(figure: Figure, numbers: pd.DataFrame, stem: Path) -> list[Path]:
    """Write PNG, PDF and CSV beside each other; the same content gives the same files."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, pdf, csv = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf", "csv"))
    dpi = min(DPI, math.sqrt(PIXELS / math.prod(figure.get_size_inches())))
    figure.savefig(png, dpi=dpi, pil_kwargs={"compress_level": 3})  # half the time for a tenth more bytes
    figure.savefig(pdf, metadata={"CreationDate": None})
    numbers.to_csv(csv, index=False)
    return [png, pdf, csv]
