"""Runs on disk: results_dir/runs/<run_id>/ with record.json, steps.jsonl, items.jsonl, ranks.jsonl, adapter/.

A record is written whole or not at all; a folder is one process's at a time; a checkpoint says whose it is.
"""

from __future__ import annotations

import gc
import json
import lzma
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from filelock import FileLock, Timeout

from rankbench import RankbenchError
from rankbench.files import expanded, write_atomically
from rankbench.records.record import RecordError, RunRecord, ordered, portable
from rankbench.records.record_index import RecordIndex, stamp_of

RUNS = "runs"  # in a results folder: the folder of each run
RECORD = "record.json"
LOCK = ".lock"
STARTED = "started.json"  # the provenance of a run that has not ended
PACKED = ".xz"  # suffix of a compressed file of records
PRESET = 3  # of its compression; lzma's own choice, 6, takes five times as long for 13 % less
LOG = "log.txt"  # what the run printed, in a sweep
HELD_UP = (
    75  # exit code (EX_TEMPFAIL): the run folder was unavailable; the run itself did not fail, and leaves no record
)


class StoreError(RankbenchError, RuntimeError):
    """A results folder that cannot be used as asked; the message says what to do."""


class RunFolder:
    """The folder of one run.

    Args:
        results_dir: results folder of the config.
        run_id: name of the run.
    """

    def __init__(self, results_dir: Path, run_id: str) -> None:
        self.run_id = run_id
        self.path = results_dir / RUNS / run_id
        self._named_after_run = True  # the folder's name is the run_id

    @classmethod
    def from_path(cls, path: Path) -> RunFolder:
        """A run folder that lies anywhere and has any name, such as a copy."""
        folder = cls(path.parent, path.name)
        folder.path, folder._named_after_run = path, False
        return folder

    @contextmanager
    def open(self, wait: bool = False) -> Iterator[None]:
        """Make the folder and lock it against other processes.

        Args:
            wait: whether to wait until the process that works on the run has ended.

        Raises:
            StoreError: it cannot be written, or another process works on the run and `wait` is False.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._lock()
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise StoreError(f"{self.path}: another process is working on this run; wait for it or stop it") from None
        except OSError as error:
            raise StoreError(f"results_dir cannot be written: {self.path}: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    def busy(self) -> bool:
        """Whether a process is working on the run now; no where that cannot be asked: whoever opens the folder is told.

        The folder may be somebody else's, or on a file system that has no locks just now.
        """
        if not (self.path / LOCK).exists():
            return False
        try:
            with self._lock().acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def _lock(self) -> FileLock:
        return FileLock(self.path / LOCK)

    def record(self) -> RunRecord | None:
        """The record, None if there is none yet.

        Raises:
            RecordError: there is a file that is none, or the record of another run.
        """
        file = self.path / RECORD
        try:
            text = file.read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        record = RunRecord.from_json(text, str(file))
        if self._named_after_run and record.run_id != self.run_id:
            raise RecordError(f"{file}: the record of another run, {record.run_id}")
        return record

    def readable_record(self) -> RunRecord | None:
        """The record; None also for a file that is no record of this run: whoever does the run says so."""
        try:
            return self.record()
        except RecordError:
            return None

    def set_aside(self) -> Path:
        """Keep a record.json that cannot be read under another name, so that the run can be done."""
        file = self.path / RECORD
        return file.replace(file.with_suffix(".unreadable"))

    def write_record(self, record: RunRecord) -> None:
        """Write record.json atomically."""
        self.write(RECORD, record.to_json())

    def write(self, name: str, text: str) -> None:
        """Write a file atomically: it has the old content or the new one, at every moment."""
        write_atomically(self.path / name, text.encode())

    def write_lines(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Write a JSON-lines file atomically."""
        self.write(name, _lines(rows))

    def write_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Write a folder of files, each atomically.

        Args:
            name: of the folder.
            write: writes the files into the folder that it is given.
        """
        target, staging = self.path / name, self.path / f".{name}.{secrets.token_hex(8)}.tmp"
        write(staging)
        target.mkdir(exist_ok=True)
        for file in staging.iterdir():
            file.replace(target / file.name)
        staging.rmdir()

    def settle_lines(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Write a JSON-lines file again if it holds anything else: where locks do nothing, two processes append."""
        text = _lines(rows)
        file = self.path / name
        if not file.exists() or file.read_text(errors="replace") != text:
            self.write(name, text)

    def json(self, name: str) -> Any:
        """Content of a JSON file; None without one, or with one that was cut off."""
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, json.JSONDecodeError):
            return None

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Add one line to a JSON-lines file."""
        with (self.path / name).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Rows of a JSON-lines file, an unfinished last line left out; [] if there is no file."""
        file = self.path / name
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def write_checkpoint(self, content: bytes) -> None:
        """Write the checkpoint atomically."""
        write_atomically(self.checkpoint_file(), content)

    def checkpoint_file(self) -> Path:
        """Path of the checkpoint."""
        return self.path / "checkpoint.pt"

    def forget(self) -> None:
        """Remove the files that only an unfinished run needs."""
        self.remove(self.checkpoint_file().name)
        self.remove(STARTED)

    def remove(self, name: str) -> None:
        """Remove a file of the folder, if it is there."""
        (self.path / name).unlink(missing_ok=True)


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def places(run: str, results_dir: Path) -> list[Path]:
    """Paths where a run named by the user may lie: the path itself, or its run_id under results_dir."""
    return [expanded(run), results_dir / RUNS / run]


