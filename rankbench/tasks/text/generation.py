"""Greedy answers of a decoder: the same for each prompt as if it were alone, up to rounding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from torch import nn

from rankbench.tasks.text.reading import CachedRows, Reader, keeps_every_token, reader_of, reading_of
from rankbench.tasks.text.tokens import length_groups

Stop = Callable[[list[int]], bool]


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: Collection[int],
    pad_id: int,
    stop: Stop | None,
    batch_size: int,
) -> list[list[int]]:
    """Greedy answers to all prompts; the same as for each prompt alone, up to rounding.

    Args:
        model: a transformers decoder, plain or inside PEFT's, in evaluation mode.
        prompts: token ids, none empty.
        ends: tokens that end an answer.
        stop: tells from the tokens so far whether the answer is complete; None: only `ends` and `max_new_tokens` end
            it.
        batch_size: prompts per batch; batches are of like length, or of one where padding would change an answer, and a
            finished prompt leaves its batch, and makes room for another, where the model's cache can be cut and joined.

    Returns:
        The new tokens of each prompt, in the prompts' order, without the one of `ends` that ended them.
    """
    reading = reading_of(model)
    lengths = [len(prompt) for prompt in prompts]
    count = rows_read_at_once(batch_size) if keeps_every_token(model) else batch_size
    groups = length_groups(lengths, count) if reading.padding else _equal_groups(lengths, count)
    readers = ((reader_of(model, reading, [prompts[index] for index in group], pad_id), group) for group in groups)
    answers = go_on(readers, batch_size - count, max_new_tokens, ends, stop)
    return [answers[index] for index in range(len(prompts))]


def rows_read_at_once(batch_size: int) -> int:
    """Prompts that are read together where they can join others on the way: half a batch, which the next ones fill."""
    return max(1, batch_size // 2)


def _equal_groups(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of one length, longest first."""
    of_length: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        of_length[length].append(index)
    groups = [of_length[length] for length in sorted(of_length, reverse=True)]
    return [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]


def go_on(
    readers: Iterable[tuple[Reader, Sequence[int]]],
    room: int,
    max_new_tokens: int,
    ends: Collection[int],
    stop: Stop | None,
) -> dict[int, list[int]]:
    """Greedy answers to the prompts of some readers, by the prompts' numbers; see `generate`.

    A pass with few rows takes nearly as long as one with many, and some answers are much longer than others. So the
    next prompts join those that are not answered yet.

    Args:
        readers: made one after the other; each with its prompts' numbers.
        room: most rows that the prompts of the next reader may join; 0 where caches cannot be joined.
    """
    answers: dict[int, list[int]] = {}
    complete: set[int] = set()

    def advance(reader: Reader, prompts: Sequence[int]) -> list[int]:
        """Give each row its next token and return the prompts of the rows that the next pass reads."""
        tokens = reader.logits().argmax(-1).tolist()
        for prompt, token in zip(prompts, tokens, strict=True):
            if prompt not in complete:
                answer = answers.setdefault(prompt, [])
                if token not in ends:
                    answer.append(token)
                if token in ends or len(answer) == max_new_tokens or (stop is not None and stop(answer)):
                    complete.add(prompt)
        going = [row for row, prompt in enumerate(prompts) if prompt not in complete]
        return [prompts[row] for row in reader.go_on(tokens, going)] if going else []

    rows: list[int] = []  # prompts of the rows of the batch
    batch: Reader | None = None
    for reader, prompts in readers:
        fresh = advance(reader, prompts)
        if rows and fresh:
            assert isinstance(batch, CachedRows), "beside others there is no room"
            assert isinstance(reader, CachedRows), "beside others there is no room"
            batch.join(reader)
        elif fresh:
            batch = reader
        rows += fresh
        while batch is not None and len(rows) > room:
            rows = advance(batch, rows)
    while batch is not None and rows:
        rows = advance(batch, rows)
    return answers
