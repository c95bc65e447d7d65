"""The outcomes of a comparison (better, worse, tied, not resolved, not resolvable), and whose budget counts."""

from __future__ import annotations

import pytest
from support.records import record, runs

from rankbench.analysis.comparison import compare
from rankbench.analysis.frame import frame

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
        (0.1, 0.001, "accuracy", "better", "better"),
        (-0.1, 0.001, "accuracy", "worse", "worse"),
        (-0.1, 0.001, "loss", "better", "better"),
        (0.1, 0.001, "loss", "worse", "worse"),
        (0.1, 0.001, "regret", "differs", "differs"),
        (0.005, 0.001, "accuracy", "better", "better, by less than 0.01"),
        (0.0, 0.001, "accuracy", "tie", "tie shown (±0.01)"),
        (0.0, 0.1, "accuracy", "unresolved", "not resolved at n = 10"),
    ],
)
def test_a_finding(by, spread, metric, kind, text):
    found = compared(metric=metric, lora=LORA, igu=shifted(by, spread)).findings["igu"]
    assert (found.kind, found.text) == (kind, text)


def test_three_pairs_resolve_nothing_whatever_the_means():
    """The smallest p of three pairs is 0.25."""
    few = compared(lora=LORA, igu=shifted(0.4, 0.2, range(3)))
    assert (few.findings["igu"].kind, few.findings["igu"].text) == ("unresolvable", "not resolvable at n = 3")
    assert few.findings["lora"].kind == "reference"


def test_what_is_resolvable_alone_is_not_beside_many_others():
    """Six pairs: 2 / 64 = 0.031 alone, 0.062 for the better one of two."""
    two = {"lora": LORA, "igu": shifted(0.1, seeds=range(6)), "fim": shifted(0.3, 0.5, range(6))}
    assert compared(lora=LORA, igu=two["igu"]).findings["igu"].kind == "better"
    assert compared(**two).findings["igu"].kind == "unresolvable"


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
    assert list(compared.tests.index) == ["igu"]


def test_a_tie_can_be_shown_with_few_pairs():
    assert compared(lora=LORA, igu=shifted(0.0, 0.0001, range(4))).findings["igu"].kind == "tie"
    assert compared(margin=None, lora=LORA, igu=shifted(0.0, 0.0001, range(4))).findings["igu"].kind == "unresolvable"


def test_without_a_pair_or_a_reference_nothing_is_tested():
    other = compared(lora=LORA, igu={77: 0.5})
    assert other.findings["igu"].text == "no common seed"
    none = compare(frame(runs("igu", LORA)), ["test/kl"], None, 0.01)
    assert (none.findings["igu"].text, none.tests.empty) == ("no reference", True)
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
    assert found.tests.empty


def test_too_much_does_not_make_up_for_too_little():
    """60 and 140 % of the budget are the right mean, and no equal budget."""
    arm = runs("igu", shifted(0.1), "accuracy")
    for run in arm:
        run.ledger = {**run.ledger, "final": {"ranks": 4, "params": 64 + 26 * (-1) ** run.seed}}
    found = compare(frame([*runs("lora", LORA, "accuracy"), *arm]), ["test/accuracy"], "lora", 0.01)
    assert found.findings["igu"].text == "not at an equal budget"


def test_an_arm_is_resolvable_if_its_best_p_would_pass_beside_the_others_as_they_are():
    """Seven pairs: 2 / 128 = 0.016, times two beside an arm whose p is smaller, not times three."""
    arms = {"igu": shifted(0.1), "fim": shifted(0.1, 0.05), "l1ra": shifted(0.01, 0.5, range(7))}
    assert compared(lora=LORA, **arms).findings["l1ra"].kind == "unresolved"
