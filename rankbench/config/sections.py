"""The configuration of a run, and the sections that all runs share."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, create_model, field_validator

from rankbench.config import environment, registry, schema
from rankbench.config.schema import ConfigError, Mistake, Section, Settings
from rankbench.records.record import complete


class BudgetConfig(Settings):
    """How much adapter a run may have at its end.

    Attributes:
        name: name of the budget, for tables.
        reference_rank: uniform rank that defines the budget on the run's sites; null with source=true_ranks.
        unit: what is counted: trainable adapter parameters, or ranks.
        match: compare the final adapter with the budget, or the largest one on the way.
        tolerance: share of the target by which a run may exceed it before its status is over_budget.
        source: uniform rank, or the sum of the true ranks of a task that knows them.
        factor: what the target is multiplied by, for a ladder of budgets (0.5, 1, 2, 4). The reference rank stays, and
            with it the scale of adapter.scale_rule=fixed: on that ladder the gain of a first step under Adam grows with
            the rank; with live it does not.
        peak_of: a finished run (folder, record.json, or run_id under results_dir; in an experiment also an arm,
            "{igu}") whose peak is the target instead, in `unit`: a uniform arm gets as much as that run had on the way.
            The reference rank stays. null: none.
        target: filled in from peak_of.
    """

    filled_in: ClassVar[frozenset[str]] = frozenset({"target"})

    reference_rank: int | None
    unit: Literal["params", "ranks"]
    match: Literal["final", "peak"]
    tolerance: float = Field(ge=0, lt=1)
    source: Literal["uniform", "true_ranks"]
    factor: float = Field(default=1.0, gt=0)  # configurations of older versions have none
    peak_of: str | None = None  # nor this
    target: int | None = Field(default=None, ge=1)  # nor this


class TrainConfig(Section):
    """How every method is trained.

    Attributes:
        steps: optimizer steps; second stages are part of them. Filled in where passes_of is given.
        passes_of: a finished run, named as in budget.peak_of, whose passes are matched: as many steps as cost its
            passes forward and backward, calibration and allocation included, to the nearest whole step. null: none.
        batch_size: examples per optimizer step, over all processes.
        micro_batch_size: examples per forward pass, over all processes; divides batch_size; null: the whole batch.
        eval_batch_size: examples per forward pass of an evaluation, at most; a CPU reads fewer long ones at a time.
        learning_rate: peak learning rate of AdamW.
        head_learning_rate: that of the classification head alone, which is trained in full, on the same schedule; null:
            learning_rate. What method=full or bitfit trains of the base keeps learning_rate.
        weight_decay: decoupled weight decay of AdamW.
        schedule: course of the learning rate after the warm-up; linear and cosine end at 0.
        warmup_share: share of the steps over which the rate rises linearly from 0.
        max_grad_norm: the gradient is clipped to this norm; null does not clip.
        precision: arithmetic of the passes (see rankbench.training.precision): fp32; tf32, which rounds the factors of
            fp32 products on NVIDIA GPUs; bf16 by autocast. What is trained stays in fp32.
        checkpoint_every: steps between checkpoints; 0 writes none.
        threads: CPU threads of torch; null leaves the number to torch.
        evaluate_before: whether the untrained adapter is scored on the validation split as well.
        gradient_checkpointing: whether the activations of a layer are computed again in the backward pass, instead of
            kept: less memory and more time, the same numbers.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    micro_batch_size: int | None = Field(ge=1)
    eval_batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    schedule: Literal["linear", "cosine", "constant"]
    warmup_share: float = Field(ge=0, le=1)
    max_grad_norm: float | None = Field(gt=0)
    precision: Literal["fp32", "tf32", "bf16"]
    checkpoint_every: int = Field(ge=0)
    threads: int | None = Field(ge=1)
    evaluate_before: bool
    gradient_checkpointing: bool = False  # configurations of older versions have none
    head_learning_rate: float | None = Field(default=None, gt=0)  # nor this
    passes_of: str | None = None  # nor this

    def headless(self, architecture: str) -> list[str]:
        """What is wrong with the head's learning rate on a model of this architecture: encoders alone train a head."""
        if self.head_learning_rate is None or architecture == "encoder":
            return []
        return [
            f"train.head_learning_rate={self.head_learning_rate:g}: the model is a {architecture.replace('_', '-')} "
            "and trains no head; leave it null"
        ]


class AdapterConfig(Section):
    """The adapter that all methods share.

    Attributes:
        scale_rule: fixed alpha / reference rank, live alpha / r, rslora alpha / sqrt(r). Adam's first step lowers the
            loss by about learning rate x scale x r at a site, so that at a fixed scale a change of rank is a change of
            the site's learning rate by as much (rslora: by its root); at live it is none. Whether a rank map helps is
            best asked under both.
        alpha: numerator of the scale (lora_alpha of PEFT).
        dropout: probability of dropping an input of the adapter while training.
    """

    scale_rule: Literal["fixed", "live", "rslora"]
    alpha: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)


class TrackingConfig(Settings):
    """A mirror of the record; no number is read from it.

    Attributes:
        name: none or wandb.
        project: project of Weights & Biases; null with none.
        mode: mode of Weights & Biases; auto is online if a key is set up, else offline; null with none.
        timeout: seconds that the service may take to open a run, and again to close it; null with none.
    """

    name: Literal["none", "wandb"]
    project: str | None
    mode: Literal["auto", "online", "offline"] | None
    timeout: float | None = Field(gt=0)


