"""Small random tokenizers, models and data files for the tests of tasks."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rankbench.config import registry
from rankbench.core.seeding import Streams

CONF = Path(__file__).parents[2] / "conf" / "task"
WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "log", "is", "was", "good", "bad", "yes", "who"]


def byte_tokenizer() -> Any:
    """A tokenizer with one token per byte, then <pad> and <eos>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate([*alphabet, "<pad>", "<eos>"])}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def word_tokenizer() -> Any:
    """A tokenizer like BERT's, with one token per word of WORDS, in [CLS] ... [SEP] ... [SEP] with segments."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate(specials + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **names
    )


def decoder(vocabulary: int = 258, spread: float = 0.3) -> Qwen2ForCausalLM:
    """A tiny random Qwen2, frozen; `spread` is large enough that the next token is not always the same."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=spread,
    )
    with Streams(0).ambient("init"):
        return Qwen2ForCausalLM(config).eval().requires_grad_(False)


def encoder(labels: int) -> BertForSequenceClassification:
    """A tiny random BERT over WORDS, frozen."""
    config = BertConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=labels,
        initializer_range=0.3,
    )
    with Streams(0).ambient("init"):
        return BertForSequenceClassification(config).eval().requires_grad_(False)


def adapted(model: Any) -> PeftModel:
    """The model wrapped by PEFT, with unchanged outputs (B = 0)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft 0.21
        return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()


def settings(name: str, **overrides: Any) -> Any:
    """The section `task` as a run receives it."""
    data: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return registry.get("task", name).Config(**{**data, **overrides})


def task(name: str, **overrides: Any) -> Any:
    return registry.get("task", name)(settings(name, **overrides))


def loaded(name: str, architecture: str = "decoder", **overrides: Any) -> Any:
    made = task(name, **overrides)
    made.load(byte_tokenizer() if architecture == "decoder" else word_tokenizer(), architecture, Streams(0))
    return made


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_gsm8k(folder: Path) -> dict[str, Any]:
    """Write 12 training and 7 test problems ("What is 3 times 40?"); returns the settings that read them."""
    for split, count, factor in (("train", 12, 3), ("test", 7, 40)):
        products = [(i, i * factor) for i in range(count)]
        solved = [(f"What is {i} times {factor}?", f"{i}*{factor}=<<{i}*{factor}={n}>>\n#### {n}") for i, n in products]
        write(folder / f"{split}.jsonl", [{"question": question, "answer": answer} for question, answer in solved])
    return {"data_dir": str(folder), "validation_size": 4, "max_new_tokens": 5}


def write_classification(folder: Path, name: str, extra: bool = True) -> dict[str, Any]:
    """Write 20 training rows, 11 test rows and 9 rows of each extra part; returns the settings that read them."""
    cls: Any = registry.get("task", name)
    write(folder / "train.jsonl", _rows(cls, 20, 1))
    write(folder / f"{cls.test}.jsonl", _rows(cls, 11, 2))
    for split in cls.extra_test.values() if extra else ():
        write(folder / f"{split}.jsonl", _rows(cls, 9, 3))
    return {"data_dir": str(folder), "validation_size": 4}


def _rows(cls: Any, count: int, seed: int) -> list[dict[str, Any]]:
    rng = Streams(seed).numpy("task")
    rows = []
    for _ in range(count):
        row: dict[str, Any] = {column: " ".join(rng.choice(WORDS, rng.integers(2, 9))) for column in cls.texts}
        label = int(rng.integers(len(cls.labels))) if cls.labels else float(rng.uniform(0, 5))
        rows.append({**row, cls.label: bool(label) if cls.label == "answer" else label})
    return rows


def evaluate(made: Any, model: torch.nn.Module, split: str = "test", batch_size: int = 3) -> Any:
    with torch.no_grad():
        return made.evaluate(model, made.splits[split], batch_size)
