"""The sections of a configuration that all runs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankbench.config.schema import choice, number


@dataclass(kw_only=True)
class BudgetConfig:
    """How much adapter a run may have at its end.

    Attributes:
        name: of the option, for tables.
        reference_rank: uniform rank that defines the budget on the run's sites; null with source=true_ranks.
        unit: what is counted: trainable adapter parameters, or ranks.
        match: compare the final adapter with the budget, or the largest one on the way.
        tolerance: share of the target by which a run may exceed it before its status is over_budget.
        source: uniform rank, or the sum of the true ranks of a task that knows them.
    """

    name: str
    reference_rank: int | None
    unit: str = choice("params", "ranks")
    match: str = choice("final", "peak")
    tolerance: float = number(low=0, below=1)
    source: str = choice("uniform", "true_ranks")


@dataclass(kw_only=True)
class TrainConfig:
    """How every method is trained.

    Attributes:
        steps: optimizer steps; second stages are part of them.
        batch_size: examples per optimizer step, over all processes.
        micro_batch_size: examples per forward pass, over all processes; divides batch_size; null: the whole batch.
        eval_batch_size: examples per forward pass of an evaluation.
        learning_rate: peak learning rate of AdamW.
        weight_decay: of AdamW, decoupled.
        schedule: of the learning rate after the warm-up; linear and cosine end at 0.
        warmup_share: share of the steps over which the rate rises linearly from 0.
        max_grad_norm: the gradient is clipped to this norm; null does not clip.
        precision: bf16 is autocast of the base's computation; adapter parameters stay fp32.
        checkpoint_every: steps between checkpoints; 0 writes none.
        threads: CPU threads of torch; null leaves torch's choice.
        evaluate_before: score the untrained adapter on the validation split, too.
    """

    steps: int = number(low=1)
    batch_size: int = number(low=1)
    micro_batch_size: int | None = number(low=1)
    eval_batch_size: int = number(low=1)
    learning_rate: float = number(above=0)
    weight_decay: float = number(low=0)
    schedule: str = choice("linear", "cosine", "constant")
    warmup_share: float = number(low=0, high=1)
    max_grad_norm: float | None = number(above=0)
    precision: str = choice("fp32", "bf16")
    checkpoint_every: int = number(low=0)
    threads: int | None = number(low=1)
    evaluate_before: bool


@dataclass(kw_only=True)
class AdapterConfig:
    """The adapter that all methods share.

    Attributes:
        scale_rule: fixed alpha / reference rank, live alpha / r, rslora alpha / sqrt(r).
        alpha: numerator of the scale (lora_alpha of PEFT).
        dropout: probability of dropping an input of the adapter while training.
    """

    scale_rule: str = choice("fixed", "live", "rslora")
    alpha: float = number(above=0)
    dropout: float = number(low=0, below=1)


@dataclass(kw_only=True)
class TrackingConfig:
    """A mirror of the record; no number is read from it.

    Attributes:
        name: none or wandb.
        project: of Weights & Biases; null with none.
        mode: of Weights & Biases; auto is online if a key is set up, else offline; null with none.
        timeout: seconds that the service may take to open a run, and again to close it; null with none.
    """

    name: str = choice("none", "wandb")
    project: str | None
    mode: str | None = choice("auto", "online", "offline")
    timeout: float | None = number(above=0)


# Keys beside the sections. trial: a tuning trial, scored on validation alone. tuned: the choice of the learning rate
# (rankbench.sweeps.tuning), in the record before the test split is scored.
ROOT: dict[str, Any] = {"seed": int, "trial": bool, "tuned": dict[str, Any] | None, "results_dir": str}

SECTIONS: dict[str, type[Any]] = {
    "budget": BudgetConfig,
    "train": TrainConfig,
    "adapter": AdapterConfig,
    "tracking": TrackingConfig,
}


@dataclass
class Shape:
    """Shape of a model made on the spot (Qwen2 architecture, random weights); the names are Qwen2Config's."""

    hidden_size: int = number(low=1)
    num_hidden_layers: int = number(low=1)
    num_attention_heads: int = number(low=1)
    num_key_value_heads: int = number(low=1)
    intermediate_size: int = number(low=1)
    max_position_embeddings: int = number(low=1)
    vocab_size: int = number(low=259)  # the 256 bytes and three special tokens of the tokenizer that comes with it


@dataclass
class ModelConfig:
    """Where a model comes from and which of its modules are trained. The first source that is set wins.

    Attributes:
        name: of the model, as on the command line.
        path: folder with config.json, weights and tokenizer (or a GGUF file).
        gguf_file: name of a GGUF file in `path`.
        package: requirement of an installed package that carries the weights, "name==version"; it is never imported.
        package_file: model folder or GGUF file in that package, relative to site-packages.
        hub: repository on the Hugging Face hub.
        revision: commit, tag or branch there; null is main.
        shape: of a random model that needs no files.
        architecture: "decoder" (language modelling) or "encoder" (classification head).
        targets: regular expressions for the end of module names ("q_proj", "attention.output.dense"), from a dot on, of
            the linear layers to adapt; "all-linear" is every one but the output head.
        head: modules of an encoder that start at random and are trained in full.
        dtype: storage of the frozen base.
    """

    name: str
    path: str | None
    gguf_file: str | None
    package: str | None
    package_file: str | None
    hub: str | None
    revision: str | None
    shape: Shape | None
    targets: list[str]
    head: list[str]
    architecture: str = choice("decoder", "encoder")
    dtype: str = choice("float32", "bfloat16")
