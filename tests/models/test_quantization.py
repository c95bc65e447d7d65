"""A quantised base computes with the weights that it says it has; adapters on it are stock PEFT adapters."""

import pytest
import torch
from peft import PeftModel
from support.harness import configure, perform, prepared

from rankbench.core.peft_export import export
from rankbench.core.seeding import Streams
from rankbench.models import loading, quantization
from rankbench.models.errors import ModelError
from rankbench.records.record import run_id
from rankbench.training.probe import Probe

pytest.importorskip("bitsandbytes")
WORDS = ["task=arithmetic", "task.train_size=16", "task.validation_size=4", "task.test_size=4", "train.steps=2"]
QUANTIZED = {"nf4": 0.02, "int8": 0.2}  # -> relative error of a pass: activations are quantised, too, with int8


def assembled(tmp_path, *words):
    assembly = prepared(configure(tmp_path, "method=igu", *WORDS, *words)).assembly
    assembly.complete()
    return assembly


@pytest.fixture(scope="module", params=QUANTIZED)
def pair(request, tmp_path_factory):
    """An adapter off its start on a quantised base, on a plain base with those weights, and the plain base's own."""
    folder = tmp_path_factory.mktemp("runs")
    quantized, plain = assembled(folder, f"model.quantization={request.param}"), assembled(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in quantized.adapters.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        weights = {site.name: plain.adapters.weight(site.name).clone() for site in plain.sites}
        for site in plain.sites:
            module = plain.adapters.model.get_submodule(f"base_model.model.{site.name}.base_layer")
            module.weight.copy_(quantized.adapters.weight(site.name))
    plain.adapters.load_state_dict(quantized.adapters.state_dict())
    return request.param, quantized, plain, weights


def logits(model, assembly):
    batch = assembly.task.collate(assembly.task.splits["validation"])
    with torch.no_grad():
        return model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def apart(a, b):
    return float((a - b).norm() / b.norm())


def test_only_what_depends_on_the_batch_is_said_to(pair):
    name, quantized, plain, _ = pair
    assert any("read together" in note for note in quantized.notes) == (name == "int8")
    assert not plain.notes


def test_gates_path_and_gradients_are_those_on_the_dequantised_weights(pair):
    name, *assemblies, _ = pair
    tolerance = 1e-5 if name == "nf4" else QUANTIZED[name]
    outputs, weights, factors = [], [], []
    for assembly in assemblies:
        adapters, train = assembly.adapters, assembly.task.splits["train"]
        probe = Probe(assembly.engine, adapters, train, "start")
        batch = train[:4]
        weights.append(torch.cat([g.flatten() for g in probe.weight_gradients(batch).values()]))
        adapters.set_path_point(0.5, "delta", "exact")
        outputs.append(logits(adapters.model, assembly))
        factors.append(torch.cat([g.flatten() for g in probe.gradients(batch, adapters.parameters())]))
        adapters.reset_path()
        outputs[-1] = torch.cat([outputs[-1], logits(adapters.model, assembly)])
    for quantized, plain in (outputs, weights, factors):
        assert plain.norm() > 0
        assert apart(quantized, plain) < tolerance
    assert not torch.equal(outputs[0][:4], outputs[0][4:])  # the path is there


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_the_export_is_a_stock_adapter_on_the_quantised_base(pair, tmp_path):
    _, assembly, *_ = pair
    export(assembly.adapters, tmp_path)
    loaded = loading.load(assembly.config.model, None, None, Streams(1))
    stock = PeftModel.from_pretrained(loaded.model, tmp_path)
    expected = logits(assembly.adapters.model, assembly)
    assert apart(logits(stock, assembly), expected) < 1e-6
    with pytest.warns(UserWarning, match="due to rounding errors"):
        merged = stock.merge_and_unload()
    assert apart(logits(merged, assembly), expected) < QUANTIZED["int8"]


def test_weights_are_near_those_of_the_plain_base(pair):
    _, quantized, plain, weights = pair
    for site in plain.sites:
        weight = quantized.adapters.weight(site.name)
        assert (weight.shape, weight.dtype) == ((site.d_out, site.d_in), torch.float32)
        assert 0 < apart(weight, weights[site.name]) < 0.12


@pytest.mark.parametrize("method", ["gora", "fim"])
def test_methods_that_read_weights_end_ok(tmp_path, method):
    words = ["method.tensor=weight"] if method == "fim" else []
    assert perform(configure(tmp_path, f"method={method}", "model.quantization=nf4", *WORDS, *words))["status"] == "ok"


def test_the_run_has_another_name_and_the_plain_one_keeps_its(tmp_path):
    plain, quantized = (configure(tmp_path, *WORDS, f"model.quantization={name}").plain() for name in ("null", "nf4"))
    name = run_id(plain)
    assert name != run_id(quantized)
    del plain["model"]["quantization"], plain["train"]["gradient_checkpointing"]
    assert run_id(plain) == name


def test_without_bitsandbytes_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes; run: pip install 'rankbench\[quantization\]'"):
        assembled(tmp_path, "model.quantization=nf4")
