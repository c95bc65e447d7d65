"""A user's own rows as items of a task, with what is wrong with a row."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rankbench.tasks.own.text_config import TextConfig
from rankbench.tasks.text.dataset_files import Table, is_text
from rankbench.tasks.text.file_formats import Row

SHOWN = 3  # mistakes of one file that are shown, of thousands of the same kind
NAMES = tuple(string.ascii_uppercase)  # what `answer` may call the choices of a row


@dataclass(frozen=True)
class OwnItem:
    """One row.

    Attributes:
        id: split of the file, and row number.
        texts: column of the template -> text.
        gold: number of the class or of the choice; a text in generation.
        choices: the row's own choices; () unless they are.
    """

    id: str
    texts: Mapping[str, str]
    gold: int | str
    choices: tuple[str, ...] = ()


@dataclass
class RowReader:
    """Reads the rows of the tables, and remembers what is wrong with them.

    Attributes:
        config: settings.
        labels: names of the classes, or of the choices.
        problems: sentences.
    """

    config: TextConfig
    labels: tuple[str, ...] = NAMES
    problems: list[str] = field(default_factory=list)

    def items(self, table: Table) -> list[OwnItem | None]:
        """An item for each row, None for one that cannot be used."""
        problems, items = [], list[OwnItem | None]()
        for number, row in enumerate(table.rows):
            try:
                items.append(self._item(row, f"{table.split}/{number}"))
            except ValueError as error:
                items.append(None)
                problems.append(f"{table.at(number)}{error}")
        self.problems += problems[:SHOWN]
        if len(problems) > SHOWN:
            self.problems.append(f"{table.place}: {len(problems) - SHOWN} more rows cannot be used")
        return items

    def _item(self, row: Row, name: str) -> OwnItem:
        texts = {column: text_of(row, column) for column in self.config.prompt.columns}
        if self.config.form == "generation":
            target = self.config.target
            return OwnItem(name, texts, target.format(**{column: text_of(row, column) for column in target.columns}))
        answer = text_of(row, self.config.answer).strip()
        if self.config.form == "classification":
            return OwnItem(name, texts, self._class(answer))
        choices = self._choices(row)
        return OwnItem(name, texts, self._choice(answer, choices), choices)

    def _class(self, answer: str) -> int:
        """Number of a class, by its name, or by its number where no class is called a number."""
        if answer in self.labels:
            return self.labels.index(answer)
        if not any(map(is_number, self.labels)) and is_number(answer) and 0 <= int(answer) < len(self.labels):
            return int(answer)
        origin = "train has" if self.config.labels is None else "task.labels has"
        listed = ", ".join(f"{number} ({label})" for number, label in enumerate(self.labels))
        raise ValueError(f", column {self.config.answer}: {answer!r} is no class; {origin} {listed}")

    def _choices(self, row: Row) -> tuple[str, ...]:
        columns = self.config.choices or []
        if len(columns) > 1:
            return tuple(text_of(row, column) for column in columns)
        (column,) = columns
        listed = row.get(column)
        if not isinstance(listed, list) or not 2 <= len(listed) <= len(self.labels):
            raise ValueError(
                f", column {column}: {listed!r} is no list of 2 to {len(self.labels)} choices; a CSV file has it as "
                'JSON, ["one", "two"]'
            )
        return tuple(
            text_of({f"{column}[{number}]": each}, f"{column}[{number}]") for number, each in enumerate(listed)
        )

    def _choice(self, answer: str, choices: Sequence[str]) -> int:
        """Number of the right choice."""
        names = self.labels[: len(choices)]
        numbers = {names.index(answer)} if answer in names else set[int]()
        if self.config.labels is None:
            numbers |= {number for number, choice in enumerate(choices) if choice == answer}
            numbers |= {int(answer)} if is_number(answer) and 0 <= int(answer) < len(choices) else set()
        if len(numbers) == 1:
            return numbers.pop()
        expected = f"its text, one of {', '.join(names)}, or a number from 0" if self.config.labels is None else names
        why = "may be several choices" if numbers else "is none of the choices"
        raise ValueError(
            f", column {self.config.answer}: {answer!r} {why}, {list(choices)}; expected {expected}; task.labels "
            "can name the choices otherwise"
        )


def text_of(row: Row, column: str) -> str:
    """The text in a column; a number or truth value as JSON spells it.

    Raises:
        ValueError: there is none.
    """
    value = row.get(column)
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise ValueError(f", column {column}: is empty; fill it, or remove the row")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not is_text(value):
        raise ValueError(f", column {column}: {str(value)[:40]!r} is no text; save it as one")
    return str(value)


def is_number(text: str) -> bool:
    """Whether a text spells a whole number that is not negative."""
    return text.isascii() and text.isdigit()
