"""A table as data: cells with their text, the numbers behind it, and where the records of a cell are listed.

Markdown, LaTeX, CSV and HTML are written from the same cells, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from rankbench.analysis.frame import markdown as markdown_of


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: as it is shown, everywhere the same.
        value: the number it shows; None for words, and where nothing was measured.
        low, high: ends of its interval.
        strong: bold: the corrected test says so.
        kind: of a finding ("better", "tie"), for its colour on the page.
        link: name of the list of its records, on the page.
    """

    text: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    strong: bool = False
    kind: str = ""
    link: str = ""


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        name: of its files.
        title: one line.
        columns: their titles.
        rows: as many cells each as there are columns; the first names the row.
        notes: sentences under it.
        strip: place of the column whose intervals are drawn as well, on the page; None: none is.
        margin: half the width of the band around 0 of that drawing; None: no band.
        folded: closed on the page until it is asked for, since others like it come before or after.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default=())
    strip: int | None = None
    margin: float | None = None
    folded: bool = False


def numeric(sheet: Sheet, column: int) -> bool:
    """Whether a column holds numbers, words among them or not."""
    return any(row[column].value is not None for row in sheet.rows)


def without_first(sheet: Sheet) -> Sheet:
    """The sheet without its first column: the panel, where there is one alone."""
    strip = None if sheet.strip is None else sheet.strip - 1
    return replace(sheet, columns=list(sheet.columns)[1:], rows=[list(row)[1:] for row in sheet.rows], strip=strip)


def markdown(sheet: Sheet) -> str:
    """A Markdown table, bold where a cell is strong; without title and notes."""
    texts = [[_marked(cell) for cell in row] for row in sheet.rows]
    return markdown_of(pd.DataFrame(texts, columns=list(sheet.columns)))


def section(sheet: Sheet) -> str:
    """Title, table and notes in Markdown."""
    return "\n\n".join([f"## {sheet.title}", *([markdown(sheet)] if sheet.rows else []), *sheet.notes])


def numbers(sheet: Sheet) -> pd.DataFrame:
    """Of a CSV: a column's values where it has any, its texts where not; the ends of intervals in columns beside it."""
    found: dict[str, list[str | float | None]] = {}
    for place, title in enumerate(sheet.columns):
        cells = [row[place] for row in sheet.rows]
        valued = any(cell.value is not None for cell in cells)
        found[title] = [cell.value if valued else cell.text for cell in cells]
        if any(cell.low is not None for cell in cells):
            found[f"{title}, low"] = [cell.low for cell in cells]
            found[f"{title}, high"] = [cell.high for cell in cells]
    return pd.DataFrame(found)


def _marked(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    return f"**{text}**" if cell.strong and text else text
