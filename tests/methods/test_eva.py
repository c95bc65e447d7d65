"""EVA: components of the inputs, and PEFT's search for them, which gives the ranks and vectors of PEFT itself."""

from types import SimpleNamespace

import pytest
import torch
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from support.harness import configure
from support.toys import Toy, rig
from torch import nn

from rankbench.core.seeding import Streams
from rankbench.methods.base import MethodError
from rankbench.methods.eva import Moments, ranks_by_variance
from rankbench.methods.peft_search import per_token
from rankbench.models import loading
from rankbench.training.assembly import assemble

# peft 0.21 asks transformers 5.23 by an older name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
LONGER = ["task.length=16", "budget=r4"]


def calibrated(tmp_path, *overrides):
    run = assemble(configure(tmp_path, "method=eva", "method.batches=4", *LONGER, *overrides))
    run.trainer.calibrate()
    return run, run.trainer, run.budget


def by_peft(run, trainer, rank, rho, tau=0.99):
    """PEFT's documented way, on a fresh copy of the model: its ranks and rows of A by plain module name."""
    task, streams = run.task, Streams(run.config.seed)
    loaded = loading.load(run.config.model, None, None, streams)
    task.prepare(loaded.model, loaded.sites, streams)
    targets = [site.name for site in loaded.sites]
    config = LoraConfig(r=rank, target_modules=targets, init_lora_weights="eva", eva_config=EvaConfig(rho=rho, tau=tau))
    model = get_peft_model(loaded.model, config, low_cpu_mem_usage=True)
    probe = trainer.probe("start")
    batches = [micro for batch in probe.batches(4) for micro in probe.inputs(batch)]
    initialize_lora_eva_weights(model, batches, show_progress_bar=False)
    modules = dict(model.named_modules())
    rows = {}
    for name in targets:
        layer = modules[f"base_model.model.{name}"]
        rows[name] = layer.lora_A["default"].weight.detach() if hasattr(layer, "lora_A") else torch.empty(0)
    return rows


@pytest.mark.slow
def test_ranks_and_vectors_equal_peft_s(tmp_path):
    run, trainer, budget = calibrated(tmp_path, "budget.unit=ranks", "method.search=peft")
    rows = by_peft(run, trainer, 4, 2.0)
    assert trainer.adapters.ranks() == {name: len(found) for name, found in rows.items()}
    assert len(set(trainer.adapters.ranks().values())) > 1
    assert budget.spent(trainer.adapters.ranks()) == budget.target
    for name, found in rows.items():
        if len(found):
            assert torch.equal(trainer.adapters.factors(name)[0], found)
            assert not trainer.adapters.factors(name)[1].any()


@pytest.mark.slow
def test_exact_components_are_those_that_peft_converges_to(tmp_path):
    """PEFT's vectors come the nearer, the longer it goes round the mini-batches (a larger tau)."""
    run, trainer, _ = calibrated(tmp_path, "budget.unit=ranks")
    ranks, distances = trainer.adapters.ranks(), []
    for tau in (0.9, 0.9999):
        rows = by_peft(run, trainer, 4, 2.0, tau)
        assert sum(abs(ranks[name] - len(found)) for name, found in rows.items()) <= 2
        shared = {name: min(ranks[name], len(found)) for name, found in rows.items()}
        cosines = [(trainer.adapters.factors(name)[0][:n] * rows[name][:n]).sum(1) for name, n in shared.items() if n]
        distances.append(1 - float(torch.cat(cosines).detach().mean()))
    assert distances[1] < 0.5 * distances[0]
    assert distances[1] < 0.02


def test_moments_are_those_of_all_vectors_together():
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7) + 3
    moments = Moments()
    for part in (x[:5], x[:0], x[5:7], x[7:]):
        moments.add(part)
    assert moments.count == 60
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.scatter / 59, torch.cov(x.T))
    shares, singular_values, rows = moments.spectrum(6)
    _, expected, directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    torch.testing.assert_close(singular_values, expected)
    torch.testing.assert_close(shares, expected**2 / (expected**2).sum())
    torch.testing.assert_close((rows * directions).sum(1).abs(), torch.ones(6))
    assert torch.equal(rows.abs().amax(1), rows.amax(1))
    with pytest.raises(MethodError, match=r"EVA looks for 60 components in 60 tokens: raise method.batches"):
        moments.spectrum(60)


def test_ranks_go_to_the_largest_shares_of_variance():
    shares = {"q": torch.tensor([0.5, 0.3]), "k": torch.tensor([0.5, 0.3]), "o": torch.tensor([0.2, 0.1])}
    assert ranks_by_variance(shares, 3) == {"q": 2, "k": 1, "o": 0}  # of equal shares the earlier site's


