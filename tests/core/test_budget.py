"""Budgets: scores become integer ranks exactly, the schedule falls correctly, and the ledger is judged correctly."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from peft.tuners.adalora.layer import RankAllocator
from reference import budget as reference

from rankbench.core.apportionment import BudgetError, apportion, select
from rankbench.core.budget import Budget, Decay, Ledger

CASES = 300
INF = float("inf")


def sites(**shapes: tuple[int, int]) -> list[SimpleNamespace]:
    return [SimpleNamespace(name=name, d_out=rows, d_in=columns) for name, (rows, columns) in shapes.items()]


def settings(**changes):
    base = {"reference_rank": 4, "unit": "params", "match": "final", "tolerance": 0.01, "source": "uniform"}
    return OmegaConf.create({**base, "factor": 1.0, "peak_of": None, "target": None, **changes})


def budget(**changes) -> Budget:
    return Budget.of(settings(**changes), sites(a=(8, 8), b=(16, 8), c=(8, 16)), None)


def random_case(seed: int) -> tuple[list[float], list[int], int, list[int], list[int]]:
    """Scores with ties, zeros and infinities; bounds that can be met."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    scores = rng.choice([rng.gamma(0.5, size=count), rng.integers(0, 4, count).astype(float)])
    scores[rng.random(count) < 0.15] = rng.choice([0.0, INF])
    costs = rng.integers(1, 9, count) if rng.random() < 0.6 else np.full(count, rng.integers(1, 9))
    low = rng.integers(0, 3, count)
    high = low + rng.integers(0, 9, count)
    total = int(rng.integers(costs @ low, costs @ high + 1))
    return scores.tolist(), costs.tolist(), total, low.tolist(), high.tolist()


# -- apportion --


