"""Greedy answers of a decoder: the same for each prompt as if it were alone, up to rounding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import torch
from torch import nn

from rankbench.tasks.text.reading import Reader, reader_of, reading_of
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
            finished prompt leaves its batch where the model's cache can be cut.

    Returns:
        The new tokens of each prompt, in the prompts' order, without the one of `ends` that ended them.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    reading = reading_of(model)
    lengths = [len(prompt) for prompt in prompts]
    for group in length_groups(lengths, batch_size) if reading.padding else _equal_groups(lengths, batch_size):
        batch = [prompts[index] for index in group]
        reader = reader_of(model, reading, batch, pad_id)
        generated = go_on(reader, len(batch), max_new_tokens, ends, stop)
        for index, answer in zip(group, generated, strict=True):
            answers[index] = answer
    return answers


def _equal_groups(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of one length, longest first."""
    of_length: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        of_length[length].append(index)
    groups = [of_length[length] for length in sorted(of_length, reverse=True)]
    return [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]


def go_on(reader: Reader, count: int, max_new_tokens: int, ends: Collection[int], stop: Stop | None) -> list[list[int]]:
    """Greedy answers to the `count` prompts of a reader; see `generate`."""
    answers: list[list[int]] = [[] for _ in range(count)]
    rows = list(range(count))  # prompt of each row of the batch
    complete: set[int] = set()
    for _ in range(max_new_tokens):
        tokens = reader.logits().argmax(-1).tolist()
        for prompt, token in zip(rows, tokens, strict=True):
            if prompt not in complete:
                if token not in ends:
                    answers[prompt].append(token)
                if token in ends or (stop is not None and stop(answers[prompt])):
                    complete.add(prompt)
        going = [row for row, prompt in enumerate(rows) if prompt not in complete]
        if not going:
            break
        rows = [rows[row] for row in reader.go_on(tokens, going)]
    return answers
