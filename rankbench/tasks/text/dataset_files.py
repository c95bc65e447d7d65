"""Rows of a task's splits, through `datasets`: from a local folder, or from the hub (its local cache first)."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankbench.core.seeding import Streams
from rankbench.files import fingerprint
from rankbench.tasks.base import DataError
from rankbench.tasks.text.dataset_config import FolderConfig, HubConfig

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One official split.

    Attributes:
        rows: in the file's order, restricted to the columns asked for, none of which is None; with all columns, as they
            are, where none was asked for.
        place: file or hub address, for messages.
        split: official name of the split.
    """

    rows: Sequence[Row]
    place: str
    split: str


def read(
    config: FolderConfig, columns: Sequence[str] | None, splits: Sequence[str], extra: Sequence[str] = ()
) -> tuple[dict[str, Table], str]:
    """Tables of the official splits, and the revision of the data.

    Args:
        config: settings of the task: where its data is.
        columns: names that every split must have; None: any, for a task that looks at the rows it takes.
        splits: official names that must be there.
        extra: official names that are read if they are there.

    Returns:
        split -> table, and the hub's commit or the sha256 of the local files.

    Raises:
        DataError: a folder, file, split or column is missing, a line is broken, a value is missing, a split is empty;
            or there is neither local data nor a network.
    """
    if config.data_dir is not None:
        return _read_folder(config, config.data_dir, columns, splits, extra)
    if not isinstance(config, HubConfig):
        raise DataError(f"task={config.name}: the hub has no such data set; give task.data_dir=DIR")
    return _read_hub(config, columns, splits, extra)


def carve(table: Table, config: FolderConfig) -> tuple[list[int], list[int]]:
    """Row numbers of train and validation: a fixed permutation, its first validation_size rows are validation.

    The same for every seed, and nested: a smaller train_size takes a prefix of a larger one.

    Raises:
        DataError: the official train split is too small for the sizes asked for.
    """
    order = _permutation(table, config)
    room = len(order) - config.validation_size
    size = room if config.train_size is None else config.train_size
    if room < 1 or size > room:
        asked = "all the rest" if config.train_size is None else config.train_size
        raise DataError(
            f"{table.place} has {len(order)} rows, too few for task.validation_size={config.validation_size} and "
            f"task.train_size={asked}; make them smaller"
        )
    return order[config.validation_size :][:size], order[: config.validation_size]


def choose(table: Table, config: FolderConfig) -> list[int]:
    """Row numbers of the test split: the first test_size of a fixed permutation (None: all), so sizes are nested.

    Raises:
        DataError: fewer rows than test_size.
    """
    order = _permutation(table, config)
    if config.test_size is not None and config.test_size > len(order):
        raise DataError(
            f"{table.place} has {len(order)} rows, fewer than task.test_size={config.test_size}; "
            "make it smaller, or null"
        )
    return order[: config.test_size]


def _permutation(table: Table, config: FolderConfig) -> list[int]:
    order = Streams(0).numpy("data", config.name, table.split).permutation(len(table.rows))
    return [int(row) for row in order]


def _read_folder(
    config: FolderConfig, data_dir: str, columns: Sequence[str] | None, splits: Sequence[str], extra: Sequence[str]
) -> tuple[dict[str, Table], str]:
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        other = f", or task.data_dir=null to read {config.hub} from the hub" if isinstance(config, HubConfig) else ""
        raise DataError(f"task.data_dir={data_dir} is not a folder; give one with {_expected(splits)}{other}")
    tables, digest = {}, hashlib.sha256()
    for split in (*splits, *extra):
        file = _file_of(folder, split, required=split in splits)
        if file is not None:
            tables[split] = _table(_load_file(file), columns, str(file), split)
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


def _load_file(file: Path) -> list[Row]:
    """All rows of a file; the library's own cache lasts for this call alone."""
    import datasets

    readers: dict[str, Callable[..., Any]] = {".parquet": datasets.Dataset.from_parquet, ".csv": _from_csv}
    reader = readers.get(file.suffix, datasets.Dataset.from_json)
    try:
        with quiet(), tempfile.TemporaryDirectory() as cache:
            return list(reader(str(file), cache_dir=cache, keep_in_memory=True).to_list())
    except (StopIteration, ValueError, OSError, TypeError, datasets.exceptions.DatasetsError) as error:
        if file.suffix == ".jsonl":
            _explain_lines(file)
        if file.suffix == ".json":
            _explain_whole(file)
        if "no data" in str(error):
            raise DataError(f"{file} is empty; every split needs rows") from error
        cause = error.__cause__ or error
        raise DataError(f"{file} cannot be read as {file.suffix[1:]}: {cause}; mend or replace the file") from error


def _from_csv(file: str, **settings: Any) -> Any:
    """Rows of a CSV file; "None" and "NA" are texts in it, no missing values."""
    import datasets

    return datasets.Dataset.from_csv(file, keep_default_na=False, **settings)


def _explain_lines(file: Path) -> None:
    """Raise a DataError for the first broken line of a file of JSON lines, if there is one."""
    rows = 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            rows += 1
            try:
                value = json.loads(line)
            except ValueError as error:  # UnicodeDecodeError is one
                raise DataError(f"{file}, line {number}: not JSON ({error}); mend or remove the line") from error
            if not isinstance(value, dict):
                raise DataError(f'{file}, line {number}: {line[:40].decode()!r} is no JSON object {{"column": value}}')
    if not rows:
        raise DataError(f"{file} is empty; every split needs rows")


def _explain_whole(file: Path) -> None:
    try:
        value = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}: not JSON ({error.msg}); mend the file") from error
    if not value:
        raise DataError(f"{file} is empty; every split needs rows")


def _table(rows: Sequence[Row], columns: Sequence[str] | None, place: str, split: str) -> Table:
    if not len(rows):
        raise DataError(f"{place} is empty; every split needs rows")
    if columns is None:
        return Table(rows, place, split)
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise DataError(f"{place} has no column {', '.join(missing)}; its columns are {', '.join(rows[0])}")
    chosen = [{column: row[column] for column in columns} for row in rows]
    for number, row in enumerate(chosen, start=1):
        gaps = [column for column, value in row.items() if value is None]
        if gaps:
            raise DataError(f"{place}, row {number}: no value in column {gaps[0]}; mend or remove the row")
    return Table(chosen, place, split)


def _read_hub(
    config: HubConfig, columns: Sequence[str] | None, splits: Sequence[str], extra: Sequence[str]
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
            rows = (
                data if columns is None else data.to_list()
            )  # a task that looks at its rows may want a few of millions
            tables[split] = _table(rows, columns, f"{name}@{builder.hash}, split {split}", split)
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
