"""A table as data: cells with their text, the numbers behind it, and where the records of a cell are listed.

Markdown, CSV, LaTeX (rankbench.reporting.paper_tables) and HTML are written from the same cells, so they cannot
disagree.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from rankbench.analysis.labels import arm_title
from rankbench.terminal import markdown


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: its text, the same in every format.
        value: the number it shows; None for words, and where nothing was measured.
        low, high: ends of its interval.
        strong: bold: its interval says so.
        kind: kind of a finding ("works", "open"), for its colour on the page.
        link: name of the list of its records, on the page.
        arm: label of the arm that its text names; "" for other cells.
        muted: grey: the number is not to be compared.
    """

    text: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    strong: bool = False
    kind: str = ""
    link: str = ""
    arm: str = ""
    muted: bool = False


def count_statuses(statuses: Iterable[str]) -> str:
    """How many runs of each status, the most frequent first: "3 ok, 1 nan"."""
    return ", ".join(f"{count} {status}" for status, count in Counter(statuses).most_common())


def arm_cell(arm: str, link: str = "") -> Cell:
    """An arm by its display name."""
    return Cell(arm_title(arm), link=link, arm=arm)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: stem of its files' names.
        title: one line.
        columns: titles of the columns.
        rows: lists of cells, one per column; the first cell names the row.
        notes: sentences under it.
        strip: place of the column whose intervals are drawn as well, on the page; None: none is.
        margin: half the width of the band around 0 of that drawing; None: no band.
        folded: closed on the page until it is asked for, since others like it come before or after.
        legend: sentences that a reader needs where the table stands alone, in a paper.
        details: titles of columns that a paper leaves out.
        filed: it is a CSV file alone, which the page links: too long to read, and nothing is decided by it.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default=())
    strip: int | None = None
    margin: float | None = None
    folded: bool = False
    legend: Sequence[str] = field(default=())
    details: Sequence[str] = field(default=())
    filed: bool = False


NO_INTERVAL = " (no interval)"  # behind a value that has none
MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def with_minus_signs(text: str) -> str:
    """A text with minus signs before its numbers; the hyphens of names stay."""
    return MINUS.sub("\N{MINUS SIGN}", text)


def is_numeric(table: Table, column: int) -> bool:
    """Whether a column holds numbers, words among them or not."""
    return any(row[column].value is not None for row in table.rows)


def without_first_column(table: Table) -> Table:
    """The table without its first column: the panel, where there is one alone."""
    strip = None if table.strip is None else table.strip - 1
    return replace(table, columns=list(table.columns)[1:], rows=[list(row)[1:] for row in table.rows], strip=strip)


def markdown_table(table: Table) -> str:
    """A Markdown table, bold where a cell is strong; without title and notes."""
    texts = [[f"**{cell.text}**" if cell.strong and cell.text else cell.text for cell in row] for row in table.rows]
    return markdown(table.columns, texts)


def markdown_section(table: Table) -> str:
    """Title, table and notes in Markdown."""
    return "\n\n".join([f"## {table.title}", *([markdown_table(table)] if table.rows else []), *table.notes])


def csv_frame(table: Table) -> pd.DataFrame:
    """Contents of the CSV: a column's values where it has any, else its texts, arms by their labels; ends of intervals.

    Heads lose the arrow of a metric's direction.
    """
    columns: dict[str, list[str | float | None]] = {}
    for index, title in enumerate(table.columns):
        cells = [row[index] for row in table.rows]
        valued = any(cell.value is not None for cell in cells)
        title = title.rstrip(" ↑↓")
        columns[title] = [cell.value if valued else cell.arm or cell.text for cell in cells]
        if any(cell.low is not None for cell in cells):
            columns[f"{title}, low"] = [cell.low for cell in cells]
            columns[f"{title}, high"] = [cell.high for cell in cells]
    return pd.DataFrame(columns)


Column = Mapping[str, Cell]  # label -> cell; what is left out is empty


def linked_rows(columns: Mapping[str, Column], rows: Sequence[str], links: Mapping[str, str]) -> list[list[Cell]]:
    """Rows of a table from its columns; every cell of a label leads to that label's records."""
    return [
        [replace(column.get(label, Cell()), link=links.get(label, "")) for column in columns.values()] for label in rows
    ]


def number_cell(value: float | None, form: str) -> Cell:
    """A number as `form` writes it; an empty cell where nothing was measured."""
    return Cell() if value is None or math.isnan(value) else Cell(form.format(value), float(value))


def interval_cell(
    value: float, low: float | None, high: float | None, form: str, unit: str = "", without: str = NO_INTERVAL
) -> Cell:
    """A number and its interval: "+0.031 [+0.012, +0.050]"; where there is none, what stands in its place."""
    text = f"{value:{form}}{unit}"
    if low is None or high is None:
        return Cell(text + without, value)
    return Cell(f"{text} [{low:{form}}, {high:{form}}]", value, low, high)


def mean_cell(values: pd.Series, digits: int, strong: bool = False, count: str = "") -> Cell:
    """Mean ± standard deviation of some values, and a word on their number."""
    spread = f"± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    text = " ".join(filter(None, [f"{values.mean():.{digits}f}", spread, count]))
    return Cell(text, float(values.mean()), strong=strong)


def number_column(values: pd.Series, form: str) -> Column:
    """A column of numbers."""
    return {str(label): number_cell(value, form) for label, value in values.astype(float).items()}
