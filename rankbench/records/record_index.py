"""An index of a results folder: the records of its runs in one parquet file, so that many are collected in seconds.

It is never the source of a record: a row counts as long as record.json is the file that it was read from, by inode,
size and time, and anybody may remove the index. It is written whole or not at all; of two writers the last one wins,
and what the other had read is read again.

A row has the names of a run, and the parts of its record as JSON. Parts that runs share (a model's settings, versions
of packages) stand once in the file, are parsed once, and are one object in all records: nobody may change a record.
"""

from __future__ import annotations

import json
import os
import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.files import write_atomically
from rankbench.records.record import SCHEMA_VERSION, RunRecord

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

FILE = ".index.parquet"  # in runs/, where no folder of a run begins with a dot
FIELDS = tuple(field.name for field in fields(RunRecord))
FORMAT = f"1, schema {SCHEMA_VERSION}: {', '.join(FIELDS)}".encode()
FORMAT_KEY = b"rankbench_index"
STAMP = ("inode", "size", "modified")  # of record.json; modified in nanoseconds
NAMES = ("run_id", "status", "method", "model", "task", "budget")  # columns of text; all others are JSON
PARTS = tuple(key for key in FIELDS if key not in (*NAMES, "config", "ranks"))
SITES, RANKS = "ranks.sites", "ranks.values"  # apart, as all runs of one model have the same sites
CONFIG = "config."  # begins the columns of the sections of the configuration
ABSENT = object()  # a record has nothing in this column
Stamp = tuple[int, int, int]


class RecordIndex:
    """The index of a results folder, read for some of its runs.

    Args:
        folder: the runs/ of a results folder.
        names: run_ids of the runs that are wanted.
        whole: whether these are all runs of the folder, so that the index forgets any other.
    """

    def __init__(self, folder: Path, names: Iterable[str], whole: bool) -> None:
        self._file = folder / FILE
        self._table = self._read()
        run_ids = [] if self._table is None else self._table["run_id"].to_pylist()
        wanted = set(names)
        self._stale = {name for name in run_ids if whole or name in wanted}  # as long as nobody has asked for them
        self._entries = {} if self._table is None else _entries(_rows_of(self._table, run_ids, wanted))
        self._added: dict[str, dict[str, Any]] = {}
        self._writable = os.access(folder, os.W_OK)
        self._parts: dict[str, tuple[str, Any]] = {}  # JSON -> itself and its value, once for all rows

    def get(self, name: str, stamp: Stamp) -> RunRecord | None:
        """The record of a run; None if the index has none of this record.json."""
        written, record = self._entries.get(name, (None, None))
        if written != stamp:
            return None
        self._stale.discard(name)
        return record

    def shared(self, stamp: Stamp, record: RunRecord) -> RunRecord:
        """Take in a record that was read from its file; return it with the parts that others have, too."""
        if not self._writable:
            return record
        row = {**dict(zip(STAMP, stamp, strict=True)), **{key: getattr(record, key) for key in NAMES}}
        parts = _parts(record)
        for key, value in parts.items():
            text = json.dumps(value)
            row[key], parts[key] = self._parts.setdefault(text, (text, value))
        with suppress(UnicodeEncodeError):  # half of a surrogate pair, which JSON can hold and parquet cannot
            "".join(row[key] for key in NAMES).encode()
            self._added[record.run_id] = row
        config = {key: parts[f"{CONFIG}{key}"] for key in record.config}
        return replace(record, config=config, **{key: parts[key] for key in PARTS})

    def save(self) -> None:
        """Write the index again, once more than a hundredth of it has changed; not at all where that is not allowed."""
        before = 0 if self._table is None else len(self._table)
        if 100 * (len(self._added) + len(self._stale)) <= before or not self._writable:
            return
        import pyarrow as pa
        from pyarrow import parquet

        tables = [_table([*self._added.values()])]
        if self._table is not None:
            run_ids = self._table["run_id"].to_pylist()
            kept = set(run_ids) - self._stale - self._added.keys()
            tables.insert(0, _rows_of(self._table, run_ids, kept))
        table = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
        sink = pa.BufferOutputStream()
        parquet.write_table(table.replace_schema_metadata({FORMAT_KEY: FORMAT}), sink, compression="zstd")
        with suppress(OSError):  # somebody else's folder, or a full disk
            write_atomically(self._file, sink.getvalue().to_pybytes(), sync=False)

    def _read(self) -> pa.Table | None:
        """The table in the file; None without one, or with one that another version wrote or nobody can read."""
        if not self._file.exists():
            return None
        import pyarrow as pa  # takes a moment to import
        from pyarrow import parquet

        try:
            table = parquet.ParquetFile(self._file).read()  # read_table imports pyarrow.dataset
        except (pa.ArrowException, OSError) as error:
            warnings.warn(f"{self._file}: cannot be read, and is made again ({error})", stacklevel=2)
            return None
        fits = (table.schema.metadata or {}).get(FORMAT_KEY) == FORMAT
        return table.unify_dictionaries().combine_chunks() if fits else None


