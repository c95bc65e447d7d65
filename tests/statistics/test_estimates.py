"""Comparisons of runs: hand-worked cases, coverage and size on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rankbench.statistics.estimates import (
    Estimate,
    PairedDifference,
    RankCorrelation,
    deviation,
    paired_difference,
    rank_correlation,
    seeds_needed,
    smallest_difference,
)
from rankbench.statistics.family import joint_level, power


def test_a_paired_difference_by_hand():
    """Differences 1, 2, 3, 4, 5: mean 3, deviation sqrt(2.5), t(4, 0.975) = 2.776: 3 -+ 2.776 sqrt(2.5 / 5)."""
    found = paired_difference([11, 12, 13, 14, 15], [10, 10, 10, 10, 10])
    assert (found.n, found.mean) == (5, 3.0)
    assert found.low == pytest.approx(3 - 2.776445 * 0.5**0.5, abs=1e-6)
    assert found.high == pytest.approx(3 + 2.776445 * 0.5**0.5, abs=1e-6)
    assert found.resolved


def test_another_level_has_another_width():
    narrow, wide = (paired_difference([1, 2, 3, 4, 5], [0, 0, 0, 0, 9], level) for level in (0.5, 0.95))
    assert narrow.mean == wide.mean
    assert wide.high - wide.low == pytest.approx((narrow.high - narrow.low) * 2.776445 / 0.740697, rel=1e-5)


def test_one_pair_has_no_interval():
    assert paired_difference([3], [1]) == PairedDifference(1, 2.0, None, None)
    assert not paired_difference([3], [1]).resolved


@pytest.mark.parametrize(("a", "b"), [([0.53, 0.59], [0.5, 0.56]), ([1, 2, 3], [1, 2, 3]), ([3, 4, 5], [1, 2, 3])])
def test_equal_differences_have_no_interval(a, b):
    """0.53 - 0.5 and 0.59 - 0.56 differ by rounding alone."""
    found = paired_difference(a, b)
    assert (found.n, found.low, found.high, found.resolved) == (len(a), None, None, False)
    assert smallest_difference(np.subtract(a, b)) is None


@pytest.mark.parametrize(("a", "resolved"), [([1, 2, 3], True), ([-1, 0, 1], False), ([0, 0, 0], False)])
def test_resolved_is_zero_outside_the_interval(a, resolved):
    assert paired_difference(np.array(a) + 10.0 * resolved, [0, 0, 0]).resolved is resolved


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    generator = np.random.default_rng(1)
    shared = generator.normal(scale=5.0, size=(4000, 5, 1))  # what the seeds do to both sides
    a, b = np.moveaxis(shared + generator.normal(size=(4000, 5, 2)) + [0.7, 0.0], -1, 0)
    found = [paired_difference(*pair) for pair in zip(a, b, strict=True)]
    covered = np.mean([interval.low <= 0.7 <= interval.high for interval in found])
    assert 0.93 < covered < 0.97


def test_pairs_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"first values: one list with at least one value is needed, not shape \(0,\)"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="2 and 1 values make no pairs"):
        paired_difference([1, 2], [1])
    with pytest.raises(ValueError, match="second values: nan is not finite; leave out what was not measured"):
        paired_difference([1, 2], [1, np.nan])
    with pytest.raises(ValueError, match=r"level 95 is not in \(0, 1\); 0.95 is usual"):
        paired_difference([1, 2], [1, 2], level=95)


@pytest.mark.parametrize(("n", "deviations"), [(5, 1.682), (10, 0.996), (30, 0.529)])
def test_the_smallest_difference_agrees_with_published_power_tables(n, deviations):
    """Effect sizes dz for 80 % power, two-sided 5 %, one sample: G*Power 3.1 asks n = 5, 10, 30 for these."""
    differences = np.linspace(-1, 1, n)
    found = smallest_difference(differences / differences.std(ddof=1))
    assert found == pytest.approx(deviations, abs=2e-3)


def test_the_smallest_difference_is_found_as_often_as_promised():
    generator = np.random.default_rng(2)
    design = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    true = smallest_difference(design / design.std(ddof=1), power=0.6)
    found = np.mean([paired_difference(x, np.zeros(5)).resolved for x in generator.normal(true, 1, (4000, 5))])
    assert found == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("comparisons", [1, 12, 300])
def test_the_smallest_difference_has_its_power_in_a_large_family_too(n, comparisons):
    """Two pairs at the level of 300 comparisons need a shift of 4,900 standard errors."""
    differences = np.linspace(-1, 1, n)
    effect = smallest_difference(differences, level=joint_level(comparisons))
    assert power(effect, differences.std(ddof=1), n, comparisons) == pytest.approx(0.8, abs=2e-4)


def test_the_smallest_difference_at_its_edges():
    assert smallest_difference([0.3]) is None
    assert smallest_difference([0.3, 0.3]) is None
    assert smallest_difference([0.0, 1.0]) > 5  # one degree of freedom
    with pytest.raises(ValueError, match=r"power 0.05 is not in \(0.05, 1\)"):
        smallest_difference([1, 2], power=0.05)
    with pytest.raises(ValueError, match="differences: inf is not finite"):
        smallest_difference([1, np.inf])


def test_rank_correlation_by_hand():
    """x 1 2 3 4, y 1 3 2 4: squared rank distances sum to 2, rho = 1 - 6 * 2 / 60; 5 pairs agree, 1 does not."""
    found = rank_correlation([1, 2, 3, 4], [10, 30, 20, 40])
    assert found.spearman == pytest.approx(0.8)
    assert found.kendall == pytest.approx(4 / 6)


def test_ties_are_counted_as_tau_b_counts_them():
    """x 1 1 2, y 1 2 3: two pairs agree, one is tied in x: 2 / sqrt(2 * 3)."""
    assert rank_correlation([1, 1, 2], [1, 2, 3]).kendall == pytest.approx(2 / 6**0.5)


@pytest.mark.parametrize(("x", "y"), [([8, 8, 8], [1, 2, 3]), ([1, 2, 3], [8, 8, 8]), ([1], [2])])
def test_a_constant_side_has_no_order(x, y):
    assert rank_correlation(x, y) == RankCorrelation(None, None)


@pytest.mark.parametrize(
    ("effect", "paired", "n"),
    [(0.2, True, 199), (0.5, True, 34), (0.8, True, 15), (0.2, False, 394), (0.5, False, 64), (0.8, False, 26)],
)
def test_seeds_needed_agree_with_published_power_tables(effect, paired, n):
    """Cohen's small, medium and large effects, 80 % power, two-sided 5 %: G*Power 3.1 (pairs; per group)."""
    assert seeds_needed(effect, 1.0, paired) == n
    assert seeds_needed(effect * 7, 7.0, paired) == n


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_seeds_needed_is_the_inverse_of_the_smallest_difference(n, power):
    """`smallest_difference` promises four digits: as far as half a per cent from its edge the answer is sure."""
    differences = np.random.default_rng(n).normal(size=n)
    found = smallest_difference(differences, power)
    assert seeds_needed(found * 1.005, differences.std(ddof=1), power=power) == n
    assert seeds_needed(found * 0.995, differences.std(ddof=1), power=power) == n + 1


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("effect", [0.8, 1.5])
def test_with_so_many_seeds_the_effect_is_found_as_often_as_promised(effect, paired):
    n, generator = seeds_needed(effect, 1.0, paired), np.random.default_rng(5)

    def found(size):
        a = generator.normal(effect, 1.0, (6000, size))
        if paired:
            return np.mean(scipy_stats.ttest_1samp(a, 0.0, axis=1).pvalue < 0.05)
        return np.mean(scipy_stats.ttest_ind(a, generator.normal(0.0, 1.0, (6000, size)), axis=1).pvalue < 0.05)

    assert found(n) > 0.79  # 6000 studies: a deviation of 0.005
    assert found(n - 1) < 0.81


