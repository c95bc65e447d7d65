"""Mean shares of several maps, and how far the maps agree."""

import numpy as np
import pytest

from rankbench.statistics.consensus import agreement, mean_shares, variation


def test_every_run_counts_the_same_whatever_its_total():
    assert mean_shares([[1, 1, 2], [30, 10, 0]]).tolist() == [0.5, 0.25, 0.25]
    for wrong in ([[0, 0]], [[1, -1]], [[np.inf, 1]]):
        with pytest.raises(ValueError, match="shares of a total need values >= 0"):
            mean_shares(wrong)


def test_agreement_is_the_mean_over_all_pairs():
    first, opposite, uniform = [1, 2, 3], [3, 2, 1], [2, 2, 2]
    found = agreement([first, first, opposite], [1, 1, 1])
    assert found.spearman == pytest.approx((1 - 1 - 1) / 3)
    assert found.overlap == pytest.approx((1 + 2 * 4 / 6) / 3)
    assert agreement([first, uniform], [1, 1, 1]).spearman is None
    assert agreement([[1, 1], [2, 0]], [3, 1]).overlap == 0.75  # of what is spent
    for wrong in ([first], [first, [0, 0, 0]]):
        with pytest.raises(ValueError, match="needs two rank maps or more"):
            agreement(wrong, [1, 1, 1])


def test_variation_is_that_over_sites():
    assert variation([2, 2, 2]) == 0
    assert variation([0, 4]) == 1
