"""GoRA: ranks and first step against a slow re-implementation, and the parts that `use` switches off."""

import numpy as np
import pytest
import torch
from reference import gora as reference
from support.toys import Rig, rig


def looked(run: Rig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights, and gradients averaged over the calibration mini-batches, in site order, before training."""
    probe, names = run.trainer.probe("start"), [site.name for site in run.adapters.sites]
    with run.adapters.disabled():
        batches = [probe.weight_gradients(batch) for batch in probe.batches(run.allocator.config.batches)]
    gradients = [np.mean([batch[name].double().numpy() for batch in batches], axis=0) for name in names]
    return [run.adapters.weight(name).double().numpy() for name in names], gradients


@pytest.mark.parametrize("unit", ["params", "ranks"])
@pytest.mark.parametrize("bounds", [(0.5, 4.0), (0.0, 1.25)])
def test_ranks_are_the_references(unit: str, bounds: tuple[float, float]) -> None:
    run = rig("gora", unit=unit, reference_rank=4, least=bounds[0], cap=bounds[1])
    costs = [run.budget.costs[site.name] for site in run.adapters.sites]
    least, most = int(4 * bounds[0]), int(4 * bounds[1])
    expected = reference.ranks(*looked(run), costs, run.budget.target, least, most)
    assert list(run.adapters.ranks().values()) == expected
    assert len(set(expected)) > 1
    assert least <= min(expected) <= max(expected) <= most
    assert run.run().adapters.ledger.budget_violation(run.budget, "exact") is None


def test_the_released_width_is_the_sum_itself() -> None:
    run, printed = (rig("gora", reference_rank=4, cap=8.0, width=width) for width in ("sum", "root"))
    costs = [run.budget.costs[site.name] for site in run.adapters.sites]
    expected = reference.ranks(*looked(run), costs, run.budget.target, 2, 32, power=1.0)
    assert list(run.adapters.ranks().values()) == expected != list(printed.adapters.ranks().values())


def test_the_released_first_update_is_the_printed_one_turned_round() -> None:
    up, down = (rig("gora", gamma=0.3, direction=direction) for direction in ("up", "down"))
    for site in up.adapters.sites:
        assert torch.equal(up.adapters.delta(site.name), -down.adapters.delta(site.name))
        assert up.adapters.delta(site.name).any()


@pytest.mark.parametrize("rule", ["fixed", "live", "rslora"])
def test_the_first_update_is_minus_gamma_times_the_gradient_projected_on_the_rows_of_A(rule: str) -> None:
    run = rig("gora", gamma=0.3, scale_rule=rule, reference_rank=3)
    _, gradients = looked(run)
    for site, G in zip(run.adapters.sites, gradients, strict=True):
        A, B = (factor.detach().double().numpy() for factor in run.adapters.factors(site.name))
        rows = np.linalg.qr(A.T)[0]
        update = run.adapters.delta(site.name).double().numpy()
        np.testing.assert_allclose(update, -0.3 * G @ rows @ rows.T, rtol=1e-4, atol=1e-6 * abs(G).max())
        expected = reference.initial_B(G, A, 0.3, run.adapters.scale(site.name))
        np.testing.assert_allclose(B, expected, rtol=1e-3, atol=1e-5 * abs(expected).max())


def test_a_small_first_step_lowers_the_loss() -> None:
    run, base = rig("gora", gamma=0.01, use="init"), rig("lora")
    assert run.step(1)["loss"] < base.step(1)["loss"]


def test_ranks_alone_start_as_lora_does_at_these_ranks() -> None:
    run, both, plain = rig("gora", use="ranks"), rig("gora", use="both"), rig("lora")
    assert run.allocator.starts_at_identity
    assert run.adapters.ranks() == both.adapters.ranks() != plain.adapters.ranks()
    for site in run.adapters.sites:
        (A, B), (same, _), (other, _) = (r.adapters.factors(site.name) for r in (run, both, plain))
        common = min(len(A), len(other))
        assert torch.equal(A, same)
        assert torch.equal(A[:common], other[:common])
        assert not B.any()


def test_init_alone_changes_no_rank_and_no_A() -> None:
    run, plain = rig("gora", use="init", gamma=0.1), rig("lora")
    assert run.allocator.static
    assert not run.allocator.starts_at_identity
    assert run.adapters.ranks() == plain.adapters.ranks()
    for site in run.adapters.sites:
        (A, B), (other, _) = (r.adapters.factors(site.name) for r in (run, plain))
        assert torch.equal(A, other)
        assert B.any()
    assert run.run().adapters.history == []


def test_no_first_step_is_the_identity() -> None:
    assert rig("gora", gamma=0.0).allocator.starts_at_identity


def test_sites_without_a_rank_are_left_out_of_the_first_step() -> None:
    run = rig("gora", reference_rank=1, least=0.0, cap=8.0)
    empty = [name for name, rank in run.adapters.ranks().items() if rank == 0]
    assert empty
    assert run.run().logs[-1]["loss"] < run.logs[0]["loss"]
