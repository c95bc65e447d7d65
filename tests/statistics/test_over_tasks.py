"""Several tasks: against scipy, by hand, and coverage on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rankbench.statistics.estimates import Estimate
from rankbench.statistics.over_tasks import (
    mean_of_such,
    mean_of_these,
    probability_of_improvement,
    standardised,
)

TASKS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # levels of five tasks
FIRST, SECOND = np.array([0.3, 0.1, 0.4, 0.2, 0.6]), np.array([2.0, -1.0, 3.0, 1.0])


def test_over_these_two_tasks_it_is_welchs_interval():
    """Half of a mean minus the negative of the other."""
    mean = mean_of_these([FIRST, SECOND])
    expected = stats.ttest_ind(FIRST, -SECOND, equal_var=False).confidence_interval()
    assert (mean.value, mean.low, mean.high) == pytest.approx(
        ((FIRST.mean() + SECOND.mean()) / 2, expected.low / 2, expected.high / 2)
    )


def test_over_one_task_it_is_students_interval():
    mean, expected = mean_of_these([FIRST]), stats.ttest_1samp(FIRST, 0).confidence_interval()
    assert (mean.low, mean.high) == pytest.approx((expected.low, expected.high))


def test_over_tasks_like_these_it_is_students_interval_of_their_means():
    means = [0.3, 0.5, -0.1, 0.6]
    result = mean_of_such([mean + FIRST - FIRST.mean() for mean in means])
    expected = stats.ttest_1samp(means, 0).confidence_interval()
    assert (result.mean.value, result.mean.low, result.mean.high) == pytest.approx(
        (np.mean(means), expected.low, expected.high)
    )
    assert result.deviation == pytest.approx(np.sqrt(np.var(means, ddof=1) - FIRST.var(ddof=1) / 5))
    half = stats.t.ppf(0.975, 3) * np.std(means, ddof=1) * np.sqrt(1 + 1 / 4)
    assert (result.another.low, result.another.high) == pytest.approx((np.mean(means) - half, np.mean(means) + half))


def test_tasks_that_agree_better_than_their_seeds_do_not_differ():
    assert mean_of_such([FIRST, FIRST + 0.001, FIRST - 0.001]).deviation == 0


def test_seeds_that_are_equal_on_every_task_leave_no_interval_over_these():
    assert mean_of_these([[0.5, 0.5], [1.5, 1.5]]) == Estimate(1.0, None, None)


def test_each_task_is_measured_in_its_own_unit():
    first, second = standardised([FIRST, SECOND], [0.1, 2.0])
    assert first == pytest.approx(10 * FIRST)
    assert second == pytest.approx(SECOND / 2)
    for units in ([1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="2 tasks need as many units > 0"):
            standardised([FIRST, SECOND], units)


def test_too_few_are_refused():
    for function, gains in ((mean_of_these, []), (mean_of_these, [FIRST, [1.0]]), (mean_of_such, [FIRST])):
        with pytest.raises(ValueError, match="are the least"):
            function(gains)


def test_the_probability_of_improvement_by_hand():
    """Task 1: 3 > 1, 3 > 2, 1 = 1, 1 < 2: 2.5 of 4. Task 2: all won. Mean 13/16."""
    assert probability_of_improvement([[3, 5], [1, 6]], [[1, 0], [2, 0]]).value == 13 / 16


def test_it_is_the_mann_whitney_statistic_of_each_task():
    generator = np.random.default_rng(6)
    a, b = generator.integers(5, size=(6, 3)), generator.integers(5, size=(4, 3))
    u = [stats.mannwhitneyu(a[:, task], b[:, task]).statistic / 24 for task in range(3)]
    assert probability_of_improvement(a, b).value == pytest.approx(np.mean(u))


def test_sides_exchanged_are_the_complement():
    a, b = np.random.default_rng(7).normal(size=(2, 5, 3))
    one, other = probability_of_improvement(a, b), probability_of_improvement(b, a)
    assert one.value == pytest.approx(1 - other.value)
    assert one.low == pytest.approx(1 - other.high, abs=0.03)


def test_every_run_won_is_an_interval_without_width():
    assert probability_of_improvement([[2.0]] * 3, [[1.0]] * 3) == Estimate(1, 1, 1)


def test_the_probability_of_improvement_is_covered_as_often_as_the_interval_says():
    generator = np.random.default_rng(8)
    true = stats.norm.cdf(0.5 / 2**0.5)
    found = [
        probability_of_improvement(
            generator.normal(0.5, size=(6, 5)) + TASKS, generator.normal(size=(6, 5)) + TASKS, draws=300, seed=i
        )
        for i in range(400)
    ]
    assert 0.93 < np.mean([interval.low <= true <= interval.high for interval in found]) < 0.97


def test_one_seed_has_no_interval():
    assert probability_of_improvement([[1, 2]], [[0, 3], [0, 3]]) == Estimate(0.5, None, None)


def test_what_is_no_whole_matrix_is_refused():
    with pytest.raises(ValueError, match=r"first scores: a matrix of seeds x tasks is needed, not shape \(3,\)"):
        probability_of_improvement([1, 2, 3], [[1, 2]])
    with pytest.raises(ValueError, match="first scores: nan is not finite; leave out seeds not run everywhere"):
        probability_of_improvement([[1, np.nan]], [[1, 2]])
    with pytest.raises(ValueError, match=r"shapes \(1, 2\) and \(1, 3\) are not \(seeds, tasks\) with the same tasks"):
        probability_of_improvement([[1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="level 1 is not in"):
        probability_of_improvement([[1, 2]], [[1, 2]], level=1)
