"""From texts to padded token tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rankbench.tasks.base import DataError

Tokens = tuple[int, ...]
CACHED = 1024  # tokens of a scoring pass on a CPU; see scoring_groups
Listener = Callable[[int, int], None]  # called with the sequences that are done, and all of them
LISTENERS: list[Listener] = []
SAMPLE = 64  # prompts that tell whether the tokens of an option depend on the prompt


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

    Where all prompts have the same targets (the options of a task), a sample of prompts tells whether the targets'
    tokens depend on the prompt; if they do not, the prompts alone are encoded.

    Args:
        targets: for each prompt one text or more; with the blank or line break that separates it from the prompt.
    """
    if len(prompts) > SAMPLE and len({tuple(row) for row in targets}) == 1:
        step = len(prompts) // SAMPLE
        rows = _cut(tokenizer, prompts[::step], targets[::step], joins)
        asked = _asked(tokenizer, prompts, joins)
        if len({row for _, row in rows}) == 1 and [prompt for prompt, _ in rows] == asked[::step]:
            return [(prompt, rows[0][1]) for prompt in asked]
    return _cut(tokenizer, prompts, targets, joins)


def _cut(
    tokenizer: Any, prompts: Sequence[str], targets: Sequence[Sequence[str]], joins: bool
) -> list[tuple[Tokens, tuple[Tokens, ...]]]:
    flat = [(prompt, target) for prompt, row in zip(prompts, targets, strict=True) for target in row]
    if joins:
        encoded = iter(_opened(tokenizer, [prompt + target for prompt, target in flat]))
    else:
        encoded = iter(tokenize(tokenizer, [target for _, target in flat], specials=False))
    rows = []
    for prompt, row in zip(_asked(tokenizer, prompts, joins), targets, strict=True):
        read = [next(encoded) for _ in row]
        if joins:
            shared = len(prompt)
            while any(whole[:shared] != prompt[:shared] for whole in read):  # a token spans the seam
                shared -= 1
            prompt, read = prompt[:shared], [whole[shared:] for whole in read]
        rows.append((prompt, tuple(read)))
    return rows


def _asked(tokenizer: Any, prompts: Sequence[str], joins: bool) -> list[Tokens]:
    return _opened(tokenizer, prompts) if joins else tokenize(tokenizer, prompts, specials=True)


def _opened(tokenizer: Any, texts: Sequence[str]) -> list[Tokens]:
    """Token ids per text, with what the tokenizer puts before a text and without what it puts after it."""
    (mask,) = encode(tokenizer, [["a"]], return_special_tokens_mask=True)["special_tokens_mask"]
    appended = next((count for count, special in enumerate(reversed(mask)) if not special), 0)
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


def pad(sequences: Sequence[Sequence[int]], value: int, left: bool = False) -> Tensor:
    """Tensor (sequences, longest) with `value` after, or before, each sequence."""
    longest = max(len(sequence) for sequence in sequences)
    filler = [[value] * (longest - len(sequence)) for sequence in sequences]
    rows = [[*f, *s] if left else [*s, *f] for f, s in zip(filler, sequences, strict=True)]
    return torch.tensor(rows, dtype=torch.long)


@contextmanager
def counting(listener: Listener) -> Iterator[None]:
    """Tell a listener, after each batch of `length_groups` inside the block, how far its evaluation is.

    So a task says nothing of its progress, and a user sees it.
    """
    LISTENERS.append(listener)
    try:
        yield
    finally:
        LISTENERS.remove(listener)


def length_groups(lengths: Sequence[int], batch_size: int, tokens: int | None = None) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first (so that a batch too large for memory fails at once).

    Args:
        batch_size: largest number of sequences in a batch.
        tokens: largest number of tokens in a padded batch, unless one sequence alone has more.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        room = batch_size if tokens is None else min(batch_size, max(1, tokens // lengths[order[0]]))
        yield order[:room]
        order = order[room:]
        for listener in LISTENERS:
            listener(len(lengths) - len(order), len(lengths))


def scoring_groups(
    lengths: Sequence[int], batch_size: int, device: torch.device, tokens: int | None = None
) -> Iterator[list[int]]:
    """Batches as of `length_groups` for passes without a gradient; on a CPU they hold at most CACHED tokens.

    What a layer makes of so few tokens stays in a CPU's caches, and in memory that the process need not ask for anew:
    a token of SmolLM2-135M costs half of what it does in a batch of 32 passages. On a GPU large batches are faster.
    """
    if device.type == "cpu":
        tokens = min(CACHED, tokens or CACHED)
    return length_groups(lengths, batch_size, tokens)


def prompt_hash(*texts: str) -> str:
    """sha256 of a prompt's wording: template and options."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
