"""Next-token losses, option scores and greedy answers of a decoder, computed only where a target stands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankbench.tasks.base import IGNORE, Batch, Example
from rankbench.tasks.text.tokens import Tokens, length_groups, pad

ROWS = 512  # positions whose logits are in fp32 at a time: 100 MB for a vocabulary of 49152


def example(prompt: Tokens, target: Tokens, item: dict[str, Any]) -> Example:
    """Prompt and target as one sequence; only the target's tokens have labels."""
    return Example(prompt + target, (IGNORE,) * len(prompt) + target, item, prompt_length=len(prompt))


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Batch of right-padded input_ids, attention_mask, labels: each (examples, longest)."""
    ids = [item.input_ids for item in examples]
    labels = [item.labels for item in examples]
    return {
        "input_ids": pad(ids, pad_id),
        "attention_mask": pad([[1] * len(row) for row in ids], 0),
        "labels": pad(labels, IGNORE),  # type: ignore[arg-type]  # tuples, in a decoder's example
    }


def units(batch: Batch) -> int:
    """Number of target tokens."""
    return int((batch["labels"][:, 1:] != IGNORE).sum())


def losses(model: nn.Module, batch: Batch) -> Tensor:
    """Summed negative log-likelihood of each example's target tokens: (examples,), fp32."""
    targets = batch["labels"][:, 1:]
    wanted = targets != IGNORE
    logits = logits_at(model, batch["input_ids"], batch["attention_mask"], wanted)
    parts = zip(torch.split(logits, ROWS), torch.split(targets[wanted], ROWS), strict=True)
    each = torch.cat([F.cross_entropy(part.float(), gold, reduction="none") for part, gold in parts])
    return each.new_zeros(len(targets)).index_add(0, wanted.nonzero()[:, 0], each)


def logits_at(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, wanted: Tensor) -> Tensor:
    """Logits at chosen positions: (chosen, vocabulary), row by row.

    The output layer sees the chosen positions alone where the model can do that (`logits_to_keep` as a mask,
    transformers >= 5.23); a vocabulary of 49152 is a fifth of SmolLM2-135M's work.

    Args:
        wanted: (examples, length - 1) bool; the last position predicts nothing that is known.
    """
    base: nn.Module = getattr(model, "get_base_model", lambda: model)()  # the transformers model inside PEFT's
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if "logits_to_keep" not in inspect.signature(base.forward).parameters:
        return model(**inputs).logits[:, :-1][wanted]  # type: ignore[no-any-return]
    return model(**inputs, logits_to_keep=F.pad(wanted, (0, 1))).logits  # type: ignore[no-any-return]


def evaluate_losses(model: nn.Module, examples: Sequence[Example], batch_size: int, pad_id: int) -> list[float]:
    """Summed negative log-likelihood of each example's target, in the examples' order.

    Batches hold at most batch_size examples and the tokens of as many examples of mean length: logits are large.
    """
    device = next(model.parameters()).device
    sums = [0.0] * len(examples)
    lengths = [len(item.input_ids) for item in examples]
    for group in length_groups(lengths, batch_size, tokens=batch_size * sum(lengths) // len(lengths)):
        batch = collate([examples[index] for index in group], pad_id)
        values = losses(model, {key: value.to(device) for key, value in batch.items()}).tolist()
        for index, value in zip(group, values, strict=True):
            sums[index] = value
    return sums


def option_scores(
    model: nn.Module, prompts: Sequence[Tokens], options: Sequence[Tokens], batch_size: int, pad_id: int
) -> list[list[float]]:
    """Log-likelihood of every option after every prompt, summed over the option's tokens: [prompt][option].

    Options that share their tokens but the last share a sequence, so options of one token cost one sequence per
    prompt. The sum, not the mean: the options are a fixed set, and the sum is the probability of the answer, which is
    what training on the gold option raises.
    """
    stems, words = _stems(options), sorted({token for option in options for token in option})
    device = next(model.parameters()).device
    scores: list[list[float]] = [[] for _ in prompts]
    for group in length_groups([len(prompt) for prompt in prompts], max(1, batch_size // len(stems))):
        rows = [prompts[index] + stem for index in group for stem in stems]
        starts = [len(prompts[index]) - 1 for index in group for _ in stems]
        logs = _log_probabilities(model, rows, starts, pad_id, torch.tensor(words, device=device))
        for row, index in enumerate(group):
            of_stem = logs[row * len(stems) : (row + 1) * len(stems)]
            scores[index] = [_likelihood(option, stems, of_stem, words) for option in options]
    return scores


def _stems(options: Sequence[Tokens]) -> list[Tokens]:
    """Token sequences to read so that all options are scored: each option but its last token, no stem in another's."""
    stems = sorted({option[:-1] for option in options})
    return [stem for stem in stems if not any(other != stem and other[: len(stem)] == stem for other in stems)]


def _log_probabilities(
    model: nn.Module, rows: Sequence[Tokens], starts: Sequence[int], pad_id: int, words: Tensor
) -> list[Tensor]:
    """Log-probabilities (length - start, words), fp32, that a word is next, for each row from position `start` on."""
    ids = pad([(*row, pad_id) for row in rows], pad_id)  # one more, so that the last token predicts as well
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    mask = torch.arange(ids.shape[1]) < lengths
    wanted = mask[:, :-1] & (torch.arange(ids.shape[1] - 1) >= torch.tensor(starts)[:, None])
    logits = logits_at(model, ids.to(words.device), mask.long().to(words.device), wanted.to(words.device))
    return list(torch.split(logits.float().log_softmax(-1)[:, words].cpu(), wanted.sum(1).tolist()))


def _likelihood(option: Tokens, stems: Sequence[Tokens], logs: Sequence[Tensor], words: Sequence[int]) -> float:
    row = next(index for index, stem in enumerate(stems) if stem[: len(option) - 1] == option[:-1])
    return sum(float(logs[row][position, words.index(token)]) for position, token in enumerate(option))


Stop = Callable[[list[int]], bool]


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
