"""The page of a report: one HTML file with all in it, whole without scripts; its templates lie in templates/."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from rankbench.analysis.comparison import KIND_OF
from rankbench.analysis.labels import arm_title, metric_title, panel_title
from rankbench.reporting.headline import Headline
from rankbench.reporting.plotting import SavedFigure
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.section import Section
from rankbench.reporting.sections.setup import facts
from rankbench.reporting.table import Cell, Table, is_numeric
from rankbench.statistics.decision import CONTROLS, OUTCOMES
from rankbench.studies.panels import Panel, StudyRun

TEMPLATES = Path(__file__).with_name("templates")
FINDINGS = (*OUTCOMES, *KIND_OF.values(), "untested", "reference")
FOREST = "forest"  # name of the figure on the first screen
SEED = "SEED"  # stands in a command for the seeds of the runs that differ in it alone
LETTER, PADDING, WIDTH = 7.2, 18, 1170  # pixels of a letter of a table, beside a cell, of the page
GLOSSARY = {
    "arm": "A line of an experiment: a method with its settings.",
    "panel": "What may be compared: one model, task and budget.",
    "control": "An arm that shows what another arm's score knows: the same ranks at permuted sites, or random ranks.",
    "smallest effect of interest": "The smallest gain that would matter, declared before the runs.",
    "hold together": "So wide are the intervals that all cover the true differences with the probability named.",
    "worthwhile": "Better than the reference by more than the smallest effect of interest, and than every control.",
    "no worthwhile gain": "Each gain in the interval is smaller than the smallest effect of interest.",
    "open": "The interval leaves it undecided; more seeds may tell.",
    "withheld": "Nothing is said, for the reason given: lost seeds, a rate at an edge of its grid, no headroom.",
    "headroom": "More budget is shown to help here, so that its allocation can matter at all.",
    "detectable": "The true difference whose interval would leave out 0 with 80 % probability.",
    "sigma_map": "Standard deviation of the true effects of rank maps that are drawn alike.",
    "worth": "The budget at which uniform ranks are as good.",
    "KL": "Kullback-Leibler divergence of the model's answers from the true ones, in nats.",
}


class Names:
    """Labels, panels and metrics in running text by their display names; what is typed ("method=lora") stays.

    A label that is a word of the names of the controls ("random ranks") is replaced only where it stands alone.
    """

    def __init__(self, report_data: ReportData) -> None:
        panels = [title for panel in report_data.panels for title in (panel.title, panel.short)]
        self._whole = {panel: panel_title(panel) for panel in panels} | {
            arm: arm_title(arm) for arm in report_data.styles
        }
        plain = {word for name in CONTROLS.values() for word in name.split()}
        known = {name for name in self._whole if re.search(r"\W|\d", name) or name in report_data.styles} - plain
        longest = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
        self._pattern = re.compile(
            rf"(?<![\w=./,\[{{-])(?:{longest or '(?!)'})(?![\w=/-]|\.\w)|\b(?:test|validation|before)/\w+"
        )

    def __call__(self, text: str) -> str:
        """The text as a person reads it."""
        return self._whole.get(text) or self._pattern.sub(lambda match: self._name(match[0]), text)

    def _name(self, text: str) -> str:
        return self._whole.get(text) or metric_title(text, arrow=True, short=True)


class Explained:
    """Names, and each word of the glossary as a link with its meaning where it comes first."""

    def __init__(self, names: Names) -> None:
        self._names, self._left = names, dict(GLOSSARY)

    def __call__(self, text: str) -> Markup:
        """The text as HTML."""
        html = escape(self._names(text))
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
        """Position of a value, per cent."""
        return f"{4 + 92 * (value - self.low) / ((self.high - self.low) or 1.0):.1f}"


@dataclass(frozen=True)
class Part:
    """Columns of a table that fit beside each other, and their rows."""

    columns: list[Column]
    rows: list[list[Cell]]


def render(report_data: ReportData, sections: Sequence[Section], headline: Headline) -> str:
    """Return the HTML of the whole page."""
    declared, sweep = report_data.study.sweep.experiment, report_data.study.sweep
    names = Names(report_data)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "named": names,
        "explained": Explained(names),
        "shown": lambda cell: _shown(names, cell),
        "exact": _exact,
        "drawing": _drawing,
        "parts": lambda table: parts(table, names),
    }
    return environment.get_template("page.html.j2").render(
        name=sweep.name,
        question=declared.question if declared else f"Sweep {sweep.sweep_id}",
        source=declared.source if declared else "",
        headline=headline,
        evidence=_evidence(sections),
        facts=facts(report_data),
        sections=sections,
        records=[_records(panel) for panel in report_data.panels],
        styles=report_data.styles,
        findings=FINDINGS,
        glossary=GLOSSARY,
    )


def _evidence(sections: Sequence[Section]) -> list[Table | SavedFigure]:
    """The forest plot, else the first table whose intervals are drawn, where there is one."""
    blocks = [block for section in sections for block in section.blocks]
    figures = [block for block in blocks if isinstance(block, SavedFigure) and block.name == FOREST]
    return figures or [block for block in blocks if isinstance(block, Table) and block.strip is not None][:1]


MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def _shown(names: Names, cell: Cell) -> str:
    """Text of a cell: numbers with minus signs, broken before an interval alone."""
    if cell.value is None:
        return names(cell.text)
    text = MINUS.sub("\N{MINUS SIGN}", cell.text)
    return re.sub(r" (?![\[(±])", "\N{NO-BREAK SPACE}", text)


def _exact(cell: Cell) -> str:
    ends = "" if cell.low is None or cell.high is None else f" [{cell.low:.6g}, {cell.high:.6g}]"
    return f"{cell.value:.6g}{ends}"


def _drawing(figure: SavedFigure) -> Markup:
    """The figure's own SVG, with its title for those who do not see it."""
    label = Markup('<svg role="img" aria-label="{}" ').format(figure.title)
    return Markup(figure.svg.replace("<svg ", label, 1))  # drawn by us: its texts are escaped


