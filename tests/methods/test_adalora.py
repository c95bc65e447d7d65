"""AdaLoRA: identical to PEFT's version step by step, except for the intended differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from reference import adalora as reference
from support.toys import CONF, Rig, ToyTask, rig
from torch import Tensor, nn

from rankbench.core.seeding import Streams
from rankbench.models import loading
from rankbench.tasks.base import Batch, Example
from rankbench.training.trainer import examples_of_step, rate

STEPS, RANK, LENGTH, CLIP = 60, 4, 12, 0.1

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft, of transformers


class NextToken(ToyTask):
    """Next-token prediction on noisy arithmetic progressions modulo 50: the loss of transformers, summed."""

    def __init__(self) -> None:
        rng = Streams(0).numpy("task", "text")
        start, stride = rng.integers(0, 50, (256, 1)), rng.integers(1, 5, (256, 1))
        rows = (start + stride * torch.arange(LENGTH).numpy()) % 50
        self.splits = {"train": [Example(tuple(row), 0) for row in rows.tolist()]}

    def units(self, batch: Batch) -> int:
        return batch["input_ids"][:, 1:].numel()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(**batch).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="sum")


def tiny() -> nn.Module:
    return loading.load(OmegaConf.load(CONF / "model" / "tiny.yaml").model, None, None, Streams(0)).model


@dataclass
class Pair:
    """Our run and PEFT's, from one start."""

    ours: Rig
    live: list[dict[str, list[bool]]]
    lambdas: list[dict[str, Tensor]]
    peft: reference.Trace


def run_both(every: int, compact: bool) -> Pair:
    ours = rig(
        "adalora",
        steps=STEPS,
        unit="ranks",
        reference_rank=RANK,
        alpha=2.0 * RANK,
        model=tiny(),
        task=NextToken(),
        train={"batch_size": 8, "learning_rate": 5e-3, "weight_decay": 0.01, "max_grad_norm": CLIP},
        every=every,
        compact=compact,
        orthogonality=0.1,
    )
    names = [site.name for site in ours.adapters.sites]
    factors = {name: tuple(p.detach().clone() for p in ours.adapters.factors(name)) for name in names}
    train = ours.trainer.train
    order = [
        examples_of_step(len(train), 8, step, lambda epoch: ours.streams.numpy("data", epoch))
        for step in range(1, STEPS + 1)
    ]
    peft = reference.train(
        tiny(),
        factors,
        [torch.tensor([train[i].input_ids for i in chosen]) for chosen in order],
        [5e-3 * rate("linear", 0.1, [STEPS], step) for step in range(1, STEPS + 1)],
        target_r=RANK,
        scale=2.0,
        tinit=ours.allocator.decay.begin,
        tfinal=STEPS - ours.allocator.decay.end,
        every=every,
        orthogonality=0.1,
        max_grad_norm=CLIP,
        weight_decay=0.01,
    )
    live, lambdas = [], []
    for step in range(1, STEPS + 1):
        ours.step(step)
        live.append({name: ours.adapters.live(name).tolist() for name in names})
        lambdas.append({name: ours.adapters.gates(name).detach().clone() for name in names})
    return Pair(ours, live, lambdas, peft)


def largest_difference(ours: Sequence[dict[str, Tensor]], theirs: Sequence[dict[str, Tensor]]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float((mine[name] - yours[name]).abs().max()) for mine, yours in pairs for name in mine)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 7])
def test_the_whole_run_is_pefts_step_for_step(every: int) -> None:
    pair = run_both(every, compact=False)
    for step, (ours, peft) in enumerate(zip(pair.live, pair.peft.patterns, strict=True), start=1):
        if peft is None:
            assert all(all(kept) for kept in ours.values()), step
        else:
            assert ours == peft, step
    assert largest_difference(pair.lambdas, pair.peft.lambdas) < 1e-5
    assert (
        max(float(values.abs().max()) for values in pair.lambdas[-1].values()) > 1e-2
    )  # there was something to compare
    assert any(sum(kept) != RANK for kept in pair.live[-1].values())
    assert sum(sum(kept) for kept in pair.live[-1].values()) == RANK * len(pair.ours.adapters.sites)
    assert any(row["gradient_norm"] > CLIP for row in pair.ours.logs)
    penalised = [row["loss"] + row["penalty"] for row in pair.ours.logs]
    assert penalised == pytest.approx(pair.peft.losses, rel=1e-5)


@pytest.mark.slow
def test_with_compaction_the_run_is_pefts_to_the_last_cut_and_ends_at_its_ranks() -> None:
    pair = run_both(1, compact=True)
    end = pair.ours.allocator.decay.end
    assert pair.live[: end - 1][9:] == pair.peft.patterns[: end - 1][9:]
    assert largest_difference(pair.lambdas[: end - 1], pair.peft.lambdas[: end - 1]) < 1e-5
    final = {name: sum(kept) for name, kept in pair.peft.patterns[-1].items()}
    assert pair.ours.adapters.ranks() == final
    assert pair.ours.adapters.sizes() == final
    for name, kept in pair.peft.patterns[end - 1].items():
        survivors = pair.peft.lambdas[end - 1][name][torch.tensor(kept)]
        torch.testing.assert_close(pair.lambdas[end - 1][name], survivors, atol=1e-5, rtol=0)


