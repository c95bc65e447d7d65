"""A model from its folder: the weights that were asked for, under settings that a run can answer for.

transformers takes more from a folder than weights: an adapter that lies beside them, settings of the forward pass,
quantisation. What could change a number unseen is refused, put right, or said in a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig

from rankbench.config import environment
from rankbench.core.seeding import Streams
from rankbench.models import attention as attentions
from rankbench.models.errors import ModelError
from rankbench.models.heads import LANGUAGE_MODELS, Problem, check_head, class_of

ADAPTER = "adapter_config.json"
# Settings of a folder's config.json that are the run's to choose, and what they are in every run.
OURS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False, "gradient_checkpointing": False}


def read(
    folder: Path,
    architecture: str,
    problem: Problem | None,
    dtype: torch.dtype,
    head: Sequence[str],
    stored: Mapping[str, Any],
    attention: str | None = None,
    **settings: Any,
) -> tuple[Any, list[str]]:
    """The model in a folder, and notes on what of it was changed or is not used.

    Attention is sdpa where the architecture has it, else eager (DeBERTa-v2), unless one is asked for.

    Args:
        folder: a model folder.
        architecture: "decoder", "encoder" or "encoder_decoder".
        problem: what the head of an encoder answers; None for all others.
        dtype: storage of the weights.
        head: names of modules that need no weights in the folder.
        stored: arguments of `from_pretrained` on how the weights are stored (rankbench.models.quantization).
        attention: model.attention.
        settings: of the model's config, instead of the folder's.

    Raises:
        ModelError: an adapter lies in the folder, weights are missing or belong to layers that the model lacks, or
            transformers has no class for such a model, or no such attention for it.
    """
    if (folder / ADAPTER).is_file():
        raise ModelError(
            f"{folder / ADAPTER} lies beside the weights, and transformers would make that adapter part of the frozen "
            "base; move it out of the folder, or merge it into the weights first"
        )
    config = checked_config(folder, architecture, problem, **settings)
    auto, _ = class_of(architecture, problem)
    implementation = attentions.arguments(attention, auto._model_mapping[type(config)])
    notes = [*_without_layerdrop(config), *_quantised(config)]
    if stored and getattr(config, "quantization_config", None):
        raise ModelError(f"{folder}: its weights are quantised already; set model.quantization=null")
    for part in _parts(config):
        for name, value in OURS.items():
            if hasattr(part, name):
                setattr(part, name, value)
    with Streams(0).ambient("init", "base"):  # what the files lack is drawn here: keep it off the global generator
        model, info = auto.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            **stored,
            **implementation,
            ignore_mismatched_sizes=True,  # a head of another task is drawn anew; others are refused below
        )
    check_head(model, head)
    _refuse_gaps(folder, info, head)
    return model, notes + _unused(folder, info["unexpected_keys"])


def read_config(folder: Path, **settings: Any) -> Any:
    """The config of the model in a folder; attention is as transformers chooses, whatever the folder says.

    Raises:
        ModelError: there is no model type in it, or one that transformers does not have.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **settings)
    except (ValueError, KeyError) as error:
        if "model_type" in str(error) or "model type" in str(error):
            raise ModelError(
                f"{folder / 'config.json'} names no model_type that transformers {transformers.__version__} has; "
                "take a model whose architecture it has, or a newer transformers"
            ) from error
        raise
    for part in _parts(config):
        part._attn_implementation_internal = None
    return config


def _parts(config: Any) -> list[Any]:
    """A config and the configs of the models that a model is made of (vision tower, encoder and decoder)."""
    return [
        config,
        *(part for value in vars(config).values() if isinstance(value, PretrainedConfig) for part in _parts(value)),
    ]


def checked_config(folder: Path, architecture: str, problem: Problem | None, **settings: Any) -> Any:
    """The config of the model in a folder, if transformers has a class for such a model.

    Raises:
        ModelError: it has none; the message says which architectures it has, and not every class there is.
    """
    config = read_config(folder, **settings)
    if has_class(config, architecture, problem):
        return config
    kind = f"an encoder with a head for {problem or 'classification'}" if architecture == "encoder" else architecture
    others = [name for name in (*LANGUAGE_MODELS, "encoder") if has_class(config, name, problem)]
    raise ModelError(
        f"{folder} holds a model of type {config.model_type}, which transformers does not have as {kind}; "
        + (f"set model.architecture={' or '.join(others)}" if others else "take a text model")
    )


def has_class(config: Any, architecture: str, problem: Problem | None) -> bool:
    """Whether transformers has a class for a model of this config."""
    auto, _ = class_of(architecture, problem)
    return type(config) in auto._model_mapping


def slow_storage(dtype: str, device: torch.device) -> str | None:
    """A sentence on bfloat16 weights on a processor that can only emulate their products; None elsewhere."""
    if dtype != "bfloat16" or device.type != "cpu" or environment.cpu_multiplies_bfloat16():
        return None
    return (
        "model.dtype=bfloat16 on a processor without units for it: passes may take several times as long as with "
        "model.dtype=float32, which is another run"
    )


def _without_layerdrop(config: PretrainedConfig) -> list[str]:
    """Layers that are left out at random would leave a step without gradients, and methods with unequal passes."""
    dropped = []
    for part in _parts(config):
        for name in [name for name, value in part.to_dict().items() if name.endswith("layerdrop") and value]:
            setattr(part, name, 0.0)
            dropped.append(name)
    return (
        [f"{', '.join(dropped)} of the model's config is set to 0: no layer is left out at random"] if dropped else []
    )


def _quantised(config: PretrainedConfig) -> list[str]:
    quantised = getattr(config, "quantization_config", None)
    if not quantised:
        return []
    method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised.quant_method
    return [f"the weights of the base are quantised in its folder ({method}); model.dtype does not apply to them"]


def _refuse_gaps(folder: Path, info: Mapping[str, Any], head: Sequence[str]) -> None:
    """A frozen weight that is not in the files would be random, and nobody would see it."""
    drawn = tuple(f"{top}." for top in head)
    gaps = sorted(key for key in info["missing_keys"] if not key.startswith(drawn))
    if gaps:
        raise ModelError(
            f"{folder} has no weights for {', '.join(gaps[:5])}{' ...' if len(gaps) > 5 else ''}; "
            "take a complete model, or name the module in model.head to train it from a random start"
        )
    for key, stored, shape in sorted(info["mismatched_keys"]):
        if not key.startswith(drawn):
            raise ModelError(
                f"{folder}: {key} has the shape {tuple(stored)} in its files, and {tuple(shape)} by its config.json; "
                "give a folder where they agree"
            )


def _unused(folder: Path, unexpected: set[str]) -> list[str]:
    """A note on weights that the model has no place for, such as the head of another task.

    Raises:
        ModelError: they are layers of a stack: the model would be another than the one that was stored.
    """
    layers = sorted(key for key in unexpected if any(part.isdigit() for part in key.split(".")))
    if layers:
        raise ModelError(
            f"{folder} holds {len(layers)} weights of layers that the model read from it lacks ({layers[0]} ...): "
            "its config.json or model.architecture is not that of its weights; give a folder where they agree"
        )
    modules = {key.rpartition(".")[0] or key for key in unexpected}
    named = ", ".join(sorted(modules)[:5]) + (" ..." if len(modules) > 5 else "")
    return [f"weights in the model's files that are not used: {named}"] if modules else []