@pytest.mark.parametrize("block", range(10))
def test_apportion_equals_the_slow_reference(block: int) -> None:
    for seed in range(block * CASES // 10, (block + 1) * CASES // 10):
        case = random_case(seed)
        assert apportion(*case) == reference.apportion(*case), f"seed {seed}: {case}"


def test_apportion_is_exact_within_bounds_and_monotone() -> None:
    for seed in range(CASES):
        scores, costs, total, low, high = case = random_case(seed)
        ranks = apportion(*case)
        left = total - sum(cost * rank for cost, rank in zip(costs, ranks, strict=True))
        assert all(least <= rank <= most for least, rank, most in zip(low, ranks, high, strict=True)), case
        still_open = [cost for cost, rank, most in zip(costs, ranks, high, strict=True) if rank < most]
        assert left >= 0, case
        assert not still_open or left < min(still_open), case
        alike = [(i, j) for i in range(len(ranks)) for j in range(len(ranks))]
        for i, j in alike:
            if scores[i] > scores[j] and (costs[i], low[i], high[i]) == (costs[j], low[j], high[j]):
                assert ranks[i] >= ranks[j], case


def test_raising_one_score_never_lowers_its_rank() -> None:
    for seed in range(CASES):
        scores, costs, total, low, high = random_case(seed)
        costs = [3] * len(costs)
        total = min(max(total, 3 * sum(low)), 3 * sum(high))
        index = seed % len(scores)
        more = [score * 2 if i == index else score for i, score in enumerate(scores)]
        before, after = apportion(scores, costs, total, low, high), apportion(more, costs, total, low, high)
        assert after[index] >= before[index], (scores, total, low, high)


def test_equal_costs_spend_the_budget_to_the_last_rank() -> None:
    assert sum(apportion([0.3, 0.1, 0.6], [1, 1, 1], 17, [0] * 3, [99] * 3)) == 17


def test_ranks_are_proportional_where_integers_allow() -> None:
    assert apportion([1.0, 2.0, 5.0], [7, 7, 7], 7 * 16, [0] * 3, [99] * 3) == [2, 4, 10]


def test_ties_go_to_the_earlier_site() -> None:
    assert apportion([2.0, 2.0, 2.0], [1, 1, 1], 4, [0] * 3, [9] * 3) == [2, 1, 1]
    assert apportion([1.0, 3.0], [1, 1], 2, [0, 1], [9, 9]) == [1, 1]  # both claim 2


def test_all_scores_equal_is_the_uniform_allocation() -> None:
    assert apportion([0.7] * 4, [5] * 4, 60, [0] * 4, [9] * 4) == [3, 3, 3, 3]


def test_all_scores_zero_count_as_equal() -> None:
    assert apportion([0.0] * 4, [5] * 4, 60, [0] * 4, [9] * 4) == [3, 3, 3, 3]


def test_sites_of_score_zero_are_served_last_and_evenly() -> None:
    assert apportion([1.0, 0.0, 0.0], [1, 1, 1], 8, [0] * 3, [2, 9, 9]) == [2, 3, 3]
    assert apportion([1.0, 0.0, 0.0], [1, 1, 1], 2, [0] * 3, [2, 9, 9]) == [2, 0, 0]


def test_infinite_scores_are_served_first_and_evenly() -> None:
    assert apportion([1e300, INF, 1.0], [1, 1, 1], 5, [0] * 3, [9, 5, 9]) == [0, 5, 0]
    assert apportion([INF, 9.0, INF], [1, 1, 1], 6, [0] * 3, [9] * 3) == [3, 0, 3]
    assert apportion([INF, 9.0, INF], [1, 1, 1], 6, [0] * 3, [2, 9, 2]) == [2, 2, 2]


def test_what_no_longer_fits_is_left_to_cheaper_sites() -> None:
    assert apportion([9.0, 1.0], [10, 3], 17, [0, 0], [9, 9]) == [1, 2]


def test_a_budget_of_the_bounds_gives_the_bounds() -> None:
    assert apportion([1.0, 2.0], [3, 5], 8, [1, 1], [4, 4]) == [1, 1]
    assert apportion([1.0, 2.0], [3, 5], 32, [1, 1], [4, 4]) == [4, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [1.0, -0.5]}, r"scores must be >= 0: site 1 has -0\.5"),
        ({"scores": [float("nan"), 1.0]}, "scores must be >= 0: site 0 has nan"),
        ({"total": 3}, "budget 3 is below the cost 4 of the least ranks"),
        ({"total": 13}, "budget 13 is above the cost 12 of the greatest ranks"),
        ({"low": [1, 4]}, "a site's least rank is above its greatest rank"),
    ],
)
def test_a_budget_that_no_allocation_can_meet_says_so(changes: dict, message: str) -> None:
    case = {"scores": [1.0, 1.0], "costs": [2, 2], "total": 8, "low": [1, 1], "high": [3, 3], **changes}
    with pytest.raises(BudgetError, match=message):
        apportion(**case)


# -- select --


@pytest.mark.parametrize("refill", [True, False])
@pytest.mark.parametrize("equal_costs", [True, False])
def test_select_equals_the_slow_reference(equal_costs: bool, refill: bool) -> None:
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(1, 40))
        scores = rng.normal(size=count) if seed % 2 else rng.integers(0, 4, count).astype(float)
        scores[rng.random(count) < 0.1] = -INF
        costs = np.full(count, 2.0) if equal_costs else rng.choice([1.0, 1.5, 3.0], count)
        total = float(rng.integers(-1, int(costs.sum()) + 2))
        kept = select(scores, costs, total, refill)
        assert kept.tolist() == reference.select(scores.tolist(), costs.tolist(), total, refill), f"seed {seed}"
        left = total - costs[kept].sum()
        assert left >= 0 or not kept.any()
        assert kept.all() or left < costs[~kept].max()


def test_select_keeps_exactly_the_budget_when_all_scores_tie() -> None:
    assert select(np.zeros(5), np.ones(5), 3).tolist() == [True, True, True, False, False]


