"""The page of a report: one HTML file with all in it, whole without scripts; its templates lie in templates/."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from rankbench.analysis.comparison import KIND_OF
from rankbench.analysis.labels import arm_title, metric_title, panel_title
from rankbench.reporting.headline import Headline
from rankbench.reporting.pages.compact_drawings import compact
from rankbench.reporting.plotting import SavedFigure
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.section import Block, Section
from rankbench.reporting.sections.setup import facts
from rankbench.reporting.table import Cell, Table, is_numeric, with_minus_signs
from rankbench.statistics.decision import OUTCOMES
from rankbench.studies.panels import Panel, StudyRun
from rankbench.studies.study_question import question_of

TEMPLATES = Path(__file__).parent.parent / "templates"
FINDINGS = (*OUTCOMES, *KIND_OF.values(), "untested", "reference")
ARMS = 5  # badges of a kind on the first screen; one more does not make a fold
FOREST, MAPS = "forest", "found-against-gain"  # names of figures
SHORT = 3  # rows of a forest plot; with fewer, another figure stands for the study where it has one
LETTER, PADDING, WIDTH = 7.4, 19, 1160  # pixels of a letter of a table, beside a cell, of the page
LEAST, BADGE, LONG, WORDS = 128, 18, 44, 208  # pixels of a name of rows, of a badge; letters and pixels of a sentence
GLOSSARY = {
    "arm": "A line of an experiment: a method with its settings.",
    "panel": "What may be compared: one model, task and budget.",
    "control": "An arm that shows what another arm's score knows: the same ranks at permuted sites, or random ranks.",
    "smallest effect of interest": "The smallest gain that would matter, declared before the runs.",
    "hold together": "The intervals are so wide that all of them cover the true differences with that probability.",
    "worthwhile": "Better than the reference by more than the smallest effect of interest, and than every control.",
    "no worthwhile gain": "Each gain in the interval is smaller than the smallest effect of interest.",
    "open": "The interval leaves it undecided; more seeds may tell.",
    "withheld": "Nothing is said, for the reason given: lost seeds, a learning rate at an edge, no headroom.",
    "headroom": "More budget is shown to help here, so that its allocation can matter at all.",
    "detectable": "The true difference whose interval would leave out 0 with 80 % probability.",
    "sigma_map": "Standard deviation of the true effects of rank maps that are drawn alike.",
    "worth": "The budget at which uniform ranks are as good.",
    "KL": "Kullback-Leibler divergence of the model's answers from the true ones, in nats.",
}


class Explained:
    """Each word of the glossary as a link with its meaning where it comes first on the page."""

    def __init__(self) -> None:
        self._left = dict(GLOSSARY)

    def __call__(self, text: str) -> Markup:
        """The text as HTML."""
        html = escape(text)
        if not self._left:
            return html
        words = "|".join(map(re.escape, sorted(self._left, key=len, reverse=True)))
        return Markup(re.sub(rf"\b(?:{words})\b", lambda match: self._linked(match[0]), html))  # escaped above

    def _linked(self, word: str) -> str:
        meaning = self._left.pop(word, None)
        if meaning is None:
            return word
        return f'<a class="term" href="#word-{word.replace(" ", "-")}" title="{escape(meaning)}">{word}</a>'


@dataclass(frozen=True)
class Column:
    """A column of a table on the page.

    Attributes:
        number: whether it holds numbers.
        first: whether it names the rows.
        strip: the axis on which its intervals are drawn; None: they are not.
    """

    title: str
    number: bool
    first: bool
    strip: StripAxis | None


@dataclass(frozen=True)
class StripAxis:
    """The axis of the intervals that are drawn in a table: from low to high, with 0 and a band around it.

    Attributes:
        margin: half the width of the band; 0 for none.
    """

    low: float
    high: float
    margin: float

    def x(self, value: float) -> str:
        """Position of a value, per cent; one beyond all numbers is at the end."""
        inside = min(max(value, self.low), self.high)
        return f"{4 + 92 * (inside - self.low) / ((self.high - self.low) or 1.0):.1f}"


@dataclass(frozen=True)
class Part:
    """Columns of a table that fit beside each other, and their rows."""

    columns: list[Column]
    rows: list[list[Cell]]


def environment() -> Environment:
    """The templates, with what they need to write names, numbers and figures."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {"findings": FINDINGS, "long": LONG, "styles": {}}
    templates.filters |= {
        "arm_title": arm_title,
        "panel_title": panel_title,
        "metric_title": partial(metric_title, arrow=True, short=True),
        "explained": Explained(),
        "shown": _shown,
        "exact": _exact,
        "drawing": _drawing,
        "parts": parts,
    }
    return templates


