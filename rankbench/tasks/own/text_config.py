"""Settings of a task on a user's own data, and the mistakes that they show without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from rankbench.config.schema import Settings
from rankbench.tasks.own.prompt_template import PromptTemplate


class TextConfig(Settings):
    r"""Settings of a task on a user's own data.

    Attributes:
        data_dir: a file (.jsonl, .json, .csv, .parquet); or a folder with train.jsonl (or another of these) and, if
            there are such, validation and test files; or a data set that datasets.save_to_disk wrote.
        form: what is asked. classification: one of the same classes for every row, by a decoder's likelihood or an
            encoder's head. options: one of the row's own choices, by likelihood. generation: a text.
        template: prompt of a decoder with {columns}; {{ and }} are braces, \n a line break. An encoder reads its one
            or two columns as a text or a pair of texts, and more than two as the filled template.
        answer: column with what is right: a class (its name, or its number in `labels`), a choice (its text, letter, or
            number from 0), or a text. For generation also a template of several columns.
        labels: of classification, the names of the classes, which a decoder answers with; null: what `answer` has in
            train, numbers by value and names by the alphabet. Of options, what `answer` calls the choices instead.
        choices: columns of the choices, in order; or one column with a list of them.
        train_size: training examples; null takes all that are left.
        validation_size: validation examples; null takes all of a validation file, or a tenth of train.
        test_size: test examples; null takes all of a test file, or a fifth of train.
        max_length: tokens per example; what is longer loses the beginning of its longest column.
        generation_size: how many texts of a split are written, the first ones; null: all. For generation alone.
        max_new_tokens: largest length of a written text, in tokens. For generation alone.
    """

    data_dir: str
    form: Literal["classification", "options", "generation"]
    template: str
    answer: str
    labels: list[str | int] | None
    choices: list[str] | None
    train_size: int | None = Field(ge=1)
    validation_size: int | None = Field(ge=1)
    test_size: int | None = Field(ge=1)
    max_length: int = Field(ge=8)
    generation_size: int | None = Field(ge=0)
    max_new_tokens: int = Field(ge=1)

    @property
    def prompt(self) -> PromptTemplate:
        """The template."""
        return PromptTemplate.written(self.template)

    @property
    def names(self) -> tuple[str, ...]:
        """The labels as texts; () where there are none."""
        return tuple(map(str, self.labels or ()))

    @property
    def target(self) -> PromptTemplate:
        """What is right, as a template of one column or more."""
        written = self.form == "generation" and "{" in self.answer
        return PromptTemplate.written(self.answer if written else f"{{{self.answer}}}")


def wrong_settings(config: TextConfig) -> list[str]:
    """Mistakes that the settings show without the data."""
    problems = []
    for key, template in (("template", config.prompt), ("answer", config.target)):
        try:
            if not template.columns:
                problems.append(f"task.{key}={template!r}: names no column; write one as {{column}}")
        except ValueError as error:
            problems.append(f"task.{key}={template!r}: {error}")
    if not problems and set(config.target.columns) <= set(config.prompt.columns):
        problems.append(f"task.template={config.template!r}: shows {config.answer}, which is the answer; leave it out")
    if config.form == "options" and not config.choices:
        problems.append("task.choices=null: form=options needs the columns of the choices, or the one with their list")
    if config.form != "options" and config.choices is not None:
        problems.append(f"task.choices={config.choices}: only form=options has choices; take it, or null")
    if config.labels is not None:
        problems += _of_labels(config.names, config.form)
    return problems


def _of_labels(labels: Sequence[str], form: str) -> Iterator[str]:
    if form == "generation":
        yield f"task.labels={list(labels)}: form=generation has no classes; leave it null"
    if len(labels) < 2 or len(set(labels)) < len(labels) or not all(label.strip() for label in labels):
        yield f"task.labels={list(labels)}: needs two names or more, none twice and none empty"