def test_select_of_nothing_and_of_everything() -> None:
    scores = np.array([3.0, 1.0, 2.0])
    assert not select(scores, np.ones(3), 0).any()
    assert not select(scores, np.array([1.0, 2.0, 1.0]), 0).any()
    assert select(scores, np.ones(3), 3).all()
    assert select(scores, np.array([1.0, 2.0, 1.0]), 4).all()
    assert select(np.array([]), np.array([]), 3).shape == (0,)


def test_select_passes_over_what_does_not_fit() -> None:
    assert select(np.array([3.0, 2.0, 1.0]), np.array([2.0, 3.0, 1.0]), 3).tolist() == [True, False, True]


def test_select_without_a_refill_is_igu_s_released_cut() -> None:
    """Without ties, which the released code cuts all together."""
    different = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        scores, costs = rng.normal(size=30), rng.choice([1.0, 1.5, 3.0], 30)
        total = float(rng.integers(0, int(costs.sum())))
        kept = select(scores, costs, total, refill=False).tolist()
        assert kept == reference.released_cut(scores.tolist(), costs.tolist(), total)
        different += kept != select(scores, costs, total).tolist()
    assert different > CASES / 4


def test_select_is_not_misled_by_rounding() -> None:
    """0.3 - 0.1 - 0.1 is less than 0.1."""
    costs = np.full(30, 0.1)
    assert select(np.arange(30.0), costs, 0.3).sum() == 3
    costs[0] = 0.2
    assert select(np.arange(30.0), costs, 0.3).sum() == 3


def test_select_refuses_nan() -> None:
    with pytest.raises(BudgetError, match="2 of 3 component scores are NaN"):
        select(np.array([np.nan, 1.0, np.nan]), np.ones(3), 1)


# -- Budget --


def test_the_target_is_what_the_uniform_rank_costs() -> None:
    assert budget().target == 4 * (16 + 24 + 24)
    assert budget(unit="ranks").target == 4 * 3
    assert budget().uniform() == {"a": 4, "b": 4, "c": 4}
    assert budget().uniform(1.5) == {"a": 6, "b": 6, "c": 6}
    assert budget().uniform(100) == {"a": 8, "b": 8, "c": 8}  # full rank


def test_a_budget_of_true_ranks_costs_what_they_cost() -> None:
    found = Budget.of(settings(source="true_ranks", reference_rank=None), sites(a=(8, 8), b=(16, 8)), {"a": 0, "b": 5})
    assert (found.target, found.reference_rank) == (5 * 24, 3)


def layered(layers: int, kinds: dict[str, tuple[int, int]]) -> list[SimpleNamespace]:
    return sites(**{f"layers.{layer}.{kind}": shape for layer in range(layers) for kind, shape in kinds.items()})


def test_a_factor_multiplies_the_target_and_leaves_the_reference_rank() -> None:
    twice = budget(factor=2.0)
    assert (twice.target, twice.reference_rank, twice.uniform_rank) == (2 * budget().target, 4, 8)
    assert twice.uniform() == dict.fromkeys("abc", 8)
    assert budget(factor=0.5).uniform() == dict.fromkeys("abc", 2)
    true = settings(source="true_ranks", reference_rank=None, factor=2.0)
    assert Budget.of(true, sites(a=(8, 8), b=(16, 8)), {"a": 0, "b": 5}).target == 2 * 5 * 24


def test_the_peak_of_another_run_is_a_target_of_its_own() -> None:
    own = budget(peak_of="a run", target=100, reference_rank=1)
    assert (own.target, own.reference_rank, own.uniform_rank) == (100, 1, 2)
    assert own.uniform() == {"a": 3, "b": 1, "c": 1}  # of 36 beside rank 1 no rank of 24 is left once a has its second
    with pytest.raises(BudgetError, match=r"budget.peak_of={igu}: an arm stands for its run in an experiment alone"):
        budget(peak_of="{igu}")


