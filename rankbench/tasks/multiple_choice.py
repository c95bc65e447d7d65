"""Questions with four or five answers to choose from: AQuA-RAT, CommonsenseQA and HellaSwag."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rankbench.config.registry import register
from rankbench.tasks.base import DataError, Example
from rankbench.tasks.text import answer_scoring
from rankbench.tasks.text.answer_scoring import Answer, Item, Scorer
from rankbench.tasks.text.dataset_files import Table
from rankbench.tasks.text.file_formats import Row
from rankbench.tasks.text_classification import Classification, ClassificationConfigT

LETTERS = ("A", "B", "C", "D", "E")
BRACKETS = re.compile(r"\[.*?\]")  # what is left of WikiHow's markup


class MultipleChoice(Classification[ClassificationConfigT]):
    """A question whose answers stand in a list; a language model takes the likeliest, which an encoder cannot do."""

    measure = staticmethod(answer_scoring.accuracy)

    def _make_scorer(self, tokenizer: Any, architecture: str) -> Scorer:
        if architecture == "encoder":
            raise DataError(f"task={self.config.name} has a list of answers for each question: use a decoder")
        return super()._make_scorer(tokenizer, architecture)


def texts_of(row: Row, column: str, count: int, place: str) -> list[str]:
    """The list of texts in a column.

    Raises:
        DataError: it is no list of `count` texts.
    """
    texts = row[column]
    if not isinstance(texts, list) or len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{place}: {column}={texts!r} is no list of {count} texts; mend or remove the row")
    return texts


def lettered(question: str, answers: Sequence[str]) -> str:
    """The question, and each answer on a line with its letter."""
    lines = [f"{letter}. {answer}" for letter, answer in zip(LETTERS, answers, strict=False)]
    return "\n".join([question.strip(), *lines])


@register("task", "aqua")
class Aqua(MultipleChoice):
    """Algebra in words, five answers (Ling et al. 2017, arXiv:1705.04146); the letter is learned, not the rationale."""

    source = "deepmind/aqua_rat raw"
    texts = ("question",)
    lists = ("options",)
    label = "correct"
    labels = LETTERS
    template = "{question}\nAnswer:"
    options = tuple(f" {letter}" for letter in LETTERS)
    cut = "question"
    test = "test"

    def fields(self, row: Row, place: str) -> dict[str, str]:
        """The question with its answers, which the data has as "A)21".

        Raises:
            DataError: an answer does not begin with its letter.
        """
        written = texts_of(row, "options", len(LETTERS), place)
        for letter, text in zip(LETTERS, written, strict=True):
            if not text.startswith(f"{letter})"):
                raise DataError(f"{place}: {text!r} in options does not begin with {letter}); mend the row")
        return {"question": lettered(row["question"], [text[2:].strip() for text in written])}


@register("task", "commonsense-qa")
class CommonsenseQa(MultipleChoice):
    """Five answers (Talmor et al. 2019, arXiv:1811.00937), worded like LLM-Adapters' sets; see `commonsense`."""

    source = "tau/commonsense_qa"
    texts = ("question",)
    lists = ("choices",)
    label = "answerKey"
    labels = LETTERS
    template = "{question}\nthe correct answer is"
    options = tuple(f" answer{number}" for number in range(1, 6))
    cut = "question"

    def fields(self, row: Row, place: str) -> dict[str, str]:
        """Question, answers and answer format, as LLM-Adapters writes its sets."""
        choices = row["choices"] if isinstance(row["choices"], dict) else {}
        answers = texts_of({"choices.text": choices.get("text")}, "choices.text", len(LETTERS), place)
        names = [option.strip() for option in self.options]
        listed = " ".join(f"{name.capitalize()}: {text}" for name, text in zip(names, answers, strict=True))
        asked = f"Please choose the correct answer to the question: {row['question'].strip()}"
        return {"question": f"{asked}\n\n{listed}\n\nAnswer format: {'/'.join(names)}"}


@register("task", "hellaswag")
class HellaSwag(MultipleChoice):
    """Which of four endings follows (Zellers et al. 2019, arXiv:1905.07830), each an option of its own.

    Metrics: accuracy of the likeliest ending, and accuracy_norm of the ending with the largest log-likelihood per
    character, both as in EleutherAI's evaluation harness.
    """

    source = "Rowan/hellaswag"
    texts = ("activity_label", "ctx_a", "ctx_b")
    lists = ("endings",)
    labels = ("0", "1", "2", "3")
    template = "{context}"
    options = ()
    cut = "context"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._characters: dict[str, list[int]] = {}

    def fields(self, row: Row, place: str) -> dict[str, str]:
        """Activity and beginning, without the blank at the end, which belongs to the endings."""
        return {"context": _context(row).rstrip()}

    def choices(self, row: Row, place: str) -> tuple[str, ...]:
        """The endings, with the blanks before them."""
        context = _context(row)
        blanks = context[len(context.rstrip()) :]
        return tuple(f"{blanks} {_cleaned(ending)}" for ending in texts_of(row, "endings", 4, place))

    def _item(self, table: Table, row: int, part: str) -> Item:
        item = super()._item(table, row, part)
        self._characters[item.id] = [max(1, len(_cleaned(ending))) for ending in table.rows[row]["endings"]]
        return item

    def score(self, pairs: Sequence[tuple[Example, Answer]]) -> dict[str, float]:
        """Loss and both accuracies."""
        right = []
        for example, answer in pairs:
            by_length = np.divide(answer.scores, self._characters[example.item["id"]])
            right.append(int(np.argmax(by_length)) == example.right)
        return {**super().score(pairs), "accuracy_norm": float(np.mean(right))}


def _context(row: Row) -> str:
    return _cleaned(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")


def _cleaned(text: str) -> str:
    return BRACKETS.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")
