"""Rows of a task's splits, through `datasets`: from a local folder, or from the hub (its local cache first)."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rankbench.core.seeding import Streams
from rankbench.files import expanded, fingerprint
from rankbench.tasks.base import DataError
from rankbench.tasks.text.dataset_config import FolderConfig, HubConfig
from rankbench.tasks.text.file_formats import Row, load_file, named, quiet

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


@dataclass(frozen=True)
class Table:
    """One official split.

    Attributes:
        rows: in the file's order, restricted to the columns asked for, none of which is None; as they are, where any
            column would do.
        place: file or hub address, for messages.
        split: official name of the split.
        lines: the line of the file on which each row ends; empty where rows are no lines.
    """

    rows: Sequence[Row]
    place: str
    split: str
    lines: Sequence[int] = ()

    def at(self, row: int) -> str:
        """Where a row stands, for messages: `row` counts from 0, what is said from 1."""
        return f"{self.place}, line {self.lines[row]}" if self.lines else f"{self.place}, row {row + 1}"


def read(
    config: FolderConfig,
    texts: Sequence[str] | None,
    splits: Sequence[str],
    extra: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> tuple[dict[str, Table], str]:
    """Tables of the official splits, and the revision of the data.

    Args:
        config: settings of the task: where its data is.
        texts: columns of text, which every split must have; a value that is no text is refused. None: any columns, for
            a task that looks at the rows it takes; `labels` may be missing then.
        splits: official names that must be there.
        extra: official names that are read if they are there.
        labels: columns of numbers, names or lists, which every split must have; a cell of a CSV file is read as the
            JSON value it spells (1, 0.5, true, ["a", "b"]), else as a name.

    Returns:
        split -> table, and the hub's commit or the sha256 of the local files.

    Raises:
        DataError: a folder, file, split or column is missing, a line is broken, a value is missing, a split is empty;
            or there is neither local data nor a network.
    """
    if config.data_dir is not None:
        return _read_folder(config, config.data_dir, texts, splits, extra, labels)
    if not isinstance(config, HubConfig):
        raise DataError(f"task={config.name}: the hub has no such data set; give task.data_dir=DIR")
    return _read_hub(config, texts, splits, extra, labels)


def official(config: FolderConfig, test: str) -> tuple[str, ...]:
    """Names of the splits to read: train, and the one that is the test unless train gives it."""
    return ("train", test) if config.test_from_train is None else ("train",)


def carve(table: Table, config: FolderConfig) -> tuple[list[int], list[int]]:
    """Row numbers of train and validation: a fixed permutation, its first validation_size rows are validation.

    The same for every seed, and nested: a smaller train_size takes a prefix of a larger one. The last test_from_train
    rows of the permutation are the test's (`test_rows`).

    Raises:
        DataError: the official train split is too small for the sizes asked for.
    """
    order, test = _permutation(table, config), config.test_from_train or 0
    room = len(order) - config.validation_size - test
    size = room if config.train_size is None else config.train_size
    if room < 1 or size > room:
        asked = "all the rest" if config.train_size is None else config.train_size
        of_test = f", task.test_from_train={test}" if test else ""
        raise DataError(
            f"{table.place} has {len(order)} rows, too few for task.validation_size={config.validation_size}{of_test} "
            f"and task.train_size={asked}; make them smaller"
        )
    return order[config.validation_size :][:size], order[: config.validation_size]


def test_rows(tables: Mapping[str, Table], test: str, config: FolderConfig) -> tuple[Table, list[int]]:
    """The table that holds the test, and its row numbers there; `carve` has checked that train is large enough.

    Args:
        tables: the splits that `official` names.
        test: official name of the split that is the test where test_from_train is None.
        config: sizes.

    Raises:
        DataError: there are fewer rows than test_size.
    """
    if config.test_from_train is None:
        return tables[test], choose(tables[test], config)
    train = tables["train"]
    order = _permutation(train, config)[-config.test_from_train :]
    return train, _first(order, config.test_size, f"the test carved out of {train.place}", "test_size")


def choose(
    table: Table, config: FolderConfig, setting: Literal["train_size", "validation_size", "test_size"] = "test_size"
) -> list[int]:
    """Row numbers of a split: the first rows of a fixed permutation, as many as `setting` says (None: all).

    Smaller sizes are nested in larger ones.

    Raises:
        DataError: there are fewer rows.
    """
    return _first(_permutation(table, config), getattr(config, setting), table.place, setting)


def _first(order: list[int], size: int | None, place: str, setting: str) -> list[int]:
    if size is not None and size > len(order):
        ways_out = "make it smaller" if setting == "validation_size" else "make it smaller, or null"
        raise DataError(f"{place} has {len(order)} rows, fewer than task.{setting}={size}; {ways_out}")
    return order[:size]


def _permutation(table: Table, config: FolderConfig) -> list[int]:
    order = Streams(0).numpy("data", config.name, table.split).permutation(len(table.rows))
    return [int(row) for row in order]


def _read_folder(
    config: FolderConfig,
    data_dir: str,
    texts: Sequence[str] | None,
    splits: Sequence[str],
    extra: Sequence[str],
    labels: Sequence[str],
) -> tuple[dict[str, Table], str]:
    folder = expanded(data_dir)
    if not folder.is_dir():
        other = f", or task.data_dir=null to read {config.hub} from the hub" if isinstance(config, HubConfig) else ""
        raise DataError(f"task.data_dir={data_dir} is not a folder; give one with {_expected(splits)}{other}")
    tables, digest = {}, hashlib.sha256()
    for split in (*splits, *extra):
        file = _file_of(folder, split, required=split in splits)
        if file is not None:
            rows, lines = load_file(file, labels)
            tables[split] = _table(Table(rows, str(file), split, lines), texts, labels)
            digest.update(f"{split}\0{fingerprint(file)}\n".encode())
    return tables, f"sha256:{digest.hexdigest()}"


def _expected(splits: Sequence[str]) -> str:
    return f"{' and '.join(f'{split}.jsonl' for split in splits)} (or {', '.join(SUFFIXES[1:])})"


def _file_of(folder: Path, split: str, required: bool) -> Path | None:
    files = [folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()]
    if len(files) > 1:
        raise DataError(f"{folder} has {' and '.join(file.name for file in files)}; keep one of them")
    if not files and required:
        content = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise DataError(f"{folder} has no data for split {split!r}: expected {_expected([split])}, found {content}")
    return files[0] if files else None


def _table(table: Table, texts: Sequence[str] | None, labels: Sequence[str]) -> Table:
    """The columns asked for.

    Raises:
        DataError: no rows, a missing column or value, a text column's value that is no text.
    """
    if not len(table.rows):
        raise DataError(f"{table.place} is empty; every split needs rows")
    if texts is None:
        return table
    columns, first = (*texts, *labels), table.rows[0]
    missing = [column for column in columns if column not in first]
    if missing:
        raise DataError(f"{table.place} has no column {', '.join(missing)}; its columns are {', '.join(first)}")
    chosen = [{column: row.get(column) for column in columns} for row in table.rows]
    for number, row in enumerate(chosen):
        for column, value in row.items():
            if value is None:
                raise DataError(f"{table.at(number)}: no value in column {column}; mend or remove it")
            if column in texts and not is_text(value):
                raise DataError(f"{table.at(number)}: {column}={value!r} is no text; put it in quotation marks")
    return replace(table, rows=chosen)


def is_text(value: Any) -> bool:
    """Whether a value is a text that can be written: half of a surrogate pair, which JSON can hold, cannot."""
    try:
        return value.encode() is not None
    except (AttributeError, UnicodeEncodeError):
        return False


def _read_hub(
    config: HubConfig, texts: Sequence[str] | None, splits: Sequence[str], extra: Sequence[str], labels: Sequence[str]
) -> tuple[dict[str, Table], str]:
    name = f"{config.hub}/{config.subset}"
    with quiet():
        builder = prepare(config)
        missing = [split for split in splits if split not in builder.info.splits]
        if missing:
            raise DataError(f"{name} has no split {missing[0]!r}; its splits are {', '.join(builder.info.splits)}")
        tables = {}
        for split in (*splits, *(split for split in extra if split in builder.info.splits)):
            data = builder.as_dataset(split)
            rows = data if texts is None else named(data)  # a task that looks at rows may want few of millions
            tables[split] = _table(Table(rows, f"{name}@{builder.hash}, split {split}", split), texts, labels)
    return tables, str(builder.hash)


NETWORK_SECONDS = 5.0  # how long the hub may take to answer at all


def prepare(config: HubConfig) -> Any:
    """The prepared data set: from the local cache if it has the revision asked for, else from the hub."""
    import datasets

    cached = _from_cache(config)
    if cached is not None:
        return cached
    if datasets.config.HF_HUB_OFFLINE or not reachable():
        raise DataError(_ways_out(config, "is not in the local cache and the hub cannot be reached"))
    try:
        builder = datasets.load_dataset_builder(config.hub, config.subset, revision=config.revision)
        builder.download_and_prepare()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(_ways_out(config, f"cannot be had from the hub ({type(error).__name__}: {error})")) from error
    return builder


def _from_cache(config: HubConfig) -> Any | None:
    import datasets

    try:
        with _offline():
            builder = datasets.load_dataset_builder(config.hub, config.subset)
    except (OSError, ValueError):  # not in the cache, or another subset of it
        return None
    return builder if config.revision in (None, builder.hash) else None


def _ways_out(config: HubConfig, problem: str) -> str:
    return (
        f"task={config.name}: the data set {config.hub} (subset {config.subset}, revision {config.revision}) "
        f"{problem}; give a folder that has its files: task.data_dir=DIR, or run once with a network and without "
        "HF_HUB_OFFLINE"
    )


def reachable() -> bool:
    """Whether the hub answers at all, found out with one question and no retries."""
    from huggingface_hub.constants import ENDPOINT

    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(_answers(ENDPOINT)), daemon=True)
    asking.start()
    asking.join(NETWORK_SECONDS)  # resolving a name knows no time limit of its own
    return answers == [True]


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=NETWORK_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Keep `datasets` off the network, as its retries take 23 s where there is none."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
