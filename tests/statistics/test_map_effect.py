"""sigma_map against tables worked by hand, scipy's own distributions and draws of known spread."""

import math

import numpy as np
import pytest
from scipy import stats

from rankbench.statistics.estimates import Estimate
from rankbench.statistics.map_effect import detectable_deviation, expected_best, map_effect, residual

# Maps 1, 3, 5 + seeds 0, 10, 20, 30, with rests that sum to 0 over rows and columns: SS maps 32, SS rest 8.
RESTS = np.array([[1, -1, 1, -1], [-1, 1, -1, 1], [0, 0, 0, 0]])
TABLE = np.array([[1.0], [3.0], [5.0]]) + np.array([0, 10, 20, 30]) + RESTS


def test_the_parts_of_a_table_worked_by_hand():
    effect = map_effect(TABLE)
    of_maps, rest = 32 / 2, 8 / 6
    assert effect.deviation.value == pytest.approx(math.sqrt((of_maps - rest) / 4))
    assert effect.residual.value == pytest.approx(math.sqrt(rest))
    assert effect.p == pytest.approx(stats.f.sf(of_maps / rest, 2, 6))
    for end, tail in ((effect.deviation.low, 0.975), (effect.deviation.high, 0.025)):
        excess = of_maps - rest * stats.f.ppf(tail, 2, 6)
        assert end == pytest.approx(math.sqrt(2 * excess / (4 * stats.chi2.ppf(tail, 2))))
    assert effect.residual.low == pytest.approx(math.sqrt(8 / stats.chi2.ppf(0.975, 6)))
    assert effect.residual.high == pytest.approx(math.sqrt(8 / stats.chi2.ppf(0.025, 6)))
    assert effect.ceiling.high == pytest.approx(expected_best(100) * effect.deviation.high)


def test_what_seeds_share_is_no_effect_of_maps():
    assert map_effect(TABLE + np.array([100, 0, 0, 7])).deviation.value == pytest.approx(
        map_effect(TABLE).deviation.value
    )


def test_the_residual_says_nothing_of_the_maps():
    assert residual(TABLE + np.array([[0.0], [50.0], [-9.0]])).value == pytest.approx(residual(TABLE).value)


def test_maps_that_differ_less_than_chance_makes_them_have_no_interval():
    effect = map_effect(RESTS)
    assert (effect.deviation.value, effect.deviation.low, effect.deviation.high) == (0, None, None)
    assert (effect.ceiling.high, effect.p) == (None, 1.0)


def test_equal_runs_have_no_effect_and_exact_ones_a_sure_one():
    assert map_effect(np.ones((3, 4))).p == 1.0
    alike = map_effect(
        np.tile(np.array([0.53, 0.59, 0.61]) - 0.1, (6, 1))
    )  # seeds differ, maps but for rounding do not
    assert (alike.p, alike.deviation, alike.residual) == (1.0, *[Estimate(0.0, None, None)] * 2)
    sure = map_effect(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert sure.p == 0.0
    assert sure.deviation.value == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(("maps", "best"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))])
def test_the_best_of_a_few(maps, best):
    assert expected_best(maps) == pytest.approx(best, abs=1e-9)


def test_the_best_of_a_hundred():
    assert expected_best(100) == pytest.approx(2.50759, abs=1e-5)  # Tippett 1925, table


def test_a_deviation_as_large_as_promised_is_found_as_often_as_promised():
    maps, seeds, draws = 20, 5, 2000
    deviation = detectable_deviation(maps, seeds, 2.0)
    generator = np.random.default_rng(0)
    shapes = (draws, maps, 1), (draws, 1, seeds), (draws, maps, seeds)
    of_maps, of_seeds, rest = (generator.standard_normal(shape) for shape in shapes)
    effects = [map_effect(table) for table in deviation * of_maps + 3 * of_seeds + 2 * rest]
    assert np.mean([bool(effect.deviation.low) for effect in effects]) == pytest.approx(0.8, abs=0.03)
    assert detectable_deviation(maps, 4 * seeds, 2.0) < deviation / 2


@pytest.mark.parametrize("values", [[1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [2.0, 3.0]]])
def test_a_table_with_holes_or_a_single_row_is_refused(values):
    with pytest.raises(ValueError, match="maps x seeds, two or more of each and all finite"):
        map_effect(values)


def test_numbers_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match="no best one"):
        expected_best(0)
    with pytest.raises(ValueError, match="1 maps, 5 seeds"):
        detectable_deviation(1, 5, 1.0)
    with pytest.raises(ValueError, match="residual of 0"):
        detectable_deviation(5, 5, 0.0)
