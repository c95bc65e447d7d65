"""FIM-LoRA: its score against a slow reference, its two allocators, and the state after calibration."""

import json

import numpy as np
import pytest
import torch
from reference import fim as reference
from support.harness import begun, configure, perform
from support.toys import method_config, rig, toy_model

from rankbench.config import registry
from rankbench.core.apportionment import BudgetError
from rankbench.core.budget import Ledger
from rankbench.core.peft_injection import attach
from rankbench.methods.fim import released_ranks

CASES = [(8, 1, 16), (8, 8, 16), (4, 8, 8), (2, 8, 4), (16, 8, 32), (16, 4, 32), (4, 1, 8), (8, 4, 16)]


def vectors(count, seed=0):
    """Score vectors of 5 to 72 sites, from flat to heavy-tailed."""
    rng = np.random.default_rng(seed)
    return [rng.lognormal(0, rng.uniform(0.1, 3), rng.integers(5, 73)).tolist() for _ in range(count)]


@pytest.mark.parametrize(("rank", "least", "most"), CASES)
def test_the_released_allocator_rank_for_rank(rank, least, most):
    """1,000 vectors in all eight settings together; the spec's own counts of what breaks the budget stand below."""
    for scores in vectors(125, seed=rank * 1000 + least * 10 + most):
        total = rank * len(scores) + rank // 3  # true ranks need not be a multiple of the number of sites
        assert released_ranks(scores, total, least, most) == reference.ranks(scores, total, least, most)


def test_the_released_allocator_on_a_thousand_vectors_at_its_defaults():
    for scores in vectors(1000):
        found = released_ranks(scores, 8 * len(scores), 1, 16)
        assert found == reference.ranks(scores, 8 * len(scores), 1, 16)
        assert sum(found) == 8 * len(scores)


def test_where_the_released_allocator_breaks_its_budget():
    """A floor at the uniform rank: what is capped cannot be paid back. A floor above the cap inverts the map."""
    scores = [100.0, *[1.0] * 7]
    assert sum(released_ranks(scores, 64, 1, 16)) == 64
    assert released_ranks(scores, 64, 8, 16) == [16, *[8] * 7]  # 72 of 64
    assert released_ranks([1.0] * 4, 16, 8, 8) == [8] * 4  # twice the budget
    assert released_ranks(scores, 16, 8, 4) == [4, *[8] * 7]


def calibrated(**changes):
    return rig("fim", steps=4, dropout=False, **changes)


def gradients_of_B(run, batches):
    names = [site.name for site in run.adapters.sites]
    found = {name: [] for name in names}
    for batch in batches:
        parameters = [run.adapters.factors(name)[1] for name in names]
        for name, gradient in zip(names, run.trainer.probe("start").gradients(batch, parameters), strict=True):
            found[name].append(gradient.tolist())
    return found


@pytest.mark.parametrize("score", ["second_moment", "variance", "per_example"])
def test_scores_against_the_slow_reference(score):
    """Gradients of B at B = 0 and uniform rank, on the calibration stream's own mini-batches."""
    run = calibrated(score=score, batches=3)
    uniform = rig("lora", steps=4)
    batches = uniform.trainer.probe("start").batches(3)
    if score == "per_example":
        batches = [[example] for batch in batches for example in batch]
    for name, gradients in gradients_of_B(uniform, batches).items():
        expected = reference.moments(gradients, centred=score == "variance")
        assert run.allocator.scores[name] == pytest.approx(expected, rel=1e-4)


def test_the_score_is_a_sketch_of_the_weight_gradient():
    """E over A of mean(dL/dB ^ 2) = s^2 / 3 mean(dL/dW ^ 2) for A ~ U(-1, 1) / sqrt(d_in): spec 1.1."""
    ratios = []
    for seed in range(30):
        sketch = calibrated(batches=1, reference_rank=8, seed=seed)
        batch = sketch.trainer.probe("start").batches(1)[0]
        gradients = sketch.trainer.probe("start").weight_gradients(batch)
        scale = sketch.adapters.scale(sketch.adapters.sites[0].name)
        for name, gradient in gradients.items():
            ratios.append(sketch.allocator.scores[name] / float(scale**2 / 3 * gradient.square().mean()))
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)  # n = 180, measured 1.05 with a standard error of 0.03
    full = calibrated(batches=1, tensor="weight")
    batch = full.trainer.probe("start").batches(1)[0]
    for name, gradient in full.trainer.probe("start").weight_gradients(batch).items():
        assert full.allocator.scores[name] == pytest.approx(float(gradient.square().mean()), rel=1e-4)


