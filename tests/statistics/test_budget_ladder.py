"""The uniform ladder as a yardstick: smallest effect, headroom, and what a gain is worth in budget."""

from __future__ import annotations

import numpy as np
import pytest

from rankbench.statistics.budget_ladder import budget_equivalent, budget_ladder, headroom, smallest_effect

LOSSES = np.array([[2.0, 1.0, 0.6, 0.3], [2.1, 1.1, 0.7, 0.4], [1.9, 0.8, 0.5, 0.2]])  # r/2, r, 2r, 4r
LADDER = budget_ladder(LOSSES, higher_is_better=False)
NOISE = np.array([-0.01, 0.0, 0.01, 0.0])


def test_a_ladder_holds_gains_over_the_budget_itself():
    assert LADDER.means == pytest.approx([-31 / 30, 0, 11 / 30, 2 / 3])
    assert budget_ladder(-LOSSES, higher_is_better=True).gains == pytest.approx(LADDER.gains)
    assert budget_ladder(LOSSES, False, log=True).gains[0] == pytest.approx(-np.log(LOSSES[0]))


def test_means_that_are_out_of_order_are_pooled():
    assert budget_ladder([[0, 1, 0.5, 2], [0, 1, 0.5, 2]], True).means == pytest.approx([-0.75, 0, 0, 1.25])


def test_the_smallest_effect_is_what_a_quarter_more_budget_buys():
    assert smallest_effect(LADDER) == pytest.approx(np.log2(1.25) * 11 / 30)
    assert smallest_effect(LADDER, least=0.3) == 0.3


def test_headroom_takes_three_effects_and_an_interval_above_0():
    assert headroom(LADDER, smallest_effect(LADDER))
    assert not headroom(LADDER, 0.25)
    noisy = budget_ladder([[0, 0, 0.1, 0.9], [0, 0, 0.1, -0.3]], True)
    assert not headroom(noisy, smallest_effect(noisy))
    flat = budget_ladder(np.full((3, 4), 0.5), True)
    assert not headroom(flat, smallest_effect(flat))


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.25, 2.0, 3.0])
def test_a_gain_of_the_ladder_is_worth_its_budget(factor):
    gain = np.interp(np.log2(factor), [-1, 0, 1, 2], LADDER.means)
    worth = budget_equivalent(gain + NOISE, LADDER)
    assert worth.value == pytest.approx(factor, rel=1e-6)
    assert worth.low is None or worth.low <= factor
    assert worth.high is None or worth.high >= factor


def test_the_smallest_effect_is_worth_a_quarter_more():
    assert budget_equivalent(smallest_effect(LADDER) + NOISE, LADDER).value == pytest.approx(1.25)


def test_at_the_budget_itself_the_interval_is_that_of_the_gain():
    """Gain shown to be above 0 exactly where the equivalent is above once the budget."""
    for shift in np.linspace(0.004, 0.03, 27):
        worth, gain = budget_equivalent(shift + NOISE, LADDER), shift + NOISE
        lower = gain.mean() - 3.18244630528371 * gain.std(ddof=1) / 2
        assert (worth.low > 1) == (lower > 0) or abs(lower) < 1e-9


def test_a_gain_beyond_the_ladder_has_an_open_end():
    above, below = budget_equivalent(5 + NOISE, LADDER), budget_equivalent(-5 + NOISE, LADDER)
    assert (above.value, above.low, above.high) == (4.0, 4.0, None)
    assert (below.value, below.low, below.high) == (0.5, None, 0.5)


def test_what_is_no_ladder_is_refused():
    for values in ([[1, 2, 3, 4]], np.ones((3, 3)), [[1, 2, 3, np.nan]] * 2):
        with pytest.raises(ValueError, match="ladder"):
            budget_ladder(values, True)
    with pytest.raises(ValueError, match="> 0 for logarithms"):
        budget_ladder([[1, 2, 3, 0]] * 2, False, log=True)
    with pytest.raises(ValueError, match="one gain"):
        budget_equivalent([0.1], LADDER)
