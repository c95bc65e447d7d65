"""Seeds x items: against the sums of squares by hand, and against simulated truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rankbench.statistics.estimates import Estimate
from rankbench.statistics.seeds_and_items import crossed_mean

TABLE = np.array([[1.0, 2.0, 4.0], [2.0, 5.0, 5.0]])  # mean 19 / 6


def test_a_small_table_by_hand():
    result = crossed_mean(TABLE)
    seeds, items, rest = 25 / 6, 14 / 3, 2 / 3  # mean squares
    total = seeds + items - rest
    freedom = total**2 / (seeds**2 + items**2 / 2 + rest**2 / 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(total / 6)
    assert (result.mean.value, result.mean.low, result.mean.high) == pytest.approx(
        (19 / 6, 19 / 6 - half, 19 / 6 + half)
    )
    assert (result.of_seeds, result.of_items, result.of_both) == pytest.approx(
        ((seeds - rest) / 6, (items - rest) / 6, rest / 6)
    )


def test_items_that_do_not_differ_leave_the_interval_over_seeds():
    by_seed = np.array([0.1, 0.4, 0.2, 0.5])
    result = crossed_mean(np.repeat(by_seed[:, None], 50, axis=1))
    expected = stats.ttest_1samp(by_seed, 0).confidence_interval()
    assert (result.mean.low, result.mean.high) == pytest.approx((expected.low, expected.high))
    assert (result.of_items, result.of_both) == pytest.approx((0, 0))


def test_weights_are_those_of_the_split():
    weights = np.array([1.0, 1.0, 4.0])
    assert crossed_mean(TABLE, weights).mean.value == pytest.approx(np.average(TABLE.mean(axis=0), weights=weights))
    even, plain = crossed_mean(TABLE, [2.0, 2.0, 2.0]), crossed_mean(TABLE)
    assert (even.mean.low, even.mean.high) == pytest.approx((plain.mean.low, plain.mean.high))


def test_the_variance_is_that_of_means_over_other_seeds_and_items():
    generator, parts = np.random.default_rng(0), []
    for _ in range(1000):
        seeds, items = 0.3 * generator.standard_normal((6, 1)), 0.8 * generator.standard_normal((1, 30))
        result = crossed_mean(seeds + items + generator.standard_normal((6, 30)))
        parts.append([result.of_seeds, result.of_items, result.of_both])
    assert np.mean(parts, axis=0) == pytest.approx([0.09 / 6, 0.64 / 30, 1 / 180], rel=0.1)


def test_without_any_spread_there_is_no_interval():
    assert crossed_mean(np.full((3, 4), 0.5)).mean == Estimate(0.5, None, None)


def test_what_is_no_table_is_refused():
    for table in ([1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [1.0, 2.0]]):
        with pytest.raises(ValueError, match="two or more of each"):
            crossed_mean(table)
    for weights in ([1.0, 1.0], [1.0, 0.0, 1.0]):
        with pytest.raises(ValueError, match="3 values > 0"):
            crossed_mean(TABLE, weights)
