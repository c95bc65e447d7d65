"""The findings of a comparison and the decisions on its arms, and whose budget counts."""

from __future__ import annotations

import pytest
from support.records import record, runs

from rankbench.analysis.comparison import compare
from rankbench.analysis.frame import frame
from rankbench.statistics.estimates import mean_interval

SEEDS = range(10)
LORA = {seed: 0.5 + 0.1 * seed for seed in SEEDS}


def shifted(by: float, spread: float = 0.001, seeds=SEEDS) -> dict[int, float]:
    return {seed: LORA[seed] + by + spread * (-1) ** seed for seed in seeds}


def compared(margin: float | None = 0.01, metric: str = "accuracy", **arms: dict[int, float]):
    found = [run for method, values in arms.items() for run in runs(method, values, metric)]
    return compare(frame(found), [f"test/{metric}"], "lora", margin)


@pytest.mark.parametrize(
    ("by", "spread", "metric", "kind", "text"),
    [
        (0.1, 0.001, "accuracy", "worthwhile", "better by more than 0.01"),
        (0.1, 0.12, "accuracy", "works", "better"),
        (-0.1, 0.001, "accuracy", "harmful", "worse"),
        (-0.1, 0.001, "loss", "worthwhile", "better by more than 0.01"),
        (0.1, 0.001, "loss", "harmful", "worse"),
        (0.1, 0.001, "regret", "untested", "direction of test/regret not known"),
        (0.005, 0.001, "accuracy", "no worthwhile gain", "no worthwhile gain"),
        (0.0, 0.001, "accuracy", "no worthwhile gain", "no worthwhile gain"),
        (0.0, 0.02, "accuracy", "open", "open: 37 seeds"),
        (0.0, 0.5, "accuracy", "open", "open"),
        (0.1, 0.0, "accuracy", "withheld", "withheld: all 10 pairs with lora differ by +0.1: no spread to judge by"),
    ],
)
def test_a_finding(by, spread, metric, kind, text):
    found = compared(metric=metric, lora=LORA, igu=shifted(by, spread)).findings["igu"]
    assert (found.kind, found.text) == (kind, text)


def test_an_interval_is_that_of_the_family():
    """The same pairs beside more arms: better alone, open beside eleven others."""
    arms = {"lora": LORA, "igu": shifted(0.08, 0.1)}
    alone = compare(frame([run for arm, values in arms.items() for run in runs(arm, values)]), ["test/kl"])
    family = compare(alone.data, ["test/kl"], family=12)
    assert alone.family == 1
    assert alone.difference("test/kl", "igu") == mean_interval(shifted_pairs := family.pairs("test/kl", "igu"))
    assert family.difference("test/kl", "igu") == mean_interval(shifted_pairs, 1 - 0.05 / 12)
    assert family.detectable("test/kl", "igu") > alone.detectable("test/kl", "igu")


CONTROLS = {"its own permuted ranks": "permuted", "random ranks": "random"}


def decided(**arms):
    return compared(lora=LORA, igu=shifted(0.1), **arms).decide("igu", CONTROLS)


def test_an_arm_works_if_it_beats_its_controls_too():
    decision = decided(permuted=shifted(0.01, 0.01), random=shifted(0, 0.002))
    assert (decision.outcome, list(decision.intervals)) == ("worthwhile", ["lora", *CONTROLS])
    for by, seeds in ((0.09, "45"), (0.1, "more than 500")):
        open_one = decided(permuted=shifted(by, 0.02), random=shifted(0, 0.002))
        told = f"not told from its own permuted ranks; {seeds} seeds would"
        assert (open_one.outcome, open_one.reason[: len(told)]) == ("open", told)


def test_a_control_that_cannot_be_compared_says_why():
    decision = decided(permuted={77: 0.5})
    assert decision.outcome == "open"
    assert decision.reason == "its own permuted ranks: no common seed; random ranks: not run"


def test_lost_seeds_withhold_a_decision():
    """Of the arm or of a control, failed or not run."""
    few = compared(lora=LORA, igu=shifted(0.1, seeds=range(7))).decide("igu")
    assert (few.outcome, few.reason) == ("withheld", "3 of 10 seeds without a run that is ok")
    control = decided(permuted=shifted(0, 0.01, range(9)), random=shifted(0, 0.002))
    assert control.reason == "1 of 10 seeds without a run that is ok"


def test_a_rate_at_the_edge_of_its_grid_withholds_a_decision():
    found = [*runs("lora", LORA, "accuracy"), *runs("igu", shifted(0.1), "accuracy")]
    found[0].config = {**found[0].config, "tuned": {"edge": True}}
    comparison = compare(frame(found), ["test/accuracy"], "lora", 0.01)
    assert comparison.findings["igu"].text == "withheld: a learning rate lies at an edge of its grid"


def test_without_a_margin_nothing_is_judged():
    found = compared(margin=None, lora=LORA, igu=shifted(0.1))
    assert (found.findings["igu"].kind, found.decide("igu"), found.judged) == ("untested", None, ["igu"])


def test_an_arm_that_keeps_no_budget_is_never_at_an_equal_one():
    """DoRA's magnitudes are less than 1 % of a large adapter."""
    arms = {"lora": "exact", "igu": "exact", "dora": "implicit"}
    found = [run for method in arms for run in runs(method, shifted(0.1), "accuracy")]
    for run in found:
        run.budget_kind = arms[run.method]
    compared = compare(frame(found), ["test/accuracy"], "lora")
    assert compared.shares.tolist() == [1.0] * 3
    assert list(compared.off.index) == ["dora"]
    assert (compared.findings["dora"].kind, compared.findings["dora"].text) == ("untested", "not at an equal budget")
    assert compared.judged == ["igu"]


def test_without_a_pair_or_a_reference_nothing_is_tested():
    other = compared(lora=LORA, igu={77: 0.5})
    assert other.findings["igu"].text == "no common seed"
    none = compare(frame(runs("igu", LORA)), ["test/kl"], None, 0.01)
    assert (none.findings["igu"].text, none.judged) == ("no reference", [])
    assert none.difference("test/kl", "igu") is None


def test_a_reference_whose_runs_all_failed_is_none():
    failed = [record("lora", seed, status="nan", metrics=None) for seed in SEEDS]
    found = compare(frame([*failed, *runs("igu", LORA)]), ["test/kl"], "lora", 0.01)
    assert found.findings["igu"].text == "no reference"


def test_the_budget_is_the_one_of_the_reference():
    """An arm that meets a target of its own, twice the reference's, is not at an equal budget."""
    big = runs("igu", shifted(0.1), "accuracy")
    for run in big:
        run.ledger = {**run.ledger, "target": 128, "final": {"ranks": 8, "params": 128}}
    found = compare(frame([*runs("lora", LORA, "accuracy"), *big]), ["test/accuracy"], "lora", 0.01)
    assert found.shares["igu"] == 2
    assert found.findings["igu"].text == "not at an equal budget"
    assert found.judged == []


def test_too_much_does_not_make_up_for_too_little():
    """60 and 140 % of the budget are the right mean, and no equal budget."""
    arm = runs("igu", shifted(0.1), "accuracy")
    for run in arm:
        run.ledger = {**run.ledger, "final": {"ranks": 4, "params": 64 + 26 * (-1) ** run.seed}}
    found = compare(frame([*runs("lora", LORA, "accuracy"), *arm]), ["test/accuracy"], "lora", 0.01)
    assert found.findings["igu"].text == "not at an equal budget"
