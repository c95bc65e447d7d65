"""Tables for a paper: LaTeX at the width of a column, in 8 or 9 points; what is too wide is broken, not shrunk.

`tables/NAME.tex` is a float for a paper to read; paper.tex prints all of them. Widths are measured in
Times, the type of NeurIPS and ICML.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from scipy import optimize

from rankbench.reporting.latex_text import escape, measure, wrap
from rankbench.reporting.table import Cell, Table, csv_frame, is_numeric, with_minus_signs

POINTS = 72.27  # TeX's points of an inch
WIDTHS = {"neurips": (5.5,), "icml": (3.25, 6.75)}  # inches: of a column, and of a page that has two
SIZES = {9: r"\small", 8: r"\footnotesize"}  # in a class of 10 points
SEPARATION = 4  # points, on either side of a column
HEIGHT = 620  # points, of the rows and the caption of one float
LEADING = 1.25  # from line to line, of the size
LINES = 3  # of a cell; a table that needs more in a column of two goes over the page
CAPTION = 10  # points
TIED = re.compile(r" (?=[±=%↑↓])|(?<=[±=]) |(?<=%) (?=CI)")  # blanks of "0.1 ± 0.2", "M = 4", "95 %" and "KL ↑"
FIRST = ("all", "results", "verdict", "over", "tasks")  # tables of the results come first in paper.tex


@dataclass(frozen=True)
class Layout:
    """How a table is set.

    Attributes:
        size: of the type, in points.
        page: whether it spans both columns of a page.
        blocks: columns of the parts that stand below each other; each has the first column.
        widths: width of each column, in points.
        broken: columns whose cells are broken into lines.
    """

    size: int
    page: bool
    blocks: list[list[int]]
    widths: list[float]
    broken: frozenset[int]


@dataclass(frozen=True)
class Block:
    """Lines of one tabular: its column specification, its head, its rows."""

    columns: str
    head: list[str]
    rows: list[str]


def write_tables(tables: Iterable[Table], folder: Path, title: str, venue: str = "neurips") -> list[Path]:
    """Write CSV and LaTeX of every table that has rows, and paper.tex beside them; return the files of tables/.

    Of tables that are `filed` there is the CSV alone.
    """
    written = sorted((table for table in tables if table.rows), key=_place)
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    files = []
    for table in written:
        tex, csv = (folder / "tables" / f"{table.name}{suffix}" for suffix in (".tex", ".csv"))
        csv_frame(table).to_csv(csv, index=False)
        files.append(csv)
        if not table.filed:
            tex.write_text(latex_table(table, venue))
            files.append(tex)
    printed = [table.name for table in written if not table.filed]
    (folder / "paper.tex").write_text(latex_document(printed, title, venue))
    return files


def _place(table: Table) -> int:
    kind = table.name.partition("-")[0]
    return FIRST.index(kind) if kind in FIRST else len(FIRST)


def latex_document(names: Sequence[str], title: str, venue: str = "neurips") -> str:
    """A document that prints tables/NAME.tex of each name, on pages of the venue."""
    column, *page = WIDTHS[venue]
    return _template("paper.tex").render(
        names=names, title=title, venue=venue, two_columns=bool(page), text_width=[column, *page][-1]
    )


def latex_table(table: Table, venue: str = "neurips") -> str:
    """A float, or several that continue each other; its label is the table's name."""
    groups, short = _grouped(_for_paper(table))
    layout = lay_out(short, WIDTHS[venue])
    caption = " ".join(["", *table.legend, *table.notes])
    available = WIDTHS[venue][-1 if layout.page else 0] * POINTS
    rest = HEIGHT - 1.2 * CAPTION * len(wrap(f"Table 1: {table.title} {caption}", available, CAPTION))
    parts = [
        [_block(short, layout, columns, rows, groups) for columns in layout.blocks]
        for rows in _floats(short, layout, max(rest, HEIGHT / 4), groups)
    ]
    return _template("table.tex").render(
        parts=parts,
        environment="table*" if layout.page else "table",
        name=table.name,
        title=escape(table.title) + ("" if table.title.endswith("?") else "."),
        caption=escape(caption),
        size=SIZES[layout.size],
        separation=SEPARATION,
    )


