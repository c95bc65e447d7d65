"""L1RA: gates, pruning and redistribution against a slow reference; what a check leaves unchanged; its controls."""

import numpy as np
import pytest
import torch
from reference import l1ra as reference
from support.toys import Rig, rig

from rankbench.core.apportionment import distribute


def run_of(**changes) -> Rig:
    settings = {"steps": 20, "unit": "ranks", "reference_rank": 3, "checks": 0.25, "last_check": 1.0}
    return rig("l1ra", **{**settings, **changes})


def set_gates(run: Rig, values: dict[int, list[float]]) -> None:
    for index, gates in values.items():
        run.adapters.gates(run.adapters.sites[index].name).data = torch.tensor(gates)


def check(run: Rig, index: int = 5) -> None:
    with run.adapters.deciding("l1ra", "on_step_end", index):
        run.allocator.on_step_end(run.adapters, run.moment(index))


def named(run: Rig, values: dict[int, list[float]]) -> dict[str, list[float]]:
    gates = {site.name: run.adapters.gates(site.name).tolist() for site in run.adapters.sites}
    return gates | {run.adapters.sites[index].name: value for index, value in values.items()}


CASES = [
    {0: [1.0, 0.0, 0.5]},
    {0: [0.0, 0.0, 0.0]},  # the last one stays
    {0: [0.9, 0.0, 0.0], 2: [0.0, 0.3, 0.0], 3: [0.4, 0.4, 0.4]},
    {i: [0.0, 0.5, 0.6] for i in range(6)},  # everybody loses: nobody may receive
    {i: [0.0, 0.0, 0.2] for i in range(5)},  # one receiver takes all
]


@pytest.mark.parametrize("values", CASES)
@pytest.mark.parametrize("exclude", [True, False])
def test_a_check_against_the_reference(values, exclude):
    run = run_of(l1=0.0, exclude_pruned=exclude)
    set_gates(run, values)
    expected = reference.check(named(run, values), exclude_pruned=exclude)
    check(run)
    full = run.budget.full_ranks
    assert run.adapters.ranks() == {site: min(rank, full[site]) for site, rank in expected.items()}


@pytest.mark.parametrize("exclude", [True, False])
def test_checks_with_saturated_gates_against_the_reference(exclude):
    """Gates as an optimizer leaves them: above 1, below 0; sites down to rank 1, some of them closed."""
    rng, run, receivers = np.random.default_rng(0), run_of(l1=0.0, exclude_pruned=exclude), set()
    for _ in range(100):
        sizes = {i: int(rng.integers(1, 4)) for i in range(6)}
        values = {i: (1 + rng.choice([0.05, 2.0]) * (rng.random(n) - 0.8)).tolist() for i, n in sizes.items()}
        with run.adapters.deciding("l1ra", "on_step_end", 5):
            for site, size in zip(run.adapters.sites, sizes.values(), strict=True):
                run.adapters.resize(site.name, [], grow=size)
        set_gates(run, values)
        before, expected = run.adapters.ranks(), reference.check(named(run, values), exclude_pruned=exclude)
        check(run)
        if max(expected.values()) <= 8:  # full rank, of which the reference knows nothing
            assert run.adapters.ranks() == expected
            receivers |= {name for name in expected if expected[name] > before[name]}
    assert receivers == set(before)


def test_every_check_of_runs_whose_gates_saturate_is_the_references():
    """The optimizer drives the gates; what it leaves before each check goes through the reference."""
    hidden_by_the_clip = 0
    for seed in range(4):
        rates = {"gate_rate": 1.0, "train": {"learning_rate": 0.002}}
        run, left = run_of(seed=seed, reference_rank=2, alpha=16.0, l1=0.005, checks=0.1, **rates), {}
        hook = run.allocator.on_step_end

        def look(adapters, step, run=run, left=left, hook=hook):
            left.update(run.gates())
            hook(adapters, step)

        run.allocator.on_step_end = look
        for index in range(1, run.settings.steps + 1):
            before = run.adapters.ranks()
            run.step(index)
            shrunk = {site: [reference.shrink(c, 1.0, 0.005) for c in gates] for site, gates in left.items()}
            expected = reference.check(shrunk) if index % 2 == 0 else before
            assert run.adapters.ranks() == expected
            assert all(0 <= c <= 1 for gates in run.gates().values() for c in gates)
            clipped = {site: [reference.clip(c) for c in gates] for site, gates in shrunk.items()}
            hidden_by_the_clip += index % 2 == 0 and reference.check(clipped) != expected
    assert hidden_by_the_clip >= 3


