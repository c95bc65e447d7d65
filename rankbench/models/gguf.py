"""GGUF files: checked, dequantised once into a cached safetensors folder, tokenised as their makers meant.

transformers reads the tensors; what it leaves out of the tokenizer is put right here (see `_mend`).
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, ReaderField
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from rankbench.files import fingerprint
from rankbench.models import gguf_metadata
from rankbench.models.errors import ModelError, quiet

CONVERSION = 2  # part of the cache key: raise it when a change here can change what comes out

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dialect:
    """What a GGUF file's `tokenizer.ggml.pre` implies and transformers 5.23 does not read from it.

    Attributes:
        digits: every digit is a token of its own, whatever stands before it ("  12" is "  ", "1", "2").
        bos: a beginning-of-sequence token is added unless the file says otherwise.
        whole_words: a word that is in the vocabulary is one token even if no chain of merges makes it.
    """

    digits: bool = False
    bos: bool = False
    whole_words: bool = False


_DIGITS = Dialect(digits=True)
_LLAMA3 = Dialect(bos=True, whole_words=True)
DIALECTS = {  # llama.cpp, src/llama-vocab.cpp: the choice of pre-tokenizer in load() and regex_exprs
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe"), _LLAMA3),
}


def convert(file: Path, dtype: torch.dtype, cache: Path, way_out: str) -> Path:
    """Folder with the model (safetensors) and the tokenizer of a GGUF file of a decoder.

    It is converted once: the folder is named by the sha256 of the file, appears whole or not at all, and several
    processes may ask for it at a time.

    Args:
        file: the GGUF file.
        dtype: type of the stored weights.
        cache: folder under which converted models are kept.
        way_out: what the user can do about a broken file; the end of the error message.

    Raises:
        ModelError: not a GGUF file, cut short, an architecture or tokenizer transformers cannot read, or a cache that
            cannot be written.
    """
    key = f"{fingerprint(file)}-{str(dtype).removeprefix('torch.')}-v{CONVERSION}"
    folder = cache / "gguf" / key
    if folder.is_dir():
        return folder
    header = read_header(file, way_out)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{key}.lock")):
            if not folder.is_dir():
                _convert_into(folder, file, dtype, header)
    except OSError as error:
        raise ModelError(
            f"the cache folder {cache} cannot be used ({error}); set RANKBENCH_CACHE to a folder that can be written"
        ) from error
    return folder


class Header(GGUFReader):
    """The header of a GGUF file.

    Attributes:
        end: offset just past its last tensor, in bytes from the start of the file.
        names: of its tensors.
    """

    end: int
    names: list[str]

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        # instead of mapping the tensors, which on a file that is too short fails without naming sizes
        self.end, self.names = start_offs, [field.name for field in fields]
        for field in fields:
            *_, dimensions, kind, offset = field.parts
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind[0])]
            bytes_ = math.prod(dimensions.tolist()) // block * block_bytes
            self.end = max(self.end, start_offs + int(offset[0]) + bytes_)


def read_header(file: Path, way_out: str) -> Header:
    """The header of a GGUF file that is as long as the header promises.

    Raises:
        ModelError: not a GGUF file, or cut short.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"{file} is not a GGUF file ({size:,} bytes, no GGUF mark at its start); {way_out}")
    try:
        header = Header(file)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelError(
            f"{file} is cut short or damaged: its header cannot be read to the end "
            f"(the file has {size:,} bytes; {error}); {way_out}"
        ) from error
    if size < header.end:
        raise ModelError(f"{file} is cut short: its header promises {header.end:,} bytes, it has {size:,}; {way_out}")
    return header


def _convert_into(folder: Path, file: Path, dtype: torch.dtype, header: Header) -> None:
    """Write the model and its tokenizer beside `folder`, then rename; the caller holds the lock."""
    logger.info("converting %s once, into %s", file.name, folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        with quiet():
            model, tokenizer = _read(file, dtype)
            tokenizer.model_max_length = model.config.max_position_embeddings
            _mend(tokenizer, header.fields)
            gguf_metadata.apply(file, header.fields, header.names, model.config)
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read(file: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    auto: Any = AutoModelForCausalLM
    whole: Any = GgufConfig(dequantize=True)  # else it keeps the blocks where a kernel for them is installed
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model, info = auto.from_pretrained(
            file.parent, gguf_file=file.name, dtype=dtype, quantization_config=whole, output_loading_info=True
        )
    except (ValueError, KeyError, RuntimeError, NotImplementedError, ImportError) as error:
        raise ModelError(
            f"{file}: transformers cannot read this GGUF file ({error}); "
            "give the model's own folder instead: model.path=DIR"
        ) from error
    gaps = sorted(info["missing_keys"])
    if gaps:
        raise ModelError(
            f"{file} has no tensor for {len(gaps)} of the model's weights ({gaps[0]}); take a complete file"
        )
    return model, tokenizer


def _mend(tokenizer: Any, fields: Mapping[str, ReaderField]) -> None:
    """Make a byte-pair tokenizer split text as the file's dialect asks; other tokenizers stay as they are."""

    def field(name: str) -> Any:
        return fields[name].contents() if name in fields else None

    if field("tokenizer.ggml.model") != "gpt2":
        return
    dialect = DIALECTS.get(field("tokenizer.ggml.pre"), Dialect())
    backend = tokenizer.backend_tokenizer
    if dialect.digits:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if dialect.whole_words:
        backend.model.ignore_merges = True
    if dialect.bos and field("tokenizer.ggml.add_bos_token") is None:
        tokenizer.add_bos_token = True
