"""Rows of a data file: JSON lines, a JSON list, Parquet or CSV."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankbench.tasks.base import DataError

Row = dict[str, Any]


def load_file(file: Path, labels: Sequence[str]) -> tuple[list[Row], list[int]]:
    """All rows of a file, and the line on which each ends; no lines where a format has none (Parquet, a JSON list).

    Nothing guesses at types: a text of digits, a date or "NA" stays the text it is.

    Args:
        file: its suffix (.jsonl, .json, .parquet, .csv) tells its format.
        labels: columns whose cells in a CSV file are read as the JSON value that they spell, else as text.

    Raises:
        DataError: the file, or a line of it, cannot be read.
    """
    try:
        if file.suffix == ".parquet":
            return _from_parquet(file), []
        text = file.read_bytes().decode("utf-8-sig") if file.suffix != ".jsonl" else ""
        if file.suffix == ".csv":
            return _from_csv(file, text, labels)
        return (_from_list(file, text), []) if text.lstrip().startswith("[") else _from_lines(file)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 text ({error}); save it in that encoding") from error
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}); make it readable, or name another folder"
        ) from error


def _from_parquet(file: Path) -> list[Row]:
    """Rows, with the names of classes for their numbers; the library's own cache lasts for this call alone."""
    import datasets

    try:
        with quiet(), tempfile.TemporaryDirectory() as cache:
            table = datasets.Dataset.from_parquet(str(file), cache_dir=cache, keep_in_memory=True)
            return named(table)
    except (StopIteration, ValueError, OSError, TypeError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise DataError(f"{file} cannot be read as parquet: {cause}; mend or replace the file") from error


def named(table: Any) -> list[Row]:
    """The rows of a `datasets.Dataset`; a class is its name where the data set has names, which may be in any order."""
    import datasets

    names = {
        column: dict(enumerate(feature.names))
        for column, feature in table.features.items()
        if isinstance(feature, datasets.ClassLabel) and feature.names != [str(i) for i in range(len(feature.names))]
    }
    rows: list[Row] = table.to_list()
    return [{**row, **{column: names[column].get(row[column], row[column]) for column in names}} for row in rows]


def _from_csv(file: Path, text: str, labels: Sequence[str]) -> tuple[list[Row], list[int]]:
    """Cells as they stand, those of `labels` as what they spell; and the line of each row."""
    csv.field_size_limit(2**31 - 1)  # its default refuses texts of 131,073 characters
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, line) for line in reader if line]
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not CSV ({error}); mend or remove the line") from error
    if not lines:
        return [], []
    _, header = lines[0]
    twice = [column for column, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{file} has two columns {twice[0]!r}; remove one")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise DataError(
                f"{file}, line {number}: {len(line)} values for {len(header)} columns ({', '.join(header)}); put a "
                "text with a comma or a quotation mark in quotation marks"
            )
    rows: list[Row] = [dict(zip(header, line, strict=True)) for _, line in lines[1:]]
    rows = [{**row, **{column: _spelled(row[column]) for column in labels if column in row}} for row in rows]
    return rows, [number for number, _ in lines[1:]]


def _spelled(cell: str) -> Any:
    try:
        return parsed({"True": "true", "False": "false"}.get(cell, cell))
    except ValueError:
        return cell


def _from_lines(file: Path) -> tuple[list[Row], list[int]]:
    """JSON lines, blank ones left out, and their numbers."""
    rows, lines = [], []
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                value = parsed(line)
            except ValueError as error:  # UnicodeDecodeError is one
                raise DataError(f"{file}, line {number}: not JSON ({error}); mend or remove the line") from error
            if not isinstance(value, dict):
                raise DataError(f'{file}, line {number}: {line.decode()[:40]!r} is no JSON object {{"column": value}}')
            rows.append(value)
            lines.append(number)
    return rows, lines


def _from_list(file: Path, text: str) -> list[Row]:
    """One JSON list of objects."""
    try:
        rows = parsed(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}: not JSON ({error.msg}); mend the file") from error
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error}); mend the file") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f'{file}, row {number}: {str(row)[:40]!r} is no JSON object {{"column": value}}')
    return list(rows)


def parsed(text: str | bytes) -> Any:
    """The JSON value of a text.

    Raises:
        ValueError: it is none, or one that other readers would read otherwise: NaN, Infinity, a key that stands twice.
    """
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and log lines of `datasets`; its errors are raised all the same."""
    import datasets

    bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
