"""Seeds x tasks: hand-worked cases, and coverage on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rankbench.statistics.estimates import Estimate
from rankbench.statistics.over_tasks import iqm, probability_of_improvement, stratified_bootstrap

TASKS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # levels of five tasks, symmetric: mean and IQM are 0


def mean(scores):
    return scores.mean(axis=(1, 2))


def test_the_iqm_by_hand():
    """Of 1 ... 6, 10, 100 the two lowest and the two highest go: (3 + 4 + 5 + 6) / 4."""
    assert iqm([[100, 1], [5, 4], [3, 6], [2, 10]]) == 4.5
    assert iqm([[1.0, 2.0, 6.0]]) == 3  # a quarter of three is none


def test_the_iqm_of_many_matrices_is_that_of_each():
    scores = np.random.default_rng(0).normal(size=(3, 4, 5))
    assert iqm(scores) == pytest.approx([iqm(matrix) for matrix in scores])


def test_two_seeds_have_an_interval_by_hand():
    """One of two seeds per task: 0 or 1 in either, so the mean is 0, 1/2 or 1 with 1/4, 1/2, 1/4."""
    found = stratified_bootstrap([[0, 0], [1, 1]], mean, level=0.4)
    assert found == Estimate(0.5, 0.5, 0.5)
    assert stratified_bootstrap([[0, 0], [1, 1]], mean, level=0.6) == Estimate(0.5, 0, 1)


def test_seeds_are_drawn_within_a_task_and_tasks_are_not():
    """Tasks far apart, seeds all alike: a draw that mixed tasks would have a spread."""
    assert stratified_bootstrap([[0.0, 100.0]] * 4, mean) == Estimate(50, 50, 50)


def test_the_interval_has_the_width_of_the_unbiased_variance():
    """Mean of 6 seeds x 8 tasks: standard error sqrt(sum of the tasks' variances / 6) / 8, and nearly normal."""
    scores = np.random.default_rng(1).normal(size=(6, 8))
    error = np.sqrt(scores.var(axis=0, ddof=1).sum() / 6) / 8
    found = stratified_bootstrap(scores, mean, level=0.6827)
    assert found.high - found.low == pytest.approx(2 * error, rel=0.04)  # with 6 of 6 drawn 9 % less


def test_both_sides_of_a_pair_are_drawn_together():
    side = np.random.default_rng(2).normal(size=(5, 3))
    pair = np.stack([side + 1, side], axis=-1)
    found = stratified_bootstrap(pair, lambda scores: iqm(scores[..., 0]) - iqm(scores[..., 1]))
    assert (found.low, found.high) == pytest.approx((1, 1))


def test_the_bootstrap_has_a_generator_of_its_own():
    scores = np.random.default_rng(3).normal(size=(5, 3))
    found = stratified_bootstrap(scores, draws=200, seed=4)
    np.random.default_rng(0).normal()
    np.random.seed(0)
    assert found == stratified_bootstrap(scores, draws=200, seed=4) != stratified_bootstrap(scores, draws=200, seed=5)


def test_the_iqm_is_covered_as_often_as_the_interval_says():
    generator = np.random.default_rng(5)
    found = [stratified_bootstrap(generator.normal(size=(8, 5)) + TASKS, draws=400, seed=i) for i in range(400)]
    assert 0.93 < np.mean([interval.low <= 0 <= interval.high for interval in found]) < 0.97


def test_the_probability_of_improvement_by_hand():
    """Task 1: 3 > 1, 3 > 2, 1 = 1, 1 < 2: 2.5 of 4. Task 2: all won. Mean 13/16."""
    assert probability_of_improvement([[3, 5], [1, 6]], [[1, 0], [2, 0]]).value == 13 / 16


def test_it_is_the_mann_whitney_statistic_of_each_task():
    generator = np.random.default_rng(6)
    a, b = generator.integers(5, size=(6, 3)), generator.integers(5, size=(4, 3))
    u = [scipy_stats.mannwhitneyu(a[:, task], b[:, task]).statistic / 24 for task in range(3)]
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
    true = scipy_stats.norm.cdf(0.5 / 2**0.5)
    found = [
        probability_of_improvement(
            generator.normal(0.5, size=(6, 5)) + TASKS, generator.normal(size=(6, 5)) + TASKS, draws=300, seed=i
        )
        for i in range(400)
    ]
    assert 0.93 < np.mean([interval.low <= true <= interval.high for interval in found]) < 0.97


def test_one_seed_has_no_interval():
    assert stratified_bootstrap([[1, 2]], mean) == Estimate(1.5, None, None)
    assert probability_of_improvement([[1, 2]], [[0, 3], [0, 3]]) == Estimate(0.5, None, None)


def test_what_is_no_whole_matrix_is_refused():
    with pytest.raises(ValueError, match=r"scores: a matrix of seeds x tasks is needed, not shape \(3,\)"):
        stratified_bootstrap([1, 2, 3])
    with pytest.raises(ValueError, match="first scores: nan is not finite; leave out seeds not run everywhere"):
        probability_of_improvement([[1, np.nan]], [[1, 2]])
    with pytest.raises(ValueError, match=r"shapes \(1, 2\) and \(1, 3\) are not \(seeds, tasks\) with the same tasks"):
        probability_of_improvement([[1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="level 95 is not in"):
        stratified_bootstrap([[1, 2]], level=95)
    with pytest.raises(ValueError, match="level 1 is not in"):
        probability_of_improvement([[1, 2]], [[1, 2]], level=1)
