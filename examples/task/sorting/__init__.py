"""Digits to be sorted: an example of a task in a package of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from rankbench.plugin import IGNORE, Batch, DataError, Evaluation, Example, Field, Settings, Streams, Task


class Config(Settings):
    """Settings of the task.

    Attributes:
        digits: how many are sorted.
        data_seed: seed of the items, which do not depend on the run's seed, so that runs of several seeds are paired.
        train_size, validation_size, test_size: items; none is twice in one split or in two.
    """

    digits: int = Field(ge=2, le=20)
    data_seed: int
    train_size: int = Field(ge=1)
    validation_size: int = Field(ge=1)
    test_size: int = Field(ge=1)


class Sorting(Task[Config]):
    """`Sort: 3 1 2 =` is answered by ` 1 2 3`: the loss on the answer, and the share of answers that are right."""

    source = "generated"

    @staticmethod
    def check(config: Config) -> list[str]:
        """What no single setting shows; said before anything runs."""
        wanted, possible = config.train_size + config.validation_size + config.test_size, 10**config.digits
        if wanted <= possible:
            return []
        return [f"task.digits={config.digits}: makes {possible} rows of digits, {wanted} are asked for; take more"]

    def num_labels(self) -> None:
        """None: no encoder's head, a language model answers."""

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Draw the items, the training ones last: another train_size leaves the other splits as they are."""
        if architecture != "decoder":
            raise DataError(f"task={self.config.name} is answered in words: use a decoder, not an {architecture}")
        self._tokenizer = tokenizer
        seen: set[tuple[int, ...]] = set()
        splits = {split: self._draw(split, seen) for split in ("test", "validation", "train")}
        self.splits = dict(reversed(splits.items()))
        self.revision = {"data": f"generated, seed {self.config.data_seed}", "prompt": "Sort: {digits} ="}

    def _draw(self, split: str, seen: set[tuple[int, ...]]) -> list[Example]:
        rng = Streams(self.config.data_seed).numpy("task", split)
        examples: list[Example] = []
        while len(examples) < getattr(self.config, f"{split}_size"):
            digits = tuple(int(digit) for digit in rng.integers(10, size=self.config.digits))
            if digits not in seen:
                seen.add(digits)
                examples.append(self._example(digits, f"{split}/{len(examples)}"))
        return examples

    def _example(self, digits: Sequence[int], name: str) -> Example:
        """Prompt and answer, tokenised as one text; only the answer's tokens have labels."""
        prompt, gold = f"Sort: {' '.join(map(str, digits))} =", " ".join(map(str, sorted(digits)))
        start = len(self._tokenizer(prompt, add_special_tokens=False).input_ids)
        ids = tuple(self._tokenizer(f"{prompt} {gold}", add_special_tokens=False).input_ids)
        return Example(ids, (IGNORE,) * start + ids[start:], {"id": name, "gold": gold}, prompt_length=start)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Right-padded batch: each (examples, longest)."""
        ids = [torch.tensor(example.input_ids) for example in examples]
        labels = [torch.tensor(example.labels) for example in examples]
        mask = [torch.ones_like(row) for row in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self._tokenizer.pad_token_id),
            "attention_mask": pad_sequence(mask, batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
        }

    def units(self, batch: Batch) -> int:
        """Number of the answers' tokens."""
        return int((batch["labels"] != IGNORE).sum())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of the answers' tokens."""
        return self._read(model, batch)[0].sum()

    def _read(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss (examples, longest - 1) of each token, 0 where it has no label, and the token that is likeliest."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], ignore_index=IGNORE, reduction="none")
        return losses, logits.argmax(-1)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Loss, and exact match: a greedy answer is right if each of its tokens is the likeliest after those before."""
        device, items, total, units = next(model.parameters()).device, list[dict[str, Any]](), 0.0, 0
        for start in range(0, len(examples), batch_size):
            part = examples[start : start + batch_size]
            batch = {key: value.to(device) for key, value in self.collate(part).items()}
            losses, likeliest = self._read(model, batch)
            labelled = batch["labels"][:, 1:] != IGNORE
            for example, loss, tokens, mask in zip(part, losses, likeliest, labelled, strict=True):
                count, summed = int(mask.sum()), float(loss.sum())
                written = self._tokenizer.decode(tokens[mask]).strip()
                correct = written == example.item["gold"]
                items.append({**example.item, "prediction": written, "correct": correct, "loss": summed / count})
                items[-1]["units"] = count
                total, units = total + summed, units + count
        right = sum(item["correct"] for item in items)
        return Evaluation({"loss": total / units, "exact_match": right / len(items)}, items)