def render(report_data: ReportData, sections: Sequence[Section], headline: Headline, records: str) -> str:
    """Return the HTML of the whole page; `records` is the name of the file of records beside it."""
    declared, sweep = report_data.study.sweep.experiment, report_data.study.sweep
    html = (
        environment()
        .get_template("page.html.j2")
        .render(
            name=sweep.name,
            asked="Asked" if declared else "Compared",
            question=question_of(report_data.study, report_data.panels),
            source=declared.source if declared else "",
            records_name=records,
            has_sweep=report_data.study.source is None,
            headline=headline,
            shown_arms=ARMS,
            evidence=_evidence(sections, headline.is_on_settings),
            picture=picture_of(report_data, sections, headline.is_on_settings),
            facts=dict(facts(report_data)),
            sections=sections,
            records=[_records(panel) for panel in report_data.panels],
            styles=report_data.styles,
            glossary=GLOSSARY,
        )
    )
    return re.sub(r"\s*\n\s*", "\n", compact(html))  # templates are indented, the page need not be


def _evidence(sections: Sequence[Section], is_on_settings: bool) -> Sequence[Block]:
    """The first figure of the settings varied where the headline is on them, else the forest plot.

    Without such a figure it is the first table whose intervals are drawn, where there is one.
    """
    figures = _figures(sections, "ablations")[:1] if is_on_settings else []
    figures = figures or [figure for figure in _figures(sections) if figure.name == FOREST]
    blocks = [block for section in sections for block in section.blocks]
    return figures or [block for block in blocks if isinstance(block, Table) and block.strip is not None][:1]


def picture_of(report_data: ReportData, sections: Sequence[Section], is_on_settings: bool) -> str:
    """Name of the figure that shows in small what was found; "" where there is no figure."""
    arms = {arm for _, comparison in report_data.compared() for arm in comparison.rows if arm != comparison.reference}
    varied, every = _figures(sections, "ablations"), _figures(sections)
    forest = [figure for figure in every if figure.name == FOREST]
    maps = [figure for figure in every if figure.name == MAPS]
    first = varied if is_on_settings else forest if len(arms) >= SHORT else []
    return next((figure.name for figure in [*first, *varied, *maps, *forest, *every]), "")


def _figures(sections: Sequence[Section], anchor: str = "") -> list[SavedFigure]:
    """The figures of one section, or of all of them."""
    blocks = (block for section in sections if anchor in ("", section.anchor) for block in section.blocks)
    return [block for block in blocks if isinstance(block, SavedFigure)]


def _shown(cell: Cell) -> str:
    """Text of a cell: numbers with minus signs, broken before an interval alone."""
    if cell.value is None:
        return cell.text
    return re.sub(r" (?![\[(±])", "\N{NO-BREAK SPACE}", with_minus_signs(cell.text))


def _exact(cell: Cell) -> str:
    ends = "" if cell.low is None or cell.high is None else f" [{cell.low:.6g}, {cell.high:.6g}]"
    return f"{cell.value:.6g}{ends}"


NUMBERS = re.compile(r' (?:d|x|y|transform|points)="[^"]*"')


def _drawing(figure: SavedFigure) -> Markup:
    """The figure's own SVG, with its title for those who do not see it; to a hundredth of a point."""
    svg = NUMBERS.sub(lambda attribute: re.sub(r"(\.\d\d)\d+", r"\1", attribute[0]), figure.svg)
    svg = re.sub(r'style="[^"]*"', lambda style: re.sub(r"([:;]) ", r"\1", style[0]), svg)
    label = Markup('<svg role="img" aria-label="{}" ').format(figure.title)
    return Markup(svg.replace("<svg ", label, 1))  # drawn by us: its texts are escaped


