"""From texts to padded token tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rankbench.tasks.base import DataError

Tokens = tuple[int, ...]


def tokenize(tokenizer: Any, texts: Sequence[str], specials: bool) -> list[Tokens]:
    """Token ids per text; `specials` adds what the tokenizer puts around a text (BOS, [CLS])."""
    if not texts:
        return []
    return [tuple(ids) for ids in encode(tokenizer, [texts], add_special_tokens=specials)["input_ids"]]


def encode(tokenizer: Any, columns: Sequence[Sequence[str]], **settings: Any) -> dict[str, list[list[int]]]:
    """Texts as a tokenizer encodes them.

    Args:
        tokenizer: a transformers PreTrainedTokenizerBase.
        columns: the texts; where they are pairs, the first and the second of each.
        settings: arguments of the tokenizer's call.

    Returns:
        "input_ids", and "token_type_ids" where the tokenizer makes them: a list for each text.
    """
    return dict(tokenizer(*map(list, columns), return_attention_mask=False, verbose=False, **settings))


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
