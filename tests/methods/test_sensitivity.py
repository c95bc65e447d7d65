"""Sensitivity-LoRA: its equations against plain loops, and their consequences."""

import numpy as np
import pytest
import torch
from reference import sensitivity as reference
from support.harness import configure
from support.toys import ToyTask, rig, toy_model

from rankbench.methods.sensitivity import combine_metrics, diagonal_metrics
from rankbench.models.targets import find_sites
from rankbench.tasks.base import Example
from rankbench.training.assembly import assemble


def triples(seed, n=12):
    rng = np.random.default_rng(seed)
    diagonals = [rng.lognormal(rng.normal(), 1, rng.integers(4, 40)) for _ in range(n)]
    return [diagonal_metrics(diagonal, 0.5, 0.85) for diagonal in diagonals], diagonals


@pytest.mark.parametrize("seed", range(20))
def test_metrics_and_equations_equal_the_plain_loops_and_the_closed_form(seed):
    found, diagonals = triples(seed)
    for metrics, diagonal in zip(found, diagonals, strict=True):
        assert metrics == pytest.approx(reference.metrics(diagonal.tolist(), 0.5, 0.85))
    theta = combine_metrics(found, "both", "cv")
    shares = 7 * len(found) * theta / theta.sum()
    assert shares == pytest.approx(reference.shares(found, 7 * len(found)))
    assert shares == pytest.approx(reference.closed_form(found, 7))


def test_hand_worked_metrics():
    assert diagonal_metrics(np.array([1.0, 4.0, 3.0, 2.0]), 0.5, 0.85) == (10.0, 3.5, 3.0)  # 4 + 3 + 2 >= 8.5
    assert diagonal_metrics(np.array([1.0, 4.0, 3.0, 2.0]), 0.5, 0.7) == (10.0, 3.5, 2.0)  # 4 + 3 >= 7, exactly
    assert diagonal_metrics(np.array([1.0, 4.0, 3.0, 2.0]), 0.5, 0.85, copies=3) == (30.0, 3.5, 9.0)
    assert diagonal_metrics(np.full(7, 0.1), 1.0, 1.0) == (pytest.approx(0.7), pytest.approx(0.1), 7.0)
    assert diagonal_metrics(np.array([5.0]), 0.5, 0.85) == (5.0, 5.0, 1.0)


def test_the_constant_of_the_autocorrelation_cancels():
    found, diagonals = triples(3)
    scaled = [diagonal_metrics(1e-6 * diagonal, 0.5, 0.85) for diagonal in diagonals]
    first, second = (combine_metrics(m, "both", "cv") for m in (found, scaled))
    assert first / first.sum() == pytest.approx(second / second.sum())


def test_ablations():
    found, _ = triples(5)
    g, t, e = np.array(found).T
    assert combine_metrics(found, "global", "cv") / g == pytest.approx(np.full(12, (g.std() / g.mean() ** 2)))
    local = 0.5 * t / t.mean() + 0.5 * e / e.mean()
    both = 0.5 * g / g.mean() + 0.5 * local / local.mean()
    assert combine_metrics(found, "both", "equal") == pytest.approx(both)
    assert combine_metrics(found, "local", "equal") == pytest.approx(0.5 * local / local.mean())


@pytest.mark.parametrize("which", ["both", "global", "local"])
def test_nothing_that_varies_means_uniform(which):
    flat = [(3.0, 1.0, 2.0)] * 5
    assert combine_metrics(flat, which, "cv").tolist() == [1.0] * 5
    assert combine_metrics([(0.0, 0.0, 1.0)] * 5, "global", "cv").tolist() == [1.0] * 5


def test_one_metric_that_does_not_vary_leaves_the_others():
    mixed = [(1.0, 2.0, 4.0), (2.0, 2.0, 4.0), (3.0, 2.0, 4.0)]
    assert combine_metrics(mixed, "both", "cv") == pytest.approx(combine_metrics(mixed, "global", "cv"))


def inputs_of(run, batch):
    """Every site's inputs, collected by hooks of the test's own."""
    found, handles = {}, []
    modules = dict(run.adapters.model.named_modules())
    for site in run.adapters.sites:
        module = modules[f"base_model.model.{site.name}"]
        handles.append(module.register_forward_pre_hook(lambda m, x, name=site.name: found.update({name: x[0]})))
    with torch.no_grad(), run.engine.inert(), run.adapters.disabled():
        run.engine.model(**run.engine.to_device(run.engine.task.collate(batch)))
    for handle in handles:
        handle.remove()
    return {name: x.flatten(0, 1).double().tolist() for name, x in found.items()}


def test_scores_and_ranks_of_a_calibration():
    """Two mini-batches: the diagonal adds up over them; ranks are the budget in proportion to theta."""
    run = rig("sensitivity", steps=4, batches=2, least_rank=0)
    batches = run.trainer.probe("start").batches(2)
    seen = [inputs_of(run, batch) for batch in batches]
    rows = {name: seen[0][name] + seen[1][name] for name in seen[0]}
    expected = reference.theta(
        [reference.metrics(reference.diagonal(rows[s.name]), 0.5, 0.85) for s in run.adapters.sites]
    )
    found = run.allocator.scores
    assert list(found.values()) == pytest.approx(expected, rel=1e-6)
    assert run.adapters.ranks() == run.budget.allocate(found)
    assert run.adapters.history


def test_sites_that_read_the_same_input_tie(tmp_path):
    """q, k, v and gate, up of a decoder: equal scores, equal ranks up to the last unit of the budget."""
    trainer = assemble(configure(tmp_path, "method=sensitivity", "budget=r8", "budget.unit=ranks")).trainer
    trainer.calibrate()
    scores, ranks = trainer.allocator.scores, trainer.adapters.ranks()
    for layer in range(2):
        for group in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
            names = [f"model.layers.{layer}.{kind}" for kind in group]
            assert len({scores[name] for name in names}) == 1
            assert max(ranks[name] for name in names) - min(ranks[name] for name in names) <= 1
    assert len(set(scores.values())) == 2 * 4  # attention in, o in, mlp in, down in


class Padded(ToyTask):
    """Every other sequence is one token and two of padding, whose embeddings are huge."""

    def collate(self, examples):
        batch = super().collate(examples)
        ids = batch["input_ids"]
        short = torch.tensor([example.item["id"] % 2 == 1 for example in examples])
        batch["attention_mask"] = torch.ones_like(ids)
        batch["attention_mask"][short, 1:] = 0
        ids[short, 1:] = 15
        return batch


def test_padding_is_left_out():
    """What stands in padded positions does not matter: here it would dominate."""

    def scores(padding):
        model = toy_model()
        with torch.no_grad():
            model.embed.weight[15] = padding
        task = Padded(model, find_sites(model, ["all-linear"], ("score",)))
        task.splits["train"] = [
            Example(tuple(t % 15 for t in e.input_ids), e.labels, e.item) for e in task.splits["train"]
        ]
        return rig("sensitivity", steps=4, model=model, task=task).allocator.scores

    assert scores(0.0) == scores(1e3)


def test_the_budget_is_met_and_the_floor_kept():
    run = rig("sensitivity", steps=4, reference_rank=3)
    budget, ranks = run.budget, run.adapters.ranks()
    assert min(ranks.values()) >= 1
    assert 0 <= budget.target - budget.spent(ranks) < max(budget.costs.values())


def test_only_forward_passes_are_made():
    run = rig("sensitivity", steps=4, batches=3)
    spent = run.engine.meter.spent["calibration"]
    assert (spent["forward_passes"], spent["backward_passes"]) == (3, 0)
