"""From texts to padded token tensors."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankbench.files import default_cache, write_atomically
from rankbench.tasks.base import DataError
from rankbench.terminal import console

Tokens = tuple[int, ...]


def tokenize(tokenizer: Any, texts: Sequence[str], specials: bool) -> list[Tokens]:
    """Token ids per text; `specials` adds what the tokenizer puts around a text (BOS, [CLS])."""
    if not texts:
        return []
    return [tuple(ids) for ids in encode(tokenizer, [texts], add_special_tokens=specials)["input_ids"]]


def fit(tokenizer: Any, template: str, fields: Mapping[str, str], cut: str, room: int, place: str) -> Tokens:
    """Prompt of at most `room` tokens: the field `cut` loses its beginning, token by token; nothing else is touched.

    Args:
        template: text with {names} of the fields.
        place: item and setting, for the message.

    Raises:
        DataError: the prompt does not fit even without the field.
    """
    values = dict(fields)
    while True:
        (ids,) = tokenize(tokenizer, [template.format(**values)], specials=True)
        if len(ids) <= room:
            return ids
        if not values[cut]:
            raise DataError(f"{place}: the prompt has {len(ids)} tokens without its {cut}, room is for {room}")
        (kept,) = tokenize(tokenizer, [values[cut]], specials=False)
        kept = kept[len(ids) - room :]
        values[cut] = tokenizer.decode(kept).lstrip("\ufffd") if kept else ""  # half a character would grow again


def prompts(
    tokenizer: Any,
    template: str,
    fields: Sequence[Mapping[str, str]],
    cut: str,
    rooms: Sequence[int],
    ids: Sequence[str],
    max_length: int,
) -> tuple[list[Tokens], int]:
    """Prompts of at most rooms[i] tokens, and how many had to be cut.

    Raises:
        DataError: a prompt does not fit even without its field `cut`; names the item's id and task.max_length.
    """
    tokenised = tokenize(tokenizer, [template.format(**values) for values in fields], specials=True)
    long = [index for index, prompt in enumerate(tokenised) if len(prompt) > rooms[index]]
    for index in long:
        place = f"{ids[index]} is too long for task.max_length={max_length}, make that larger"
        tokenised[index] = fit(tokenizer, template, fields[index], cut, rooms[index], place)
    return tokenised, len(long)


def pad(sequences: Sequence[Sequence[int]], value: int, left: bool = False) -> Tensor:
    """Tensor (sequences, longest) with `value` after, or before, each sequence."""
    longest = max(len(sequence) for sequence in sequences)
    filler = [[value] * (longest - len(sequence)) for sequence in sequences]
    rows = [[*f, *s] if left else [*s, *f] for f, s in zip(filler, sequences, strict=True)]
    return torch.tensor(rows, dtype=torch.long)


def length_groups(lengths: Sequence[int], batch_size: int, tokens: int | None = None) -> list[list[int]]:
    """Indices in batches of like length, longest first (so that a batch too large for memory fails at once).

    Args:
        batch_size: largest number of sequences in a batch.
        tokens: largest number of tokens in a padded batch, unless one sequence alone has more.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    groups = []
    while order:
        room = batch_size if tokens is None else min(batch_size, max(1, tokens // lengths[order[0]]))
        groups.append(order[:room])
        order = order[room:]
    return groups


def prompt_hash(*texts: str) -> str:
    """sha256 of a prompt's wording: template and options."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


KEPT_FROM = 200_000  # characters: tokenising them takes longer than to look for them (0.15 s to 0.03 s, one core)

Encodings = dict[str, list[list[int]]]


def encode(tokenizer: Any, columns: Sequence[Sequence[str]], **settings: Any) -> Encodings:
    """Texts as a tokenizer encodes them.

    Args:
        tokenizer: a transformers PreTrainedTokenizerBase.
        columns: the texts; where they are pairs, the first and the second of each.
        settings: arguments of the tokenizer's call.

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
    """Folder of the token ids that are kept."""
    return default_cache() / "tokens"


def _encode(tokenizer: Any, columns: Sequence[Sequence[str]], settings: Mapping[str, Any]) -> Encodings:
    encodings = tokenizer(*map(list, columns), return_attention_mask=False, verbose=False, **settings)
    return dict(encodings)


def _name(tokenizer: Any, columns: Sequence[Sequence[str]], settings: Mapping[str, Any]) -> str:
    """Hash of all that the ids depend on."""
    import tokenizers
    import transformers

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
    """Token ids of a file; None if the file is not there, or broken (gzip has a checksum)."""
    try:
        kept: Encodings = json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return kept


def _write(file: Path, encodings: Encodings) -> None:
    """Keep token ids in a file; a disk that is full or cannot be written stops no run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, gzip.compress(json.dumps(encodings).encode(), 1), sync=False)
    except OSError as error:
        sentence = (
            f"token ids are not kept: {file.parent}: {error.strerror or error}; RANKBENCH_CACHE=DIR names another place"
        )
        console().print(sentence, style="yellow", markup=False, soft_wrap=True)
