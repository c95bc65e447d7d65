"""Next-token losses and option scores of a decoder, computed only where a target stands."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankbench.tasks.base import IGNORE, Batch, Example
from rankbench.tasks.text import generation
from rankbench.tasks.text.generation import Stop
from rankbench.tasks.text.reading import accepts, switch
from rankbench.tasks.text.tokens import Tokens, pad, scoring_groups

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
        """Batch of right-padded input_ids, attention_mask, labels: each (examples, longest)."""
        return collate(examples, self.pad_id)

    def units(self, batch: Batch) -> int:
        """Number of target tokens."""
        return int((batch["labels"][:, 1:] != IGNORE).sum())

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed negative log-likelihood of each example's target tokens: (examples,), fp32."""
        targets = batch["labels"][:, 1:]
        wanted = targets != IGNORE
        logits = logits_at(model, batch["input_ids"], batch["attention_mask"], wanted)
        return sum_by_row(logits, targets, wanted)

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


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Batch of input_ids and attention_mask, (examples, longest input), and labels, (examples, longest labels)."""
    ids = [item.input_ids for item in examples]
    labels = [item.labels for item in examples]
    return {
        "input_ids": pad(ids, pad_id),
        "attention_mask": pad([[1] * len(row) for row in ids], 0),
        "labels": pad(labels, IGNORE),  # type: ignore[arg-type]  # tuples, in a language model's example
    }


def sum_by_row(logits: Tensor, targets: Tensor, wanted: Tensor) -> Tensor:
    """Negative log-likelihood of the wanted targets, summed by row: (rows,), fp32.

    Args:
        logits: (wanted positions, vocabulary), row by row.
        targets: (rows, length) token ids.
        wanted: (rows, length) bool.
    """
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
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **switch(model, "use_cache", False)}
    if not accepts(model, "logits_to_keep"):
        return model(**inputs).logits[:, :-1][wanted]  # type: ignore[no-any-return]
    return model(**inputs, logits_to_keep=F.pad(wanted, (0, 1))).logits  # type: ignore[no-any-return]


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
    logs = torch.cat([part.float().log_softmax(-1)[:, words] for part in torch.split(logits, ROWS)])
    return list(torch.split(logs.cpu(), wanted.sum(1).tolist()))


def _likelihood(option: Tokens, stems: Sequence[Tokens], logs: Sequence[Tensor], words: Sequence[int]) -> float:
    row = next(index for index, stem in enumerate(stems) if stem[: len(option) - 1] == option[:-1])
    return sum(float(logs[row][position, words.index(token)]) for position, token in enumerate(option))
