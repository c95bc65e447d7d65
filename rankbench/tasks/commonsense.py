"""Commonsense questions with options, as LLM-Adapters writes them (Hu et al. 2023, arXiv:2304.01933).

Each set is trained and tested by itself; its files are `instruction` (question, options and answer format) and
`answer` (the option's name). They lie in a repository, not on the hub.
"""

from __future__ import annotations

from typing import Any

from rankbench.config.registry import register
from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.text import answer_scoring
from rankbench.tasks.text.dataset_config import FolderConfig
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
