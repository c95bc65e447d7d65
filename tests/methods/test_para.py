"""PARA: ranks and updates against dense singular value decompositions, and the second stage against plain LoRA."""

import numpy as np
import pytest
import torch
from reference import para as reference
from support.toys import Rig, rig

from rankbench.methods.para import truncated


def dense(run: Rig) -> list[np.ndarray]:
    return [run.adapters.delta(site.name).double().numpy() for site in run.adapters.sites]


@pytest.mark.parametrize("unit", ["params", "ranks"])
@pytest.mark.parametrize("rule", ["fixed", "live", "rslora"])
def test_ranks_and_what_is_left_of_the_updates_are_the_references(unit: str, rule: str) -> None:
    run = rig("para", unit=unit, scale_rule=rule, reference_rank=3)
    for index in range(1, run.settings.steps + 1):
        run.step(index)
    before, sizes = dense(run), list(run.adapters.sizes().values())
    with run.adapters.deciding("para", "finish", run.settings.steps):
        run.allocator.finish(run.adapters)
    costs = [run.budget.costs[site.name] for site in run.adapters.sites]
    expected = reference.ranks(before, sizes, costs, run.budget.target)
    assert list(run.adapters.ranks().values()) == expected
    assert len(set(expected)) > 1
    assert list(run.adapters.sizes().values()) == expected
    for old, new, rank in zip(before, dense(run), expected, strict=True):
        np.testing.assert_allclose(new, reference.truncated(old, rank), atol=1e-5)


@pytest.mark.parametrize("method", ["para", "para_retrain"])
@pytest.mark.parametrize("unit", ["params", "ranks"])
@pytest.mark.parametrize("match", ["final", "peak"])
def test_the_budget_is_met_at_the_figure_that_must_match(method: str, unit: str, match: str) -> None:
    run = rig(method, unit=unit, match=match, reference_rank=3).run()
    assert run.adapters.ledger.budget_violation(run.budget, "exact") is None
    assert run.adapters.ledger.final[unit] < run.adapters.ledger.peak[unit]
    factor = 1 if match == "final" else 2
    assert 0 <= run.budget.target / factor - run.budget.spent(run.adapters.ranks()) <= max(run.budget.costs.values())


def test_the_second_stage_is_plain_lora_from_scratch_at_the_ranks_found() -> None:
    run = rig("para_retrain", reference_rank=3).run()
    first, second = run.allocator.stages()
    assert (first, second) == (12, 12)
    plain = rig("lora", reference_rank=3)
    ranks = run.adapters.ranks()
    assert ranks != plain.adapters.ranks()
    with plain.adapters.deciding("test", "calibrate", 0):
        plain.adapters.restart(ranks, "test", draw="start")
    plain.trainer.build_optimizer()
    plain.allocator.stages = lambda: (first, second)
    for index in range(first + 1, first + second + 1):
        plain.step(index)
    for mine, yours in zip(run.factors(), plain.factors(), strict=True):
        assert torch.equal(mine, yours)
    assert [row["loss"] for row in run.logs[first:]] == [row["loss"] for row in plain.logs]


def test_until_it_truncates_it_is_plain_lora_at_its_start_ranks() -> None:
    run, plain = rig("para", reference_rank=2), rig("lora", reference_rank=4, alpha=8.0)
    for index in (1, 2, 3):
        assert run.step(index)["loss"] == plain.step(index)["loss"]


@pytest.mark.parametrize("method", ["para", "para_retrain"])
def test_a_start_ratio_of_one_is_uniform_lora(method: str) -> None:
    run = rig(method, start_ratio=1).run()
    assert run.allocator.static
    assert run.adapters.history == []


def test_equal_values_are_kept_from_the_first_site_on_and_never_out_of_order() -> None:
    ones = np.ones(3)
    assert truncated([ones, ones], [1, 1], 4) == [3, 1]
    assert truncated([np.zeros(3), np.zeros(0), np.array([5.0, 4.0])], [2, 2, 3], 8) == [1, 0, 2]
    assert truncated([ones], [1], 0) == [0]
