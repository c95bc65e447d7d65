"""Model and tokenizer from a hub name, a folder, a GGUF file or an installed package, and the matrices to adapt.

`load` gives the base model as a run needs it: decoders for language modelling, encoders with a fresh classification
head. Freezing it is PEFT's work, adapting it rankbench.core.adapter_set's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rankbench.config.sections import ModelConfig, Shape
from rankbench.core.seeding import Streams
from rankbench.core.sites import Site, parse_site
from rankbench.models.errors import ModelError, _readable, quiet
from rankbench.models.model_files import locate

ALL_LINEAR = "all-linear"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PROBLEMS = {"classification": "single_label_classification", "regression": "regression"}
__all__ = ["LoadedModel", "ModelConfig", "ModelError", "Shape", "find_sites", "load"]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be adapted.

    Attributes:
        model: transformers PreTrainedModel, in eval mode, on the CPU, nothing frozen yet.
        tokenizer: transformers PreTrainedTokenizerBase with a pad token.
        architecture: "decoder" or "encoder".
        sites: matrices to adapt, in model order.
        head: names of the modules trained in full beside them; () for decoders.
        revision: {"model": hub commit (40 hex digits), or sha256 of the folder, GGUF file or random weights (64)}.
    """

    model: Any
    tokenizer: Any
    architecture: str
    sites: list[Site]
    head: tuple[str, ...]
    revision: dict[str, str]


def load(
    config: ModelConfig,
    num_labels: int | None,
    problem: Literal["classification", "regression"] | None,
    streams: Streams,
    cache_dir: Path | None = None,
) -> LoadedModel:
    """Load the base model of a run.

    Args:
        config: what to load.
        num_labels: outputs of an encoder's head, 1 for regression; ignored for decoders.
        problem: what the encoder's head answers; ignored for decoders.
        streams: streams of the run; the head is drawn from stream "init" alone, so it is the same for every method.
        cache_dir: folder for converted GGUF files; None is $RANKBENCH_CACHE, else ~/.cache/rankbench.

    Raises:
        ModelError: the model cannot be found or read, does not fit the task, or a target or head names nothing in it.
    """
    head = tuple(config.head) if config.architecture == "encoder" else ()
    if config.shape is not None and config.path is None:
        model, tokenizer, revision = _random(config.shape, DTYPES[config.dtype])
    else:
        folder, revision = locate(config, cache_dir)
        with quiet(), _readable(folder):
            tokenizer = _tokenizer(folder)
            if config.architecture == "encoder":
                model = _encoder(folder, config, num_labels, problem, streams)
            else:
                model = _decoder(folder, config)
    _set_padding(model, tokenizer)
    sites = find_sites(model, config.targets, head)
    return LoadedModel(model.eval(), tokenizer, config.architecture, sites, head, {"model": revision})


def sites_of(config: ModelConfig, cache_dir: Path | None = None) -> list[Site]:
    """The matrices that `load` would adapt, without reading weights or downloading any.

    Raises:
        ModelError: the model's files are not on this machine, or cannot be read.
    """
    head = tuple(config.head) if config.architecture == "encoder" else ()
    if config.shape is not None and config.path is None:
        model, *_ = _random(config.shape, DTYPES[config.dtype])
        return find_sites(model, config.targets, head)
    folder, _ = locate(config, cache_dir, download=False)
    auto: Any = AutoModelForSequenceClassification if config.architecture == "encoder" else AutoModelForCausalLM
    with quiet(), _readable(folder), torch.device("meta"):
        shape = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return find_sites(auto.from_config(shape), config.targets, head)


def find_sites(model: nn.Module, targets: Sequence[str], head: Sequence[str] = ()) -> list[Site]:
    """The linear layers that `targets` name, in model order; never those within the modules of `head`.

    Raises:
        ModelError: no target, or one that is no regular expression or matches no linear layer; the kinds there are.
    """
    if not targets:
        raise ModelError(f"model.targets is empty: there is nothing to adapt; [{ALL_LINEAR}] takes every linear layer")
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(name == top or name.startswith(f"{top}.") for top in head)
    }
    hugging: Any = model
    output = hugging.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    chosen: set[str] = set()
    for target in targets:
        if target == ALL_LINEAR:
            matching = [name for name, module in linears.items() if module is not output]
        else:
            matching = [name for name in linears if _ends_with(name, target)]
        if not matching:
            kinds = sorted({_site(name, module).kind for name, module in linears.items()})
            raise ModelError(
                f"model.targets: {target!r} matches no linear layer; the kinds here are {', '.join(kinds)}; "
                f"{ALL_LINEAR!r} takes every one but the output head"
            )
        chosen.update(matching)
    return [_site(name, module) for name, module in linears.items() if name in chosen]