def test_without_spread_two_seeds_are_enough():
    assert seeds_needed(0.001, 0.0) == 2
    assert seeds_needed(1e-4, 1.0, paired=False) > 10**9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0), r"effect 0.0 and deviation 1.0: the first is to be > 0"),
        ((1.0, -1.0), r"effect 1.0 and deviation -1.0"),
        ((1.0, 1.0, True, 0.04), r"power 0.04 is not in \(0.05, 1\)"),
        ((1.0, 1.0, True, 0.8, 95), r"level 95 is not in \(0, 1\)"),
    ],
)
def test_effects_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        seeds_needed(*arguments)


def test_a_deviation_by_hand():
    """1, 2, 3, 4, 5: s^2 = 2.5; chi-square of 4: 0.484419 and 11.143287; sqrt(10 / 11.143287), sqrt(10 / 0.484419)."""
    found = deviation([1, 2, 3, 4, 5])
    assert found.value == pytest.approx(2.5**0.5)
    assert (found.low, found.high) == pytest.approx((0.947311, 4.543490), abs=1e-5)
    assert deviation([2.0, 2.0]) == Estimate(0.0, None, None)
    with pytest.raises(ValueError, match="one value has no deviation; give at least two"):
        deviation([1.0])


def test_the_interval_of_a_deviation_covers_it_as_often_as_it_says():
    samples = np.random.default_rng(3).normal(scale=2.0, size=(4000, 6))
    covered = np.mean([found.low <= 2.0 <= found.high for found in map(deviation, samples)])
    assert 0.93 < covered < 0.97
