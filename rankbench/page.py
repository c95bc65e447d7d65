"""The page of a report: one HTML file with all in it, what is resolved and what is missing first."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from rankbench.design import facts
from rankbench.drawing import Picture
from rankbench.evidence import Evidence, link
from rankbench.markup import element, figure, paragraphs, table
from rankbench.sheet import Sheet
from rankbench.studies.panels import Panel, StudyRun

STYLE = Path(__file__).with_name("page.css")
RECORDS = "records"  # anchor of the section that every cell leads to


@dataclass(frozen=True)
class Part:
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
    blocks: list[Sheet | Picture] = field(default_factory=list)


def render(evidence: Evidence, parts: Sequence[Part]) -> str:
    """The whole page."""
    declared = evidence.study.sweep.experiment
    name = evidence.study.sweep.name
    title = declared.question if declared else f"Sweep {evidence.study.sweep.sweep_id}"
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
        _facts(evidence),
    )
    links = [element("a", escape(part.title), href=f"#{part.anchor}") for part in parts]
    links.append(element("a", "Records", href=f"#{RECORDS}"))
    body = [header, element("nav", *links), element("main", *map_parts(evidence, parts), _records(evidence))]
    return f'<!DOCTYPE html>\n<html lang="en">{head}{element("body", *body)}</html>\n'


def map_parts(evidence: Evidence, parts: Sequence[Part]) -> Iterator[str]:
    """Each section."""
    for part in parts:
        blocks = [
            figure(block) if isinstance(block, Picture) else table(block, evidence.looks) for block in part.blocks
        ]
        yield element(
            "section", element("h2", escape(part.title)), paragraphs(part.sentences, "lead"), *blocks, id=part.anchor
        )


def _facts(evidence: Evidence) -> str:
    pairs = [
        element("div", element("dt", escape(name)), element("dd", escape(value))) for name, value in facts(evidence)
    ]
    return element("dl", *pairs)


def _records(evidence: Evidence) -> str:
    """Every run by panel and arm, with the command that does it again alone."""
    blocks = [_of_panel(evidence, panel) for panel in evidence.panels]
    lead = "Every run, by arm; each command does one again, alone."
    return element("section", element("h2", "Records"), paragraphs([lead], "lead"), *blocks, id=RECORDS)


def _of_panel(evidence: Evidence, panel: Panel) -> str:
    good = sum(run.status == "ok" for run in panel.runs)
    told = f"{panel.short}: {good} of {len(panel.runs)} runs ok"
    told += f", {len(panel.trials)} tuning trials" if panel.trials else ""
    return element("details", element("summary", escape(told)), *(_of_arm(panel, arm) for arm in panel.arms))


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
