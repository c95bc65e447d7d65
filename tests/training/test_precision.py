"""What is stored and computed in which precision, and by which kernels."""

import pytest
import torch
from support.harness import configure, prepared
from transformers import DebertaV2ForSequenceClassification, Qwen2ForCausalLM

from rankbench.config import overrides, validation
from rankbench.config.schema import ConfigError
from rankbench.contract.short_runs import write_encoder
from rankbench.core import peft_export
from rankbench.models.attention import arguments
from rankbench.models.errors import ModelError
from rankbench.training import precision
from rankbench.training.engine import make_accelerator

BF16 = ["model.dtype=bfloat16", "train.precision=bf16"]
CUTS = ["method=adalora", "method.warmup_share=0.1", "method.final_share=0.1", "method.every=1"]
SMALL = ["model.shape.num_hidden_layers=1", "train.steps=4", "task.validation_size=2", "task.test_size=2"]


def decoder(folder, *words):
    return configure(folder, *SMALL, "task.train_size=8", *words)


def encoder(folder, *words):
    written = [*write_encoder(folder / "model"), "budget=r2", "train.steps=4", "train.threads=1"]
    return validation.build(overrides.compose([*written, *words, f"results_dir={folder}"]))


@pytest.mark.parametrize("configuration", [decoder, encoder])
@pytest.mark.parametrize("arithmetic", ["fp32", "bf16"])
def test_what_is_trained_stays_in_fp32_over_a_base_in_bf16(tmp_path, configuration, arithmetic):
    run = prepared(configuration(tmp_path, *CUTS, "model.dtype=bfloat16", f"train.precision={arithmetic}"))
    gradients = set()
    run.assembly.complete()
    adapters, trainer = run.assembly.adapters, run.assembly.trainer
    trained = [*adapters.parameters(), *adapters.head]
    seen = trainer.allocator.on_gradients
    trainer.allocator.on_gradients = lambda *step: (gradients.update(p.grad.dtype for p in trained), seen(*step))
    run.start()
    trainer.run()
    parameters = {name: p for name, p in adapters.model.named_parameters() if p.requires_grad}
    frozen = {p.dtype for p in adapters.model.parameters() if not p.requires_grad}
    assert adapters.history, "a cut has sliced the moments"
    assert len(parameters) == len(trained)
    assert {p.dtype for p in trained} == gradients == {torch.float32}
    assert {moment.dtype for p in trained for moment in trainer.optimizer.state[p].values()} == {torch.float32}
    assert torch.bfloat16 in frozen
    state, _ = peft_export.to_plain_lora(adapters)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_passes_in_bf16_are_close_to_those_in_fp32_and_the_same_where_activations_are_computed_again(tmp_path):
    def losses(*words):
        run = prepared(decoder(tmp_path, "method=igu", "task=arithmetic", "task.max_new_tokens=1", *words))
        rows = []
        assert run.attempt(rows.append) == ("ok", None)
        return [row["loss"] for row in rows] + [run.metrics["test"]["loss"]]

    full, half = losses(), losses(*BF16)
    assert half != full
    assert half == pytest.approx(full, rel=0.01)
    assert losses(*BF16, "train.gradient_checkpointing=true") == half
    assert losses(*BF16, "method=dora") == pytest.approx(full, rel=0.01)


def test_sparing_casts_changes_no_number_and_keeps_fewer_copies(tmp_path):
    def passed():
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = engine.loss(batch)
        loss.backward()
        gradients = [p.grad.clone() for p in adapters.parameters()]
        adapters.model.zero_grad()
        return sum(kept.values()), loss.detach(), gradients

    run = prepared(decoder(tmp_path, *BF16))
    run.assembly.complete()
    adapters, engine = run.assembly.adapters, run.assembly.engine
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    batch = engine.task.collate(engine.task.splits["train"][:4])
    spared = passed()
    layers = [module for module in adapters.model.modules() if hasattr(module, "lora_A")]
    assert {layer.cast_input_dtype_enabled for layer in layers} == {False}
    for layer in layers:
        layer.cast_input_dtype_enabled = True
    cast = passed()
    assert spared[0] < 0.95 * cast[0]
    assert torch.equal(spared[1], cast[1])
    assert all(torch.equal(one, other) for one, other in zip(spared[2], cast[2], strict=True))


@pytest.mark.parametrize("arithmetic", ["fp32", "tf32", "bf16"])
def test_a_runs_precision_sets_the_kernels_whatever_they_were(arithmetic):
    try:
        make_accelerator("fp32" if arithmetic == "tf32" else "tf32")
        accelerator = make_accelerator(arithmetic)
        tf32 = arithmetic == "tf32"
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32
        assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        assert accelerator.mixed_precision == ("bf16" if arithmetic == "bf16" else "no")
    finally:
        make_accelerator("fp32")


def test_a_device_without_units_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    run = prepared(decoder(tmp_path, "train.precision=tf32"))
    monkeypatch.setattr(run.assembly, "complete", lambda: pytest.fail("loaded"))
    status, reason = run.attempt(lambda row: None)
    assert status == "error"
    assert "train.precision=tf32: the device of this run (cpu) has no TF32" in reason
    make_accelerator("fp32")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    flash = decoder(tmp_path, *BF16, "model.attention=flash_attention_2")
    assert precision.refused(flash, torch.device("cuda")) == []
    assert precision.refused(run.config, torch.device("cuda")) == []
    (sentence,) = precision.refused(flash, torch.device("cpu"))
    assert "model.attention=flash_attention_2: runs on a GPU alone" in sentence
    with pytest.raises(ConfigError, match=r"flash_attention_2 with model\.dtype=float32"):
        decoder(tmp_path, "model.attention=flash_attention_2")


def test_a_base_that_is_rounded_in_every_pass_is_said(tmp_path):
    gpu = torch.device("cuda")
    assert "model.dtype=bfloat16" in precision.slow_casts(decoder(tmp_path, "train.precision=bf16"), gpu)
    assert precision.slow_casts(decoder(tmp_path, *BF16), gpu) is None
    assert precision.slow_casts(decoder(tmp_path, "train.precision=bf16"), torch.device("cpu")) is None


def test_attention_is_the_one_that_is_asked_for_and_refused_where_it_is_missing(tmp_path):
    losses = []
    for asked, used in ((None, "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")):
        for configuration in (decoder, encoder):
            run = prepared(configuration(tmp_path, f"model.attention={asked or 'null'}"))
            run.assembly.load()
            assert run.assembly.loaded.model.config._attn_implementation == used
            batch = run.assembly.task.collate(run.assembly.task.splits["train"][:2])
            with torch.no_grad():
                losses.append(float(run.assembly.task.loss(run.assembly.loaded.model, batch)))
    assert losses[2:4] == losses[:2]
    assert losses[4:] == pytest.approx(losses[:2], rel=1e-4)
    with pytest.raises(ModelError, match="attention=sdpa: DebertaV2ForSequenceClassification does not have it"):
        arguments("sdpa", DebertaV2ForSequenceClassification)
    with pytest.raises(ModelError, match="needs the package flash-attn, which is not installed"):
        arguments("flash_attention_2", Qwen2ForCausalLM)