def _ends_with(name: str, pattern: str) -> bool:
    try:
        return re.search(rf"(?:^|\.)(?:{pattern})$", name) is not None
    except re.error as error:
        raise ModelError(f"model.targets: {pattern!r} is no regular expression ({error}); mend it") from error


def _site(name: str, module: nn.Linear) -> Site:
    return Site(name, *parse_site(name), module.out_features, module.in_features)


def _decoder(folder: Path, config: ModelConfig) -> Any:
    model, info = _from_files(AutoModelForCausalLM, folder, config)
    _refuse_gaps(folder, info["missing_keys"], ())
    return model


def _encoder(folder: Path, config: ModelConfig, num_labels: int | None, problem: str | None, streams: Streams) -> Any:
    if num_labels is None or problem is None:
        raise ModelError(
            f"model {config.name!r} is an encoder and needs a task with labels to classify or a score to predict; "
            "for text generation take a decoder, such as model=smollm2-135m"
        )
    model, info = _from_files(
        AutoModelForSequenceClassification,
        folder,
        config,
        num_labels=num_labels,
        problem_type=PROBLEMS[problem],
        ignore_mismatched_sizes=True,  # a head of another task: drawn anew below
    )
    _draw_head(model, config.head, streams)
    _refuse_gaps(folder, info["missing_keys"] | {key for key, *_ in info["mismatched_keys"]}, config.head)
    return model


def _from_files(auto: Any, folder: Path, config: ModelConfig, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Model and what its files lacked. Attention is sdpa where the architecture has it, else eager (DeBERTa-v2)."""
    with Streams(0).ambient("init", "base"):  # what the files lack is drawn here: keep it off the global generator
        loaded: tuple[Any, dict[str, Any]] = auto.from_pretrained(
            folder,
            dtype=DTYPES[config.dtype],
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            **settings,
        )
    return loaded


def _refuse_gaps(folder: Path, missing: set[str], head: Sequence[str]) -> None:
    """A frozen weight that is not in the files would be random, and nobody would see it."""
    gaps = sorted(key for key in missing if not key.startswith(tuple(f"{top}." for top in head)))
    if gaps:
        raise ModelError(
            f"{folder} has no weights for {', '.join(gaps[:5])}{' ...' if len(gaps) > 5 else ''}; "
            "take a complete model, or name the module in model.head to train it from a random start"
        )


def _draw_head(model: Any, head: Sequence[str], streams: Streams) -> None:
    """Draw the head's matrices from N(0, initializer_range^2), biases 0 (Devlin et al. 2019), whatever the files had.

    Drawn in fp32 and rounded to the model's dtype, so that the head does not depend on it beyond rounding.
    """
    modules = dict(model.named_modules())
    generator = streams.torch("init", "head")
    for top in head:
        if top not in modules:
            tops = ", ".join(name for name, _ in model.named_children())
            raise ModelError(f"model.head: there is no module {top!r}; at the top are {tops}")
        for linear in (module for module in modules[top].modules() if isinstance(module, nn.Linear)):
            draw = torch.randn(linear.weight.shape, generator=generator)
            linear.weight.data.copy_(draw * model.config.initializer_range)
            if linear.bias is not None:
                linear.bias.data.zero_()


def _random(shape: Shape, dtype: torch.dtype) -> tuple[Any, Any, str]:
    """A Qwen2 with random weights, the same for every run's seed, its byte tokenizer and the hash of its weights."""
    tokenizer = _byte_tokenizer()
    config = Qwen2Config(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings,
        vocab_size=shape.vocab_size,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with Streams(0).ambient("init", "base"):
        model: Any = Qwen2ForCausalLM(config)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return model.to(dtype), tokenizer, digest.hexdigest()


def _byte_tokenizer() -> Any:
    """One token per byte, then <pad>, <bos> and <eos>; none of them is added to a text."""
    specials = ["<pad>", "<bos>", "<eos>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet + specials)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    pad, bos, eos = specials
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=backend, pad_token=pad, bos_token=bos, eos_token=eos)


def _tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")) and not find_spec("sentencepiece"):
        raise ModelError(f"{folder}: its tokenizer is a SentencePiece model; to read it, pip install sentencepiece")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _set_padding(model: Any, tokenizer: Any) -> None:
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError("the tokenizer has neither a pad nor an eos token; set pad_token in tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.can_generate():
        model.generation_config.pad_token_id = tokenizer.pad_token_id
