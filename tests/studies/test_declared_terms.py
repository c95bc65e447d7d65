"""Panels are judged by what their sweep declared, and by the report's margins where it declared nothing."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from support.studies import declared, study

from rankbench.reporting.report_data import gather
from rankbench.reporting.sections import verdict
from rankbench.statistics.budget_ladder import FACTORS
from rankbench.studies.panels import panels
from rankbench.sweeps.declaration import PanelDeclaration, SweepDeclaration, code_of_analysis

SEEDS = list(range(6))
GAINS = [[-0.05 + noise, 0.0, 0.06 - noise, 0.1 + noise] for noise in (0.0, 0.002, 0.004)]
PANEL = PanelDeclaration(None, ["task=glue-rte"], 1, "group", ["igu"], SEEDS, "test/accuracy", False, 0.02, True, GAINS)


@functools.cache
def made():
    return study(declared(seeds=SEEDS, vary={}, grid={}), lost=0.0, failed=0.0)


def stamped(panel: PanelDeclaration, **changes):
    dated = replace(panel, date="2026-01-02T03:04:05+00:00")
    declaration = SweepDeclaration(code_of_analysis(), "lora", ["uniform"], 0.95, [dated])
    return replace(made(), sweep=replace(made().sweep, declaration=declaration, **changes))


def test_without_a_declaration_the_margin_is_the_reports_and_the_seeds_are_those_asked_for():
    (panel,) = panels(made())
    assert (panel.terms.margin, panel.terms.log, panel.terms.ladder) == (0.01, False, None)
    assert panel.terms.source == "the margin of the report, as no ladder was run"
    assert panel.terms.pairs(["lora", "igu"]) == 6


def test_margin_scale_headroom_and_worth_are_those_of_the_declaration():
    report_data = gather(stamped(PANEL))
    (comparison,) = report_data.comparisons.values()
    terms = comparison.terms
    assert (terms.margin, terms.headroom) == (0.02, True)
    assert terms.source == "what 1.25 x the budget buys, by a ladder of uniform ranks on 3 tuning seeds"
    np.testing.assert_array_equal(terms.ladder.gains, GAINS)
    assert FACTORS[0] <= comparison.worth("igu").value <= FACTORS[-1]
    assert "declared on 2026-01-02; nothing has changed since." in verdict.sentences(report_data)[-1]
    less = replace(PANEL, smallest_effect=0.01, edge=True)
    assert panels(stamped(less))[0].terms.source.startswith("the margin of the report: 1.25 x the budget buys less")
    logarithmic = replace(PANEL, log=True, smallest_effect=0.3)
    assert panels(stamped(logarithmic))[0].terms.smallest == "26 %"


def test_without_headroom_every_verdict_is_withheld_for_that_reason():
    report_data = gather(stamped(replace(PANEL, headroom=False)))
    (comparison,) = report_data.comparisons.values()
    assert {finding.kind for finding in comparison.findings.values()} <= {"reference", "withheld", "untested"}
    said = verdict.sentences(report_data)
    assert any(sentence.startswith("igu: withheld (no headroom: ") for sentence in said)
    assert any(sentence.startswith("No headroom on ") for sentence in said)


def test_fewer_seeds_than_declared_are_withheld_and_what_changed_is_said():
    changed = ["task=glue-rte: seeds: 6, declared was 8"]
    report_data = gather(stamped(replace(PANEL, seeds=list(range(8))), changes=changed))
    (comparison,) = report_data.comparisons.values()
    assert (
        comparison.findings["igu"].text
        == "withheld: 6 pairs with lora, its own permuted ranks and random ranks, 8 were declared"
    )
    assert f"since then changed: {changed[0]}." in verdict.sentences(report_data)[-1]


@pytest.mark.parametrize(
    ("looks", "times"), [({}, 1), ({"a": "2026-01-01"}, 2), ({"a": "2026-01-01", "made_up-1": "2026-02-01"}, 2)]
)
def test_looks_multiply_the_family(looks, times):
    (comparison,) = gather(stamped(PANEL, looks=looks)).comparisons.values()
    assert comparison.family == times * 4  # igu, adalora, fim, l1ra: controls are no claims


def test_an_arm_that_is_declared_at_fewer_seeds_is_judged_by_these():
    experiment = declared(seeds=SEEDS, vary={}, grid={}).replace(only={"random": {"seed": [0, 1, 2]}})
    (panel,) = panels(replace(made(), sweep=replace(made().sweep, experiment=experiment)))
    assert panel.terms.pairs(["lora", "igu"]) == 6
    assert panel.terms.pairs(["lora", "random"]) == 3
