"""What is read from a model's folder besides its weights: refused, put right, or said."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from omegaconf import OmegaConf
from support.architectures import CONFIGS, HEADS
from tokenizers.processors import TemplateProcessing

from rankbench.core.seeding import Streams
from rankbench.models import reading
from rankbench.models.errors import ModelError
from rankbench.models.loading import LoadedModel, load
from rankbench.models.random_model import byte_tokenizer

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CONF = Path(__file__).parents[2] / "conf" / "model"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders with the tiny models of test_targets, with a tokenizer that fits them."""
    root, tokenizer = tmp_path_factory.mktemp("published"), byte_tokenizer()
    ending = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 258)])
    tokenizer.backend_tokenizer.post_processor = ending
    for name in (*HEADS, "llama"):
        config = CONFIGS[name]() if name in CONFIGS else transformers.LlamaConfig(**SHAPE)
        config.vocab_size, config.pad_token_id, config.bos_token_id, config.eos_token_id = 264, 256, 257, 258
        body = name in ("bart", "t5", "distilbert")
        auto = transformers.AutoModel if body else transformers.AutoModelForCausalLM
        auto.from_config(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


def edited(folder: Path, to: Path, **changes) -> Path:
    """A copy of a folder with other values in its config.json."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **changes}))
    return to


def read(folder: Path, architecture: str = "decoder", head: tuple[str, ...] = (), **changes) -> LoadedModel:
    wanted = {"path": str(folder), "architecture": architecture, "head": list(head), "targets": ["all-linear"]}
    config = OmegaConf.merge(OmegaConf.load(CONF / "tiny.yaml").model, wanted, changes)
    encoder = architecture == "encoder"
    return load(config, 3 if encoder else None, "classification" if encoder else None, Streams(0))


@pytest.mark.parametrize(
    ("name", "spread"), [("opt", 0.02), ("bart", 0.02), ("t5", 0.25), ("distilbert", 0.02), ("gpt2", 0.02)]
)
def test_fresh_heads_are_drawn_as_the_architecture_draws_them(published, name, spread):
    loaded = read(published / name, "encoder", tuple(HEADS[name]))
    weights = [p.detach() for top in HEADS[name] for p in loaded.model.get_submodule(top).parameters() if p.dim() == 2]
    assert float(torch.cat([weight.flatten() for weight in weights]).std()) == pytest.approx(spread, rel=0.3)
    assert not any(site.name.startswith(tuple(HEADS[name])) for site in loaded.sites)


def test_a_classifier_that_reads_its_end_token_needs_one(published, tmp_path):
    folder = edited(published / "bart", tmp_path / "model")
    byte_tokenizer().save_pretrained(folder)
    with pytest.raises(ModelError, match=r"reads its answer at the end token .* adds none; set model.architecture=enc"):
        read(folder, "encoder", ("classification_head",))


def test_an_adapter_beside_the_weights_is_refused(published, tmp_path):
    folder = edited(published / "llama", tmp_path / "model")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model/adapter_config.json lies beside the weights, .*move it out"):
        read(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="it holds an adapter, not the model that the adapter was made for; get"):
        read(folder)


def test_layers_are_not_left_out_at_random(published, tmp_path):
    loaded = read(edited(published / "opt", tmp_path / "model", layerdrop=0.5))
    assert loaded.notes == ("layerdrop of the model's config is set to 0: no layer is left out at random",)
    assert loaded.model.config.layerdrop == loaded.model.model.decoder.layerdrop == 0


def test_layers_of_a_model_in_a_model_are_not_left_out_at_random_either():
    bart = transformers.BartConfig(decoder_layerdrop=0.5, encoder_layerdrop=0.0)
    pair = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(transformers.BertConfig(), bart)
    assert reading._without_layerdrop(pair) == [
        "decoder_layerdrop of the model's config is set to 0: no layer is left out at random"
    ]
    assert pair.decoder.decoder_layerdrop == 0


def test_settings_of_the_forward_pass_are_the_run_s(published, tmp_path):
    odd = {"return_dict": False, "output_attentions": True, "output_hidden_states": True}
    odd |= {"gradient_checkpointing": True, "attn_implementation": "eager", "dtype": "bfloat16"}
    loaded, plain = read(edited(published / "llama", tmp_path / "model", **odd)), read(published / "llama")
    ids = torch.arange(12)[None]
    output = loaded.model(ids)
    assert list(output.keys()) == ["logits", "past_key_values"]
    assert torch.equal(output.logits, plain.model(ids).logits)
    assert loaded.model.config._attn_implementation == "sdpa"
    assert not loaded.model.is_activation_checkpointing


def test_weights_of_layers_that_the_config_lacks_are_refused(published, tmp_path):
    folder = edited(published / "llama", tmp_path / "model", num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"holds 9 weights of layers that the model .* lacks \(model.layers.1.*agree"):
        read(folder)


def test_weights_of_another_shape_are_refused(published, tmp_path):
    folder = edited(published / "llama", tmp_path / "model", intermediate_size=32)
    words = r"model.layers.0.mlp.down_proj.weight has the shape \(16, 24\) in its files, and \(16, 32\) by its config"
    with pytest.raises(ModelError, match=words):
        read(folder)


def test_unused_weights_are_said(published):
    assert read(published / "llama").notes == ()
    notes = read(published / "llama", "encoder", ("score",)).notes
    assert notes == ("weights in the model's files that are not used: lm_head",)


@pytest.mark.parametrize(
    ("name", "architecture", "words"),
    [
        ("t5", "decoder", r"type t5, which .* not have as decoder; set model.architecture=encoder_decoder or encoder"),
        ("llama", "encoder_decoder", r"not have as encoder_decoder; set model.architecture=decoder or encoder"),
    ],
)
def test_another_architecture_is_named(published, name, architecture, words):
    with pytest.raises(ModelError, match=words) as error:
        read(published / name, architecture)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "type vit, which .* as decoder; take a text model"),
        ({"model_type": "nonesuch"}, r"config.json names no model_type that transformers \S+ has; take"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "needs a package .*optimum.*; install it, or"),
    ],
)
def test_folders_that_cannot_be_read_say_why_in_a_sentence(published, tmp_path, changes, words):
    with pytest.raises(ModelError, match=words) as error:
        read(edited(published / "llama", tmp_path / "model", **changes))
    assert len(str(error.value)) < 400


def test_a_token_beyond_the_embeddings_is_named(published, tmp_path):
    folder, tokenizer = edited(published / "llama", tmp_path / "model"), byte_tokenizer()
    tokenizer.add_tokens([f"<{index}>" for index in range(5)])
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"pad token '<padding>' .* id 264, and the model has embeddings for 264 tok"):
        read(folder)


def test_emulated_bfloat16_is_said(monkeypatch):
    cpu = torch.device("cpu")
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert "model.dtype=float32" in str(reading.slow_storage("bfloat16", cpu))
    assert reading.slow_storage("float32", cpu) is None
    assert reading.slow_storage("bfloat16", torch.device("cuda")) is None
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert reading.slow_storage("bfloat16", cpu) is None
