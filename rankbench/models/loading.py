"""Model and tokenizer from a hub name, a folder, a GGUF file or an installed package, and the matrices to adapt.

`load` gives the base model as a run needs it: decoders and encoder-decoders for language modelling, encoders with a
fresh head. Freezing it is PEFT's work, adapting it rankbench.core.adapter_set's.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from rankbench.config.sections import ModelConfig
from rankbench.core.seeding import Streams
from rankbench.core.sites import Site
from rankbench.models import quantization
from rankbench.models.errors import ModelError, quiet, readable
from rankbench.models.heads import PROBLEM_TYPES, Problem, class_of, draw_head, head_of
from rankbench.models.model_files import locate
from rankbench.models.random_model import byte_tokenizer, config_of, random_model
from rankbench.models.reading import checked_config, read
from rankbench.models.targets import ALL_LINEAR, find_sites, left_out

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be adapted.

    Attributes:
        model: transformers PreTrainedModel, in eval mode, on the CPU, nothing frozen yet.
        tokenizer: transformers PreTrainedTokenizerBase with a pad token.
        architecture: "decoder", "encoder" or "encoder_decoder".
        sites: matrices to adapt, in model order.
        head: names of the modules trained in full beside them; () for all but encoders.
        revision: {"model": hub commit (40 hex digits), or sha256 of the folder, GGUF file or random weights (64)}.
        task_type: what PEFT calls such a model ("CAUSAL_LM").
        notes: sentences on what a reader of the numbers should know: what was changed, dropped or left unadapted.
    """

    model: Any
    tokenizer: Any
    architecture: str
    sites: list[Site]
    head: tuple[str, ...]
    revision: dict[str, str]
    task_type: str
    notes: tuple[str, ...] = ()


def load(
    config: ModelConfig,
    num_labels: int | None,
    problem: Problem | None,
    streams: Streams,
    cache_dir: Path | None = None,
) -> LoadedModel:
    """Load the base model of a run.

    Args:
        config: what to load.
        num_labels: outputs of an encoder's head, 1 for regression, 2 for a span; ignored for all but encoders.
        problem: what the encoder's head answers; ignored for all but encoders.
        streams: streams of the run; the head is drawn from stream "init" alone, so it is the same for every method.
        cache_dir: folder for converted GGUF files; None is $RANKBENCH_CACHE, else ~/.cache/rankbench.

    Raises:
        ModelError: the model cannot be found or read, does not fit the task, or a target or head names nothing in it.
    """
    head: tuple[str, ...] = ()
    notes: list[str] = []
    if config.shape is not None and config.path is None:
        model, tokenizer, revision = random_model(config.shape, DTYPES[config.dtype], config.attention)
        if quantized := quantization.settings(config.quantization, DTYPES[config.dtype], head):
            model = quantization.quantize(model, quantized)
    else:
        folder, revision = locate(config, cache_dir)
        with quiet(), readable(folder):
            tokenizer = _tokenizer(folder)
            if config.architecture == "encoder":
                head = _head(folder, config, problem)
                model, notes = _encoder(folder, tokenizer, config, head, num_labels, problem, streams)
            else:
                stored = quantization.settings(config.quantization, DTYPES[config.dtype], ())
                dtype = DTYPES[config.dtype]
                model, notes = read(folder, config.architecture, None, dtype, (), stored, config.attention)
    quantization.settle(model)
    _settle(tokenizer)
    _set_padding(model, tokenizer)
    sites = find_sites(model, config.targets, head, config.exclude)
    left = left_out(model, sites, head) if ALL_LINEAR in config.targets else None
    notes += [left] if left else []
    notes += [quantization.BY_BATCH] if config.quantization == "int8" else []
    _, task_type = class_of(config.architecture, problem)
    return LoadedModel(
        model.eval(), tokenizer, config.architecture, sites, head, {"model": revision}, task_type, tuple(notes)
    )


def sites_of(config: ModelConfig, cache_dir: Path | None = None) -> list[Site]:
    """The matrices that `load` would adapt, without reading weights or downloading any.

    Raises:
        ModelError: the model's files are not on this machine, or cannot be read.
    """
    with torch.device("meta"):
        model = without_weights(config, cache_dir)
    head: tuple[str, ...] = ()
    if config.architecture == "encoder":
        folder, _ = locate(config, cache_dir, download=False)
        head = _head(folder, config, None)
    return find_sites(model, config.targets, head, config.exclude)


