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


def test_each_step_is_a_step_of_the_optimizer_and_a_proximal_one() -> None:
    """The gates just before the hook, put through the reference, are the gates after it."""
    run = rig("sora", strength=0.4, gate_rate=5.0, reference_rank=3)
    hook, before, zeros = run.allocator.on_step_end, {}, 0

    def look(adapters, step):
        before.update(run.gates())
        hook(adapters, step)

    run.allocator.on_step_end = look
    for index in range(1, run.settings.steps + 1):
        run.step(index)
        of_gates = 0.02 * 5.0 * rate("linear", 0.1, [run.settings.steps], index)
        for name, gates in run.gates().items():
            assert gates == pytest.approx(reference.step(before[name], of_gates, 0.4), abs=1e-7)
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