def test_a_closed_site_of_rank_one_receives_nothing():
    run = run_of(l1=0.0)
    names = [site.name for site in run.adapters.sites]
    with run.adapters.deciding("l1ra", "on_step_end", 5):
        run.adapters.resize(names[1], [0])
    set_gates(run, {i: [0.0, 0.0, 1.0] for i in range(6)} | {1: [0.0]})
    check(run)
    assert list(run.adapters.ranks().values()) == [1] * 6  # nobody may receive
    set_gates(run, {i: [1.0] for i in range(6)} | {1: [0.0]})
    check(run)
    assert run.allocator.diagnostics()["optimizer_resets"] == 1  # at the second check no rank went


def test_gates_move_by_rate_times_strength_and_stay_in_bounds():
    run = run_of(l1=0.5, gate_rate=0.1)
    values = {0: [1.0, 0.03, 0.5], 1: [1.4, -0.2, 0.051]}
    set_gates(run, values)
    with run.adapters.deciding("l1ra", "on_step_end", 1):
        run.allocator.on_step_end(run.adapters, run.moment(1))
    for index, before in values.items():
        found = run.adapters.gates(run.adapters.sites[index].name).tolist()
        assert found == pytest.approx([reference.clip(reference.shrink(c, 0.1, 0.5)) for c in before], abs=1e-7)  # fp32


@pytest.mark.parametrize(("receivers", "first"), [("min_gate", 2), ("mean_gate", 1)])
def test_receiver_orders(receivers, first):
    """One rank freed: the first receiver alone gets it."""
    run = run_of(l1=0.0, receivers=receivers)
    set_gates(run, {i: [0.5, 0.5, 0.5] for i in range(6)} | {0: [0.0, 1, 1], 1: [0.1, 1, 1], 2: [0.6, 0.6, 0.6]})
    check(run)
    assert run.adapters.ranks()[run.adapters.sites[first].name] == 4


def test_random_receivers_come_from_the_step_s_own_stream():
    def receiver(seed):
        run = run_of(l1=0.0, receivers="random", seed=seed)
        set_gates(run, {0: [0.0, 1, 1]})
        check(run)
        return [name for name, rank in run.adapters.ranks().items() if rank == 4]

    assert receiver(0) == receiver(0)
    assert len({tuple(receiver(seed)) for seed in range(6)}) > 1


def test_the_output_stays_what_it_was():
    """Closed gates go and new ranks come, after training has filled the factors."""
    run = run_of(l1=0.0, last_check=0.1)
    for index in range(1, 5):
        run.step(index)
    set_gates(run, {0: [1.0, 0.0, 0.5], 3: [0.0, 0.7, 0.0]})
    before, ranks = run.logits(), run.adapters.ranks()
    run.allocator.config = run.allocator.config.replace(last_check=1.0)
    check(run)
    assert run.adapters.ranks() != ranks
    assert torch.allclose(run.logits(), before, atol=1e-6)  # sums of fewer terms round otherwise


def test_new_ranks_start_open_with_b_zero():
    run = run_of(l1=0.0)
    set_gates(run, {0: [0.0, 1, 1], 1: [0.9, 0.9, 0.9]})
    check(run)
    (grown,) = [event for event in run.adapters.history if event["reason"] == "freed rank"]
    A, B = run.adapters.factors(grown["site"])
    assert run.adapters.gates(grown["site"])[-1] == 1
    assert not B[:, -1].any()
    assert float(A[-1].detach().std()) == pytest.approx(1 / 3, rel=0.6)  # N(0, 1 / r^2) at reference rank 3


def test_rank_sum_and_parameter_budget():
    """With costs of one the rank sum never grows; in parameters nothing is overspent, on the way or at the end."""
    for unit in ("ranks", "params"):
        run = run_of(unit=unit, gate_rate=0.15, steps=40, checks=0.1).run()
        budget, spent = run.budget, run.budget.spent(run.adapters.ranks())
        assert {event["reason"] for event in run.adapters.history} == {"gate closed", "freed rank"}
        assert spent + run.allocator.state_dict()["spare"] <= budget.target
        if unit == "ranks":
            assert all(log["ranks"] <= 3 * 6 for log in run.logs)
        assert run.adapters.ledger.peak["params"] <= budget.params(budget.uniform()) or unit == "ranks"


def test_moments_are_dropped_only_when_a_rank_went_and_only_if_asked():
    for moments, kept in (("reset", False), ("keep", True)):
        run = run_of(l1=0.0, moments=moments, last_check=0.1)
        for index in range(1, 4):
            run.step(index)
        set_gates(run, {0: [1.0, 0.0, 0.5]})
        run.allocator.config = run.allocator.config.replace(last_check=1.0)
        check(run)
        far = run.adapters.factors(run.adapters.sites[-1].name)[0]
        assert bool(run.trainer.optimizer.state[far]) is kept
        near = run.adapters.factors(run.adapters.sites[0].name)[0]
        if kept:
            assert run.trainer.optimizer.state[near]["exp_avg"].shape == near.shape
        run.step(6)  # trains on, whatever was dropped
        assert run.logs[-1]["loss"] > 0


