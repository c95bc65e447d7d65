"""Differences as text, in the metric's unit or in per cent."""

import math

import pytest

from rankbench.analysis.terms import Terms
from rankbench.reporting.amounts import amount_of, difference_cell
from rankbench.statistics.estimates import PairedDifference

LOG = Terms(0.05, log=True)


def test_an_amount_is_the_one_of_the_terms():
    assert amount_of(LOG, math.log(1.5), rises=True) == pytest.approx(50)
    assert amount_of(Terms(0.05), -0.25) == -0.25


@pytest.mark.parametrize(
    ("change", "rises", "amount"), [(1e4, True, math.inf), (-1e4, True, -100), (-1e4, False, -math.inf)]
)
def test_an_amount_beyond_all_numbers_is_infinite(change, rises, amount):
    assert amount_of(LOG, change, rises) == amount


def test_an_interval_of_few_pairs_in_a_large_family_is_printed():
    wide = PairedDifference(2, 0.1, -1e4, 1e4)
    assert difference_cell(LOG, wide, 0).text == "+11 % [-100, +inf]"
