"""Pretrain the pocket decoder: python experiments/pocket/pretrain.py BOOLQ OUT

BOOLQ is a folder with BoolQ's train.jsonl and validation.jsonl; the model folder and the curve appear in OUT.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rankbench.core.seeding import Streams
from rankbench.tasks.arithmetic import expression

END = "<end>"  # ends every text; pads, too
SHAPE = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}


@dataclass(frozen=True)
class Recipe:
    """How it is trained: AdamW, a rate that is constant between a warm-up and a linear decay to zero.

    A shorter training is the same up to its decay, so it can go on from a checkpoint of a longer one.
    """

    steps: int
    seed: int = 0
    length: int = 256  # tokens of a row
    rows: int = 4  # of a batch
    learning_rate: float = 2e-3
    warmup: int = 100  # steps
    decay_share: float = 0.25
    weight_decay: float = 0.1
    evaluate_every: int = 200  # steps

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, left)


def passages(file: Path) -> list[str]:
    """Each passage of a file of BoolQ once, with its questions behind it; answers are left out."""
    questions: dict[str, list[str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        questions.setdefault(row["passage"], []).append(row["question"] + "?")
    return ["\n".join([passage, *asked]) for passage, asked in questions.items()]


def sums(count: int, split: str, seed: int) -> list[str]:
    """Texts of ten lines like "12 + 45 - 30 = 27", with two or three terms."""
    rng = Streams(seed).numpy("task", split)

    def line() -> str:
        question, value = expression(int(rng.integers(2, 4)), rng)
        return f"{question} = {value}"

    return ["\n".join(line() for _ in range(10)) for _ in range(count)]


def make_tokenizer(texts: Sequence[str], vocab_size: int) -> Any:
    """Byte-level BPE trained on texts; every digit is a token of its own."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=backend, eos_token=END, pad_token=END)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Token ids of each text, END behind it."""
    ids = tokenizer(list(texts), add_special_tokens=False).input_ids
    return [np.array([*text, tokenizer.eos_token_id], dtype=np.int64) for text in ids]


def batches(texts: Sequence[NDArray[np.int64]], recipe: Recipe) -> Iterator[torch.Tensor]:
    """Batches [rows, length] of the texts joined end to end, in a new order each epoch; without end."""
    epoch = 0
    while True:
        order = Streams(recipe.seed).numpy("data", epoch).permutation(len(texts))
        joined = np.concatenate([texts[index] for index in order])
        size = recipe.rows * recipe.length
        for start in range(0, len(joined) - size + 1, size):
            yield torch.from_numpy(joined[start : start + size].reshape(recipe.rows, recipe.length))
        epoch += 1


@torch.no_grad()
def mean_loss(model: Any, texts: Sequence[NDArray[np.int64]], length: int) -> float:
    """Mean loss of a token in nats over texts joined end to end."""
    joined = torch.from_numpy(np.concatenate(texts))
    rows = joined[: len(joined) // length * length].reshape(-1, length)
    parts = [rows[start : start + 8] for start in range(0, len(rows), 8)]
    return sum(_loss(model, part).item() * len(part) for part in parts) / len(rows)


def _loss(model: Any, rows: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):  # 1.5 times as fast as fp32 where the processor has units for it
        loss: torch.Tensor = model(input_ids=rows, labels=rows).loss
    return loss


def pretrain(
    tokenizer: Any,
    texts: Sequence[str],
    held_out: dict[str, list[str]],
    recipe: Recipe,
    shape: dict[str, int],
    checkpoints: Path | None = None,
    resume: Path | None = None,
) -> tuple[Any, list[dict[str, float]]]:
    """The model with its weights in bfloat16, and the curve: losses in nats per token, one row per evaluation.

    Args:
        held_out: name -> texts whose loss is measured every recipe.evaluate_every steps and at the end.
        checkpoints: folder that gets a checkpoint at each evaluation before the decay.
        resume: a checkpoint of a training that differs in `steps` alone.
    """
    settings: dict[str, Any] = {**shape, "tie_word_embeddings": True, "bos_token_id": None, "pad_token_id": None}
    config = LlamaConfig(**settings, eos_token_id=tokenizer.eos_token_id)
    with Streams(recipe.seed).ambient("init", "base"):
        model: Any = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=recipe.weight_decay, fused=True)
    measured = {name: encode(tokenizer, some) for name, some in held_out.items()}
    curve: list[dict[str, float]] = []
    begun = 0
    if resume is not None:
        state = torch.load(resume, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begun, curve = state["step"], state["curve"]
    started, losses = time.monotonic(), []
    for step, rows in enumerate(batches(encode(tokenizer, texts), recipe)):
        if step < begun:
            continue
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        loss: Any = _loss(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        done = step + 1
        if done % recipe.evaluate_every and done < recipe.steps:
            continue
        if done == recipe.steps:
            model.to(torch.bfloat16)
        row = {name: mean_loss(model, some, recipe.length) for name, some in measured.items()}
        curve.append({"step": done, "tokens": done * rows.numel(), "train": sum(losses) / len(losses), **row})
        losses.clear()
        print(
            *(f"{name} {value:g}" for name, value in curve[-1].items()),
            f"{time.monotonic() - started:.0f} s",
            flush=True,
        )
        if done == recipe.steps:
            break
        if checkpoints is not None and recipe.rate(done) == recipe.learning_rate:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done, "curve": curve}
            torch.save(state, checkpoints / f"step{done}.pt")
    return model, curve


def main() -> None:
    """Train, and write the model folder and the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boolq", type=Path, help="folder with train.jsonl and validation.jsonl")
    parser.add_argument("out", type=Path, help="folder that gets the model, curve.csv and checkpoints")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--resume", type=Path, help="a checkpoint of a longer or shorter training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(options.steps)
    prose = passages(options.boolq / "train.jsonl")
    texts = [*prose, *sums(1500, "train", recipe.seed)]
    seen = {text.partition("\n")[0] for text in prose}
    unseen = [text for text in passages(options.boolq / "validation.jsonl") if text.partition("\n")[0] not in seen]
    held_out = {"prose": unseen[:100], "arithmetic": sums(50, "test", recipe.seed)}
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(texts, SHAPE["vocab_size"])
    model, curve = pretrain(tokenizer, texts, held_out, recipe, SHAPE, options.out, options.resume)
    folder = options.out / "pocket"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with (options.out / "curve.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(curve[0]))
        writer.writeheader()
        writer.writerows(curve)


if __name__ == "__main__":
    main()