def test_whitened_vectors_are_shorter_by_the_root_of_their_singular_values():
    plain, whitened = (rig("eva", steps=2, batches=2, whiten=whiten) for whiten in (False, True))
    vectors = whitened.allocator.vectors(whitened.adapters, whitened.trainer.probe("start"))
    moments, leaders = plain.allocator.moments(plain.trainer.probe("start"))
    assert any(len(rows) for rows in vectors.values())
    for name, rows in vectors.items():
        singular_values = moments[leaders[name]].spectrum(8)[1][: len(rows)]
        torch.testing.assert_close(rows.norm(dim=1), singular_values.rsqrt())


@pytest.mark.slow
def test_sites_that_read_one_tensor_share_its_moments_and_the_passes_are_one_for_each_batch(tmp_path):
    run, trainer, _ = calibrated(tmp_path, "train.micro_batch_size=2")
    spent = run.meter.spent["calibration"]
    assert spent["forward_passes"] == 8  # four mini-batches of four, in halves
    moments, leaders = trainer.allocator.moments(trainer.probe("start"))
    kinds = {site.name.split(".")[-1]: leaders[site.name].split(".")[-1] for site in run.adapters.sites}
    assert kinds["k_proj"] == kinds["v_proj"] == kinds["q_proj"] == "q_proj"
    assert kinds["up_proj"] == kinds["gate_proj"] == "gate_proj"
    assert {kinds["o_proj"], kinds["down_proj"]} == {"o_proj", "down_proj"}
    assert len(moments) == len(set(leaders.values())) == 4 * len(leaders) // 7


@pytest.mark.slow
def test_in_parameters_the_ranks_are_shares_of_the_budget(tmp_path):
    run, trainer, budget = calibrated(tmp_path, "method.search=peft")
    shares = {name: float(len(rows)) for name, rows in by_peft(run, trainer, 4, 2.0).items()}
    assert trainer.adapters.ranks() == budget.allocate(shares)


@pytest.mark.slow
def test_init_alone_keeps_ranks_uniform_and_ranks_alone_keep_the_usual_factors(tmp_path):
    _, both, _ = calibrated(tmp_path)
    _, ranks, budget = calibrated(tmp_path, "method.use=ranks")
    _, init, _ = calibrated(tmp_path, "method.use=init")
    assert ranks.adapters.ranks() == both.adapters.ranks()
    assert init.adapters.ranks() == budget.uniform()
    assert init.allocator.static
    plain = assemble(configure(tmp_path, *LONGER)).adapters
    for site in plain.sites:
        A, fresh = (adapters.factors(site.name)[0] for adapters in (init.adapters, plain))
        assert torch.allclose(A @ A.T, torch.eye(4), atol=1e-4)  # orthonormal vectors
        usual = min(len(fresh), len(ranks.adapters.factors(site.name)[0]))
        assert torch.equal(ranks.adapters.factors(site.name)[0][:usual], fresh[:usual])


def test_labels_of_examples_are_not_taken_for_labels_of_tokens(tmp_path):
    """A classification batch has one label per example, which PEFT would multiply with the attention mask."""
    inputs = {"input_ids": torch.zeros(4, 8), "attention_mask": torch.ones(4, 8), "labels": torch.zeros(4)}
    assert set(per_token(inputs)) == {"input_ids", "attention_mask"}
    assert set(per_token({**inputs, "labels": torch.zeros(4, 8)})) == {*inputs}


def test_vectors_that_do_not_converge_end_in_a_message(tmp_path):
    with pytest.raises(ValueError, match=r"not converged after 3 passes: raise method.most_passes"):
        calibrated(tmp_path, "method.search=peft", "method.most_passes=3", "method.tau=0.999999")


class Uneven(Toy):
    """A toy that flattens the tokens on the way, pools the first one, and has a layer that nothing calls."""

    def __init__(self):
        super().__init__()
        self.flat, self.pool, self.idle = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, input_ids, attention_mask=None):
        x = self.layers[1](self.layers[0](self.embed(input_ids)))
        x = x + self.flat(x.flatten(0, 1)).view(x.shape)
        return SimpleNamespace(logits=self.score(x) + self.score(self.pool(x[:, 0])).unsqueeze(1))


def test_peft_s_search_refuses_sites_without_one_vector_per_token_by_name():
    with pytest.raises(MethodError, match=r"one input vector for each token") as error:
        rig("eva", steps=2, batches=2, search="peft", model=Uneven())
    text = str(error.value)
    assert "in a batch of 16 x 3 tokens" in text
    assert "flat reads (48, 8), pool reads (16, 8), idle is not reached: leave these sites out of model.targets" in text
    assert "and 6 more sites" not in text


def test_sites_that_no_pass_reaches_are_refused_by_name():
    """Those with one vector per example have components all the same."""
    with pytest.raises(MethodError, match=r"reads the inputs of idle, which no pass reaches: leave it out of model"):
        rig("eva", steps=2, batches=2, model=Uneven())