def lay_out(table: Table, widths: Sequence[float]) -> Layout:
    """Fit a table: in larger type, in smaller type, with broken words, over the page, in blocks of columns.

    `widths`: inches of a column, and of the page where it has two.
    """
    every = list(range(len(table.columns)))
    numbers = [index for index in every if is_numeric(table, index)]
    for page, inches in enumerate(widths):
        available = inches * POINTS
        for size in SIZES:
            natural = [_natural(table, index, size) for index in every]
            if _total(natural) <= available:
                return Layout(size, page > 0, [every], natural, frozenset())
        for fixed in (numbers, []):
            fitted = _fitted(table, natural, available, size, fixed)
            if not fitted:
                continue
            deepest = max((_height(row, every, fitted, size) for row in table.rows), default=1)
            if page == len(widths) - 1 or deepest <= LINES:
                broken = frozenset(index for index in every if fitted[index] < natural[index])
                return Layout(size, page > 0, [every], fitted, broken)
    narrow = [min(width, (available - 2 * SEPARATION) / 2) for width in natural]
    broken = frozenset(index for index in every if narrow[index] < natural[index])
    return Layout(size, len(widths) > 1, list(_split(narrow, available)), narrow, broken)


def _for_paper(table: Table) -> Table:
    """The table without details, and without columns that say nothing."""
    titles = [title[:1].upper() + title[1:] if len(title) > 1 else title for title in map(_tied, table.columns)]
    kept = [
        index
        for index, title in enumerate(table.columns)
        if title not in table.details and any(row[index].text for row in table.rows)
    ]
    rows = [[row[index] for index in kept] for row in table.rows]
    return Table(table.name, table.title, [titles[index] for index in kept], rows)


def _grouped(table: Table) -> tuple[list[str], Table]:
    """Titles that rows share in their first column, which heads them then; one per row, [] where they share none."""
    titles = [row[0].text for row in table.rows]
    starts = [index for index, title in enumerate(titles) if index == 0 or titles[index - 1] != title]
    if len(table.columns) < 3 or len(starts) == len(titles) or len(starts) > len(set(titles)):
        return [], table
    return titles, Table(table.name, table.title, table.columns[1:], [row[1:] for row in table.rows])


def _total(widths: Sequence[float]) -> float:
    return sum(widths) + 2 * SEPARATION * (len(widths) - 1)


def _natural(table: Table, index: int, size: int) -> float:
    """Width of a column whose cells are on one line, its head on three at most."""
    cells = max((measure(_text(row[index]), size, row[index].strong) for row in table.rows), default=0.0)
    head, width = table.columns[index], max(cells, _longest(table.columns[index], size))
    while len(wrap(head, width, size)) > LINES:
        width += size
    return width


def _longest(text: str, size: int, bold: bool = False) -> float:
    """Width of the widest part of a text that is not broken."""
    return max((measure(word, size, bold) for word in text.split(" ")), default=0.0)


def _fitted(
    table: Table, natural: Sequence[float], available: float, size: int, fixed: Sequence[int]
) -> list[float] | None:
    """Widths with which the table is as wide as there is room: the widest columns give first; None: it cannot be.

    `natural`: widths without breaks; `fixed`: columns that are not broken.
    """
    least = list(natural)
    for index in set(range(len(natural))) - set(fixed):
        words = [_longest(_text(row[index]), size, row[index].strong) for row in table.rows]
        least[index] = max([*words, _longest(table.columns[index], size)])
    if _total(least) > available:
        return None
    widest = optimize.brentq(lambda cap: _total(np.clip(cap, least, natural)) - available, 0.0, max(natural))
    return [float(width) for width in np.clip(widest, least, natural)]


def _height(row: Sequence[Cell], columns: Iterable[int], widths: Sequence[float], size: int) -> int:
    """Lines of a row."""
    return max(len(wrap(_text(row[index]), widths[index], size, row[index].strong)) for index in columns)


