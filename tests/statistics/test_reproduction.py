"""The rule on published numbers: cases worked by hand, and its error rate."""

from __future__ import annotations

import numpy as np
import pytest

from rankbench.statistics.reproduction import reproduction


def test_the_interval_is_that_of_the_mean_of_as_many_runs_as_the_paper_has():
    """Mean 0.82, s 0.02; t(4) at 97.5 % is 2.776445: 2.776445 * 0.02 * sqrt(1/5 + 1/5) = 0.035120."""
    values = 0.82 + 0.02 * np.sqrt(2) * np.array([-1, 0, 0, 0, 1])  # s^2 = 2 * 2 * 0.0004 / 4
    found = reproduction(values, 0.82, 0.01, published_runs=5)
    assert found.ours.value == pytest.approx(0.82)
    assert found.ours.high - found.ours.value == pytest.approx(0.035120, abs=1e-6)
    alone = reproduction(values, 0.82, 0.01)  # unknown counts as one: sqrt(1/5 + 1) = 1.095445
    assert alone.ours.high - alone.ours.value == pytest.approx(2.776445 * 0.02 * 1.095445, abs=1e-6)


# Two runs, 0.81 and 0.83, and a paper with very many: t(1) = 12.7062, s = 0.0141421, half = 0.127062.
# Five runs at 0.82 +- 0.001 (s = 0.001): t(4) = 2.776445, against five of the paper half = 0.001756.
TWO = (0.81, 0.83)
FIVE = tuple(0.82 + 0.001 * np.sqrt(2) * np.array([-1, 0, 0, 0, 1]))


@pytest.mark.parametrize(
    ("values", "published", "margin", "rounding", "outcome", "reason"),
    [
        (FIVE, 0.823, 0.005, 0.0, "equivalent", "within the margin"),  # 0.8218 and 0.8182 lie in 0.818 .. 0.828
        (FIVE, 0.8236, 0.005, 0.0, "contradicted", "outside"),  # 0.8182 lies below 0.8186, and 0.8236 above 0.8218
        (FIVE, 0.8236, 0.005, 0.0005, "equivalent", "within the margin"),  # half a digit more
        (FIVE, 0.8215, 0.001, 0.0, "consistent", "inside of our interval"),  # too far for the margin, reach 1.8 margins
        (FIVE, 0.8218, 0.001, 0.0, "contradicted", "outside"),  # the interval ends at 0.82176
        (FIVE, 0.8218, 0.001, 0.00005, "consistent", "inside"),
        (FIVE, 0.8210, 0.0004, 0.0, "not comparable", "too wide to tell"),  # reach 0.00176 > 4 * 0.0004
        (TWO, 0.85, 0.005, 0.0, "not comparable", "too wide to tell"),
        (TWO, 0.99, 0.005, 0.0, "contradicted", "outside"),
        ((0.82,), 0.82, 0.005, 0.0, "not comparable", "no spread, no interval"),
        ((0.82, 0.82), 0.82, 0.005, 0.0, "not comparable", "no spread, no interval"),  # not an interval of no width
        ((0.82, 0.82, 0.82), 0.9, 0.005, 0.0, "not comparable", "no spread, no interval"),
    ],
)
def test_the_rule_case_by_case(values, published, margin, rounding, outcome, reason):
    found = reproduction(values, published, margin, rounding, published_runs=5 if values is FIVE else 10**9)
    assert (found.outcome, reason in found.reason) == (outcome, True), found


def test_of_one_run_the_interval_is_wilsons_over_its_items():
    """220 of 277 items; at a margin of 0.02 the interval reaches less than four margins, at 0.005 more."""
    found = reproduction([220 / 277], 0.8, 0.02, items=277)
    assert (found.outcome, found.reason) == ("consistent", "inside of our interval")
    z, p, n = 1.959964, 220 / 277, 277
    centre, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n),
    )
    assert (found.ours.low, found.ours.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert reproduction([220 / 277], 0.9, 0.02, items=277).outcome == "contradicted"
    assert reproduction([220 / 277], 0.8, 0.005, items=277).outcome == "not comparable"


@pytest.mark.parametrize("published_runs", [1, 5])
def test_a_true_number_is_contradicted_in_5_of_100_studies_at_the_most(published_runs):
    """Papers and studies of the same method: with a margin that decides nothing, the error is that of the interval."""
    generator = np.random.default_rng(0)
    studies, papers = generator.normal(0.8, 0.01, (4000, 5)), generator.normal(0.8, 0.01, (4000, published_runs))
    tiny = 1e-9  # as a margin: the first rule never applies
    outcomes = [
        reproduction(study, float(paper.mean()), tiny, published_runs=published_runs).outcome
        for study, paper in zip(studies, papers, strict=True)
    ]
    assert outcomes.count("contradicted") / 4000 == pytest.approx(0.05, abs=0.012)


def test_a_difference_of_two_points_is_found_by_five_runs():
    generator = np.random.default_rng(1)
    studies, papers = generator.normal(0.8, 0.003, (1000, 5)), generator.normal(0.82, 0.003, (1000, 5)).mean(1)
    outcomes = [
        reproduction(study, float(paper), 0.005, published_runs=5).outcome
        for study, paper in zip(studies, papers, strict=True)
    ]
    assert outcomes.count("contradicted") / 1000 > 0.99


def test_a_margin_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"margin 0 is not > 0"):
        reproduction([0.8], 0.8, 0)
    with pytest.raises(ValueError, match=r"values: one list with at least one value"):
        reproduction([], 0.8, 0.1)


@pytest.mark.parametrize(
    ("by", "published", "sign"),
    [
        (0.003, 0.02, "confirmed"),
        (-0.003, 0.02, "contradicted"),
        (0.0005, 0.02, "not shown"),
        (0.003, 0.0, "not shown"),
    ],
)
def test_the_sign_of_a_difference_is_confirmed_by_our_pairs(by, published, sign):
    """Five differences with s = 0.001: Student's interval is +- 0.00124."""
    gains = by + np.array(FIVE) - 0.82
    assert reproduction(gains, published, 0.005, difference=True).sign == sign
    assert reproduction(gains, published, 0.005).sign is None
