"""The terms of a panel: what its sweep declared before the first reported run, or what the report usually takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rankbench.analysis.terms import Terms
from rankbench.statistics.budget_ladder import WORTHWHILE, BudgetLadder
from rankbench.studies.study import Study
from rankbench.sweeps import cells, experiment, selection
from rankbench.sweeps.declaration import PanelDeclaration
from rankbench.sweeps.manifest import Job
from rankbench.sweeps.report_settings import Report

USUAL = "the margin of the report, as no ladder was run"


def terms_of(study: Study, report: Report, task: str, jobs: Sequence[Job], asked: Mapping[str, set[int]]) -> Terms:
    """The terms of a panel, but for the size of the family.

    Args:
        study: its sweep has the declaration.
        report: what is usual where nothing was declared.
        task: of the panel.
        jobs: runs and trials of the panel.
        asked: arm -> seeds of its runs, missing ones too.
    """
    declaration = study.sweep.declaration
    first = jobs[0] if jobs else None
    panel = declaration.panel_of(first.overrides, first.cell) if declaration and first else None
    seeds = _seeds(study, first, panel, asked)
    if panel is None:
        return Terms(report.margin_of(task), USUAL, report.log_of(task), level=report.level, seeds=seeds)
    return Terms(
        panel.smallest_effect,
        _source(panel, report.margin_of(task)),
        panel.log,
        level=report.level,
        seeds=seeds,
        headroom=panel.headroom is not False,
        ladder=BudgetLadder(np.array(panel.gains)) if panel.gains else None,
    )


def _source(panel: PanelDeclaration, margin: float) -> str:
    if not panel.gains:
        return USUAL
    ladder = f"a ladder of uniform ranks on {len(panel.gains)} {'panels' if panel.panels > 1 else 'tuning seeds'}"
    edge = ", one of its learning rates at an edge of those tried" if panel.edge else ""
    if panel.smallest_effect <= margin:
        return f"the margin of the report: {WORTHWHILE:g} x the budget buys less, by {ladder}{edge}"
    return f"what {WORTHWHILE:g} x the budget buys, by {ladder}{edge}"


def _seeds(
    study: Study, job: Job | None, panel: PanelDeclaration | None, asked: Mapping[str, set[int]]
) -> dict[str, frozenset[int]]:
    """Arm -> seeds that were declared or asked for; an arm that is run at fewer says so in the experiment."""
    everywhere = set(panel.seeds if panel else ()).union(*asked.values())
    part = cells.parts(study.sweep.experiment).get(job.cell) if study.sweep.experiment and job else None
    only = selection.with_arms(part, list(experiment.arms(part))).only if part else {}
    own = {arm: set(axes["seed"]) for arm, axes in only.items() if "seed" in axes}
    arms = {*asked, *own, *(experiment.arms(part) if part else ())}
    return {arm: frozenset(everywhere & own.get(arm, everywhere)) for arm in arms}
