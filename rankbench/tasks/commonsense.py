"""Commonsense questions with options, as LLM-Adapters writes them (Hu et al. 2023, arXiv:2304.01933).

Each set is trained and tested by itself; its files are `instruction` (question, options and answer format) and
`answer` (the option's name). They lie in a repository, not on the hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankbench.config.registry import register
from rankbench.config.schema import number
from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.text import answer_scoring
from rankbench.tasks.text_classification import Classification

REPOSITORY = "github.com/AGI-Edgerunners/LLM-Adapters"


@dataclass
class Config:
    """Settings of a commonsense task.

    Attributes:
        data_dir: folder with the set's train and test as files (train.json, test.json).
        subset: folder of the set in the repository, under dataset/.
        train_size: training examples; null takes all that validation leaves.
        validation_size: examples carved out of train.
        test_size: fixed subset of the test split; null takes all of it.
        max_length: tokens per example; what is longer loses the beginning of its question.
    """

    name: str
    data_dir: str | None
    subset: str
    train_size: int | None = number(low=1)
    validation_size: int = number(low=1)
    test_size: int | None = number(low=1)
    max_length: int = number(low=8)


class Commonsense(Classification):
    """The option whose name is likeliest after "the correct answer is". A task states its options' names."""

    Config = Config
    source = REPOSITORY
    texts = ("instruction",)
    label = "answer"
    template = "{instruction}\nthe correct answer is"
    cut = "instruction"
    test = "test"
    measure = staticmethod(answer_scoring.accuracy)

    def __init_subclass__(cls) -> None:
        cls.options = tuple(f" {name}" for name in cls.labels)

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Read the two files.

        Raises:
            DataError: no folder is named, or what is wrong with it.
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