def test_aggregates_and_floors():
    mean, total, largest = (calibrated(aggregate=a).allocator.scores for a in ("mean", "sum", "max"))
    sites = {site.name: site for site in calibrated().adapters.sites}
    for name, site in sites.items():
        assert total[name] == pytest.approx(mean[name] * site.d_out * 2, rel=1e-5)  # rank 2
        assert mean[name] < largest[name] < total[name]
    assert set(calibrated(floor=1e3, relative_floor=False).allocator.scores.values()) == {1e3}
    floored = calibrated(floor=0.5, relative_floor=True).allocator.scores
    assert min(floored.values()) == pytest.approx(0.5 * max(floored.values()))


@pytest.mark.parametrize("unit", ["params", "ranks"])
def test_ranks_are_proportional_bounded_and_cost_exact(unit):
    run = calibrated(unit=unit, reference_rank=3)
    ranks, budget = run.adapters.ranks(), run.budget
    assert 0 <= budget.target - budget.spent(ranks) < max(budget.costs.values())
    assert all(1 <= rank <= 6 for rank in ranks.values())
    assert len(set(ranks.values())) > 1
    if unit == "ranks":  # with unequal costs the last ranks go where they still fit
        inner = [name for name, rank in ranks.items() if 1 < rank < 6]
        scores = run.allocator.scores
        shares = {name: (ranks[name] + np.array([-0.5, 0.5])) / scores[name] for name in inner}
        assert max(low for low, _ in shares.values()) <= min(high for _, high in shares.values()) * (1 + 1e-9)


def test_training_starts_as_if_the_ranks_had_been_given():
    """Factors of an adapter injected at the ranks found; the ledger starts there, too."""
    run = calibrated()
    model = toy_model()
    other = attach(
        model,
        run.adapters.sites,
        run.adapters.ranks(),
        scale=run.adapters.scale_spec,
        streams=run.streams,
        ledger=Ledger("params", 1),
    )
    for found, given in zip(run.factors(), other.parameters(), strict=True):
        assert torch.equal(found, given)
    assert run.adapters.ledger.start == run.adapters.ledger.peak
    assert run.adapters.ledger.start["params"] == run.adapters.param_count()


@pytest.mark.slow
def test_fim_code_over_its_budget_says_so(tmp_path):
    record = perform(configure(tmp_path, "method=fim_code", "method.least_rank=8", "budget=r8", "budget.unit=ranks"))
    assert record["status"] == "over_budget"
    assert "against a target of" in record["reason"]
    found = released_ranks(read_scores(tmp_path, record), 8 * 14, 8, 16)
    assert sorted(record["ranks"].values()) == sorted(found)
    exact = perform(configure(tmp_path, "method=fim_code", "budget=r8", "budget.unit=ranks"))
    assert exact["status"] == "ok"
    assert sum(exact["ranks"].values()) == 8 * 14


@pytest.mark.parametrize(("method", "rank", "least"), [("fim_code", 8, 1), ("fim", 3, 0)])
def test_the_true_ranks_are_given_out(tmp_path, method, rank, least):
    """32 and 12 ranks for 14 sites: no multiple of them, and fewer."""
    ranks = ["budget=true_ranks", "budget.unit=ranks", f"task.rank={rank}"]
    run = begun(configure(tmp_path, f"method={method}", f"method.least_rank={least}", *ranks)).assembly
    assert sum(run.adapters.ranks().values()) == run.budget.target == 4 * rank


def read_scores(results, record):
    return list(json.loads((results / "runs" / record["run_id"] / "scores.json").read_text()).values())


def test_calibration_is_charged(tmp_path):
    cost = perform(configure(tmp_path, "method=fim", "method.batches=3"))["cost"]["calibration"]
    assert (cost["forward_passes"], cost["backward_passes"]) == (3, 3)
    assert cost["tokens"] == 3 * 4 * 8


def test_dropout_in_calibration_is_reproducible_and_leaves_the_generator_alone():
    """A base model with dropout: two calibrations agree, evaluation mode gives other scores."""

    def scores(dropout):
        model = toy_model()
        model.layers[0].register_forward_hook(
            lambda module, inputs, output: torch.nn.functional.dropout(output, 0.5, module.training)
        )
        before = torch.random.get_rng_state()
        found = rig("fim", steps=4, model=model, dropout=dropout).allocator.scores
        assert torch.equal(torch.random.get_rng_state(), before)
        return found

    assert scores(True) == scores(True)
    assert scores(True) != scores(False)


def test_a_variance_of_one_batch_is_refused():
    cls = registry.get("method", "fim")
    config = method_config("fim", batches=2, score="variance")
    assert cls.check(config) == []
    assert cls.check(config.replace(batches=1)) == ["method.batches=1: score=variance needs >= 2"]


def test_a_floor_that_the_budget_cannot_pay_is_an_error():
    with pytest.raises(BudgetError, match=r"below the cost .* of the least ranks"):
        calibrated(reference_rank=1, least_rank=2)
