"""Differences as text, in the metric's unit or in per cent."""

import math

import pytest

from rankbench.analysis.terms import Terms
from rankbench.reporting.amounts import amount_of, difference_cell, level_text
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
    assert difference_cell(LOG, wide, 0).text == "+11 % [-100, above +1000]"


def test_a_difference_beyond_ten_times_has_no_digits():
    cell = difference_cell(Terms(margin=0.1, log=True), PairedDifference(4, 0.1, -2.0, 9.0), 1)
    assert cell.text == "+10.5 % [-86.5, above +1000]"
    assert cell.high == pytest.approx(100 * math.expm1(9.0))


@pytest.mark.parametrize(
    ("level", "text"), [(0.95, "95"), (0.5, "50"), (1 - 0.05 / 23, "99.78"), (1 - 4e-5, "99.9960")]
)
def test_a_level_is_not_rounded_to_certainty(level, text):
    assert level_text(level) == text
