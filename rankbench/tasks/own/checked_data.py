"""A user's own data, read and checked: every mistake in settings and data is found before any model is loaded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankbench.config.schema import near
from rankbench.files import expanded, fingerprint
from rankbench.tasks.base import DataError
from rankbench.tasks.own.data_files import SPLITS, own_tables
from rankbench.tasks.own.row_reader import OwnItem, RowReader, is_number, text_of
from rankbench.tasks.own.text_config import TextConfig, wrong_settings
from rankbench.tasks.text.dataset_config import FolderConfig
from rankbench.tasks.text.dataset_files import Table
from rankbench.tasks.text.splits import divide

MANY_CLASSES = 100  # more of them are hardly classes, unless somebody lists them


@dataclass(frozen=True)
class OwnData:
    """The data of a task, checked.

    Attributes:
        splits: train, validation and test.
        labels: names of the classes, or of the choices.
        sizes: the settings that every text task has, with sizes in numbers.
        longest: column of the template with the most characters, which a prompt too long is shortened by.
        revision: hash of the files.
    """

    splits: dict[str, list[OwnItem]]
    labels: tuple[str, ...]
    sizes: FolderConfig
    longest: str
    revision: str


def own_data(config: TextConfig) -> OwnData:
    """The data that the settings describe; a file is read once per process as long as it stays the same.

    Raises:
        DataError: with every mistake that `mistakes` finds.
    """
    data, problems = _examined(config)
    if data is None:
        raise DataError("\n  ".join([f"task={config.name}: the data cannot be used", *problems]))
    return data


def mistakes(config: TextConfig) -> list[str]:
    """What is wrong with the settings, and with the data that they describe, one sentence per mistake."""
    return _examined(config)[1]


def _examined(config: TextConfig) -> tuple[OwnData | None, list[str]]:
    place = expanded(config.data_dir)
    files = [place, *place.glob("*"), *place.glob("*/*")] if config.data_dir else []
    stamps = ((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files) if file.is_file())
    return _read(type(config), config.model_dump_json(), tuple(stamps))


@functools.lru_cache(maxsize=4)
def _read(schema: type[TextConfig], settings: str, files: tuple[object, ...]) -> tuple[OwnData | None, list[str]]:
    config = schema.model_validate_json(settings)
    problems = ["task.data_dir='': is empty; give a folder"] if not config.data_dir else wrong_settings(config)
    try:
        if problems:
            return None, problems
        tables = own_tables(config.data_dir, config.choices if config.choices and len(config.choices) == 1 else ())
        problems = [problem for table in tables.values() for problem in _of_columns(table, config)]
        return (None, problems) if problems else _items(tables, config)
    except DataError as error:
        return None, [str(error)]


def _of_columns(table: Table, config: TextConfig) -> Iterator[str]:
    """Columns that the settings name and the table does not have."""
    present = tuple(dict.fromkeys(column for row in table.rows for column in row))
    named = {"template": config.prompt.columns, "answer": config.target.columns, "choices": config.choices or ()}
    missing = [(key, column) for key, columns in named.items() for column in columns if column not in present]
    sentences = [
        f"{table.place} has no column {name!r} (task.{key}); {_present(name, present)}" for key, name in missing
    ]
    yield from sentences
    unlike = len(missing) == sum(map(len, named.values())) and all("; known are" in each for each in sentences)
    if unlike and table.place.endswith(".csv"):
        yield f"{table.place}: none of these is there; the first line of a CSV file has the names of its columns"


def _present(column: str, present: Sequence[str]) -> str:
    """What columns there are instead, and why one may not be found."""
    other = next((sign for sign in ";\t|" if len(present) == 1 and sign in present[0]), None)
    if other is not None:
        return f"its columns are separated by {other!r}, save it with commas"
    if any(name != name.strip() for name in present):
        return f"its columns are {', '.join(map(repr, present))}; remove the blanks around them"
    return near(column, present)


def _items(tables: Mapping[str, Table], config: TextConfig) -> tuple[OwnData | None, list[str]]:
    """The items of all splits, or what is wrong with the rows."""
    reader = RowReader(config)
    if config.form == "classification":
        reader.labels = tuple(config.names or _classes(tables["train"], config.answer))
        problems = _of_classes(reader.labels, tables["train"], config)
        if problems:
            return None, problems
    elif config.labels is not None:
        reader.labels = config.names
    items = {split: reader.items(table) for split, table in tables.items()}
    if reader.problems:
        return None, reader.problems
    sizes = _sizes(tables, config)
    parts = divide(tables, sizes)
    splits = {}
    for split in SPLITS:
        table, rows = parts[split]
        splits[split] = [item for row in rows if (item := items[table.split][row]) is not None]
    golds = {item.gold for item in splits["train"]}
    if config.form == "classification" and len(golds) < 2:
        return None, [f"{tables['train'].place}: all {len(splits['train'])} training examples are of one class"]
    lengths = {column: sum(len(item.texts[column]) for item in splits["train"]) for column in config.prompt.columns}
    longest = max(lengths, key=lengths.__getitem__)
    return OwnData(splits, reader.labels, sizes, longest, f"sha256:{fingerprint(expanded(config.data_dir))}"), []


def _classes(table: Table, column: str) -> list[str]:
    """Names of the classes in a table: numbers by value, else by the alphabet; rows without one are left to others."""
    names = set()
    for row in table.rows:
        try:
            names.add(text_of(row, column).strip())
        except ValueError:
            continue
    by_value: Callable[[str], Any] = int if all(map(is_number, names)) else str
    return sorted(names, key=by_value)


def _of_classes(labels: Sequence[str], table: Table, config: TextConfig) -> list[str]:
    """Whether what stands in the answer's column can be classes."""
    if len(labels) < 2:
        only = f"is {labels[0]!r} in every row" if labels else "is empty in every row"
        return [f"{table.place}, column {config.answer}: {only}; a classification needs two classes"]
    if len(labels) > MANY_CLASSES and config.labels is None:
        return [
            f"{table.place}, column {config.answer}: has {len(labels)} different values in {len(table.rows)} rows; "
            "take another column, form=generation, or list the classes in task.labels"
        ]
    return []


def _sizes(tables: Mapping[str, Table], config: TextConfig) -> FolderConfig:
    """The settings with sizes in numbers: all rows of a file, or a share of train's."""
    rows = {split: len(table.rows) for split, table in tables.items()}
    return FolderConfig(
        name=config.name,
        data_dir=config.data_dir,
        subset="",
        train_size=config.train_size,
        validation_size=config.validation_size or rows.get("validation") or max(1, rows["train"] // 10),
        test_size=config.test_size or rows.get("test") or max(1, rows["train"] // 5),
        max_length=config.max_length,
    )
