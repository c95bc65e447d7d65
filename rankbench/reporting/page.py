"""The page of a report: one HTML file with all in it, what is resolved and what is missing first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from rankbench.analysis.comparison import KIND_OF
from rankbench.analysis.labels import UNKNOWN
from rankbench.reporting.plotting import ArmStyle, SavedFigure
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.sections.setup import facts
from rankbench.reporting.table import Cell, Table, is_numeric
from rankbench.statistics.decision import OUTCOMES
from rankbench.studies.panels import Panel, StudyRun

STYLE = Path(__file__).with_name("page.css")
RECORDS = "records"  # anchor of the section that every cell leads to


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        anchor: its name on the page.
        title: one line.
        sentences: before its tables and figures.
        blocks: tables and figures, in order.
    """

    anchor: str
    title: str
    sentences: Sequence[str] = ()
    blocks: list[Table | SavedFigure] = field(default_factory=list)


def render(report_data: ReportData, sections: Sequence[Section]) -> str:
    """Return the HTML of the whole page."""
    declared = report_data.study.sweep.experiment
    name = report_data.study.sweep.name
    title = report_data.study.title
    head = element(
        "head",
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',  # or browsers ask for one
        element("title", escape(f"{name}: report")),
        element("style", STYLE.read_text()),
    )
    header = element(
        "header",
        element("p", escape(f"rankbench report: {name}"), class_="kicker"),
        element("h1", escape(title)),
        element("p", escape(declared.source), class_="source") if declared else "",
        _facts(report_data),
    )
    links = [element("a", escape(section.title), href=f"#{section.anchor}") for section in sections]
    links.append(element("a", "Records", href=f"#{RECORDS}"))
    body = [
        header,
        element("nav", *links),
        element("main", *section_elements(report_data, sections), _records(report_data)),
    ]
    return f'<!DOCTYPE html>\n<html lang="en">{head}{element("body", *body)}</html>\n'


def section_elements(report_data: ReportData, sections: Sequence[Section]) -> Iterator[str]:
    """Yield the HTML of each section."""
    for section in sections:
        blocks = [
            figure_element(block) if isinstance(block, SavedFigure) else table_element(block, report_data.styles)
            for block in section.blocks
        ]
        yield element(
            "section",
            element("h2", escape(section.title)),
            paragraphs(section.sentences, "lead"),
            *blocks,
            id=section.anchor,
        )


def _facts(report_data: ReportData) -> str:
    pairs = [
        element("div", element("dt", escape(name)), element("dd", escape(value))) for name, value in facts(report_data)
    ]
    return element("dl", *pairs)


def _records(report_data: ReportData) -> str:
    """Every run by panel and arm, with the command that does it again alone."""
    blocks = [_of_panel(report_data, panel) for panel in report_data.panels]
    lead = "Every run, by arm; each command does one again, alone."
    return element("section", element("h2", "Records"), paragraphs([lead], "lead"), *blocks, id=RECORDS)


def _of_panel(report_data: ReportData, panel: Panel) -> str:
    good = sum(run.status == "ok" for run in panel.runs)
    summary = f"{panel.short}: {good} of {len(panel.runs)} runs ok"
    summary += f", {len(panel.trials)} tuning trials" if panel.trials else ""
    return element("details", element("summary", escape(summary)), *(_of_arm(panel, arm) for arm in panel.arms))


def _of_arm(panel: Panel, arm: str) -> str:
    heads = "".join(
        element("th", title, scope="col") for title in ("seed", "status", escape(panel.metric), "run", "command")
    )
    runs = [_row(run, panel.metric) for run in panel.runs if run.arm == arm]
    trials = [_row(run, panel.metric) for run in panel.trials if run.arm == arm]
    body = element("table", element("thead", element("tr", heads)), element("tbody", *runs, *trials), class_="runs")
    return element("div", element("h4", escape(arm)), element("div", body, class_="scroll"), id=link(panel, arm))


def _row(run: StudyRun, metric: str) -> str:
    split, _, name = metric.partition("/")
    measured = ((run.record.metrics or {}).get(split) or {}).get(name) if run.record else None
    reason = f": {run.record.reason}" if run.record and run.record.reason else ""
    status = ("trial, " if run.job.trial else "") + run.status + reason
    cells = [
        element("td", "?" if run.seed is None else str(run.seed)),
        element("td", escape(status), class_=None if run.status == "ok" else "lost"),
        element("td", "" if measured is None else f"{measured:.6g}", class_="number"),
        element("td", element("code", run.job.run_id)),
        element("td", element("code", escape(command(run)))),
    ]
    return element("tr", *cells)


def command(run: StudyRun) -> str:
    """What one types to do a run again, alone."""
    return f"python -m rankbench {shlex.join(run.job.overrides)}"


