"""Where a user's own data lies: one file, a folder with a file per split, or a data set saved by `datasets`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankbench.files import expanded
from rankbench.tasks.base import DataError
from rankbench.tasks.text.dataset_files import SUFFIXES, Table
from rankbench.tasks.text.file_formats import Row, load_file, named, quiet

# Split -> names that its file may have, as the Hub's own builders know them.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
FORMATS = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
WAYS_OUT = {
    ".tsv": "save it as .csv, with commas between the columns",
    ".txt": "save it as .jsonl, or as .csv with a line of column names",
    ".xlsx": "save it as .csv",
    ".xls": "save it as .csv",
    ".ndjson": "rename it to .jsonl",
    ".gz": "unpack it: gunzip",
    ".zip": "unpack it: unzip",
    ".bz2": "unpack it: bunzip2",
    ".zst": "unpack it: unzstd",
    ".arrow": "name the folder that it lies in, if datasets.save_to_disk wrote it",
}
SAVED = "dataset_info.json"  # datasets.Dataset.save_to_disk writes it, and DatasetDict.save_to_disk one per split


def own_tables(data_dir: str, lists: Sequence[str]) -> dict[str, Table]:
    """Tables of the splits that are there, "train" at least; columns of nested objects are called "outer.inner".

    Args:
        data_dir: a file, whose rows are "train"; or a folder.
        lists: columns whose cells in a CSV file are JSON lists.

    Raises:
        DataError: no file, one of another kind, a line that cannot be read, or no rows.
    """
    place = expanded(data_dir)
    if not place.exists():
        raise DataError(f"task.data_dir={data_dir}: no such file or folder{_meant(place)}")
    files = {"train": place} if place.is_file() else _split_files(place)
    return {split: _table(split, file, lists) for split, file in files.items()}


def _meant(place: Path) -> str:
    """What lies beside a path that does not exist."""
    parent = place.absolute().parent
    if not parent.is_dir():
        return f"; {parent} does not exist either"
    near = difflib.get_close_matches(place.name, [other.name for other in parent.iterdir()], n=3)
    return f"; did you mean {', '.join(near)}?" if near else f"; {parent} has no file of a like name"


def _split_files(folder: Path) -> dict[str, Path]:
    """Split -> its file, or its folder in a saved data set."""
    if (folder / SAVED).is_file():
        return {"train": folder}
    content = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    files = {}
    for split, names in SPLITS.items():
        name = re.compile(
            rf"({'|'.join(names)})(-00000-of-00001)?(\..*)?"
        )  # the number is that of the hub's only shard
        candidates = [file for file in content if name.fullmatch(file.name)]
        candidates = [file for file in candidates if file.is_file() or (file / SAVED).is_file()]
        if len(candidates) > 1:
            raise DataError(f"{folder} has {' and '.join(file.name for file in candidates)}; keep one of them")
        if candidates:
            files[split] = candidates[0]
    if "train" not in files:
        present = ", ".join(file.name for file in content) or "nothing"
        raise DataError(
            f"{folder} has no train file: expected train.jsonl (or {', '.join(SUFFIXES[1:])}), found {present}; "
            "rename one, or give a single file as task.data_dir, out of which validation and test are carved"
        )
    return files


def _table(split: str, file: Path, lists: Sequence[str]) -> Table:
    if file.is_dir():
        rows, lines = _saved(file), list[int]()
    else:
        if file.suffix not in SUFFIXES:
            small = file.suffix.lower()
            other = f"rename it to {small}" if small in SUFFIXES else f"save it as {FORMATS}"
            way_out = WAYS_OUT.get(small, other)
            raise DataError(f"{file}: {file.suffix or 'a file without a suffix'} is not read here; {way_out}")
        rows, lines = load_file(file, lists)
    if not rows:
        raise DataError(f"{file} has no rows")
    return Table([_flat(row) for row in rows], str(file), split, lines)


def _saved(folder: Path) -> list[Row]:
    import datasets

    try:
        with quiet():
            return named(datasets.load_from_disk(str(folder)))
    except (OSError, ValueError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{folder} cannot be read as a saved data set: {error}; save it again") from error


def _flat(row: Row, before: str = "") -> dict[str, Any]:
    """The row with the columns of nested objects beside its own."""
    if not any(isinstance(value, dict) for value in row.values()):
        return {f"{before}{key}": value for key, value in row.items()} if before else row
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return flat
