"""Tables and figures as HTML: escaped, no script, nothing that is fetched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from html import escape

from rankbench.analysis.labels import UNKNOWN
from rankbench.drawing import Look, Picture
from rankbench.sheet import Cell, Sheet, numeric

MINUS = re.compile(r"(?<![\w.])-(?=\d)")
STRIP = 170  # pixels, width of the drawing of an interval
WORDS = 44  # letters of a cell, more are broken into lines
LINE = 20  # pixels, its height
FINDINGS = ("better", "worse", "differs", "tie", "unresolved", "unresolvable", "untested", "reference")


def element(tag: str, *content: str, **attributes: str | None) -> str:
    """An element; its content is HTML already. `class_` and `for_` lose their last letter, hyphens are underscores."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{given}>{''.join(content)}</{tag}>"


def paragraphs(sentences: Iterable[str], class_: str | None = None) -> str:
    """One each."""
    return "".join(element("p", escape(sentence), class_=class_) for sentence in sentences)


def figure(picture: Picture) -> str:
    """A figure with its title, and where its files are."""
    named = picture.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(picture.title)}" ', 1)
    return element(
        "figure",
        element("figcaption", escape(picture.title), class_="title"),
        element("div", named, class_="scroll"),
        paragraphs([picture.note], "note"),
        paragraphs([f"figures/{picture.name}.pdf, .png, .csv"], "files"),
        id=f"figure-{picture.name}",
    )


def table(sheet: Sheet, looks: Mapping[str, Look]) -> str:
    """A table with title and notes; the intervals of its strip column are drawn beside them."""
    right = [numeric(sheet, place) for place in range(len(sheet.columns))]
    heads = [
        element("th", escape(title), scope="col", class_="number" if right[place] else None)
        for place, title in enumerate(sheet.columns)
    ]
    rows = [[_cell(cell, place, right[place], looks) for place, cell in enumerate(row)] for row in sheet.rows]
    if sheet.strip is not None and _ends(sheet):
        heads.insert(sheet.strip + 1, element("th", "", scope="col", aria_label="interval, drawn"))
        for cells, drawn in zip(rows, _strips(sheet, looks), strict=True):
            cells.insert(sheet.strip + 1, element("td", drawn, class_="strip"))
    body = "".join(element("tr", *cells) for cells in rows)
    grid = element("table", element("thead", element("tr", *heads)), element("tbody", body))
    whole = [
        element("div", grid, class_="scroll") if sheet.rows else "",
        paragraphs(sheet.notes, "note"),
        paragraphs([f"tables/{sheet.name}.csv, .tex"], "files"),
    ]
    name = f"table-{sheet.name}"
    if sheet.folded:
        return element("details", element("summary", escape(sheet.title), class_="title"), *whole, id=name)
    return element("figure", element("figcaption", escape(sheet.title), class_="title"), *whole, id=name)


def _cell(cell: Cell, place: int, right: bool, looks: Mapping[str, Look]) -> str:
    text = escape(MINUS.sub("\N{MINUS SIGN}", cell.text) if cell.value is not None else cell.text)
    if cell.strong and text:
        text = element("strong", text)
    if cell.kind in FINDINGS:
        text = element("span", text, class_=f"finding {cell.kind}")
    if cell.link and text:
        text = element("a", text, href=f"#{cell.link}")
    if cell.text in looks:
        text = element("span", "", class_="swatch", style=f"background:{looks[cell.text].colour}") + text
    kind = "number" if right else "words" if len(cell.text) > WORDS else None
    return element("td" if place else "th", text, class_=kind, scope=None if place else "row")


def _ends(sheet: Sheet) -> list[float]:
    """All that has to find room on the axis of the strips; empty where no cell has an interval or a value."""
    cells = [row[sheet.strip] for row in sheet.rows] if sheet.strip is not None else []
    found = [end for cell in cells for end in (cell.value, cell.low, cell.high) if end is not None]
    return [*found, 0.0, *((sheet.margin, -sheet.margin) if sheet.margin else ())] if found else []


def _strips(sheet: Sheet, looks: Mapping[str, Look]) -> list[str]:
    """Each row's interval on one axis, with 0 and the margin."""
    ends = _ends(sheet)
    low, width = min(ends), (max(ends) - min(ends)) or 1.0

    def x(value: float) -> str:
        return f"{6 + (STRIP - 12) * (value - low) / width:.1f}"

    ground = ""
    if sheet.margin:
        wide = float(x(sheet.margin)) - float(x(-sheet.margin))
        ground = f'<rect x="{x(-sheet.margin)}" width="{wide:.1f}" height="{LINE}" class="margin"/>'
    ground += f'<line x1="{x(0)}" x2="{x(0)}" y2="{LINE}" class="zero"/>'
    marks = [_marks(row[sheet.strip or 0], looks.get(row[0].text), x) for row in sheet.rows]
    return [f'<svg width="{STRIP}" height="{LINE}" aria-hidden="true">{ground}{drawn}</svg>' for drawn in marks]


def _marks(cell: Cell, look: Look | None, x: Callable[[float], str]) -> str:
    """An interval and its middle."""
    colour, y = look.colour if look else UNKNOWN, LINE // 2
    line = ""
    if cell.low is not None and cell.high is not None:
        ends = f'x1="{x(cell.low)}" x2="{x(cell.high)}" y1="{y}" y2="{y}"'
        line = f'<line {ends} stroke="{colour}" stroke-width="2"/>'
    return line + ("" if cell.value is None else f'<circle cx="{x(cell.value)}" cy="{y}" r="3.5" fill="{colour}"/>')
