"""Simultaneous intervals, their power, and the seeds they need: against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rankbench.statistics.estimates import seeds_needed
from rankbench.statistics.family import paired_gains, pairs_needed, power, simultaneous_bounds

GAINS = np.array([0.3, -0.1, 0.4, 0.2, 0.6])


def test_a_gain_is_above_0_where_the_arm_is_better():
    assert paired_gains([0.8, 0.7], [0.75, 0.75], higher_is_better=True) == pytest.approx([0.05, -0.05])
    assert paired_gains([0.8, 0.7], [0.75, 0.75], higher_is_better=False) == pytest.approx([-0.05, 0.05])


def test_of_logarithms_a_gain_is_a_share_of_the_loss():
    assert paired_gains([0.9, 9.0], [1.0, 10.0], False, log=True) == pytest.approx([-np.log(0.9)] * 2)
    with pytest.raises(ValueError, match="0 has no logarithm"):
        paired_gains([0.0], [1.0], False, log=True)


@pytest.mark.parametrize("comparisons", [1, 12])
def test_bounds_are_students_at_the_corrected_level(comparisons):
    low, high = simultaneous_bounds(np.stack([GAINS, 2 * GAINS]), comparisons)
    expected = stats.ttest_1samp(GAINS, 0).confidence_interval(1 - 0.05 / comparisons)
    assert low == pytest.approx([expected.low, 2 * expected.low])
    assert high == pytest.approx([expected.high, 2 * expected.high])


def test_one_pair_has_no_bounds():
    with pytest.raises(ValueError, match="1 has no spread"):
        simultaneous_bounds([0.1], 3)


@pytest.mark.parametrize("n", [5, 20])
def test_the_power_against_one_control_is_that_of_the_noncentral_t(n):
    critical = stats.t.ppf(1 - 0.025 / 12, n - 1)
    assert power(0.3, 0.2, n, 12) == pytest.approx(stats.nct.sf(critical, n - 1, n**0.5 * 1.5), abs=1e-9)


def test_what_cannot_be_missed_has_power_1():
    """Here scipy's noncentral t has no number."""
    assert power(1.8, 1.0, 500, 12) == 1.0


def test_several_controls_are_beaten_less_often_than_one_and_more_often_than_if_they_were_independent():
    one, three = power(1, 1, 12, 4), power(1, 1, 12, 4, controls=3)
    assert one**3 < three < one


def test_the_draws_for_each_control_agree_with_the_formula():
    from rankbench.statistics import family

    means, deviations = family._draws(8, 3)
    drawn = ((np.sqrt(8) + means) / deviations > family._critical(8, 3, 0.95)).mean()
    assert drawn == pytest.approx(power(1, 1, 8, 3), abs=0.012)


@pytest.mark.parametrize(("effect", "comparisons", "controls"), [(1.0, 1, 1), (1.0, 10, 1), (1.5, 12, 3)])
def test_the_seeds_needed_are_the_fewest(effect, comparisons, controls):
    n = pairs_needed(effect, 1.0, comparisons, controls)
    assert power(effect, 1.0, n, comparisons, controls) >= 0.8 > power(effect, 1.0, n - 1, comparisons, controls)


def test_a_single_comparison_needs_what_the_two_sided_test_needs():
    assert [pairs_needed(1, s, 1) for s in (0.5, 1, 2)] == [seeds_needed(1, s) for s in (0.5, 1, 2)]


def test_what_cannot_be_resolved_has_no_number():
    assert pairs_needed(0.001, 1.0, 12) is None


@pytest.mark.parametrize("arguments", [(0, 1, 5, 1), (1, 0, 5, 1), (1, 1, 1, 1), (1, 1, 5, 0), (1, 1, 3, 1, 3)])
def test_designs_that_are_none_are_refused(arguments):
    with pytest.raises(ValueError, match=r"> 0|needed"):
        power(*arguments)
