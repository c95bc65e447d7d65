"""Greedy answers of a decoder: the same for each prompt as if it were alone, up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rankbench.tasks.text.tokens import length_groups, pad

Stop = Callable[[list[int]], bool]


def base_of(model: nn.Module) -> nn.Module:
    """The transformers model, inside PEFT's or plain."""
    base: nn.Module = getattr(model, "get_base_model", lambda: model)()
    return base


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos: Collection[int],
    pad_id: int,
    stop: Stop | None,
    batch_size: int,
) -> list[list[int]]:
    """Greedy answers to all prompts; the same as for each prompt alone, up to rounding.

    Args:
        model: a transformers decoder, plain or inside PEFT's, in evaluation mode.
        prompts: token ids, none empty.
        eos: tokens that end an answer.
        stop: tells from the tokens so far whether the answer is complete; None: only `eos` and `max_new_tokens` end it.
        batch_size: prompts per batch; batches are of like length, and a finished prompt leaves its batch.

    Returns:
        The new tokens of each prompt, in the prompts' order, without the `eos` that ended them.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    for group in length_groups([len(prompt) for prompt in prompts], batch_size):
        generated = _generate_batch(model, [prompts[index] for index in group], max_new_tokens, eos, pad_id, stop)
        for index, answer in zip(group, generated, strict=True):
            answers[index] = answer
    return answers


def _generate_batch(
    model: nn.Module,
    prompts: list[Sequence[int]],
    max_new_tokens: int,
    eos: Collection[int],
    pad_id: int,
    stop: Stop | None,
) -> list[list[int]]:
    device = next(model.parameters()).device
    ids = pad(prompts, pad_id, left=True).to(device)
    mask = pad([[1] * len(prompt) for prompt in prompts], 0, left=True).to(device)
    answers: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))  # prompt of each row of the batch
    cache: Any = None
    for _ in range(max_new_tokens):
        logits, cache = _forward(model, ids, mask, cache)
        tokens = logits.argmax(-1)
        going = []
        for row, token in enumerate(tokens.tolist()):
            answer = answers[live[row]]
            if token not in eos:
                answer.append(token)
                if stop is None or not stop(answer):
                    going.append(row)
        if not going:
            break
        if len(going) < len(live):
            rows = torch.tensor(going, device=device)
            tokens, mask, live = tokens[rows], mask[rows], [live[row] for row in going]
            cache.batch_select_indices(rows)
        ids, mask = tokens[:, None], torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
    return answers


def _forward(model: nn.Module, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Logits of the next token (rows, vocabulary), and the cache with `ids` in it; padding has no position."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1], output.past_key_values