def _split(widths: Sequence[float], available: float) -> Iterator[list[int]]:
    """Blocks of columns that fit; each has the first one."""
    block = [0]
    for index in range(1, len(widths)):
        if len(block) > 1 and _total([widths[each] for each in [*block, index]]) > available:
            yield block
            block = [0]
        block.append(index)
    yield block


def _floats(table: Table, layout: Layout, room: float, groups: Sequence[str]) -> Iterator[list[int]]:
    """Rows of each float, whose heads and rows have `room` points; with more blocks of columns it has fewer rows."""
    lines = []
    for index, row in enumerate(table.rows):
        is_first = bool(groups) and (index == 0 or groups[index] != groups[index - 1])
        own = sum(_height(row, columns, layout.widths, layout.size) for columns in layout.blocks)
        lines.append(own + (2 * is_first + 0.2 * bool(layout.broken)) * len(layout.blocks))
    heads = (LINES + 2) * len(layout.blocks)  # and rules, and a group's name again
    most = max(1.0, room / (LEADING * layout.size) - heads)  # a row where there is no room at all
    share = sum(lines) / math.ceil(sum(lines) / most)  # of each float: none is left with a row or two
    rows: list[int] = []
    used = 0.0
    for index, needed in enumerate(lines):
        if rows and (used >= share or used + needed > most):
            yield rows
            rows, used = [], 0.0
        rows.append(index)
        used += needed
    yield rows


def _block(table: Table, layout: Layout, columns: Sequence[int], rows: Sequence[int], groups: Sequence[str]) -> Block:
    aligned = [_column(table, layout, index) for index in columns]
    heads = [wrap(table.columns[index], layout.widths[index], layout.size) for index in columns]
    deepest = max(map(len, heads))
    lines = [[""] * (deepest - len(head)) + head for head in heads]
    width = _total([layout.widths[index] for index in columns])
    body = []
    for place, index in enumerate(rows):
        if groups and (place == 0 or groups[index] != groups[index - 1]):
            title = (
                rf"\multicolumn{{{len(columns)}}}{{@{{}}p{{{width:.1f}pt}}@{{}}}}{{\emph{{{escape(groups[index])}}}}}"
            )
            body += [r"\addlinespace"] * (place > 0) + [title + r" \\"]
        elif place and layout.broken:
            body.append(r"\addlinespace[1.5pt]")
        body.append(_line([_latex_cell(table.rows[index][column]) for column in columns]))
    return Block("".join(aligned), [_line(map(escape, line)) for line in zip(*lines, strict=True)], body)


def _column(table: Table, layout: Layout, index: int) -> str:
    number = is_numeric(table, index)
    if index not in layout.broken:
        return "r" if number else "l"
    side = "left" if number else "right"
    return rf">{{\ragged{side}\arraybackslash\hspace{{0pt}}}}p{{{layout.widths[index]:.1f}pt}}"


def _line(texts: Iterable[str]) -> str:
    return "{}" + " & ".join(texts) + r" \\"  # a line that begins with a bracket would be an argument of \\


def _latex_cell(cell: Cell) -> str:
    text = escape(_text(cell))
    text = rf"\textcolor[gray]{{0.5}}{{{text}}}" if cell.muted and text else text
    return rf"\textbf{{{text}}}" if cell.strong and text else text


def _text(cell: Cell) -> str:
    """Text of a cell with minus signs; an interval has no breaks."""
    text = with_minus_signs(_tied(cell.text))
    return text if cell.value is None else text.replace(", ", ",\N{NO-BREAK SPACE}")


def _tied(text: str) -> str:
    """A text without breaks between a number and what belongs to it."""
    return TIED.sub("\N{NO-BREAK SPACE}", text)


@functools.cache
def _template(name: str) -> jinja2.Template:
    """A template with delimiters that LaTeX does not have."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        block_start_string="((*",
        block_end_string="*))",
        variable_start_string="(((",
        variable_end_string=")))",
        comment_start_string="((=",
        comment_end_string="=))",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # LaTeX is no HTML: `escape` does it
    )
    return environment.get_template(name)