def parts(table: Table) -> list[Part]:
    """The table in parts that are no wider than the page; each begins with the column that names the rows."""
    axis, groups, room = _strip_axis(table), [[0]], 0.0
    widths = [_width(table, index) for index in range(len(table.columns))]
    for index in range(1, len(widths)):
        if widths[0] + room + widths[index] > WIDTH and len(groups[-1]) > 1:
            groups.append([0])
            room = 0.0
        groups[-1].append(index)
        room += widths[index]
    return [
        Part(
            [
                Column(
                    table.columns[index], is_numeric(table, index), index == 0, axis if index == table.strip else None
                )
                for index in group
            ],
            [[row[index] for index in group] for row in table.rows],
        )
        for group in groups
    ]


def _width(table: Table, index: int) -> float:
    """The least width of a column, pixels: its longest word, or number."""
    cells, words = [row[index] for row in table.rows], table.columns[index].split()
    for cell in cells:
        words += re.split(r" (?=[\[(±])" if cell.value is not None else " ", cell.text)
    least = LETTER * max(map(len, words), default=0) + BADGE * any(cell.kind in FINDINGS for cell in cells)
    long = any(len(cell.text) > LONG for cell in cells)
    return max(least, LEAST * (index == 0), WORDS * long) + PADDING


def _strip_axis(table: Table) -> StripAxis | None:
    """What has to find room on the axis: intervals, 0 and the margin; None where nothing is drawn."""
    cells = [row[table.strip] for row in table.rows] if table.strip is not None else []
    ends = [
        end for cell in cells for end in (cell.value, cell.low, cell.high) if end is not None and math.isfinite(end)
    ]
    margin = table.margin or 0.0
    return StripAxis(min(*ends, -margin), max(*ends, margin), margin) if ends else None


def _records(panel: Panel) -> dict[str, Any]:
    """Every run of a panel by arm, with the commands that do them again."""
    return {
        "title": panel.short,
        "metric": panel.metric,
        "good": sum(run.status == "ok" for run in panel.runs),
        "count": len(panel.runs),
        "trials": len(panel.trials),
        "arms": [{"name": arm, "anchor": link(panel, arm), "groups": list(_groups(panel, arm))} for arm in panel.arms],
    }


def _groups(panel: Panel, arm: str) -> Iterator[dict[str, Any]]:
    """Runs and tuning trials of an arm, each kind by itself, whose commands differ in the values of some keys alone.

    A command has the name of such a key in the place of its value; the lines have the values.
    """
    groups: dict[tuple[bool, tuple[str, ...]], list[StudyRun]] = {}
    for run in [*panel.runs, *panel.trials]:
        if run.arm == arm:
            keys = tuple(word.partition("=")[0] for word in run.job.overrides)
            groups.setdefault((run.job.trial, keys), []).append(run)
    for (is_trial, keys), runs in groups.items():
        values = list(zip(*(run.job.overrides for run in runs), strict=True))
        differing = [index for index, words in enumerate(values) if len(set(words)) > 1]
        places = {index: keys[index].rpartition(".")[2] for index in differing}
        words = [
            f"{key}={places[index].upper()}" if index in places else values[index][0] for index, key in enumerate(keys)
        ]
        titles = [place.replace("_", " ") for place in places.values()]
        head = [*titles, "run", metric_title(panel.metric, arrow=True, short=True), ""]
        yield {
            "kind": "Tuning trials: " if is_trial else "",
            "command": f"python -m rankbench {shlex.join(words)}",
            "lines": _aligned([head, *(_row(run, panel.metric, differing) for run in runs)]),
            "lost": [False, *(run.status != "ok" for run in runs)],
        }


def _row(run: StudyRun, metric: str, differing: Sequence[int]) -> list[str]:
    """The values of a run, its name, what it measured, and its status where that is not ok."""
    split, _, name = metric.partition("/")
    measured = ((run.record.metrics or {}).get(split) or {}).get(name) if run.record else None
    reason = f": {run.record.reason}" if run.record and run.record.reason else ""
    return [
        *(run.job.overrides[index].partition("=")[2] for index in differing),
        run.job.run_id,
        "" if measured is None else f"{measured:.6g}",
        "" if run.status == "ok" else run.status + reason,
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line of text for each row, columns below each other; thousands of them take a third of a table's bytes."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]
