"""Controls that use little or no information: only the SVD form, only frozen weights, only depth."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reference import controls as reference
from support.toys import Rig, rig, toy_model

from rankbench.core.sites import Site
from rankbench.methods.fixed_controls import depth_shares
from rankbench.methods.stable_rank import stable_rank


def costs(run: Rig) -> list[int]:
    return [run.budget.costs[site.name] for site in run.adapters.sites]


def test_svd_lora_is_adalora_that_prunes_nothing() -> None:
    ours, theirs = rig("svd_lora").run(), rig("adalora", start_ratio=1).run()
    for mine, yours in zip(ours.factors(), theirs.factors(), strict=True):
        assert torch.equal(mine, yours)
    assert ours.adapters.ranks() == ours.budget.uniform()
    assert ours.adapters.history == []
    assert [row["penalty"] for row in ours.logs] == [row["penalty"] for row in theirs.logs]


def test_the_penalty_of_svd_lora_is_the_distance_from_orthonormal_factors() -> None:
    run = rig("svd_lora", orthogonality=0.7)
    pairs = [tuple(p.detach().double().numpy() for p in run.adapters.factors(s.name)) for s in run.adapters.sites]
    penalty = run.allocator.penalty(run.adapters, run.moment(1)).item()
    assert penalty == pytest.approx(0.7 * reference.orthogonality(pairs), rel=1e-5)
    assert rig("svd_lora", orthogonality=0.0).step(1)["penalty"] is None


@pytest.mark.parametrize("gate_start", [0.0, 0.3])
def test_svd_lora_starts_at_the_base_model_if_its_gates_do(gate_start: float) -> None:
    run = rig("svd_lora", gate_start=gate_start)
    with run.adapters.disabled():
        base = run.logits()
    assert torch.equal(run.logits(), base) == run.allocator.starts_at_identity == (gate_start == 0)


def uneven(factor: float = 1.0) -> torch.nn.Module:
    """The toy, its later matrices ever closer to rank 1, all times `factor`."""
    model = toy_model()
    weights = [weight for layer in model.layers for weight in layer.parameters()]
    with torch.no_grad():
        for index, weight in enumerate(weights):
            weight += 0.4 * index * weight[:1].sign() / weight.shape[1] ** 0.5
            weight *= factor
    return model


@pytest.mark.parametrize("unit", ["params", "ranks"])
def test_stable_ranks_are_those_of_a_power_iteration(unit: str) -> None:
    run = rig("stable_rank", unit=unit, reference_rank=3, model=uneven())
    weights = [run.adapters.weight(site.name).double().numpy() for site in run.adapters.sites]
    expected = reference.stable_ranks(weights, costs(run), run.budget.target, 1)
    assert list(run.adapters.ranks().values()) == expected
    assert expected != list(run.budget.uniform().values())
    assert list(run.allocator.scores.values()) == pytest.approx([reference.stable_rank(w) for w in weights], rel=1e-5)
    assert run.run().adapters.ledger.budget_violation(run.budget, "exact") is None


def test_stable_ranks_do_not_depend_on_the_size_of_the_weights() -> None:
    small, plain, large = (rig("stable_rank", model=uneven(factor)) for factor in (2.0**-60, 1.0, 2.0**60))
    assert small.allocator.scores == pytest.approx(plain.allocator.scores, rel=1e-6)
    assert small.adapters.ranks() == plain.adapters.ranks() == large.adapters.ranks()


def test_the_stable_rank_at_its_ends() -> None:
    assert stable_rank(torch.eye(5)[:3]) == pytest.approx(3)
    assert stable_rank(torch.outer(torch.arange(1.0, 4), torch.arange(1.0, 6))) == pytest.approx(1)
    assert stable_rank(torch.zeros(3, 4)) == 0


def test_stable_rank_starts_with_the_factors_of_a_run_injected_at_its_ranks() -> None:
    run, plain = rig("stable_rank", reference_rank=3, model=uneven()), rig("lora", reference_rank=3)
    for site in run.adapters.sites:
        mine, yours = run.adapters.factors(site.name)[0], plain.adapters.factors(site.name)[0]
        common = min(len(mine), len(yours))
        assert common
        assert torch.equal(mine[:common], yours[:common])


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("slope", [1.0, 3.0])
def test_ranks_by_depth_are_those_of_equal_steps(direction: str, slope: float) -> None:
    run = rig("linear_depth", direction=direction, slope=slope, reference_rank=4)
    layers, high = [s.layer for s in run.adapters.sites], [min(s.d_in, s.d_out) for s in run.adapters.sites]
    expected = reference.depth_ranks(layers, costs(run), high, run.budget.target, slope, direction == "up")
    assert list(run.adapters.ranks().values()) == expected
    by_layer = [np.mean([r for r, at in zip(expected, layers, strict=True) if at == layer]) for layer in (0, 1)]
    assert np.sign(by_layer[1] - by_layer[0]) == (0 if slope == 1 else 1 if direction == "up" else -1)
    assert run.run().adapters.ledger.budget_violation(run.budget, "exact") is None
    assert run.adapters.history == []


def test_shares_between_the_first_and_the_last_adapted_layer() -> None:
    sites = [Site(str(layer), layer, "", 4, 4) for layer in (2, 3, 4, None)]
    assert depth_shares(sites, 3.0, up=True) == {"2": 1.0, "3": 2.0, "4": 3.0, "None": 2.0}
    assert depth_shares(sites, 3.0, up=False) == {"2": 3.0, "3": 2.0, "4": 1.0, "None": 2.0}
    alone = depth_shares([sites[0], SimpleNamespace(name="x", layer=None)], 3.0, up=True)
    assert alone == {"2": 2.0, "x": 2.0}
