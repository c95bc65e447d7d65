"""Classification and regression of texts: language models by the likelihood of options, encoders by a head."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import TypeVar

from rankbench.config.schema import Settings
from rankbench.core.seeding import Streams
from rankbench.tasks.base import Batch, DataError, Evaluation, Example, Task
from rankbench.tasks.text.answer_scoring import Answer, Head, Item, Options, Scorer
from rankbench.tasks.text.dataset_config import FolderConfig, HubConfig
from rankbench.tasks.text.dataset_files import Table, carve, choose, official, read, test_rows
from rankbench.tasks.text.file_formats import Row
from rankbench.tasks.text.language_model import language_model
from rankbench.tasks.text.tokens import prompt_hash

# Names of a second class that a label `true` stands for; "not_entailment" is none.
AFFIRMED = ("yes", "true", "positive", "acceptable", "equivalent", "duplicate")

ClassificationConfigT = TypeVar("ClassificationConfigT", bound=FolderConfig, default=Any)


class Classification(Task[ClassificationConfigT]):
    """One text or two, one label; prompts are worded as in EleutherAI's evaluation harness.

    Class facts:
        texts: columns with text, in the order an encoder reads them.
        label: column with the label: the class's number or name.
        labels: name of each class, by number; () for regression.
        template: a decoder's prompt.
        options: a language model's answer per class; () where each item has its own, and for regression.
        cut: text column that a prompt too long loses the beginning of (encoders lose the end of the longer text).
        test: official split that is the test (the official dev split, where test labels are not public).
        extra_test: part -> official split scored beside it, where the data is there.
        lists: columns of other types that `fields` or `choices` reads.
        parts_of_whole: whether parts make up the test, so that the metrics of all items are given as well; else they
            stand beside the items that belong to no part.
    """

    Config: ClassVar[type[Settings]] = HubConfig
    label: ClassVar[str] = "label"
    texts: ClassVar[tuple[str, ...]]
    labels: ClassVar[tuple[str, ...]]
    template: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    cut: ClassVar[str]
    test: ClassVar[str] = "validation"
    extra_test: ClassVar[Mapping[str, str]] = {}
    lists: ClassVar[tuple[str, ...]] = ()
    parts_of_whole: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def measure(gold: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """The official metrics: name -> value."""

    def num_labels(self) -> int:
        """Number of classes, or 1 for a score."""
        return len(self.labels) or 1

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Read the official splits; the streams are not used (Streams(0) carves, so that seeds are paired)."""
        self._scorer = self._make_scorer(tokenizer, architecture)
        items, data = self.read_items()
        tokenised = {split: self._scorer.examples(of_split) for split, of_split in items.items()}
        self.splits = {split: examples for split, (examples, _) in tokenised.items()}
        wording = self.texts if architecture == "encoder" else (self.template, *self.options)
        truncated = ", ".join(f"{split} {count}" for split, (_, count) in tokenised.items())
        self.revision = {"data": data, "prompt": prompt_hash(*wording), "truncated": truncated}

    def read_items(self) -> tuple[dict[str, list[Item]], str]:
        """Items of train, validation and test, and the revision of the data."""
        columns = (*self.lists, self.label)
        splits, extra = official(self.config, self.test), tuple(self.extra_test.values())
        tables, data = read(self.config, self.texts, splits, extra, columns)
        train, validation = carve(tables["train"], self.config)
        items = {
            "train": self._items(tables["train"], train),
            "validation": self._items(tables["train"], validation),
            "test": self._items(*test_rows(tables, self.test, self.config)),
        }
        for part, split in self.extra_test.items():
            if split in tables:
                items["test"] += self._items(tables[split], choose(tables[split], self.config), part)
        return items, data

    def fields(self, row: Row, place: str) -> dict[str, str]:
        """Texts of a row that the template names, and that an encoder reads; `place` is for messages."""
        return {column: row[column] for column in self.texts}

    def choices(self, row: Row, place: str) -> tuple[str, ...]:
        """Options of a row, where they are its own; else ()."""
        return ()

    def _make_scorer(self, tokenizer: Any, architecture: str) -> Scorer:
        if architecture == "encoder":
            return Head(tokenizer, self.config.max_length, self.labels)
        if not self.labels:
            raise DataError(
                f"task={self.config.name} asks for a score, which a model that answers in words does not give: "
                "use an encoder"
            )
        words = language_model(architecture, tokenizer, self.config.name)
        return Options(words, tokenizer, self.config.max_length, self.template, self.options, self.cut)

    def _items(self, table: Table, rows: Sequence[int], part: str = "") -> list[Item]:
        return [self._item(table, row, part) for row in rows]

    def _item(self, table: Table, row: int, part: str) -> Item:
        """One row of a split as an item.

        Raises:
            DataError: a label that is no class (-1 where labels are withheld) or, for regression, no number.
        """
        values = table.rows[row]
        place = table.at(row)
        gold, shown = self._gold(values[self.label], place)
        fields, options = self.fields(values, place), self.choices(values, place)
        return Item(f"{table.split}/{row}", fields, gold, shown, part, options)

    def _gold(self, value: Any, place: str) -> tuple[int | float, str | float]:
        """Class and name, or the score twice."""
        if not self.labels:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not abs(value) <= sys.float_info.max:
                raise DataError(f"{place}: {self.label}={str(value)[:40]!r} is no number")
            return value, value
        gold = int(value) if isinstance(value, bool) and self.labels[1] in AFFIRMED else value
        gold = self.labels.index(gold) if gold in self.labels else gold
        if type(gold) is not int or not 0 <= gold < len(self.labels):
            classes = ", ".join(f"{number} ({name})" for number, name in enumerate(self.labels))
            raise DataError(f"{place}: {self.label}={gold!r} is no class; classes are {classes}")
        return gold, self.labels[gold]

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Right-padded batch."""
        return self._scorer.collate(examples)

    def units(self, batch: Batch) -> int:
        """Number of tokens of the gold options (decoders), or of examples (encoders)."""
        return self._scorer.units(batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of the gold option's tokens (decoders) or of the class, or squared error (encoders)."""
        return self._scorer.loss(model, batch)

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Official metrics, and the mean loss; those of a part of the test carry its name as a suffix."""
        answers = self._scorer.answers(model, examples, batch_size)
        pairs = list(zip(examples, answers, strict=True))
        groups: dict[str, list[tuple[Example, Answer]]] = {}
        for pair in pairs:
            groups.setdefault(pair[0].item.get("part", ""), []).append(pair)
        metrics: dict[str, float] = {}
        if self.parts_of_whole:
            groups[""] = pairs
        for part, group in sorted(groups.items()):
            metrics |= {f"{name}_{part}" if part else name: value for name, value in self.score(group).items()}
        return Evaluation(metrics, [self._report(*pair) for pair in pairs])

    def score(self, pairs: Sequence[tuple[Example, Answer]]) -> dict[str, float]:
        """Metrics of some examples with their answers."""
        gold = [self._number(example) for example, _ in pairs]
        loss = sum(answer.loss for _, answer in pairs) / sum(answer.units for _, answer in pairs)
        return {"loss": loss, **self.measure(gold, [answer.prediction for _, answer in pairs])}

    def labels_of(self, example: Example) -> tuple[str, ...]:
        """Names of the example's classes, by number."""
        return self.labels

    def _number(self, example: Example) -> Any:
        labels, gold = self.labels_of(example), example.item["gold"]
        return labels.index(gold) if labels else gold

    def _report(self, example: Example, answer: Answer) -> dict[str, Any]:
        labels = self.labels_of(example)
        prediction = labels[int(answer.prediction)] if labels else answer.prediction
        return {
            **example.item,
            "prediction": prediction,
            "correct": prediction == example.item["gold"] if labels else None,
            "loss": answer.loss / answer.units,
            "units": answer.units,
        }
