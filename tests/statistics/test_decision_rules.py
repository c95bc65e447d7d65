"""The verdict rule: hand-made intervals, and its error rate."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from rankbench.statistics.decision_rules import CONTROLS, works
from rankbench.statistics.estimates import PairedDifference, paired_difference

BETTER = PairedDifference(5, 0.02, 0.01, 0.03)
WORSE = PairedDifference(5, -0.02, -0.03, -0.01)
OPEN = PairedDifference(5, 0.02, -0.01, 0.05)
ALONE = PairedDifference(1, 0.02, None, None)


def against(*differences):
    return dict(zip(CONTROLS, differences, strict=True))


def test_it_works_where_all_three_are_beaten():
    found = works(against(BETTER, BETTER, BETTER))
    assert found.outcome == "works"
    assert found.reasons[0] == "better than tuned uniform: +0.02 [+0.01, +0.03], n = 5"


@pytest.mark.parametrize("third", [OPEN, ALONE, None, PairedDifference(5, 0.01, 0.0, 0.02)])
def test_two_of_three_are_not_enough(third):
    for controls in set(permutations((BETTER, BETTER, third))):
        assert works(against(*controls)).outcome == "not resolved"


@pytest.mark.parametrize("others", [(BETTER, BETTER), (OPEN, None), (WORSE, WORSE)])
def test_one_defeat_is_enough_not_to_work(others):
    for controls in set(permutations((WORSE, *others))):
        assert works(against(*controls)).outcome == "does not work"


def test_of_a_loss_less_is_better():
    assert works(against(WORSE, WORSE, WORSE), higher_is_better=False).outcome == "works"
    assert works(against(BETTER, WORSE, WORSE), higher_is_better=False).outcome == "does not work"


def test_every_control_has_its_reason():
    assert works(against(OPEN, ALONE, None)).reasons == (
        "not resolved from tuned uniform: +0.02 [-0.01, +0.05], n = 5",
        "not resolved from its own shuffled ranks: +0.02 (1 pair: no interval)",
        "not run: random ranks",
    )


def test_a_control_that_is_absent_says_why():
    found = works(against(BETTER, None, None), absent={"shuffled": "none ok"})
    assert found.reasons[1:] == ("none ok: its own shuffled ranks", "not run: random ranks")


def test_a_method_that_ties_one_control_is_said_to_work_in_2_of_100_studies():
    """It beats two controls by far and equals the third: the upper tail of one 95 % interval, 2.5 %."""
    generator = np.random.default_rng(0)
    ties = generator.normal(size=(4000, 5))
    found = [works(against(BETTER, paired_difference(tie, np.zeros(5)), BETTER)).outcome for tie in ties]
    assert found.count("works") / 4000 == pytest.approx(0.025, abs=0.01)
    assert found.count("does not work") / 4000 == pytest.approx(0.025, abs=0.01)
