"""Models with random weights and data sets of random letters, shaped like real ones: for timing alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SMOLLM2, QWEN = "smollm2-135m", "qwen2.5-0.5b"


def write_model(name: str, folder: Path, tokenizer: Any, shrink: bool = False) -> None:
    """A model folder: random weights in the shape of the model, bf16 as published, and a tokenizer.

    Embeddings are tied; those of special tokens, and of numbers that are no tokens, are zero, so that an answer is text
    and ends at its length.

    Args:
        name: SMOLLM2 or QWEN.
        tokenizer: of fewer tokens than the model has.
        shrink: whether the model has two narrow layers and few tokens.
    """
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape: dict[str, Any] = {"max_position_embeddings": 8192, "tie_word_embeddings": True, **special}
    if name == SMOLLM2:
        shape |= {"hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "vocab_size": 49152}
        shape |= {"num_attention_heads": 9, "num_key_value_heads": 3}
    else:
        shape |= {"hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864, "vocab_size": 151936}
        shape |= {"num_attention_heads": 14, "num_key_value_heads": 2}
    if shrink:
        shape |= {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 264}
        shape |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**shape)) if name == SMOLLM2 else Qwen2ForCausalLM(Qwen2Config(**shape))
    embeddings = model.get_input_embeddings().weight.data
    embeddings[len(tokenizer) :] = embeddings[tokenizer.all_special_ids] = 0.0
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_data(boolq: Path, gsm8k: Path, questions: int, problems: int) -> None:
    """Folders for task=boolq and task=gsm8k; a text has as many bytes as a real one has tokens of SmolLM2, about.

    Args:
        boolq, gsm8k: the folders, which exist.
        questions, problems: items of the test split.
    """
    letters = random.Random(0)

    def text(length: int) -> str:
        return "".join(letters.choices("abcdefgh ", k=length)).strip() + "?"

    for file, count in (("train", 4), ("validation", questions)):
        rows = [{"question": text(40), "passage": text(120), "answer": bool(index % 2)} for index in range(count)]
        _write(boolq / f"{file}.jsonl", rows)
    for file, count in (("train", 4), ("test", problems)):
        _write(
            gsm8k / f"{file}.jsonl", [{"question": text(60), "answer": f"{text(100)}\n#### 7"} for _ in range(count)]
        )


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
