"""Next-token losses and option scores of a decoder, computed only where a target stands."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankbench.tasks.base import IGNORE, Batch, Example
from rankbench.tasks.text import generation
from rankbench.tasks.text.generation import Stop
from rankbench.tasks.text.reading import CachedRows, read_at, switch
from rankbench.tasks.text.tokens import CACHED, Tokens, length_groups, pad, scoring_groups

ROWS = 512  # positions whose logits are in fp32 at a time: 100 MB for a vocabulary of 49152


@dataclass(frozen=True)
class Decoder:
    """A model that reads prompt and target as one sequence, from left to right; see `LanguageModel`."""

    pad_id: int
    joins = True

    def example(self, prompt: Tokens, target: Tokens, item: dict[str, Any]) -> Example:
        """Prompt and target as one sequence; only the target's tokens have labels."""
        return Example(prompt + target, (IGNORE,) * len(prompt) + target, item, prompt_length=len(prompt))

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Batch of right-padded input_ids, attention_mask, labels: each (examples, longest).

        And positions: (2, targets), rows and columns of the tokens before the targets, which predict them.
        """
        batch = collate(examples, self.pad_id)
        return {**batch, "positions": positions(batch["labels"][:, 1:] != IGNORE)}

    def units(self, batch: Batch) -> int:
        """Number of target tokens."""
        return int((batch["labels"][:, 1:] != IGNORE).sum())

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed negative log-likelihood of each example's target tokens: (examples,), fp32."""
        rows, columns = batch["positions"]
        logits = logits_at(model, batch["input_ids"], batch["attention_mask"], rows, columns)
        return sum_by_row(logits, batch["labels"][rows, columns + 1], rows, len(batch["labels"]))

    def option_scores(
        self, model: nn.Module, prompts: Sequence[Tokens], options: Sequence[Sequence[Tokens]], batch_size: int
    ) -> list[list[float]]:
        """Log-likelihood of each prompt's options after it, summed over the option's tokens: [prompt][option].

        Options that share their tokens but the last share a sequence, so options of one token cost one sequence per
        prompt. The sum, not the mean: it is the probability of the answer, which is what training on the gold option
        raises.
        """
        device = next(model.parameters()).device
        stems_of = {row: _stems(row) for row in set(map(tuple, options))}
        stems = [stems_of[tuple(row)] for row in options]
        scores: list[list[float]] = [[] for _ in prompts]
        most = max(map(len, stems), default=1)
        for group in scoring_groups([len(prompt) * most for prompt in prompts], max(1, batch_size // most), device):
            words = sorted({token for index in group for option in options[index] for token in option})
            rows = [(index, prompts[index] + stem) for index in group for stem in stems[index]]
            starts = [len(prompts[index]) - 1 for index, _ in rows]
            tensors = _log_probabilities(
                model, [row for _, row in rows], starts, self.pad_id, torch.tensor(words, device=device)
            )
            logs = iter(tensors)
            for index in group:
                of_stem = [next(logs) for _ in stems[index]]
                scores[index] = [_likelihood(option, stems[index], of_stem, words) for option in options[index]]
        return scores

    def generate(
        self,
        model: nn.Module,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        ends: Collection[int],
        stop: Stop | None,
        batch_size: int,
    ) -> list[list[int]]:
        """Greedy answers to all prompts; the same as for each prompt alone, up to rounding."""
        return generation.generate(model, prompts, max_new_tokens, ends, self.pad_id, stop, batch_size)

    @torch.no_grad()
    def losses_and_answers(
        self,
        model: nn.Module,
        prompts: Sequence[Tokens],
        targets: Sequence[Tokens],
        max_new_tokens: int,
        ends: Collection[int],
        stop: Stop | None,
        batch_size: int,
    ) -> tuple[list[float], list[list[int]]]:
        """What `losses` and `generate` give, of prompts that are read once, for models with `keeps_every_token`.

        The cache of the pass over prompt and target is cut back to the prompt.
        """
        losses = [0.0] * len(prompts)
        device = next(model.parameters()).device
        mean = sum(map(len, [*prompts, *targets])) // len(prompts)
        tokens = CACHED if device.type == "cpu" else batch_size * mean  # in a pass: logits are large
        most = generation.rows_read_at_once(batch_size)

        def readers() -> Iterator[tuple[CachedRows, list[int]]]:
            for group in length_groups([len(prompt) for prompt in prompts], most):
                group.sort(key=lambda index: -len(targets[index]))  # rows of a pass have targets of like length
                reader = CachedRows(model, [prompts[index] for index in group], self.pad_id, cuts=True)
                longest = max(len(prompts[index]) for index in group) + len(targets[group[0]])
                count = math.ceil(len(group) / math.ceil(len(group) * longest / tokens))
                sums = torch.zeros(len(group), device=device)
                for logits, gold, rows in reader.read_targets([targets[index] for index in group], self.pad_id, count):
                    sums += sum_by_row(logits, gold, rows, len(group))
                for index, loss in zip(group, sums.tolist(), strict=True):
                    losses[index] = loss
                yield reader, group

        answers = generation.go_on(readers(), batch_size - most, max_new_tokens, ends, stop)
        return losses, [answers[index] for index in range(len(prompts))]


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Batch of input_ids and attention_mask, (examples, longest input), and labels, (examples, longest labels)."""
    ids = [item.input_ids for item in examples]
    labels = [item.labels for item in examples]
    return {
        "input_ids": pad(ids, pad_id),
        "attention_mask": pad([[1] * len(row) for row in ids], 0),
        "labels": pad(labels, IGNORE),  # type: ignore[arg-type]  # tuples, in a language model's example
    }


def positions(wanted: Tensor) -> Tensor:
    """Row and column of each true entry, row by row: (2, entries).

    Looked up before a batch moves: on an accelerator the host would wait for their number.
    """
    return wanted.nonzero().T.contiguous()


def examples_of(batch: Batch, start: int, stop: int) -> Batch:
    """The examples `start` to `stop` - 1 of a batch, padded as they are."""
    part = {key: value[start:stop] for key, value in batch.items() if key != "positions"}
    if "positions" in batch:
        rows, columns = batch["positions"]
        inside = (rows >= start) & (rows < stop)
        part["positions"] = torch.stack([rows[inside] - start, columns[inside]])
    return part


def sum_by_row(logits: Tensor, targets: Tensor, rows: Tensor, count: int) -> Tensor:
    """Negative log-likelihood of targets, summed by row: (count,), fp32.

    Args:
        logits: (targets, vocabulary).
        targets: (targets,) token ids.
        rows: (targets,) row of each, in [0, count).
        count: number of rows.
    """
    parts = zip(torch.split(logits, ROWS), torch.split(targets, ROWS), strict=True)
    each = torch.cat([F.cross_entropy(part.float(), gold, reduction="none") for part, gold in parts])
    return each.new_zeros(count).index_add(0, rows, each)


def logits_at(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Logits at chosen positions: (chosen, vocabulary); see `read_at`.

    Args:
        rows, columns: (chosen,) example and token of each position.
    """
    off = switch(model, "use_cache", False)
    output = read_at(model, rows, columns, input_ids=input_ids, attention_mask=attention_mask, **off)
    return output.logits  # type: ignore[no-any-return]


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
    chosen = positions(wanted).to(words.device)
    logits = logits_at(model, ids.to(words.device), mask.long().to(words.device), *chosen)
    logs = torch.cat([part.float().log_softmax(-1)[:, words] for part in torch.split(logits, ROWS)])
    return list(torch.split(logs.cpu(), wanted.sum(1).tolist()))


def _likelihood(option: Tokens, stems: Sequence[Tokens], logs: Sequence[Tensor], words: Sequence[int]) -> float:
    row = next(index for index, stem in enumerate(stems) if stem[: len(option) - 1] == option[:-1])
    return sum(float(logs[row][position, words.index(token)]) for position, token in enumerate(option))