def parts(table: Table, shown: Callable[[str], str] = str) -> list[Part]:
    """The table in parts that are no wider than the page; each begins with the column that names the rows.

    Args:
        table: any table with rows.
        shown: how the page writes a text.
    """
    axis, groups, room = _strip_axis(table), [[0]], 0.0
    widths = [_width(table, index, shown) for index in range(len(table.columns))]
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


def _width(table: Table, index: int, shown: Callable[[str], str]) -> float:
    """The least width of a column, pixels: its longest words, numbers being one."""
    words = shown(table.columns[index]).split()
    for row in table.rows:
        words += (
            re.split(r" (?=[\[(±])", row[index].text)
            if row[index].value is not None
            else shown(row[index].text).split()
        )
    return LETTER * max(map(len, words), default=0) + PADDING


def _strip_axis(table: Table) -> StripAxis | None:
    """What has to find room on the axis: intervals, 0 and the margin; None where nothing is drawn."""
    cells = [row[table.strip] for row in table.rows] if table.strip is not None else []
    ends = [end for cell in cells for end in (cell.value, cell.low, cell.high) if end is not None]
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
    """Runs of an arm, then its tuning trials, whose commands differ in the seed alone."""
    commands: dict[str, list[dict[str, Any]]] = {}
    for run in [*panel.runs, *panel.trials]:
        if run.arm == arm:
            commands.setdefault(command(run), []).append(_row(run, panel.metric))
    yield from ({"command": text, "runs": rows} for text, rows in commands.items())


def _row(run: StudyRun, metric: str) -> dict[str, Any]:
    split, _, name = metric.partition("/")
    measured = ((run.record.metrics or {}).get(split) or {}).get(name) if run.record else None
    reason = f": {run.record.reason}" if run.record and run.record.reason else ""
    return {
        "seed": "?" if run.seed is None else run.seed,
        "status": ("trial, " if run.job.trial else "") + run.status + reason,
        "lost": run.status != "ok",
        "value": "" if measured is None else f"{measured:.6g}",
        "id": run.job.run_id,
    }


def command(run: StudyRun) -> str:
    """What one types to do a run again, alone, with SEED in the place of its seed."""
    words = [f"seed={SEED}" if word.startswith("seed=") else word for word in run.job.overrides]
    return f"python -m rankbench {shlex.join(words)}"