def test_half_of_rank_1_lies_evenly_over_depth_and_types() -> None:
    kinds = {"q": (8, 8), "k": (4, 8), "v": (4, 8), "o": (8, 8), "up": (16, 8), "down": (8, 16)}
    half = Budget.of(settings(reference_rank=1, factor=0.5), layered(6, kinds), None)
    ranks = half.uniform()
    assert list(ranks) == list(half.costs)
    assert half.spent(ranks) == half.target
    assert {sum(rank for name, rank in ranks.items() if name.endswith(f".{kind}")) for kind in kinds} == {3}
    assert {sum(rank for name, rank in ranks.items() if f".{layer}." in name) for layer in range(6)} == {3}
    assert {sum(ranks[f"layers.{layer}.q"] for layer in layers) for layers in ((0, 1), (2, 3), (4, 5))} == {1}
    quarter_more = Budget.of(settings(reference_rank=1, factor=1.25), layered(6, kinds), None).uniform()
    assert {sum(quarter_more[f"layers.{layer}.{kind}"] for kind in kinds) for layer in range(6)} <= {7, 8, 9}
    assert set(quarter_more.values()) == {1, 2}


def test_allocate_keeps_the_least_rank_and_the_target() -> None:
    ranks = budget().allocate({"a": 1.0, "b": 0.0, "c": 0.0}, least=1)
    assert ranks == {"a": 8, "b": 3, "c": 2}  # the rest goes evenly to the other two
    assert 0 <= budget().target - budget().spent(ranks) < 24