def stamp_of(file: str) -> Stamp | None:
    """Tells a record.json from one that replaces it; None if there is none."""
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _parts(record: RunRecord) -> dict[str, Any]:
    """The parts of a record by column; a configuration has one for each of its sections."""
    parts = {key: getattr(record, key) for key in PARTS}
    parts |= {f"{CONFIG}{key}": value for key, value in record.config.items()}
    if record.ranks is not None:
        parts |= {SITES: list(record.ranks), RANKS: list(record.ranks.values())}
    return parts


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table; columns of JSON keep equal texts once."""
    import pyarrow as pa

    columns: dict[str, Any] = {key: pa.array([row[key] for row in rows], pa.int64()) for key in STAMP}
    columns |= {key: pa.array([row[key] for row in rows], pa.string()) for key in NAMES}
    for key in dict.fromkeys(key for row in rows for key in row if key not in columns):
        columns[key] = pa.array([row.get(key) for row in rows], pa.string()).dictionary_encode()
    return pa.table(columns)


def _rows_of(table: pa.Table, run_ids: Sequence[str], names: set[str]) -> pa.Table:
    rows = [row for row, name in enumerate(run_ids) if name in names]
    return table if len(rows) == len(run_ids) else table.take(_integers(rows))


def _integers(values: Sequence[int]) -> pa.Array:
    """Values as pyarrow has them; its own function for lists imports pandas to see whether they are a series."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(array("q", values).tobytes())])


def _entries(table: pa.Table) -> dict[str, tuple[Stamp, RunRecord]]:
    """run_id -> stamp and record, of all rows."""
    stamps = zip(*(table[key].to_pylist() for key in STAMP), strict=True)
    columns = {key: table[key].to_pylist() for key in NAMES}
    columns |= {key: _parsed(table[key]) for key in table.column_names if key not in (*STAMP, *NAMES)}
    sections = {key.removeprefix(CONFIG): columns.pop(key) for key in list(columns) if key.startswith(CONFIG)}
    maps = [columns.pop(key, [ABSENT] * len(table)) for key in (SITES, RANKS)]
    columns["config"] = [_present(sections, values) for values in zip(*sections.values(), strict=True)]
    columns["ranks"] = [
        None if sites is ABSENT else dict(zip(sites, ranks, strict=True)) for sites, ranks in zip(*maps, strict=True)
    ]
    records = (RunRecord(*row) for row in zip(*(columns[key] for key in FIELDS), strict=True))
    return {record.run_id: (stamp, record) for stamp, record in zip(stamps, records, strict=True)}


def _present(keys: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    return {key: value for key, value in zip(keys, values, strict=True) if value is not ABSENT}


def _parsed(column: pa.ChunkedArray) -> list[Any]:
    """Values of a column of JSON; equal ones are one object. All are parsed in one text, so that they share keys."""
    coded = column.combine_chunks()
    places = coded.indices.to_pylist()
    used = sorted({place for place in places if place is not None})
    texts = coded.dictionary.take(_integers(used)).to_pylist()
    values = dict(zip(used, json.loads(f"[{','.join(texts)}]"), strict=True))
    return [values.get(place, ABSENT) for place in places]