def test_without_strength_nothing_but_adam_moves_a_gate_and_nothing_pruned_is_inert():
    run = run_of(l1=0.0, gate_rate=1e-4).run()
    assert not run.adapters.history
    assert not run.allocator.static  # hence inert


def test_no_check_after_the_last_and_the_gate_rate_is_constant():
    run = run_of(l1=0.0, last_check=0.5)
    for index in (15, 20):
        set_gates(run, {0: [0.0, 1, 1]})
        check(run, index)
        assert not run.adapters.history
    rates = []
    for index in range(1, 8):
        run.step(index)
        rates.append({group["name"]: group["lr"] for group in run.trainer.optimizer.param_groups})
    assert {rate["gates"] for rate in rates} == {0.02}
    assert len({rate["factors"] for rate in rates}) > 1


def test_the_l1_term_in_the_loss():
    run = run_of(l1=0.3, l1_form="loss")
    penalty = run.allocator.penalty(run.adapters, run.moment(1))
    assert float(penalty.detach()) == pytest.approx(0.3 * 3)  # rank 3 everywhere, gates at 1
    assert run_of(l1=0.3).allocator.penalty(run.adapters, run.moment(1)) is None
    set_gates(run, {0: [1.0, 0.5, 0.2]})
    with run.adapters.deciding("l1ra", "on_step_end", 1):
        run.allocator.on_step_end(run.adapters, run.moment(1))
    assert run.adapters.gates(run.adapters.sites[0].name).tolist() == pytest.approx([1.0, 0.5, 0.2])  # not twice


def test_what_nobody_can_take_is_lost_or_carried():
    for carry, left in ((False, 0), (True, 6)):
        run = run_of(l1=0.0, carry_over=carry)
        set_gates(run, {i: [0.0, 0.5, 0.6] for i in range(6)})
        check(run)
        assert run.allocator.diagnostics()["spare"] == left


@pytest.mark.parametrize(("carry", "left"), [(True, 3), (False, 0)])
def test_a_cap_holds(carry, left):
    run = run_of(l1=0.0, rank_cap=1.34, carry_over=carry)  # 4 of 3
    set_gates(run, {0: [0.0, 0.0, 1.0], 1: [0.0, 0.0, 1.0], 2: [0.0, 0.0, 1.0]})
    check(run)
    assert max(run.adapters.ranks().values()) == 4
    assert sum(run.adapters.ranks().values()) == 3 * 1 + 3 * 4
    assert run.allocator.diagnostics()["spare"] == left


def test_deal_goes_round_and_leaves_less_than_the_cheapest():
    assert distribute({"a": 9, "b": 9, "c": 9}, {"a": 1, "b": 1, "c": 1}, 5) == ({"a": 2, "b": 2, "c": 1}, 0)
    assert distribute({"a": 1, "b": 9}, {"a": 1, "b": 1}, 5) == ({"a": 1, "b": 4}, 0)
    assert distribute({"a": 9, "b": 9}, {"a": 5, "b": 3}, 9) == ({"a": 1, "b": 1}, 1)
    assert distribute({"a": 0}, {"a": 1}, 5) == ({}, 5)
    assert distribute({}, {"a": 1}, 5) == ({}, 5)


def test_a_deal_ends_when_ranks_and_cost_are_enough():
    costs, wide = {"a": 2, "b": 3, "c": 2}, {"b": 9, "c": 9, "a": 9}
    assert distribute(wide, costs, 100, enough=(2, 0)) == ({"b": 1, "c": 1}, 95)
    assert distribute(wide, costs, 100, enough=(1, 12)) == ({"b": 2, "c": 2, "a": 1}, 88)
    assert distribute(wide, costs, 6, enough=(1, 6)) == ({"b": 1, "c": 1}, 1)  # 1 left: nothing fits
    assert distribute({"b": 1, "c": 0, "a": 9}, costs, 9, enough=(1, 9)) == ({"b": 1, "a": 3}, 0)


def test_state_goes_through_a_checkpoint():
    run = run_of(l1=0.0, carry_over=True)
    set_gates(run, {i: [0.0, 0.5, 0.6] for i in range(6)})
    check(run)
    other = run_of()
    other.allocator.load_state_dict(run.allocator.state_dict())
    assert other.allocator.diagnostics() == run.allocator.diagnostics() == {"spare": 6.0, "optimizer_resets": 1.0}
