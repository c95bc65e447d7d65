"""What all figures of a report share: their style, the look of an arm, files and inline SVG.

Panels, direct labels and legends: rankbench.reporting.figures.layout.
"""

from __future__ import annotations

import functools
import io
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import matplotlib.style
import pandas as pd
from fontTools import subset  # type: ignore[import-untyped]
from matplotlib import font_manager
from matplotlib.figure import Figure

from rankbench.analysis.labels import display, method_of
from rankbench.studies.panels import Panel, methods_of

COLUMN, PAGE, WIDE = 3.25, 5.5, 7.0  # inches: a column, a page of one column, a page of two
TEXT, SMALL = 7.5, 7.0  # points, at print size
SCREEN = 1.7  # pixels of a page per point: text has 12 to 13
DPI = 200
INK, SOFT, GREY, BAND = "#222222", "#444444", "#8a8a8a", "#ececec"
MARKERS = "osD^vP*X<>phd"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
SANS = "Report Sans"
LETTERS = (*range(32, 127), *map(ord, "\N{MINUS SIGN}\N{EN DASH}±·…←→↑↓≤≥αβλσΔ√₀₁₂"))
STYLE: dict[str, Any] = {
    "font.family": [SANS, "DejaVu Sans"],  # the second has the letters that the first lacks
    "font.size": TEXT,
    "text.color": INK,
    "axes.titlesize": TEXT,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 3,
    "axes.titley": 1.0,  # the place is not searched for
    "axes.labelsize": SMALL,
    "axes.labelcolor": SOFT,
    "axes.labelpad": 2,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.6,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "lines.markeredgewidth": 0.8,
    "pdf.fonttype": 42,  # journals refuse Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    **{f"{axis}tick.{key}": value for axis in "xy" for key, value in (("labelsize", SMALL), ("labelcolor", SOFT))},
    **{f"{axis}tick.major.{key}": value for axis in "xy" for key, value in (("size", 0), ("pad", 2.5))},
}
P = ParamSpec("P")
R = TypeVar("R")


def own_style(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that draws or writes: it does so in this style, whatever a user's matplotlibrc says."""

    @functools.wraps(function)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        _register_font()
        with matplotlib.style.context(["default", STYLE]):
            return function(*args, **kwargs)

    return in_style


@dataclass(frozen=True)
class ReportFigure:
    """A drawn figure, the stem of its files' names, the numbers for its CSV, and sentences on how to read it."""

    name: str
    title: str
    figure: Figure
    numbers: pd.DataFrame
    note: str


Sketch = Callable[[], ReportFigure | None]  # draws when it is called; None: there is nothing to draw


@dataclass(frozen=True)
class SavedFigure:
    """A figure that is written: as an element of the page, and as PNG, PDF and CSV."""

    name: str
    title: str
    note: str
    svg: str
    files: list[Path]


def finish(sketch: Sketch, folder: Path) -> SavedFigure | None:
    """Draw, and write the files; None where there is nothing to draw."""
    figure = drawn(sketch)
    if figure is None:
        return None
    files = write(figure.figure, figure.numbers, folder / figure.name)
    return SavedFigure(figure.name, figure.title, figure.note, svg(figure.figure, figure.name), files)


@own_style
def drawn(sketch: Sketch) -> ReportFigure | None:
    """Draw in the style of all figures; None where there is nothing to draw."""
    return sketch()


@functools.cache
def _register_font() -> tempfile._TemporaryFileWrapper[bytes]:
    """Offer matplotlib's own sans serif with few letters, under SANS: a PDF embeds it in a quarter of the time."""
    options = subset.Options(layout_features=[], drop_tables=["FFTM", "GSUB", "GPOS", "GDEF", "kern"])
    font = subset.load_font(font_manager.findfont("DejaVu Sans"), options)
    letters = subset.Subsetter(options)
    letters.populate(unicodes=LETTERS)
    letters.subset(font)
    for name in font["name"].names:
        name.string = {6: SANS.replace(" ", "")}.get(name.nameID, SANS)
    file = tempfile.NamedTemporaryFile(prefix="rankbench-", suffix=".ttf")  # noqa: SIM115  # open until the end
    font.save(file.name)
    font.close()
    font_manager.fontManager.addfont(file.name)
    return file


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn, in matplotlib's notation: arms of one method have its colour and differ in all else."""

    colour: str
    marker: str
    dash: Any
    hollow: bool = False

    @property
    def points(self) -> dict[str, Any]:
        """Keywords of matplotlib for its markers."""
        return {"marker": self.marker, "color": self.colour, "mfc": "white" if self.hollow else self.colour}

    @property
    def line(self) -> dict[str, Any]:
        """Keywords of matplotlib for its line, with markers."""
        return {**self.points, "ls": self.dash}


def arm_styles(panels: Sequence[Panel]) -> dict[str, ArmStyle]:
    """Arm -> its style, the same in all figures of a report.

    The first arm of a method has the marker that its YAML says, in every report, the others those that are free. A map
    that was taken over from a method's run ("fim map") has that method's colour.
    """
    methods = methods_of(panels)
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.arms))
    members: dict[str, list[str]] = {}
    for arm in arms:
        members.setdefault(_drawn_as(arm, methods.get(arm, arm)), []).append(arm)
    markers = {same[0]: display(method).marker for method, same in members.items() if display(method).marker}
    for arm in arms:
        free = [marker for marker in MARKERS if marker not in markers.values()]
        markers.setdefault(arm, free[0] if free else MARKERS[len(markers) % len(MARKERS)])
    styles = {}
    for method, same in members.items():
        for index, arm in enumerate(same):
            dash = DASHES[index % len(DASHES)]
            hollow = (index + index // len(DASHES)) % 2 == 1
            styles[arm] = ArmStyle(display(method).colour, markers[arm], dash, hollow)
    return {arm: styles[arm] for arm in arms}


def _drawn_as(arm: str, method: str) -> str:
    """The method whose colour an arm has."""
    source = arm.removesuffix(" map")
    return source if method == "transplant" and display(method_of(source)).title else method


Styles = Mapping[str, ArmStyle]


@own_style
def write(figure: Figure, numbers: pd.DataFrame, stem: Path) -> list[Path]:
    """Write PNG, PDF and CSV beside each other; the same content gives the same files."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, pdf, csv = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf", "csv"))
    figure.savefig(png, dpi=DPI, pil_kwargs={"compress_level": 3})  # half the time for a tenth more bytes
    figure.savefig(pdf, metadata={"CreationDate": None})
    numbers.to_csv(csv, index=False)
    return [png, pdf, csv]


@own_style
def svg(figure: Figure, prefix: str) -> str:
    """The figure as an element of an HTML page: text stays text; ids begin with `prefix`; nothing points outside."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": prefix}):
        figure.savefig(target, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href").replace(f"'{SANS}', 'DejaVu Sans'", "sans-serif")
    text = re.sub(r'\b(width|height)="([\d.]+)pt"', lambda size: f'{size[1]}="{float(size[2]) * SCREEN:.0f}"', text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return re.sub(r'(<g|<image\b[^>]*) id="[^"]*"(?=[ />])', r"\g<1>", text)  # nothing refers to them; images repeat