def without_weights(config: ModelConfig, cache_dir: Path | None = None) -> Any:
    """The model that `load` would read, with weights that are not; made on the device that the caller has chosen.

    Raises:
        ModelError: the model's files are not on this machine, or cannot be read.
    """
    auto, _ = class_of(config.architecture, None)
    # a fused kernel keeps what sdpa keeps
    settings = {"dtype": DTYPES[config.dtype]} | (
        {"attn_implementation": "eager"} if config.attention == "eager" else {}
    )
    if config.shape is not None and config.path is None:
        return auto.from_config(config_of(config.shape, byte_tokenizer()), **settings)
    folder, _ = locate(config, cache_dir, download=False)
    with quiet(), readable(folder):
        return auto.from_config(checked_config(folder, config.architecture, None), **settings)


def tokenizer_of(config: ModelConfig, cache_dir: Path | None = None) -> Any:
    """The tokenizer that `load` would read.

    Raises:
        ModelError: the model's files are not on this machine, or cannot be read.
    """
    if config.shape is not None and config.path is None:
        tokenizer = byte_tokenizer()
    else:
        folder, _ = locate(config, cache_dir, download=False)
        with quiet(), readable(folder):
            tokenizer = _tokenizer(folder)
    _settle(tokenizer)
    _choose_pad_token(tokenizer)
    return tokenizer


def _encoder(
    folder: Path,
    tokenizer: Any,
    config: ModelConfig,
    head: tuple[str, ...],
    num_labels: int | None,
    problem: Problem | None,
    streams: Streams,
) -> tuple[Any, list[str]]:
    if num_labels is None or problem is None:
        raise ModelError(
            f"model {config.name!r} is an encoder and needs a task with labels to classify or a score to predict; "
            "for text generation take a decoder or an encoder-decoder, such as model=smollm2-135m"
        )
    settings = {"num_labels": num_labels, "problem_type": PROBLEM_TYPES.get(problem)}
    dtype = DTYPES[config.dtype]
    stored = quantization.settings(config.quantization, dtype, head)
    model, notes = read(folder, config.architecture, problem, dtype, head, stored, config.attention, **settings)
    draw_head(model, head, streams)
    if model.config.is_encoder_decoder and tokenizer.eos_token_id not in tokenizer("a").input_ids:
        raise ModelError(
            f"{folder}: such a classifier reads its answer at the end token of a text, and its tokenizer adds none; "
            "set model.architecture=encoder_decoder, or let tokenizer_config.json add one"
        )
    return model, notes


def _head(folder: Path, config: ModelConfig, problem: Problem | None) -> tuple[str, ...]:
    """The modules of an encoder's head: model.head; where that is empty or another problem's, what its class adds."""
    if config.head and problem != "span":
        return tuple(config.head)
    auto, _ = class_of("encoder", problem)
    with torch.device("meta"):
        return head_of(auto.from_config(checked_config(folder, "encoder", problem)))


def _tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")) and not find_spec("sentencepiece"):
        raise ModelError(f"{folder}: its tokenizer is a SentencePiece model; to read it, pip install sentencepiece")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _settle(tokenizer: Any) -> None:
    """Put settings that a folder may bring, and that texts do not depend on in any run, to what they are here.

    A text that is too long loses its end, unless a task says otherwise; a decoded text is what the tokens spell; what
    looks like a special token in a text ("</s>", "[SEP]") is a text, too.
    """
    tokenizer.truncation_side = "right"
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.split_special_tokens = True


def _choose_pad_token(tokenizer: Any) -> None:
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError("the tokenizer has neither a pad nor an eos token; set pad_token in tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token


def _set_padding(model: Any, tokenizer: Any) -> None:
    _choose_pad_token(tokenizer)
    rows = model.get_input_embeddings().weight.shape[0]
    for role in ("pad", "bos", "eos", "cls", "sep"):
        token, index = getattr(tokenizer, f"{role}_token"), getattr(tokenizer, f"{role}_token_id")
        if index is not None and index >= rows:
            raise ModelError(
                f"the {role} token {token!r} of the tokenizer has the id {index}, and the model has embeddings for "
                f"{rows} tokens; set {role}_token in tokenizer_config.json to one that it has"
            )
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.can_generate():
        model.generation_config.pad_token_id = tokenizer.pad_token_id
