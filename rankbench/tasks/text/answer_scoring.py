"""How a model answers a classification item: a language model by its likeliest option, an encoder through its head."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankbench.tasks.base import Batch, DataError, Example
from rankbench.tasks.text.language_model import LanguageModel, prompt_of, target_length
from rankbench.tasks.text.tokens import Tokens, encode, fitted, pad, scoring_groups


@dataclass(frozen=True)
class Item:
    """A row of the data.

    Attributes:
        id: official split and row number.
        texts: column -> text.
        gold: right class, or score.
        shown: the gold as items.jsonl has it: the class's name, or the score.
        part: name of a part of the test split with separate metrics ("mismatched"); "" for the main part.
        options: a language model's answers to choose from, where they are this item's own; else (), the task's.
    """

    id: str
    texts: Mapping[str, str]
    gold: int | float
    shown: str | float
    part: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A model's answer to an example.

    Attributes:
        prediction: a class or a score.
        loss: summed over the units.
        units: their count.
        scores: log-likelihood of every option (language models).
    """

    prediction: int | float
    loss: float
    units: int
    scores: tuple[float, ...] = ()


class Scorer(Protocol):
    """How one kind of model answers; constructed once the tokenizer is known."""

    def examples(self, items: Sequence[Item]) -> tuple[list[Example], int]:
        """Tokenised items, and how many had to be shortened."""

    def collate(self, examples: Sequence[Example]) -> Batch:
        """The same as Task.collate."""

    def units(self, batch: Batch) -> int:
        """The same as Task.units."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The same as Task.loss."""

    def answers(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> list[Answer]:
        """Answers in the examples' order."""


def _described(item: Item) -> dict[str, Any]:
    return {"id": item.id, "gold": item.shown, **({"part": item.part} if item.part else {})}


class Options:
    """A language model: the prompt, then the option that is most likely, by the summed log-likelihood of its tokens."""

    def __init__(
        self,
        language_model: LanguageModel,
        tokenizer: Any,
        max_length: int,
        template: str,
        options: Sequence[str],
        cut: str,
    ) -> None:
        self._language_model, self._tokenizer, self._max_length = language_model, tokenizer, max_length
        self._template, self._options, self._cut = template, tuple(options), cut

    def examples(self, items: Sequence[Item]) -> tuple[list[Example], int]:
        """Prompts with their options; a prompt too long loses the beginning of one text."""
        rows, shortened = fitted(
            self._tokenizer,
            self._template,
            [item.texts for item in items],
            self._cut,
            [item.options or self._options for item in items],
            [item.id for item in items],
            self._max_length,
            self._language_model.joins,
        )
        return [self._example(*row, item) for row, item in zip(rows, items, strict=True)], shortened

    def _example(self, prompt: Tokens, options: tuple[Tokens, ...], item: Item) -> Example:
        """The item in tokens.

        Raises:
            DataError: the tokenizer writes two of the task's options alike, or nothing for an option.
        """
        texts = item.options or self._options
        if () in options:
            raise DataError(f"{item.id}: the model's tokenizer writes nothing for {texts[options.index(())]!r}")
        if not item.options and len(set(options)) < len(options):
            twin = next(tokens for tokens, count in Counter(options).items() if count > 1)
            raise DataError(f"the tokenizer writes two of the options {', '.join(texts)} alike: {twin}")
        right = int(item.gold)
        example = self._language_model.example(prompt, options[right], _described(item))
        return replace(example, options=options, right=right)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Right-padded batch."""
        return self._language_model.collate(examples)

    def units(self, batch: Batch) -> int:
        """Number of tokens of the gold options."""
        return self._language_model.units(batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of the gold options' tokens."""
        return self._language_model.losses(model, batch).sum()

    def answers(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> list[Answer]:
        """The likeliest option; the loss is that of the gold one."""
        asked = [prompt_of(example) for example in examples]
        options = [example.options for example in examples]
        scores = self._language_model.option_scores(model, asked, options, batch_size)
        return [
            Answer(int(np.argmax(score)), -score[example.right], target_length(example), tuple(score))
            for score, example in zip(scores, examples, strict=True)
        ]


class Head:
    """An encoder: one text, or a pair, through a classification or regression head."""

    def __init__(self, tokenizer: Any, max_length: int, labels: Sequence[str]) -> None:
        self._tokenizer, self._max_length, self._labels = tokenizer, max_length, labels
        self._pad = tokenizer.pad_token_id

    def examples(self, items: Sequence[Item]) -> tuple[list[Example], int]:
        """Texts as the tokenizer joins them; a pair too long loses the end of the text that is longer."""
        whole = self._tokenize(items)
        long = [index for index, (ids, _) in enumerate(whole) if len(ids) > self._max_length]
        cut = self._tokenize([items[index] for index in long], truncation="longest_first", max_length=self._max_length)
        for index, encoded in zip(long, cut, strict=True):
            whole[index] = encoded
        return [self._example(*encoded, item) for encoded, item in zip(whole, items, strict=True)], len(long)

    def _tokenize(self, items: Sequence[Item], **settings: Any) -> list[tuple[list[int], list[int]]]:
        """Token ids and segments per item."""
        if not items:
            return []
        columns = list(zip(*(item.texts.values() for item in items), strict=True))
        encodings = encode(self._tokenizer, columns, **settings)
        return list(zip(encodings["input_ids"], encodings.get("token_type_ids", [[]] * len(items)), strict=True))

    def _example(self, ids: Sequence[int], segments: Sequence[int], item: Item) -> Example:
        gold = int(item.gold) if self._labels else float(item.gold)
        return Example(tuple(ids), gold, _described(item), segments=tuple(segments))

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Batch padded on the tokenizer's side, with token_type_ids where the tokenizer makes them."""
        ids, left = [example.input_ids for example in examples], self._tokenizer.padding_side == "left"
        batch = {
            "input_ids": pad(ids, self._pad, left),
            "attention_mask": pad([[1] * len(row) for row in ids], 0, left),
            "labels": torch.tensor([example.labels for example in examples]),
        }
        if examples[0].segments:
            batch["token_type_ids"] = pad([example.segments for example in examples], 0, left)
        return batch

    def units(self, batch: Batch) -> int:
        """Number of examples."""
        return len(batch["labels"])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of the class, or squared error of the score."""
        return self._losses(self._logits(model, batch), batch["labels"]).sum()

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return model(**inputs).logits.float()  # type: ignore[no-any-return]

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self._labels:
            return F.cross_entropy(logits, labels, reduction="none")
        return F.mse_loss(logits[:, 0], labels.float(), reduction="none")

    def answers(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> list[Answer]:
        """The class with the largest logit, or the score."""
        device = next(model.parameters()).device
        answers: dict[int, Answer] = {}
        for group in scoring_groups([len(example.input_ids) for example in examples], batch_size, device):
            batch = {key: value.to(device) for key, value in self.collate([examples[i] for i in group]).items()}
            logits = self._logits(model, batch)
            predictions = logits.argmax(-1) if self._labels else logits[:, 0]
            losses = self._losses(logits, batch["labels"])
            for index, prediction, loss in zip(group, predictions.tolist(), losses.tolist(), strict=True):
                answers[index] = Answer(prediction, loss, 1)
        return [answers[index] for index in range(len(examples))]


def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Share of predictions that agree with the gold ones."""
    return {"accuracy": float(np.mean(np.equal(gold, predicted)))}


def accuracy_and_f1(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Accuracy, and F1 of class 1: 2 TP / (2 TP + FP + FN), by convention 0 where no example is or is called 1."""
    true_positive, false_positive, false_negative, _ = confusion(gold, predicted)
    denominator = 2 * true_positive + false_positive + false_negative
    return {**accuracy(gold, predicted), "f1": 2 * true_positive / denominator if denominator else 0.0}


def matthews(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Matthews correlation of two classes, by convention 0 where gold or prediction is constant (Matthews 1975)."""
    tp, fp, fn, tn = confusion(gold, predicted)
    denominator = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {"matthews": (tp * tn - fp * fn) / denominator if denominator else 0.0, **accuracy(gold, predicted)}


def confusion(gold: Sequence[int], predicted: Sequence[int]) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives, true negatives of class 1."""
    pairs = list(zip(gold, predicted, strict=True))
    return pairs.count((1, 1)), pairs.count((0, 1)), pairs.count((1, 0)), pairs.count((0, 0))


def correlations(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation; left out where gold or prediction is constant."""
    if len(set(gold)) < 2 or len(set(predicted)) < 2:
        return {}
    from scipy.stats import pearsonr, spearmanr  # takes a moment to import

    return {
        "pearson": float(pearsonr(gold, predicted).statistic),
        "spearman": float(spearmanr(gold, predicted).statistic),
    }