def test_zeroed_triplets_grow_back_before_the_last_cut_and_never_after() -> None:
    run = rig("adalora", every=4, compact=False)
    end, regrown = run.allocator.decay.end, []
    for step in range(1, run.settings.steps + 1):
        run.step(step)
        for site in run.adapters.sites:
            dead = run.adapters.gates(site.name)[~run.adapters.live(site.name)]
            if step >= end:
                assert not dead.any()
            regrown.append(bool(dead.any()))
    assert any(regrown)


@pytest.mark.parametrize("rule", ["fixed", "live", "rslora"])
def test_a_site_zeroed_to_the_last_triplet_goes_on_receiving_gradient(rule: str) -> None:
    """PEFT's scale never follows pruning: with a scale of 0 at rank 0 such a site could not come back."""
    run = rig("adalora", scale_rule=rule)
    name = run.adapters.sites[0].name
    with run.adapters.deciding("adalora", "on_step_end", 1):
        run.adapters.zero({name: torch.zeros(3, dtype=torch.bool)}, "all of them")
    assert run.adapters.ranks()[name] == 0
    probe, gate = run.moment(2).probe, run.adapters.gates(name)
    (gradient,) = probe.gradients(probe.batches(1)[0], [gate])
    assert gradient.abs().min() > 0
    assert not run.adapters.delta(name).any()


def test_a_start_ratio_of_one_is_legal_and_prunes_nothing() -> None:
    run = rig("adalora", start_ratio=1)
    assert run.allocator.static
    before = run.adapters.ranks()
    run.run()
    assert run.adapters.ranks() == before == run.budget.uniform()
    assert run.adapters.history == []
    assert run.logs[-1]["score_updates"] == 0
    assert run.logs[-1]["loss"] < run.logs[0]["loss"]
    assert run.logs[-1]["penalty"] > 0  # still the SVD form


def test_the_penalty_is_trained_on_but_never_part_of_the_loss() -> None:
    free, held = (rig("adalora", orthogonality=weight) for weight in (0.0, 10.0))
    first = [run.step(1) for run in (free, held)]
    assert first[0]["loss"] == first[1]["loss"]
    assert first[0]["penalty"] is None
    assert first[1]["penalty"] == pytest.approx(10 * 3**0.5, rel=0.01)  # nearly orthogonal to nothing: ||0 - I||
    for step in range(2, 25):
        rows = [free.step(step), held.step(step)]
    assert rows[1]["penalty"] < first[1]["penalty"] / 2  # it is trained on
    assert rows[1]["loss"] < 1  # and 10 * its size is not in here


def test_the_penalty_reaches_the_factors_as_its_own_gradient() -> None:
    """One plain step, lambda = 0: A and B move by nothing but the penalty."""
    run = rig("adalora", orthogonality=1.0, train={"warmup_share": 0.0})
    name = run.adapters.sites[0].name
    A, _ = (p.detach().clone() for p in run.adapters.factors(name))
    leaf = A.clone().requires_grad_()
    torch.linalg.matrix_norm(leaf @ leaf.T - torch.eye(len(A))).backward()
    run.step(1)
    moved = run.adapters.factors(name)[0].detach() - A
    assert torch.equal(moved.sign(), -leaf.grad.sign())  # Adam's first step is the sign


def test_statistics_start_at_the_updated_parameters() -> None:
    """Sensitivity after step 1 is |updated w * clipped gradient|: lambda = 0 before the step would make it zero."""
    run = rig("adalora", orthogonality=0.0)
    run.step(1)
    gates = run.allocator.statistics.mean[2::3]
    assert all(bool((gate > 0).all()) for gate in gates)


def history(run: Rig) -> list[dict[str, Any]]:
    return run.run().adapters.history


def test_one_seed_one_history_and_another_seed_another() -> None:
    assert history(rig("adalora", seed=1)) == history(rig("adalora", seed=1))
    assert history(rig("adalora", seed=1)) != history(rig("adalora", seed=2))


@pytest.mark.parametrize("unit", ["params", "ranks"])
@pytest.mark.parametrize("match", ["final", "peak"])
def test_the_budget_is_met_in_its_unit_at_the_figure_that_must_match(unit: str, match: str) -> None:
    run = rig("adalora", unit=unit, match=match).run()
    assert run.adapters.ledger.budget_violation(run.budget, "exact") is None
    if match == "peak":
        assert run.adapters.ledger.final[unit] < run.adapters.ledger.peak[unit]
        assert run.budget.spent(run.adapters.ranks()) <= run.budget.target / 1.5
