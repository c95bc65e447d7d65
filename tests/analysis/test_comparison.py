"""The findings of a comparison and the decisions on its arms, and whose budget counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.records import record, runs

from rankbench.analysis.comparison import compare
from rankbench.analysis.frame import frame
from rankbench.analysis.terms import Terms
from rankbench.statistics.budget_ladder import budget_ladder
from rankbench.statistics.estimates import mean_interval

SEEDS = range(10)
LORA = {seed: 0.5 + 0.1 * seed for seed in SEEDS}


def shifted(by: float, spread: float = 0.001, seeds=SEEDS) -> dict[int, float]:
    return {seed: LORA[seed] + by + spread * (-1) ** seed for seed in seeds}


def compared(margin: float | None = 0.01, metric: str = "accuracy", terms=None, **arms: dict[int, float]):
    found = [run for method, values in arms.items() for run in runs(method, values, metric)]
    return compare(frame(found), [f"test/{metric}"], "lora", terms or Terms(margin))


@pytest.mark.parametrize(
    ("by", "spread", "metric", "kind", "text"),
    [
        (0.1, 0.001, "accuracy", "worthwhile gain", "better by more than 0.01"),
        (0.1, 0.12, "accuracy", "better", "better"),
        (-0.1, 0.001, "accuracy", "worse", "worse"),
        (-0.1, 0.001, "loss", "worthwhile gain", "better by more than 0.01"),
        (0.1, 0.001, "loss", "worse", "worse"),
        (0.1, 0.001, "regret", "untested", "direction of test/regret not known"),
        (0.005, 0.001, "accuracy", "no worthwhile gain", "no worthwhile gain"),
        (0.0, 0.001, "accuracy", "no worthwhile gain", "no worthwhile gain"),
        (0.0, 0.02, "accuracy", "open", "open: 37 seeds"),
        (0.0, 0.5, "accuracy", "open", "open"),
        (
            0.1,
            0.0,
            "accuracy",
            "withheld",
            "withheld: all 10 pairs with lora differ by the same: no spread to judge by",
        ),
    ],
)
def test_a_finding(by, spread, metric, kind, text):
    found = compared(metric=metric, lora=LORA, igu=shifted(by, spread)).findings["igu"]
    assert (found.kind, found.text) == (kind, text)


def test_an_interval_is_that_of_the_family():
    """The same pairs beside more arms: better alone, open beside eleven others."""
    arms = {"lora": LORA, "igu": shifted(0.08, 0.1)}
    alone = compare(frame([run for arm, values in arms.items() for run in runs(arm, values)]), ["test/kl"])
    family = compare(alone.data, ["test/kl"], terms=Terms(family=12))
    assert alone.family == 1
    assert alone.difference("test/kl", "igu") == mean_interval(shifted_pairs := family.pairs("test/kl", "igu"))
    assert family.difference("test/kl", "igu") == mean_interval(shifted_pairs, 1 - 0.05 / 12)
    assert family.detectable("test/kl", "igu") > alone.detectable("test/kl", "igu")


CONTROLS = {"its own permuted ranks": ["permuted"], "random ranks": ["random"]}


def decided(**arms):
    return compared(lora=LORA, igu=shifted(0.1), **arms).decide("igu", CONTROLS)


def test_an_arm_works_if_it_beats_its_controls_too():
    decision = decided(permuted=shifted(0.01, 0.01), random=shifted(0, 0.002))
    assert (decision.outcome, list(decision.intervals)) == ("worthwhile", ["lora", *CONTROLS])
    for by, seeds in ((0.09, "45"), (0.1, "more than 500")):
        open_one = decided(permuted=shifted(by, 0.02), random=shifted(0, 0.002))
        told = f"not told from its own permuted ranks; {seeds} seeds would"
        assert (open_one.outcome, open_one.reason[: len(told)]) == ("open", told)


def test_a_control_that_was_never_to_be_run_leaves_the_question_open_and_a_lost_one_withholds_it():
    arms = {"lora": LORA, "igu": shifted(0.1), "permuted": shifted(0.01, 0.01)}
    decision = compared(**arms).decide("igu", {"its own permuted ranks": ["permuted"], "random ranks": []})
    assert (decision.outcome, decision.reason) == ("open", "random ranks: not run")
    lost = compared(**arms).decide("igu", CONTROLS)
    assert (lost.outcome, lost.reason) == ("withheld", "random ranks: no run that is ok")
    apart = decided(permuted={77: 0.5}, random=shifted(0, 0.002))
    assert apart.reason.endswith("its own permuted ranks: no common seed")


def test_a_control_of_several_arms_is_their_mean_at_each_seed():
    maps = {f"map{number}": shifted(by, 0.01) for number, by in enumerate((0.0, 0.02, 0.04))}
    comparison = compared(lora=LORA, igu=shifted(0.1), **maps)
    decision = comparison.decide("igu", {"permuted": list(maps)})
    assert decision.intervals["permuted"].mean == pytest.approx(0.08)
    lost = compared(lora=LORA, igu=shifted(0.1), **maps | {"map2": shifted(0.04, 0.01, range(9))})
    assert lost.decide("igu", {"permuted": list(maps)}).reason == "9 pairs with permuted, 10 were declared"


def test_arms_of_a_control_that_are_not_to_be_run_here_are_left_out():
    """One permutation of three in this cell; and none."""
    seeds = frozenset(SEEDS)
    terms = Terms(0.01, seeds=dict.fromkeys(["lora", "igu", "map0"], seeds))
    comparison = compared(terms=terms, lora=LORA, igu=shifted(0.1), map0=shifted(0.02, 0.01))
    decision = comparison.decide("igu", {"permuted": ["map0", "map1", "map2"]})
    assert (decision.outcome, decision.intervals["permuted"].mean) == ("worthwhile", pytest.approx(0.08))
    assert comparison.decide("igu", {"permuted": ["map1"]}).reason == "permuted: not run"


def test_lost_seeds_withhold_a_decision():
    """Of the arm or of a control, failed or not run; all of them; and those that were declared and never frozen."""
    few = compared(lora=LORA, igu=shifted(0.1, seeds=range(7))).decide("igu")
    assert (few.outcome, few.reason) == ("withheld", "7 pairs with lora, 10 were declared")
    control = decided(permuted=shifted(0, 0.01, range(9)), random=shifted(0, 0.002))
    assert control.reason == "9 pairs with its own permuted ranks, 10 were declared"
    none = compared(lora=LORA, igu={77: 0.5})
    assert (none.findings["igu"].text, none.decide("igu").reason) == ("withheld: no common seed", "igu: no common seed")
    seeds = dict.fromkeys(("lora", "igu"), frozenset(range(12)))
    declared = compared(terms=Terms(0.01, seeds=seeds), lora=LORA, igu=shifted(0.1))
    assert declared.findings["igu"].text == "withheld: 10 pairs with lora, 12 were declared"


def test_a_control_with_a_larger_budget_is_beaten_the_harder_and_one_with_a_smaller_is_none():
    def decision(params: int):
        control = runs("random", shifted(0, 0.002), "accuracy")
        for run in control:
            run.ledger = {**run.ledger, "target": params, "final": {"ranks": 8, "params": params}}
        arms = [*runs("lora", LORA, "accuracy"), *runs("igu", shifted(0.1), "accuracy"), *control]
        return compare(frame(arms), ["test/accuracy"], "lora", Terms(0.01)).decide("igu", {"random ranks": ["random"]})

    assert decision(128).outcome == "worthwhile"
    assert decision(32).reason == "random ranks: random spent less than the budget"


def test_logarithms_are_judged_where_they_are_declared():
    """A gain of 10 % at every seed, whatever the loss: no spread on the raw scale would do."""
    igu = {seed: value * 0.9 * (1 + 0.001 * (-1) ** seed) for seed, value in LORA.items()}
    comparison = compared(metric="loss", terms=Terms(0.05, log=True), lora=LORA, igu=igu)
    assert comparison.findings["igu"].text == "better by more than 4.9 %"
    assert comparison.difference("test/loss", "igu").mean == pytest.approx(math.log(0.9), abs=1e-5)
    assert comparison.terms.amount(comparison.gains("igu", ["lora"]).mean()) == pytest.approx(10, abs=0.01)
    none = compared(metric="loss", terms=Terms(0.05, log=True), lora=LORA, igu={**igu, 0: 0.0})
    assert none.findings["igu"].text == "withheld: test/loss of igu is 0, which has no logarithm"


def test_without_headroom_every_arm_is_withheld():
    comparison = compared(terms=Terms(0.01, headroom=False), lora=LORA, igu=shifted(0.1))
    assert comparison.findings["igu"].text.startswith("withheld: no headroom")


def test_what_a_gain_is_worth_is_read_off_the_ladder():
    rungs = np.array([[0.4, 0.5, 0.6, 0.7]]) + 0.001 * np.arange(3)[:, None] * [1, -1, 1, -1]
    terms = Terms(0.01, ladder=budget_ladder(rungs, higher_is_better=True))
    comparison = compared(terms=terms, lora=LORA, igu=shifted(0.1))
    worth = comparison.worth("igu")
    assert worth.low < 2 < worth.high
    assert worth.value == pytest.approx(2, rel=0.02)
    assert compared(lora=LORA, igu=shifted(0.1)).worth("igu") is None


@pytest.mark.parametrize("tuned", [{"edge": True}, {"edge": False, "missing": 1}])
def test_a_rate_that_may_not_be_the_best_withholds_a_decision(tuned):
    found = [*runs("lora", LORA, "accuracy"), *runs("igu", shifted(0.1), "accuracy")]
    found[0].config = {**found[0].config, "tuned": tuned}
    comparison = compare(frame(found), ["test/accuracy"], "lora", Terms(0.01))
    assert comparison.findings["igu"].text == "withheld: no learning rate inside of its grid was chosen for lora"


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
    other = compared(margin=None, lora=LORA, igu={77: 0.5})
    assert (other.findings["igu"].kind, other.findings["igu"].text) == ("untested", "no common seed")
    none = compare(frame(runs("igu", LORA)), ["test/kl"], None, Terms(0.01))
    assert (none.findings["igu"].text, none.judged) == ("no reference", [])
    assert none.difference("test/kl", "igu") is None


def test_a_reference_whose_runs_all_failed_is_none():
    failed = [record("lora", seed, status="nan", metrics=None) for seed in SEEDS]
    found = compare(frame([*failed, *runs("igu", LORA)]), ["test/kl"], "lora", Terms(0.01))
    assert found.findings["igu"].text == "no reference"


def test_the_budget_is_the_one_of_the_reference():
    """An arm that meets a target of its own, twice the reference's, is not at an equal budget."""
    big = runs("igu", shifted(0.1), "accuracy")
    for run in big:
        run.ledger = {**run.ledger, "target": 128, "final": {"ranks": 8, "params": 128}}
    found = compare(frame([*runs("lora", LORA, "accuracy"), *big]), ["test/accuracy"], "lora", Terms(0.01))
    assert found.shares["igu"] == 2
    assert found.findings["igu"].text == "not at an equal budget"
    assert found.judged == []


def test_too_much_does_not_make_up_for_too_little():
    """60 and 140 % of the budget are the right mean, and no equal budget."""
    arm = runs("igu", shifted(0.1), "accuracy")
    for run in arm:
        run.ledger = {**run.ledger, "final": {"ranks": 4, "params": 64 + 26 * (-1) ** run.seed}}
    found = compare(frame([*runs("lora", LORA, "accuracy"), *arm]), ["test/accuracy"], "lora", Terms(0.01))
    assert found.findings["igu"].text == "not at an equal budget"
