"""The adapter folded into the frozen weights: the same function up to rounding, and the same weights afterwards."""

from types import SimpleNamespace

import pytest
import torch
from support.harness import SHAPES, Linears, attach, begun, configure, scramble, sites_of
from transformers.pytorch_utils import Conv1D

from rankbench.core import folding, peft_injection
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Ledger
from rankbench.core.gated_lora import Scale
from rankbench.core.seeding import Streams
from rankbench.core.site_adapter import Gate

SVD = Gate(start=0.5)
X = torch.randn(7, 4, generator=torch.Generator().manual_seed(2))


def bases(adapters: AdapterSet) -> list[torch.nn.Module]:
    return [adapters.model.get_submodule(f"base_model.model.{site.name}.base_layer") for site in adapters.sites]


def weights(adapters: AdapterSet) -> list[torch.nn.Parameter]:
    return [base.weight for base in bases(adapters)]


def made(ranks=(3, 0, 2), **settings) -> AdapterSet:
    adapters = attach(ranks, **settings)
    scramble(adapters)
    adapters.model.eval()
    return adapters


def around(model: torch.nn.Module, **settings) -> AdapterSet:
    """An adapter of rank 2 at every layer of a model of the harness."""
    ranks = {site.name: 2 for site in sites_of(SHAPES)}
    scale = Scale("fixed", 8.0, 2)
    adapters = peft_injection.attach(
        model, sites_of(SHAPES), ranks, scale=scale, streams=Streams(0), ledger=Ledger("params", 1), **settings
    )
    scramble(adapters)
    adapters.model.eval()
    return adapters


@pytest.mark.parametrize("settings", [{}, {"gate": SVD}, {"gate": SVD, "path": True}, {"dropout": 0.5}])
def test_every_layer_multiplies_once_and_gets_its_weight_back(settings):
    adapters = made(**settings)
    if "gate" in settings:
        with adapters.deciding("test", "calibrate", 0):
            adapters.set_mask("layers.0", torch.tensor([True, False, True]), "test")
    if "path" in settings:
        adapters.set_path_point(0.5)
    share = 0.5 if "path" in settings else 1.0
    before, values = weights(adapters), [weight.clone() for weight in weights(adapters)]
    expected = adapters.model(X).detach()
    with adapters.folding():
        folded = adapters.model(X)
        for site, weight, value in zip(adapters.sites, weights(adapters), values, strict=True):
            torch.testing.assert_close(weight.data, value + share * adapters.delta(site.name))
        assert weights(adapters)[1] is before[1]  # rank 0
    assert not folded.requires_grad
    torch.testing.assert_close(folded, expected, rtol=1e-5, atol=1e-5)
    assert all(after is weight for after, weight in zip(weights(adapters), before, strict=True))
    assert all(torch.equal(weight, value) for weight, value in zip(before, values, strict=True))
    assert torch.equal(adapters.model(X), expected)


def test_an_exception_inside_leaves_the_weights_as_they_were():
    adapters = made()
    before, expected = weights(adapters), adapters.model(X)
    with pytest.raises(ZeroDivisionError), adapters.folding():
        1 / 0  # noqa: B018
    assert all(after is weight for after, weight in zip(weights(adapters), before, strict=True))
    assert torch.equal(adapters.model(X), expected)


@pytest.mark.parametrize("gate", [None, Gate(start=0.0)])
def test_at_the_start_nothing_moves(gate):
    adapters = attach([3, 4, 2], gate=gate)
    adapters.model.eval()
    expected = adapters.model(X)
    with adapters.folding():
        assert torch.equal(adapters.model(X), expected)


def test_a_module_that_shares_the_weight_keeps_it_without_the_update():
    adapters = made((3, 0, 0))
    first, other = bases(adapters)[0], torch.nn.Linear(4, 6, bias=False)
    other.weight = first.weight
    expected = other(X)
    with adapters.folding():
        assert torch.equal(other(X), expected)
        assert not torch.equal(first(X), expected)


def test_a_transposed_weight_is_folded_in_its_layout():
    model = Linears(SHAPES)
    for index, (d_out, d_in) in enumerate(SHAPES):
        model.layers[index] = Conv1D(d_out, d_in)
    adapters = around(model)
    expected = adapters.model(X).detach()
    with adapters.folding():
        torch.testing.assert_close(adapters.model(X), expected, rtol=1e-5, atol=1e-5)
        assert all(base.weight.shape == site[::-1] for base, site in zip(bases(adapters), SHAPES, strict=True))
        assert all(bool(layer.disable_adapters) for layer in adapters.model.base_model.model.layers)


@pytest.mark.parametrize("reason", ["bf16", "autocast", "tf32", "training", "magnitudes", "hook", "no room"])
def test_a_layer_that_would_compute_something_else_stays_as_it_is(reason, monkeypatch):
    dtype = torch.bfloat16 if reason == "bf16" else torch.float32
    trains = {"trains": "adapter and magnitudes"} if reason == "magnitudes" else {}
    adapters = around(Linears(SHAPES, dtype), **trains)
    before = weights(adapters)
    if reason == "tf32":
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    elif reason == "no room":
        monkeypatch.setattr("rankbench.core.folding._fits", lambda weights: False)
    elif reason == "training":
        adapters.model.train()
    elif reason == "hook":
        for base in bases(adapters):
            base.register_forward_pre_hook(lambda module, inputs: None)
    with torch.autocast("cpu", torch.bfloat16, enabled=reason == "autocast"), adapters.folding():
        assert all(inside is weight for inside, weight in zip(weights(adapters), before, strict=True))
        assert not any(layer.disable_adapters for layer in adapters.model.base_model.model.layers)


def test_a_run_evaluates_folded_and_its_numbers_move_by_rounding_alone(tmp_path):
    run = begun(configure(tmp_path, "method=lora", "train.evaluate_before=false"))
    adapters, task = run.assembly.adapters, run.assembly.task
    scramble(adapters)
    model, examples = adapters.model.eval(), task.splits["validation"]
    with torch.no_grad():
        unfolded = task.evaluate(model, examples, 32)
    folded = []
    layer = adapters.model.get_submodule(f"base_model.model.{adapters.sites[0].name}")
    model.register_forward_hook(lambda *_: folded.append(layer.disable_adapters))
    items = run.evaluate("validation", "validation", 0)
    assert folded == [True]
    assert [item["loss"] for item in items] == pytest.approx([item["loss"] for item in unfolded.items], rel=1e-5)
    assert not layer.disable_adapters


@pytest.mark.parametrize(("share", "fits"), [(1.0, True), (0.25, False)])
def test_a_run_that_shares_its_gpu_folds_within_its_share(monkeypatch, share, fits):
    """30 of 100 bytes are to be copied; 80 are free, and 10 are this process's already."""
    figures = {"mem_get_info": (80, 100), "memory_allocated": 10, "memory_reserved": 10}
    for name, value in {**figures, "get_per_process_memory_fraction": share}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert folding._fits([SimpleNamespace(device=torch.device("cuda"), nbytes=15)] * 2) == fits
