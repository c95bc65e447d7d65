"""Means over tasks, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rankbench.statistics.mean_over_tasks import mean_of_such, mean_of_these, standardised

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


def test_tasks_that_agree_better_than_their_seeds_do_not_differ():
    assert mean_of_such([FIRST, FIRST + 0.001, FIRST - 0.001]).deviation == 0


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
