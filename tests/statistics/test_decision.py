"""The six outcomes, one example each, and what withholds one."""

from __future__ import annotations

import numpy as np
import pytest

from rankbench.statistics.decision import Declaration, decide
from rankbench.statistics.family import simultaneous_bounds

SPREAD = np.array([-0.2, -0.1, 0.0, 0.1, 0.2, -0.2, -0.1, 0.0, 0.1, 0.2])  # half an interval: 0.19 for 12 comparisons
DECLARED = Declaration(seeds=10, comparisons=12, smallest_effect=0.5)
UNIFORM, PERMUTED, RANDOM = "tuned uniform", "its own ranks permuted", "random ranks"


def against(uniform=0.0, permuted=0.0, random=0.0):
    return {UNIFORM: SPREAD + uniform, PERMUTED: SPREAD + permuted, RANDOM: SPREAD + random}


@pytest.mark.parametrize(
    ("gains", "outcome", "reason"),
    [
        ((0.6, 0.3, 0.3), "works", "better than tuned uniform, its own ranks permuted and random ranks"),
        (
            (0.8, 0.3, 0.3),
            "worthwhile",
            f"and {RANDOM}, and than {UNIFORM} by more than the smallest effect of interest",
        ),
        ((0.1, 0.3, 0.3), "no worthwhile gain", "the gain over tuned uniform is below the smallest effect of interest"),
        (
            (0.25, 0.3, 0.3),
            "no worthwhile gain",
            "the gain over tuned uniform is above 0, but below the smallest effect of interest",
        ),
        ((-0.3, 0.3, 0.3), "harmful", "worse than tuned uniform"),
        ((0.6, 0.15, 0.3), "open", f"not told from {PERMUTED}; 18 seeds would"),
        ((0.6, -0.1, 0.3), "open", f"not told from {PERMUTED}; more than 500 seeds would"),
        ((0.6, -0.3, 0.1), "open", f"worse than {PERMUTED}"),
    ],
)
def test_outcomes(gains, outcome, reason):
    decision = decide(against(*gains), DECLARED)
    assert decision.outcome == outcome
    assert reason in decision.reason
    assert (decision.seeds is not None) == ("; 18 seeds" in reason)


def test_the_intervals_are_those_of_the_family():
    interval = decide(against(0.6), DECLARED).intervals[UNIFORM]
    low, high = simultaneous_bounds(SPREAD + 0.6, 12)
    assert (interval.n, interval.mean, interval.low, interval.high) == pytest.approx((10, 0.6, float(low), float(high)))


def test_an_open_question_says_how_many_seeds_would_close_it():
    wide = Declaration(seeds=10, comparisons=12, smallest_effect=0.15)
    decision = decide(against(0.05, 0.1, 0.1), wide)
    assert decision.seeds == 35
    assert decision.reason.endswith("; 35 seeds would tell with 80 % probability")
    lucky, luckier = decide(against(0.6, 0.155, 0.155), wide), decide(against(0.6, 0.175, 0.175), wide)
    assert lucky.seeds == luckier.seeds == 21  # a mean promises no more than the smallest effect


def test_a_control_that_was_not_run_leaves_the_question_open():
    gains = {UNIFORM: SPREAD + 0.6, PERMUTED: SPREAD + 0.6}
    decision = decide(gains, DECLARED, absent=["random ranks: not run"])
    assert (decision.outcome, decision.reason, decision.seeds) == ("open", "random ranks: not run", None)
    assert decide({UNIFORM: SPREAD - 0.6}, DECLARED, absent=["random ranks: not run"]).outcome == "harmful"


@pytest.mark.parametrize(
    ("changed", "faults", "reason"),
    [
        ({"headroom": False}, [], "no headroom"),
        ({}, ["random ranks: no run that is ok"], "random ranks: no run that is ok"),
        ({"seeds": 12}, [], f"10 pairs with {UNIFORM}, {PERMUTED} and {RANDOM}, 12 were declared"),
        ({"seeds": 5}, [], f"10 pairs with {UNIFORM}, {PERMUTED} and {RANDOM}, 5 were declared"),
    ],
)
def test_what_withholds_a_decision(changed, faults, reason):
    declaration = Declaration(**{"seeds": 10, "comparisons": 12, "smallest_effect": 0.5} | changed)
    decision = decide(against(2.0, 2.0, 2.0), declaration, faults=faults)
    assert decision.outcome == "withheld"
    assert reason in decision.reason
    assert decision.intervals[UNIFORM].mean == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("gains", "reason"),
    [
        (np.full(10, 0.25), "all 10 pairs with tuned uniform differ by the same: no spread to judge by"),
        ([0.3], "a single pair has no spread to judge by"),
    ],
)
def test_pairs_without_a_spread_withhold(gains, reason):
    decision = decide({UNIFORM: gains}, Declaration(len(gains), 12, 0.5))
    assert (decision.outcome, decision.reason) == ("withheld", reason)


TAIL = np.array([0.0] * 9 + [-1.0]) + 0.01 * SPREAD


@pytest.mark.parametrize(
    ("gains", "outcome", "doubt"),
    [
        (TAIL + 2, "worthwhile", True),  # better at nine seeds, much less so at the tenth
        (-TAIL - 2, "harmful", True),
        (-TAIL, "no worthwhile gain", True),  # but for one seed
        (-TAIL + 2, "worthwhile", False),
        (TAIL - 2, "harmful", False),
    ],
)
def test_pairs_that_are_lopsided_to_the_side_that_would_speak_against_it_are_said(gains, outcome, doubt):
    decision = decide({UNIFORM: gains}, Declaration(10, 12, 0.9))
    assert (decision.outcome, "in doubt, as a few seeds" in decision.reason) == (outcome, doubt)


def test_a_smallest_effect_of_0_is_refused():
    with pytest.raises(ValueError, match="smallest effect 0 is not > 0"):
        decide(against(), Declaration(10, 12, 0))