def run_names(results_dir: Path) -> list[str]:
    """Names of the run folders of a results folder, in order; [] where it has none."""
    try:
        with os.scandir(results_dir / RUNS) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def run_folders(results_dir: Path) -> list[RunFolder]:
    """The run folders of a results folder, by name; [] where it has none."""
    return [RunFolder(results_dir, name) for name in run_names(results_dir)]


MANY = 2000  # runs; fewer are read sooner than pyarrow is imported
KEYS = ("model", "task", "method", "budget", "seed")


def records(source: Path) -> tuple[list[RunRecord], list[str]]:
    """Records of a results folder, or of a file made by `save`; and what is missing or not read, by name."""
    read_records: list[RunRecord] = []
    problems = []
    with without_garbage_collection():
        for name, record in _in_file(source) if source.is_file() else collected(source):
            if isinstance(record, RunRecord):
                read_records.append(record)
            else:
                problems.append(str(record or f"{source / RUNS / name}: no record: killed or still running"))
        in_order = sorted(read_records, key=lambda record: [getattr(record, key) for key in KEYS])
    return in_order, problems


def collected(
    results_dir: Path, names: Sequence[str] | None = None
) -> Iterator[tuple[str, RunRecord | RecordError | None]]:
    """run_id and record of each run; None in its place where there is none yet, or the error that it cannot be read.

    Args:
        results_dir: results folder; of many runs it keeps an index (rankbench.records.record_index).
        names: run_ids of the runs that are wanted; None: all there are.
    """
    wanted = run_names(results_dir) if names is None else names
    if len(wanted) < MANY:
        for name in wanted:
            yield name, _record_or_error(RunFolder(results_dir, name))
        return
    runs = results_dir / RUNS
    index = RecordIndex(runs, wanted, names is None)
    for name in wanted:
        stamp = stamp_of(f"{runs}/{name}/{RECORD}")
        record = index.get(name, stamp) if stamp is not None else None
        if record is not None or stamp is None:
            yield name, record
            continue
        read = _record_or_error(RunFolder(results_dir, name))
        yield name, index.shared(stamp, read) if isinstance(read, RunRecord) else read
    index.save()


def _record_or_error(folder: RunFolder) -> RunRecord | RecordError | None:
    try:
        return folder.record()
    except RecordError as error:
        return error


def _in_file(file: Path) -> Iterator[tuple[str, RunRecord | RecordError]]:
    for number, read in enumerate(readers(file), 1):
        try:
            yield str(number), read()
        except RecordError as error:
            yield str(number), error


def readers(file: Path) -> list[Callable[[], RunRecord]]:
    """For each line of a file of records, what reads it, or raises RecordError."""
    with _opened(file, "r") as source:
        lines = list(enumerate(source.read().splitlines(), 1))
    return [partial(RunRecord.from_json, line, f"{file}:{number}") for number, line in lines]


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Nothing that is read here is in a circle: to look for some, again and again, takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def save(runs: Iterable[RunRecord], file: Path) -> None:
    """Records in compact form, one line each, without the folders of the machine they were made on.

    Args:
        runs: the records, in the order of the lines.
        file: is overwritten; compressed where its name ends with .xz, which takes a fortieth of the space.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _opened(file, "w") as target:
        for record in runs:
            target.write(json.dumps(ordered(portable(vars(record)))) + "\n")


def pack(file: Path, packed: Path) -> None:
    """Write a compressed copy of a file of records."""
    with file.open("rb") as source, lzma.open(packed, "wb", preset=PRESET) as target:
        shutil.copyfileobj(source, target)


def _opened(file: Path, mode: Literal["r", "w"]) -> TextIO:
    """A file of records as text; bytes that are none are read as a replacement character, which no record has."""
    if file.suffix == PACKED:
        preset = PRESET if mode == "w" else None
        return cast(TextIO, lzma.open(file, f"{mode}t", preset=preset, encoding="utf-8", errors="replace"))
    return file.open(mode, encoding="utf-8", errors="replace")