class Shape(Section):
    """Shape of a model made on the spot (Qwen2 architecture, random weights); the names are Qwen2Config's."""

    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    num_key_value_heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    max_position_embeddings: int = Field(ge=1)
    vocab_size: int = Field(ge=259)  # the 256 bytes and three special tokens of the tokenizer that comes with it


class ModelConfig(Settings):
    """Where a model comes from and which of its modules are trained. The first source that is set wins.

    Attributes:
        name: name of the model, as on the command line.
        path: folder with config.json, weights and tokenizer (or a GGUF file).
        gguf_file: name of a GGUF file in `path`.
        package: requirement of an installed package that carries the weights, "name==version"; it is never imported.
        package_file: model folder or GGUF file in that package, relative to site-packages.
        hub: repository on the Hugging Face hub.
        revision: commit, tag or branch there; null is main.
        shape: shape of a random model that needs no files.
        architecture: "decoder" (language modelling), "encoder" (a head for classes, a score or a span of the text),
            "encoder_decoder" (language modelling of an answer after a text that is read as a whole: T5, BART) or
            "auto" (what the model's files are).
        targets: regular expressions for the end of module names ("q_proj", "attention.output.dense"), from a dot on, of
            the linear layers to adapt; "all-linear" is what it is to PEFT: every one but the output embedding, and none
            of the head.
        exclude: regular expressions for the end of the names of layers, or of modules with all that is in them, that
            are not adapted whatever `targets` says.
        head: modules of an encoder that start at random and are trained in full; where it is empty, and for a head that
            marks spans, those that the head's class adds to the body.
        dtype: storage of the frozen base; auto is bfloat16 where this machine multiplies it, else float32, and the
            configuration holds which of them.
        quantization: storage of its linear layers instead, by bitsandbytes: nf4 (4 bits, QLoRA), int8 (LLM.int8()), or
            null.
        attention: implementation of its attention: eager, sdpa, flash_attention_2 (GPUs and bf16 alone, with the
            package flash-attn), or null for what transformers takes.
    """

    path: str | None
    gguf_file: str | None
    package: str | None
    package_file: str | None
    hub: str | None
    revision: str | None
    shape: Shape | None
    targets: list[str]
    exclude: list[str] = Field(default=[])  # configurations of older versions have none
    head: list[str]
    architecture: Literal["decoder", "encoder", "encoder_decoder", "auto"]
    dtype: Literal["auto", "float32", "bfloat16"]
    quantization: Literal["nf4", "int8"] | None = None  # configurations of older versions have none
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None  # nor this

    @field_validator("dtype")
    @classmethod
    def _dtype_here(cls, dtype: str) -> str:
        return environment.base_dtype(dtype)


class Config(Section):
    """The checked configuration of one run.

    Attributes:
        method: settings of the method, in the type that its class names.
        model: where the model comes from.
        task: settings of the task, in the type that its class names.
        budget: what the adapter may spend.
        train: how the run is trained.
        adapter: what the adapter is.
        tracking: where the record is mirrored.
        seed: seed of the run's random streams.
        trial: whether the run is a tuning trial, scored on validation alone.
        tuned: choice of the learning rate (rankbench.sweeps.tuning), in the record before the test split is scored.
        results_dir: folder of all results.
    """

    filled_in: ClassVar[frozenset[str]] = frozenset({"trial", "tuned"})
    method: Settings
    model: ModelConfig
    task: Settings
    budget: BudgetConfig
    train: TrainConfig
    adapter: AdapterConfig
    tracking: TrackingConfig
    seed: int
    trial: bool
    tuned: dict[str, Any] | None
    results_dir: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by value: the class with a run's own types exists in this process alone."""
        return Config.from_plain, (self.plain(),)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Config:
        """Inverse of `plain`: the configuration of a frozen run or of a record, of this or an older version.

        Raises:
            ConfigError: it does not fit the schemas of this version, with every mistake.
        """
        data = complete(data)
        types, mistakes = section_types(data)
        config, wrong = schema.conform(config_class(types), data)
        if config is None or mistakes:
            raise ConfigError([mistake.sentence for mistake in mistakes + wrong])
        return config


def section_types(data: Mapping[str, Any], skip: frozenset[str] = frozenset()) -> tuple[dict[str, Any], list[Mistake]]:
    """The type of each key of a configuration, and the names of methods and tasks that nobody registered.

    Args:
        data: plain values.
        skip: sections about whose keys nothing can be said; they, and those with an unknown name, may have any keys.
    """
    types: dict[str, Any] = {key: field.annotation for key, field in Config.model_fields.items()}
    mistakes = []
    for section in skip.intersection(types):
        types[section] = dict[str, Any]
    for section in registry.PACKAGES:
        if section in skip:
            continue
        values = data.get(section)
        name = schema.show(values.get("name")) if isinstance(values, Mapping) else "none given"
        try:
            types[section] = section_schema(section, name)
        except registry.RegistryError as error:
            types[section] = dict[str, Any]
            mistakes.append(Mistake(f"{section}.name", f"{section}.name={name}: {error}"))
    return types, mistakes


def section_schema(section: registry.Kind, name: str) -> type[Settings]:
    """The settings of a method or task.

    Raises:
        RegistryError: no such method or task, or one that cannot be loaded.
    """
    return cast(type[Settings], registry.get(section, name).Config)


def config_class(types: Mapping[str, Any]) -> type[Config]:
    """`Config` with these types for its keys."""
    return _config_class(tuple(types.items()))


@functools.cache
def _config_class(types: tuple[tuple[str, Any], ...]) -> type[Config]:
    fields: dict[str, Any] = {key: (annotation, ...) for key, annotation in types}
    return create_model("Config", __base__=Config, **fields)
