"""Items of two runs: hand-worked and published cases, coverage and size on simulated data."""

from __future__ import annotations

import numpy as np
import pytest

from rankbench.statistics.estimates import Estimate
from rankbench.statistics.items import McNemar, mcnemar, paired_bootstrap_items, wilson


def test_mcnemar_by_hand():
    """One side alone right 1 and 5 times: 2 (1 + 6) / 2^6; mid-p without half of 2 * 6 / 2^6."""
    found = mcnemar([1, 0, 0, 0, 0, 0, 1, 0], [0, 1, 1, 1, 1, 1, 1, 0])
    assert found == McNemar(1, 5, pytest.approx(14 / 64), pytest.approx(8 / 64))


def test_mcnemar_of_a_published_table():
    """Airway responsiveness in Fagerland et al. 2013, 1 and 7 discordant: exact p 0.070, mid-p 0.039."""
    found = mcnemar([1] + [0] * 7 + [1, 0], [0] + [1] * 7 + [1, 0])
    assert (found.p, found.mid_p) == (pytest.approx(0.070, abs=5e-4), pytest.approx(0.039, abs=5e-4))


@pytest.mark.parametrize(("a", "b"), [([1, 0, 1], [1, 0, 1]), ([1, 0], [0, 1])])
def test_as_many_to_either_side_is_no_evidence(a, b):
    found = mcnemar(a, b)
    assert (found.p, found.mid_p) == (pytest.approx(1), pytest.approx(1))


def test_mcnemar_errs_no_more_often_than_it_says_and_mid_p_nearly_as_often():
    """Over all counts of 40 discordant items, by their probability: no simulation needed."""
    chance = np.array([1.0])
    for _ in range(40):
        chance = np.convolve(chance, [0.5, 0.5])
    found = [mcnemar([1] * k + [0] * (40 - k), [0] * k + [1] * (40 - k)) for k in range(41)]
    exact = sum(chance[k] for k in range(41) if found[k].p <= 0.05)
    middle = sum(chance[k] for k in range(41) if found[k].mid_p <= 0.05)
    assert 0.02 < exact < 0.05
    assert exact <= middle < 0.055


def test_right_is_one_and_wrong_is_zero():
    with pytest.raises(ValueError, match=r"0\.5 is neither right \(1\) nor wrong \(0\)"):
        mcnemar([1, 0], [1, 0.5])
    with pytest.raises(ValueError, match="2 and 1 values make no pairs"):
        mcnemar([1, 0], [1])


def test_a_difference_over_items_by_hand():
    """Of two items with differences 0 and 1 a draw has 0, 1 or 2 of the second: means 0, 1/2, 1 with 1/4, 1/2, 1/4."""
    assert paired_bootstrap_items([3, 6], [3, 5], level=0.4) == Estimate(0.5, 0.5, 0.5)
    assert paired_bootstrap_items([3, 6], [3, 5], level=0.6) == Estimate(0.5, 0, 1)


def test_weights_make_it_the_mean_over_units():
    """Item 1 has three units and a difference of 2, item 2 one and -2: (6 - 2) / 4."""
    found = paired_bootstrap_items([2, 0], [0, 2], weights=[3, 1], level=0.6)
    assert found == Estimate(1, -2, 2)
    assert paired_bootstrap_items([2, 0], [0, 2]).value == 0


def test_pairs_take_away_what_items_have_in_common():
    hard = np.random.default_rng(0).normal(scale=10, size=50)
    found = paired_bootstrap_items(hard + 1, hard)
    assert (found.low, found.high) == pytest.approx((1, 1))


def test_batches_do_not_show(monkeypatch):
    a, b = np.random.default_rng(1).normal(size=(2, 30))
    whole = paired_bootstrap_items(a, b, draws=200)
    monkeypatch.setattr("rankbench.statistics.items.AT_ONCE", 100)
    assert paired_bootstrap_items(a, b, draws=200).value == whole.value
    assert paired_bootstrap_items(a, b, draws=200) == paired_bootstrap_items(a, b, draws=200)
    assert paired_bootstrap_items(a, b, draws=200, seed=1) != paired_bootstrap_items(a, b, draws=200)


def test_the_true_difference_is_covered_as_often_as_the_interval_says():
    """Right with 0.7 and 0.6, half of the items right or wrong together."""
    generator = np.random.default_rng(2)
    together = generator.random((400, 80, 1)) < 0.5
    luck = np.where(together, generator.random((400, 80, 1)), generator.random((400, 80, 2)))
    right = luck < np.array([0.7, 0.6])
    found = [paired_bootstrap_items(x[:, 0], x[:, 1], draws=400, seed=i) for i, x in enumerate(right)]
    assert 0.93 < np.mean([interval.low <= 0.1 <= interval.high for interval in found]) < 0.97


def test_items_and_weights_that_are_none():
    assert paired_bootstrap_items([1], [0]) == Estimate(1, None, None)
    for weights in ([1], [1, -1], [0, 0]):
        with pytest.raises(ValueError, match="weights: 2 values >= 0 with a sum above 0 are needed, one per item"):
            paired_bootstrap_items([1, 2], [1, 2], weights)
    with pytest.raises(ValueError, match="second values: nan is not finite"):
        paired_bootstrap_items([1], [np.nan])


def test_wilson_by_hand():
    """8 of 10, z = 1.95996: centre (8 + z^2 / 2) / (10 + z^2), half-width z sqrt(1.6 + z^2 / 4) / (10 + z^2)."""
    z2 = 1.959964**2
    half = (z2 * (1.6 + z2 / 4)) ** 0.5
    found = wilson(8, 10)
    assert found.value == 0.8
    assert found.low == pytest.approx((8 + z2 / 2 - half) / (10 + z2))
    assert found.high == pytest.approx((8 + z2 / 2 + half) / (10 + z2))


def test_wilson_stays_inside_and_has_a_width_at_the_ends():
    none, all_ = wilson(0, 20), wilson(20, 20)
    assert none.low == pytest.approx(0)
    assert none.high == pytest.approx(1 - all_.low)
    assert all_.high == pytest.approx(1)
    assert 0.1 < none.high < 0.2


def test_wilson_covers_as_often_as_it_says():
    """Over all counts of 277 items, by their probability, at several accuracies."""
    ends = [wilson(k, 277) for k in range(278)]
    coefficients = np.cumsum([0, *(np.log(277 - k) - np.log(k + 1) for k in range(277))])
    for share in (0.5, 0.66, 0.8, 0.9):
        k = np.arange(278)
        chance = np.exp(coefficients + k * np.log(share) + (277 - k) * np.log(1 - share))
        covered = sum(p for p, found in zip(chance, ends, strict=True) if found.low <= share <= found.high)
        assert 0.93 < covered < 0.97


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_wilson_takes_shares_only(successes, n):
    with pytest.raises(ValueError, match=f"{successes} of {n} is no share"):
        wilson(successes, n)