MINUS = re.compile(r"(?<![\w.])-(?=\d)")
STRIP = 170  # pixels, width of the drawing of an interval
WORDS = 44  # letters of a cell, more are broken into lines
LINE = 20  # pixels, its height
FINDINGS = (*OUTCOMES, *KIND_OF.values(), "untested", "reference")


def element(tag: str, *content: str, **attributes: str | None) -> str:
    """An element; its content is HTML already. `class_` and `for_` lose their last letter, hyphens are underscores."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{''.join(content)}</{tag}>"


def paragraphs(sentences: Iterable[str], class_: str | None = None) -> str:
    """One each."""
    return "".join(element("p", escape(sentence), class_=class_) for sentence in sentences)


def figure_element(picture: SavedFigure) -> str:
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


def table_element(table: Table, styles: Mapping[str, ArmStyle]) -> str:
    """A table with title and notes; the intervals of its strip column are drawn beside them."""
    right = [is_numeric(table, index) for index in range(len(table.columns))]
    heads = [
        element("th", escape(title), scope="col", class_="number" if right[index] else None)
        for index, title in enumerate(table.columns)
    ]
    rows = [[_cell(cell, index, right[index], styles) for index, cell in enumerate(row)] for row in table.rows]
    if table.strip is not None and _ends(table):
        heads.insert(table.strip + 1, element("th", "", scope="col", aria_label="interval, drawn"))
        for cells, strip in zip(rows, _strips(table, styles), strict=True):
            cells.insert(table.strip + 1, element("td", strip, class_="strip"))
    body = "".join(element("tr", *cells) for cells in rows)
    grid = element("table", element("thead", element("tr", *heads)), element("tbody", body))
    whole = [
        element("div", grid, class_="scroll") if table.rows else "",
        paragraphs(table.notes, "note"),
        paragraphs([f"tables/{table.name}.csv, .tex"], "files"),
    ]
    name = f"table-{table.name}"
    if table.folded:
        return element("details", element("summary", escape(table.title), class_="title"), *whole, id=name)
    return element("figure", element("figcaption", escape(table.title), class_="title"), *whole, id=name)


def _cell(cell: Cell, column: int, right: bool, styles: Mapping[str, ArmStyle]) -> str:
    text = escape(MINUS.sub("\N{MINUS SIGN}", cell.text) if cell.value is not None else cell.text)
    if cell.strong and text:
        text = element("strong", text)
    if cell.kind in FINDINGS:
        text = element("span", text, class_=f"finding {cell.kind.replace(' ', '-')}")
    if cell.link and text:
        text = element("a", text, href=f"#{cell.link}")
    if cell.text in styles:
        text = (
            element(
                "span",
                "",
                class_="swatch",
                title=styles[cell.text].title,
                style=f"background:{styles[cell.text].colour}",
            )
            + text
        )
    kind = "number" if right else "words" if len(cell.text) > WORDS else None
    return element("td" if column else "th", text, class_=kind, scope=None if column else "row")


def _ends(table: Table) -> list[float]:
    """All that has to find room on the axis of the strips; empty where no cell has an interval or a value."""
    cells = [row[table.strip] for row in table.rows] if table.strip is not None else []
    ends = [end for cell in cells for end in (cell.value, cell.low, cell.high) if end is not None]
    return [*ends, 0.0, *((table.margin, -table.margin) if table.margin else ())] if ends else []


def _strips(table: Table, styles: Mapping[str, ArmStyle]) -> list[str]:
    """Each row's interval on one axis, with 0 and the margin."""
    ends = _ends(table)
    low, width = min(ends), (max(ends) - min(ends)) or 1.0

    def x(value: float) -> str:
        return f"{6 + (STRIP - 12) * (value - low) / width:.1f}"

    ground = ""
    if table.margin:
        wide = float(x(table.margin)) - float(x(-table.margin))
        ground = f'<rect x="{x(-table.margin)}" width="{wide:.1f}" height="{LINE}" class="margin"/>'
    ground += f'<line x1="{x(0)}" x2="{x(0)}" y2="{LINE}" class="zero"/>'
    marks = [_marks(row[table.strip or 0], styles.get(row[0].text), x) for row in table.rows]
    return [f'<svg width="{STRIP}" height="{LINE}" aria-hidden="true">{ground}{mark}</svg>' for mark in marks]


def _marks(cell: Cell, style: ArmStyle | None, x: Callable[[float], str]) -> str:
    """An interval and its middle."""
    colour, y = style.colour if style else UNKNOWN, LINE // 2
    line = ""
    if cell.low is not None and cell.high is not None:
        ends = f'x1="{x(cell.low)}" x2="{x(cell.high)}" y1="{y}" y2="{y}"'
        line = f'<line {ends} stroke="{colour}" stroke-width="2"/>'
    return line + ("" if cell.value is None else f'<circle cx="{x(cell.value)}" cy="{y}" r="3.5" fill="{colour}"/>')
