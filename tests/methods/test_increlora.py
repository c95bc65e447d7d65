"""IncreLoRA: a whole run against a slow re-implementation; growth reaches the budget and does not change the output."""

import pytest
import torch
from reference import increlora as reference
from support.toys import Rig, rig


def numbers(run: Rig, name: str) -> tuple[reference.Factors, reference.Factors]:
    """Values and gradients of A, B and gate."""
    parameters = (*run.adapters.factors(name), run.adapters.gates(name))
    values = tuple(p.detach().double().numpy().copy() for p in parameters)
    return values, tuple(p.grad.double().numpy().copy() for p in parameters)


@pytest.mark.parametrize("unit", ["params", "ranks"])
def test_every_growth_is_the_references(unit: str) -> None:
    run = rig("increlora", unit=unit, reference_rank=4, every=3, top_h=2)
    names, rise, costs = [s.name for s in run.adapters.sites], run.allocator.rise, list(run.budget.costs.values())
    high, start = list(run.budget.full_ranks.values()), run.budget.spent(run.adapters.ranks())
    hook, signals, grown = run.allocator.on_step_end, [], 0

    def look(adapters, step):
        if step.index <= rise.end:
            signals.append([reference.signal(*numbers(run, name)) for name in names])
        hook(adapters, step)

    run.allocator.on_step_end = look
    for index in range(1, run.settings.steps + 1):
        before = list(run.adapters.ranks().values())
        run.step(index)
        after = list(run.adapters.ranks().values())
        if index == rise.end or (rise.begin < index < rise.end and index % 3 == 0):
            scores = reference.smooth(signals, 0.85, 0.85)
            due = reference.due(index, rise.begin, rise.end, start, run.budget.target)
            assert after == reference.grow(before, scores, costs, high, run.budget.target, due, 2)
            assert list(run.allocator.scores.values()) == pytest.approx(scores, rel=1e-3)
            grown += after != before
        else:
            assert after == before
    assert grown >= 3
    assert len(set(after)) > 1


@pytest.mark.parametrize("unit", ["params", "ranks"])
@pytest.mark.parametrize(("steps", "every"), [(1, 1), (2, 5), (3, 1), (24, 5), (24, 100)])
def test_the_budget_is_reached_before_the_final_phase_whatever_the_horizon(unit: str, steps: int, every: int) -> None:
    run = rig("increlora", unit=unit, steps=steps, every=every, reference_rank=5)
    rise = run.allocator.rise
    for index in range(1, steps + 1):
        run.step(index)
        if index == rise.end:
            left = run.budget.target - run.budget.spent(run.adapters.ranks())
            assert 0 <= left < min(run.budget.costs.values())
    assert run.adapters.ledger.budget_violation(run.budget, "exact") is None
    assert max(event["step"] for event in run.adapters.history) <= rise.end


def test_growth_leaves_the_output_and_the_moments_of_the_old_triplets_alone() -> None:
    run, outputs, moments = rig("increlora", reference_rank=4, every=4), [], []
    adapters, hook = run.adapters, run.allocator.on_step_end

    def look(_, step):
        ranks, before = adapters.ranks(), run.logits()
        kept = {name: run.trainer.optimizer.state[adapters.factors(name)[0]]["exp_avg"].clone() for name in ranks}
        hook(adapters, step)
        if adapters.ranks() != ranks:
            outputs.append((before, run.logits()))
            for name, old in kept.items():
                now = run.trainer.optimizer.state[adapters.factors(name)[0]]["exp_avg"]
                moments.append((old, now[: len(old)].clone()))  # later steps write into it

    run.allocator.on_step_end = look
    run.run()
    assert len(outputs) >= 2
    for before, after in outputs:
        torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-6)
    assert all(torch.equal(before, after) for before, after in moments)
    assert any(bool(before.any()) for before, _ in moments)


def test_new_triplets_are_trained() -> None:
    run = rig("increlora", reference_rank=4).run()
    for site in run.adapters.sites:
        _, B = run.adapters.factors(site.name)
        assert bool(B.any(dim=0).all())


def test_the_statistics_are_one_number_per_site_and_survive_a_checkpoint() -> None:
    run, other = (rig("increlora", reference_rank=4) for _ in range(2))
    for index in range(1, 9):
        run.step(index)
    (mean,) = run.allocator.statistics.mean
    assert mean.shape == (6,)
    assert bool((mean > 0).all())
    other.allocator.load_state_dict(run.allocator.state_dict())
    assert other.allocator.diagnostics() == {"score_updates": 8.0}
    assert torch.equal(other.allocator.statistics.mean[0], mean)
    assert torch.equal(other.allocator.statistics.deviation[0], run.allocator.statistics.deviation[0])


def test_at_a_budget_of_its_start_rank_nothing_grows() -> None:
    run = rig("increlora", reference_rank=1).run()
    assert run.adapters.history == []
    assert not run.allocator.static  # such a run is inert, and is told so
