"""Commonsense questions with options, as LLM-Adapters writes them (Hu et al. 2023, arXiv:2304.01933).

Its files are `instruction` (question, options and answer format) and `answer` (the option's name). They lie in a
repository, not on the hub. Each set is a task by itself; the task `commonsense` trains one model on several sets.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rankbench.config.registry import register
from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError, Evaluation, Example
from rankbench.tasks.multiple_choice import CommonsenseQa
from rankbench.tasks.text import answer_scoring
from rankbench.tasks.text.answer_scoring import Item
from rankbench.tasks.text.dataset_config import FolderConfig, HubConfig, refuse_test_from_train
from rankbench.tasks.text.dataset_files import Table, carve, choose, read
from rankbench.tasks.text_classification import Classification

REPOSITORY = "github.com/AGI-Edgerunners/LLM-Adapters"


class Commonsense(Classification[FolderConfig]):
    """The option whose name is likeliest after "the correct answer is"; `labels` has the names of a task's options."""

    source = REPOSITORY
    texts = ("instruction",)
    label = "answer"
    template = "{instruction}\nthe correct answer is"
    cut = "instruction"
    test = "test"
    measure = staticmethod(answer_scoring.accuracy)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.options = tuple(f" {name}" for name in cls.labels)

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Read the two files.

        Raises:
            DataError: no folder is named, or its files cannot be used.
        """
        if self.config.data_dir is None:
            raise DataError(
                f"task={self.config.name}: the hub has no such data set; give task.data_dir=DIR, a folder with "
                f"train.json and test.json of dataset/{self.config.subset} in {REPOSITORY}"
            )
        super().load(tokenizer, architecture, streams)


@register("task", "commonsense-boolq")
class BoolQ(Commonsense):
    """A yes/no question, without its passage."""

    labels = ("false", "true")


@register("task", "commonsense-piqa")
class Piqa(Commonsense):
    """Which of two ways reaches the goal?"""

    labels = ("solution1", "solution2")


@register("task", "commonsense-siqa")
class Siqa(Commonsense):
    """What do people feel, want or do next?"""

    labels = ("answer1", "answer2", "answer3")


@register("task", "commonsense-hellaswag")
class HellaSwag(Commonsense):
    """Which ending follows?"""

    labels = ("ending1", "ending2", "ending3", "ending4")


@register("task", "commonsense-winogrande")
class WinoGrande(Commonsense):
    """Which of two names fills the blank?"""

    labels = ("option1", "option2")


@register("task", "commonsense-arc-easy")
@register("task", "commonsense-arc-challenge")
class Arc(Commonsense):
    """Science questions of grade schools; a few have a fifth option."""

    labels = ("answer1", "answer2", "answer3", "answer4", "answer5")


@register("task", "commonsense-openbookqa")
class OpenBookQA(Commonsense):
    """Science questions that need a fact from elsewhere."""

    labels = ("answer1", "answer2", "answer3", "answer4")


SetName = Literal["arc-challenge", "arc-easy", "boolq", "hellaswag", "openbookqa", "piqa", "siqa", "winogrande"]
SETS: dict[str, tuple[type[Classification[Any]], str]] = {  # name -> its task, and its folder in the repository
    "arc-challenge": (Arc, "ARC-Challenge"),
    "arc-easy": (Arc, "ARC-Easy"),
    "boolq": (BoolQ, "boolq"),
    "hellaswag": (HellaSwag, "hellaswag"),
    "openbookqa": (OpenBookQA, "openbookqa"),
    "piqa": (Piqa, "piqa"),
    "siqa": (Siqa, "social_i_qa"),
    "winogrande": (WinoGrande, "winogrande"),
}
COMMONSENSE_QA = "commonsense-qa"


class MixtureConfig(HubConfig):
    """Settings of the mixture; data_dir has a folder for each set, as in the repository (boolq, ARC-Easy, ...).

    Attributes:
        train_on: sets whose train files are one training set; CommonsenseQA is read from the hub, unless data_dir has a
            folder commonsense-qa.
        test_on: sets that the test is made of, at most test_size items of each.
    """

    train_on: list[SetName | Literal["commonsense-qa"]] = Field(min_length=1)
    test_on: list[SetName] = Field(min_length=1)


@register("task", "commonsense")
class Mixture(Classification[MixtureConfig]):
    """One model for several sets: each is tested by itself (accuracy_boolq, ...).

    Metrics: accuracy over all items, mean_accuracy over the sets (what papers call the average), and each set's own.
    """

    source = REPOSITORY
    texts = ("instruction",)
    labels = tuple(dict.fromkeys(label for cls, _ in SETS.values() for label in cls.labels))
    template = Commonsense.template
    options = ()
    cut = "instruction"
    parts_of_whole = True
    measure = staticmethod(answer_scoring.accuracy)

    @staticmethod
    def check(config: MixtureConfig) -> list[str]:
        """Sets that are named twice, and a test out of train."""
        named: dict[str, list[str]] = {"train_on": [*config.train_on], "test_on": [*config.test_on]}
        twice = [
            f"task.{key}={names}: a set is named twice; name each once"
            for key, names in named.items()
            if len(set(names)) < len(names)
        ]
        return twice + refuse_test_from_train(config)

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Read the sets.

        Raises:
            DataError: an encoder, whose head has one set of classes; no folder is named, or files cannot be used.
        """
        if architecture == "encoder":
            raise DataError(f"task={self.config.name} has other answers in each set: use a decoder, or one set's task")
        if self.config.data_dir is None:
            raise DataError(
                f"task={self.config.name}: the hub has no such data set; give task.data_dir=DIR, a folder with the "
                f"folders {', '.join(self._folder(name) for name in self.config.test_on)} of dataset in {REPOSITORY}"
            )
        super().load(tokenizer, architecture, streams)

    @staticmethod
    def _folder(name: str) -> str:
        return SETS[name][1]

    def read_items(self) -> tuple[dict[str, list[Item]], str]:
        """Validation is carved out of the train files of all sets together."""
        learned: list[Item] = []
        revisions = []
        for name in self.config.train_on:
            items, revision = self._commonsense_qa() if name == COMMONSENSE_QA else self._set(name, "train")
            learned += items
            revisions.append(f"{name} {revision}")
        tested: list[Item] = []
        for name in self.config.test_on:
            items, revision = self._set(name, "test")
            tested += items
            revisions.append(f"{name} {revision}")
        pool = Table([{} for _ in learned], f"the sets of task.train_on in {self.config.data_dir}", "train")
        train, validation = carve(pool, self.config)
        return {
            "train": [learned[row] for row in train],
            "validation": [learned[row] for row in validation],
            "test": tested,
        }, ", ".join(dict.fromkeys(revisions))

    def _set(self, name: str, split: Literal["train", "test"]) -> tuple[list[Item], str]:
        """All items of a set's train file, or test_size of its test file."""
        cls, folder = SETS[name]
        plain = {key: getattr(self.config, key) for key in FolderConfig.model_fields}
        config = FolderConfig(**{**plain, "data_dir": str(Path(self.config.data_dir or "") / folder), "subset": folder})
        tables, revision = read(config, cls.texts, (split,), (), (cls.label,))
        table = tables[split]
        rows = range(len(table.rows)) if split == "train" else choose(table, self.config)
        return _named(cls(config)._items(table, rows), name, cls), revision

    def _commonsense_qa(self) -> tuple[list[Item], str]:
        folder = Path(self.config.data_dir or "") / COMMONSENSE_QA
        config = self.config.model_copy(update={"data_dir": str(folder) if folder.is_dir() else None})
        columns = (*CommonsenseQa.lists, CommonsenseQa.label)
        tables, revision = read(config, CommonsenseQa.texts, ("train",), (), columns)
        items = CommonsenseQa(config)._items(tables["train"], range(len(tables["train"].rows)))
        asked = [replace(item, texts={"instruction": item.texts["question"]}) for item in items]
        return _named(asked, COMMONSENSE_QA, CommonsenseQa), revision

    def labels_of(self, example: Example) -> tuple[str, ...]:
        """The classes of the example's set."""
        name = example.item["part"]
        return (CommonsenseQa if name == COMMONSENSE_QA else SETS[name][0]).labels

    def evaluate(self, model: Any, examples: Any, batch_size: int) -> Evaluation:
        """Metrics of all items, of each set, and the mean of the sets' accuracies."""
        evaluation = super().evaluate(model, examples, batch_size)
        each = [value for name, value in evaluation.metrics.items() if name.startswith("accuracy_")]
        return replace(evaluation, metrics={**evaluation.metrics, "mean_accuracy": float(np.mean(each))})


def _named(items: list[Item], name: str, cls: type[Classification[Any]]) -> list[Item]:
    return [replace(item, id=f"{name}/{item.id}", part=name, options=cls.options) for item in items]
