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


def seam(
    tokenizer: Any, prompts: Sequence[str], targets: Sequence[Sequence[str]], joins: bool = True
) -> list[tuple[Tokens, tuple[Tokens, ...]]]:
    """Each prompt's tokens, and those of every target that may follow it.

    For a model that reads both as one sequence (`joins`), each target is encoded together with its prompt, as a model
    sees text in pretraining, and cut off at the prompt's length; what the tokenizer puts after a text (an end token) is
    left out, so that nothing stands between prompt and target. lm-evaluation-harness (0.4) cuts at the same place. The
    two differ only where one token spans the seam: there that harness drops the token, here it belongs to the target,
    so the prompt's tokens followed by the target's are always those of the whole text.

    For a model that reads them apart, the prompt has its special tokens on both sides, and the target none.

    Args:
        targets: for each prompt one text or more; with the blank or line break that separates it from the prompt.
    """
    flat = [(prompt, target) for prompt, row in zip(prompts, targets, strict=True) for target in row]
    if joins:
        asked = _opened(tokenizer, prompts)
        wholes = iter(_opened(tokenizer, [prompt + target for prompt, target in flat]))
    else:
        asked = tokenize(tokenizer, prompts, specials=True)
        wholes = iter(tokenize(tokenizer, [target for _, target in flat], specials=False))
    rows = []
    for prompt, row in zip(asked, targets, strict=True):
        read = [next(wholes) for _ in row]
        if joins:
            shared = len(prompt)
            while any(whole[:shared] != prompt[:shared] for whole in read):  # a token spans the seam
                shared -= 1
            prompt, read = prompt[:shared], [whole[shared:] for whole in read]
        rows.append((prompt, tuple(read)))
    return rows


def _opened(tokenizer: Any, texts: Sequence[str]) -> list[Tokens]:
    """Token ids per text, with what the tokenizer puts before a text and without what it puts after it."""
    (mask,) = encode(tokenizer, [["a"]], return_special_tokens_mask=True)["special_tokens_mask"]
    appended = next(count for count, special in enumerate(reversed(mask)) if not special)
    rows = [ids[: len(ids) - appended] for ids in tokenize(tokenizer, texts, specials=True)]
    twice = (tokenizer.bos_token_id,) * 2  # a chat template writes its own
    return [ids[1:] if ids[:2] == twice else ids for ids in rows]


def fitted(
    tokenizer: Any,
    template: str,
    fields: Sequence[Mapping[str, str]],
    cut: str,
    targets: Sequence[Sequence[str]],
    ids: Sequence[str],
    max_length: int,
    joins: bool = True,
) -> tuple[list[tuple[Tokens, tuple[Tokens, ...]]], int]:
    """What `seam` gives for the filled templates, and how many prompts had to be cut.

    Args:
        template: text with {names} of the fields.
        cut: field that loses its beginning, token by token, where prompt and longest target have too many tokens.
        ids: names of the items, for messages.
        max_length: tokens of a prompt and any of its targets.

    Raises:
        DataError: a prompt does not fit even without its field `cut`; names the item and task.max_length.
    """
    rows = seam(tokenizer, [template.format(**values) for values in fields], targets, joins)
    long = [index for index, row in enumerate(rows) if _length(*row) > max_length]
    for index in long:
        values = dict(fields[index])
        while (excess := _length(*rows[index]) - max_length) > 0:
            if not values[cut]:
                prompt, ends = rows[index]
                raise DataError(
                    f"{ids[index]} is too long for task.max_length={max_length}, make that larger: the prompt has "
                    f"{len(prompt)} tokens without its {cut}, room is for {max_length - max(map(len, ends))}"
                )
            values[cut] = _without_beginning(tokenizer, values[cut], excess)
            (rows[index],) = seam(tokenizer, [template.format(**values)], [targets[index]], joins)
    return rows, len(long)


def _length(prompt: Tokens, targets: Sequence[Tokens]) -> int:
    return len(prompt) + max(map(len, targets))


def _without_beginning(tokenizer: Any, text: str, count: int) -> str:
    """The text without its first `count` tokens, or as many more as it takes to make it shorter."""
    (ids,) = tokenize(tokenizer, [text], specials=False)
    for start in range(count, len(ids)):
        rest: str = tokenizer.decode(ids[start:]).lstrip("\ufffd")  # half a character would grow again
        if len(rest) < len(text):
            return rest
    return ""


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