def test_params_and_spent_are_counted_apart() -> None:
    ranks = {"a": 1, "b": 0, "c": 2}
    assert budget(unit="ranks").spent(ranks) == 3
    assert budget(unit="ranks").params(ranks) == budget().spent(ranks) == 16 + 2 * 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference_rank": 0}, "budget.reference_rank=0: a budget below one rank per site adapts nothing; use >= 1"),
        ({"reference_rank": 9}, "budget.reference_rank=9 is above the full rank 8 of site a: use <= 8"),
        ({"source": "true_ranks"}, "this task plants none: use budget=r8"),
        ({"factor": 4.0}, "reference_rank=4 times budget.factor=4 is above the full rank 8 of site a: use <= 2, or"),
        (
            {"factor": 0.01},
            "budget.factor, budget.peak_of: their target of 3 is not between the 16 of one rank",
        ),
    ],
)
def test_a_budget_that_does_not_fit_the_sites_says_so(changes: dict, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        budget(**changes)


# -- Decay --


@pytest.mark.parametrize("kind", ["cubic", "linear", "oneshot"])
def test_t7_the_schedule_starts_full_ends_at_the_target_and_never_rises(kind: str) -> None:
    for horizon, warmup, final in [(100, 0.1, 0.4), (37, 0.2, 0.3), (10, 0.0, 0.0), (3, 0.9, 0.9), (1, 0.5, 0.5)]:
        decay = Decay.over(horizon, kind, 900, 600, warmup, final, 3)
        totals = [decay.total(step) for step in range(1, horizon + 1)]
        assert decay.begin < decay.end
        assert totals[: decay.begin] == [900] * decay.begin
        assert totals[decay.end - 1 :] == [600] * (horizon - decay.end + 1)
        assert totals == sorted(totals, reverse=True)
        exact = [reference.decayed(kind, s, 900, 600, decay.begin, decay.end) for s in range(1, horizon + 1)]
        assert all(abs(found - true) <= 1 for found, true in zip(totals, exact, strict=True))


def test_the_phases_are_shares_of_the_horizon() -> None:
    decay = Decay.over(100, "cubic", 900, 600, 0.1, 0.4, 7)
    assert (decay.begin, decay.end) == (10, 60)
    assert [step for step in range(1, 101) if decay.cuts(step)] == [14, 21, 28, 35, 42, 49, 56, 60]
    assert Decay.over(50, "cubic", 9, 6, 0.1, 0.0, 1).end == 49  # the final phase keeps one step


def test_oneshot_cuts_once_in_effect() -> None:
    decay = Decay.over(100, "oneshot", 900, 600, 0.1, 0.4, 1)
    assert [decay.total(step) for step in (59, 60)] == [900, 600]


@pytest.mark.parametrize(("start", "target", "begin", "final", "horizon"), [(84, 56, 6, 24, 60), (999, 1, 0, 1, 400)])
def test_the_cubic_schedule_is_pefts(start: int, target: int, begin: int, final: int, horizon: int) -> None:
    config = SimpleNamespace(tinit=begin, tfinal=final, total_step=horizon, deltaT=5)
    peft = SimpleNamespace(peft_config=config, init_bgt=start, target_bgt=target)
    decay = Decay("cubic", start, target, begin, horizon - final, 5)
    for step in range(1, horizon + 1):
        total, cuts = RankAllocator.budget_schedule(peft, step)
        assert decay.total(step) == total, step
        if step < decay.end:  # PEFT forces a cut at the end and goes on masking after it
            assert decay.cuts(step) == cuts, step


# -- Ledger --


def account(*figures: tuple[int, int], unit: str = "params") -> Ledger:
    ledger = Ledger(unit, 256)
    for ranks, params in figures:
        ledger.observe(ranks, params)
    return ledger


def test_the_ledger_keeps_start_peak_and_final() -> None:
    ledger = account((10, 200), (20, 400), (12, 256))
    assert ledger.start == {"ranks": 10, "params": 200}
    assert ledger.peak == {"ranks": 20, "params": 400}
    assert ledger.final == {"ranks": 12, "params": 256}
    assert ledger.to_dict()["final"] == ledger.final


def test_gate_entries_are_counted_at_their_peak() -> None:
    ledger = Ledger("params", 256)
    for gates in (4, 9, 2):
        ledger.observe(1, 1, gates)
    assert ledger.gate_params == 9


@pytest.mark.parametrize(
    ("spent", "kind", "kept"),
    [
        (256, "exact", True),
        (258, "exact", True),  # 0.8 % above, within the tolerance
        (259, "exact", False),
        (232, "exact", True),  # one rank of the dearest site below
        (231, "exact", False),
        (100, "at_most", True),
        (259, "at_most", False),
        (999, "implicit", True),
        (1, "implicit", True),
    ],
)
def test_verdicts_on_the_final_figure(spent: int, kind: str, kept: bool) -> None:
    violation = account((24, 512), (12, spent)).budget_violation(budget(), kind)
    assert (violation is None) == kept, violation


def test_a_verdict_names_figure_unit_target_and_excess() -> None:
    violation = account((24, 512), (12, 300)).budget_violation(budget(), "exact")
    assert violation == "final 300 params against a target of 256 (+17.19%; tolerance 1.00%)"


def test_with_match_peak_the_peak_is_judged() -> None:
    ledger = account((24, 512), (12, 256))
    assert ledger.budget_violation(budget(), "exact") is None
    assert ledger.budget_violation(budget(match="peak"), "exact") == (
        "peak 512 params against a target of 256 (+100.00%; tolerance 1.00%)"
    )
    assert account((12, 256), (3, 64)).budget_violation(budget(match="peak"), "exact") is None


def test_with_unit_ranks_ranks_are_judged() -> None:
    ledger = account((12, 999), unit="ranks")
    assert ledger.budget_violation(budget(unit="ranks"), "exact") is None
    assert ledger.budget_violation(budget(), "exact") is not None


def test_a_wider_tolerance_is_honoured_on_both_sides() -> None:
    wide = replace(budget(), tolerance=0.2)
    assert account((9, 300)).budget_violation(wide, "exact") is None
    assert account((9, 210)).budget_violation(wide, "exact") is None
    assert account((9, 204)).budget_violation(wide, "exact") is not None
