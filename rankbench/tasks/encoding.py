"""Token ids of texts; those of many texts are kept on disk, so that the next run need not make them again.

A file is named by what it follows from: the texts, all that the tokenizer is made of, and how it was called. So it is
never stale, any number of processes may write it, and the folder may be deleted at any time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from rankbench.files import default_cache, write_atomically
from rankbench.terminal import console

KEPT_FROM = 200_000  # characters: tokenising them takes longer than to look for them (0.15 s to 0.03 s, one core)

Encodings = dict[str, list[list[int]]]


def encode(tokenizer: Any, columns: Sequence[Sequence[str]], **settings: Any) -> Encodings:
    """What a tokenizer makes of texts.

    Args:
        tokenizer: a transformers PreTrainedTokenizerBase.
        columns: the texts; where they are pairs, the first and the second of each.
        settings: of the tokenizer's call.

    Returns:
        "input_ids", and "token_type_ids" where the tokenizer makes them: a list for each text.
    """
    if not hasattr(tokenizer, "backend_tokenizer") or sum(len(text) for texts in columns for text in texts) < KEPT_FROM:
        return _encode(tokenizer, columns, settings)
    file = folder() / f"{_name(tokenizer, columns, settings)}.json.gz"
    kept = _read(file)
    if kept is None:
        kept = _encode(tokenizer, columns, settings)
        _write(file, kept)
    return kept


def folder() -> Path:
    """Where they are kept."""
    return default_cache() / "tokens"


def _encode(tokenizer: Any, columns: Sequence[Sequence[str]], settings: Mapping[str, Any]) -> Encodings:
    made = tokenizer(*map(list, columns), return_attention_mask=False, verbose=False, **settings)
    return dict(made)


def _name(tokenizer: Any, columns: Sequence[Sequence[str]], settings: Mapping[str, Any]) -> str:
    """Hash of all that the ids depend on."""
    manner = {
        "class": f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}",
        "versions": [transformers.__version__, tokenizers.__version__],
        "inputs": tokenizer.model_input_names,
        "specials are text": tokenizer.split_special_tokens,
        "settings": dict(settings),
    }
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # of the call before this one; every call sets its own
    backend.no_padding()
    digest = hashlib.sha256(json.dumps(manner, sort_keys=True).encode())
    for part in (backend.to_str(), json.dumps(list(map(list, columns)))):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


def _read(file: Path) -> Encodings | None:
    """None if it is not there, or broken: gzip has a checksum."""
    try:
        kept: Encodings = json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return kept


def _write(file: Path, encodings: Encodings) -> None:
    """A disk that is full, or not ours, stops no run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, gzip.compress(json.dumps(encodings).encode(), 1), sync=False)
    except OSError as error:
        said = (
            f"token ids are not kept: {file.parent}: {error.strerror or error}; RANKBENCH_CACHE=DIR names another place"
        )
        console().print(said, style="yellow", markup=False, soft_wrap=True)
