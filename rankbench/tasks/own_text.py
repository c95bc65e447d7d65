"""A user's own data: a class, a choice or a text after a prompt that a template makes of columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from rankbench.config.registry import register
from rankbench.core.seeding import Streams
from rankbench.tasks.base import Batch, DataError, Evaluation, Example, Task
from rankbench.tasks.own.checked_data import OwnData, mistakes, own_data
from rankbench.tasks.own.row_reader import OwnItem
from rankbench.tasks.own.text_config import TextConfig
from rankbench.tasks.text import answer_scoring
from rankbench.tasks.text.answer_scoring import Answer, Item, Scorer
from rankbench.tasks.text.dataset_config import FolderConfig
from rankbench.tasks.text_classification import Classification
from rankbench.tasks.text_generation import GenerationConfig, TextGeneration, Writing


class OwnClasses(Classification[FolderConfig]):
    """The same classes for every row: accuracy of the likeliest class, or of an encoder's head."""

    source = "a user's files"
    measure = staticmethod(answer_scoring.accuracy)

    def __init__(self, settings: TextConfig, data: OwnData) -> None:
        super().__init__(data.sizes)
        self._data = data
        template, self._blank = settings.prompt.split_end()
        # What is a fact of the class in other tasks is a fact of the data here.
        vars(self).update(template=template, texts=template.columns, labels=data.labels, cut=data.longest)
        vars(self).update(options=tuple(f"{self._blank}{label}" for label in data.labels))

    def _make_scorer(self, tokenizer: Any, architecture: str) -> Scorer:
        if architecture == "encoder" and len(self.texts) > 2:  # its tokenizer joins a pair of texts, and no more
            vars(self).update(texts=(self.template,))
        return super()._make_scorer(tokenizer, architecture)

    def read_items(self) -> tuple[dict[str, list[Item]], str]:
        """The checked data."""
        splits = {split: [self._as_item(item) for item in items] for split, items in self._data.splits.items()}
        return splits, self._data.revision

    def _as_item(self, item: OwnItem) -> Item:
        texts = {self.template: self.template.format(**item.texts)} if self.texts == (self.template,) else item.texts
        number = int(item.gold)
        return Item(item.id, texts, number, self.labels[number])


class OwnOptions(OwnClasses):
    """Choices of each row's own: accuracy of the likeliest, and accuracy_norm of the likeliest per character.

    Both as in EleutherAI's evaluation harness.
    """

    def __init__(self, settings: TextConfig, data: OwnData) -> None:
        super().__init__(settings, data)
        vars(self).update(options=())
        items = (item for items in data.splits.values() for item in items)
        self._characters = {item.id: [len(choice) for choice in item.choices] for item in items}

    def _make_scorer(self, tokenizer: Any, architecture: str) -> Scorer:
        if architecture == "encoder":
            raise DataError(f"task={self.config.name}: each row has choices of its own: use a decoder")
        return super()._make_scorer(tokenizer, architecture)

    def _as_item(self, item: OwnItem) -> Item:
        return replace(super()._as_item(item), options=tuple(f"{self._blank}{choice}" for choice in item.choices))

    def score(self, pairs: Sequence[tuple[Example, Answer]]) -> dict[str, float]:
        """Loss and both accuracies."""
        by_character = [np.divide(answer.scores, self._characters[example.item["id"]]) for example, answer in pairs]
        right = [int(np.argmax(each)) == example.right for each, (example, _) in zip(by_character, pairs, strict=True)]
        return {**super().score(pairs), "accuracy_norm": float(np.mean(right))}


class OwnTexts(TextGeneration[GenerationConfig]):
    """A text: its loss, and exact match, BLEU and ROUGE of what is written greedily."""

    source = OwnClasses.source

    def __init__(self, settings: TextConfig, data: OwnData) -> None:
        limits: dict[str, Any] = settings.model_dump(include={"generation_size", "max_new_tokens"})
        super().__init__(GenerationConfig(**data.sizes.plain(), **limits, hub="", revision=None))
        self._data, (self._template, self._blank) = data, settings.prompt.split_end()

    def writings(self) -> tuple[dict[str, list[Writing]], str]:
        """The checked data."""
        splits = {split: [self._writing(item) for item in items] for split, items in self._data.splits.items()}
        return splits, self._data.revision

    def _writing(self, item: OwnItem) -> Writing:
        gold = str(item.gold)
        target = f"{self._blank}{gold}" if self._language.joins else gold
        return Writing(item.id, self._asking(item), item.texts[self._data.longest], target, gold)

    def _asking(self, item: OwnItem) -> Callable[[str], str]:
        """The prompt with another text in its longest column."""
        return lambda text: self._template.format(**{**item.texts, self._data.longest: text})

    def wording(self) -> tuple[str, ...]:
        """The template."""
        return (self._template, self._blank)

    def target_limit(self, prompt_length: int) -> int:
        """What the prompt leaves of max_length, at least half of it."""
        return max(self.config.max_length // 2, self.config.max_length - prompt_length)

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Loss and perplexity of all examples; exact match, BLEU and ROUGE of the first generation_size, if not 0."""
        evaluation = super().evaluate(model, examples, batch_size)
        items = [
            item if item["prediction"] is None else {**item, "correct": item["prediction"] == item["gold"].strip()}
            for item in evaluation.items
        ]
        written = [item["correct"] for item in items if item["prediction"] is not None]
        exact = {"exact_match": float(np.mean(written))} if written else {}
        return Evaluation({**evaluation.metrics, **exact}, items)


FORMS: dict[str, type[OwnClasses] | type[OwnTexts]] = {
    "classification": OwnClasses,
    "options": OwnOptions,
    "generation": OwnTexts,
}


@register("task", "text")
class OwnText(Task[TextConfig]):
    """A task whose settings say what its data is; `form` says which of the classes above does the work."""

    source = OwnClasses.source

    @staticmethod
    def check(config: TextConfig) -> list[str]:
        """Everything wrong with settings and data that needs no tokenizer to be seen."""
        return mistakes(config)

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self._task = FORMS[config.form](config, own_data(config))

    def num_labels(self) -> int | None:
        """Number of classes of a classification; None where an encoder's head has no answer."""
        return self._task.num_labels() if self.config.form == "classification" else None

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Tokenise the data; neither the splits nor their carving depend on the run's streams."""
        self._task.load(tokenizer, architecture, streams)
        self.splits, self.revision = self._task.splits, self._task.revision

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Right-padded batch."""
        return self._task.collate(examples)

    def units(self, batch: Batch) -> int:
        """Number of tokens of the answers (decoders), or of examples (encoders)."""
        return self._task.units(batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of the answers' tokens (decoders) or of the class (encoders)."""
        return self._task.loss(model, batch)

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Metrics of the form: see the classes above."""
        return self._task.evaluate(model, examples, batch_size)
