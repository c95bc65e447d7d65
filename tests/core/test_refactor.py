"""The update rewritten as its own singular value decomposition."""

from __future__ import annotations

import torch
from support.harness import attach, scramble

from rankbench.core.adapter_set import AdapterSet
from rankbench.core.site_adapter import Gate


def built() -> AdapterSet:
    adapters = attach([4, 3], shapes=[(12, 8), (6, 10)], gate=Gate(start=0.5))
    scramble(adapters)
    return adapters


def test_the_update_stays_and_its_factors_become_orthonormal():
    adapters = built()
    before = {site.name: adapters.delta(site.name) for site in adapters.sites}
    adapters.refactor()
    for site in adapters.sites:
        A, B = adapters.factors(site.name)
        torch.testing.assert_close(adapters.delta(site.name), before[site.name], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(A @ A.T, torch.eye(len(A)), atol=1e-5, rtol=0)
        torch.testing.assert_close(B.T @ B, torch.eye(len(A)), atol=1e-5, rtol=0)
        assert (adapters.gates(site.name) >= 0).all()


def test_triplets_that_are_singular_already_keep_their_places_and_signs():
    adapters = built()
    adapters.refactor()
    name = adapters.sites[0].name
    with torch.no_grad():  # the third triplet becomes the largest, and all directions stay
        adapters.gates(name).mul_(torch.tensor([1.0, 1.1, 50.0, 0.9]))
    A, B, gate = (tensor.detach().clone() for tensor in (*adapters.factors(name), adapters.gates(name)))
    adapters.refactor()
    for now, then in zip((*adapters.factors(name), adapters.gates(name)), (A, B, gate), strict=True):
        torch.testing.assert_close(now.detach(), then, atol=1e-4, rtol=1e-4)


def test_components_that_were_pruned_are_left_out():
    adapters = built()
    name = adapters.sites[0].name
    with adapters.deciding("test", "on_step_end", 1):
        adapters.zero({name: torch.tensor([True, False, True, True])}, "test")
    row = adapters.factors(name)[0][1].detach().clone()
    adapters.refactor()
    assert torch.equal(adapters.factors(name)[0][1], row)
    assert adapters.gates(name)[1] == 0


def test_no_update_is_nothing_to_decompose():
    adapters = attach([4], shapes=[(12, 8)], gate=Gate(start=0.0))
    A = adapters.factors(adapters.sites[0].name)[0].detach().clone()
    adapters.refactor()
    assert torch.equal(adapters.factors(adapters.sites[0].name)[0], A)
