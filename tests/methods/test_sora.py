"""SoRA: the proximal step, the gates it keeps, and the components removed at the end."""

import pytest
import torch
from reference import sora as reference
from support.toys import Rig, rig

from rankbench.methods.sora import shrink
from rankbench.training.trainer import rate


def test_the_proximal_step_by_hand() -> None:
    values = [0.5, -0.5, 0.2, -0.2, 0.1, 0.0, 3.0]
    expected = [0.3, -0.3, 0.0, 0.0, 0.0, 0.0, 2.8]
    found, still = torch.tensor(values), torch.tensor(values)
    shrink([found], 0.2)
    shrink([still], 0.0)
    assert found.tolist() == pytest.approx(expected)
    assert reference.step(values, 0.1, 2.0) == pytest.approx(expected)
    assert torch.equal(still, torch.tensor(values))


def test_the_released_step_zeroes_below_twice_the_threshold() -> None:
    gates = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    printed, released = gates.clone(), gates.clone()
    shrink([printed], 0.5)
    shrink([released], 0.5, least=0.5)
    assert released.tolist() == pytest.approx(reference.released_step(gates.tolist(), 0.5), abs=1e-6)
    assert torch.equal(released == 0, gates.abs() < 1.0)
    assert int((printed == 0).sum()) == int((gates.abs() <= 0.5).sum()) < int((released == 0).sum())


def test_the_l1_term_in_the_loss_is_the_mean_size_of_all_gates() -> None:
    run = rig("sora", loss_l1=10.0, reference_rank=3)
    assert float(run.allocator.penalty(run.adapters, run.moment(1)).detach()) == pytest.approx(10.0)  # gates start at 1
    assert rig("sora").allocator.penalty(run.adapters, run.moment(1)) is None
    run.step(1)
    gates = [abs(gate) for values in run.gates().values() for gate in values]
    expected = 10 * sum(gates) / len(gates)
    assert float(run.allocator.penalty(run.adapters, run.moment(2)).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["printed", "released"])
def test_each_step_is_a_step_of_the_optimizer_and_a_proximal_one(kind: str) -> None:
    """The gates just before the hook, put through the reference, are the gates after it."""
    run = rig("sora", strength=0.4, gate_rate=5.0, reference_rank=3, step=kind)
    hook, before, zeros = run.allocator.on_step_end, {}, 0

    def look(adapters, step):
        before.update(run.gates())
        hook(adapters, step)

    run.allocator.on_step_end = look
    for index in range(1, run.settings.steps + 1):
        run.step(index)
        of_gates = 0.02 * 5.0 * rate("linear", 0.1, [run.settings.steps], index)
        for name, gates in run.gates().items():
            released = reference.released_step(before[name], of_gates * 0.4)
            printed = reference.step(before[name], of_gates, 0.4)
            assert gates == pytest.approx(printed if kind == "printed" else released, abs=1e-7)
            assert run.adapters.live(name).tolist() == [gate != 0 for gate in gates]
            zeros += gates.count(0.0)
    assert zeros


def test_a_dead_gate_may_grow_back() -> None:
    run = rig("sora", strength=0.3, reference_rank=3)
    for index in range(1, run.settings.steps + 1):
        run.step(index)
    assert any(event["after"] > event["before"] for event in run.adapters.history)


def after_the_last_step(**changes: float) -> Rig:
    run = rig("sora", reference_rank=4, **changes)
    for index in range(1, run.settings.steps + 1):
        run.step(index)
    return run


def test_components_with_a_zero_gate_are_removed_and_the_output_stays() -> None:
    run = after_the_last_step()
    live, output = run.adapters.ranks(), run.logits()
    assert live != run.adapters.sizes()
    with run.adapters.deciding("sora", "finish", run.settings.steps):
        run.allocator.finish(run.adapters)
    assert run.adapters.sizes() == live
    assert all(all(gates) for gates in run.gates().values())
    torch.testing.assert_close(run.logits(), output, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_more_strength_leaves_less_and_none_leaves_all() -> None:
    left = [sum(after_the_last_step(strength=strength).adapters.ranks().values()) for strength in (0.0, 0.2, 0.6, 2.0)]
    assert left[0] == 48
    assert left == sorted(left, reverse=True)
    assert len(set(left)) == 4
    assert after_the_last_step(strength=0.0).adapters.history == []


def test_the_default_changes_a_rank() -> None:
    run = rig("sora").run()
    assert run.adapters.history
    assert any(run.adapters.ranks().values())
    assert run.allocator.budget_kind == "implicit"
