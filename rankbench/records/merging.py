"""Merges results folders and files of records: each run once, its best record; refused where two differ in numbers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rankbench import RankbenchError
from rankbench.records.record import STOPPED, RecordError, RunRecord
from rankbench.records.run_folder import LOCK, RECORD, RunFolder, StoreError, readers, run_folders

NUMBERS = ("metrics", "ranks", "ledger", "history_events")  # of a record: the same wherever and whenever it was made


class MergeError(RankbenchError, ValueError):
    """Folders that cannot be merged; the message names every run that is in the way."""


@dataclass(frozen=True)
class _Candidate:
    """A record of a run.

    Attributes:
        place: path of its folder, or its file and run_id.
        folder: what else the run left; None for a record in a file.
        read: reads the record.
        finality: 2: ok, 1: failed, 0: stopped.
        numbers: hash of its numbers.
    """

    place: str
    folder: RunFolder | None
    read: Callable[[], RunRecord | None]
    finality: int
    numbers: str


@dataclass
class Merged:
    """What a merge did.

    Attributes:
        taken: runs that were brought into the target.
        bare: those of them that came from a file, as a record alone.
        present: runs that the target had already.
        unfinished: run folders without a record, left where they are.
        problems: a sentence on each run that was not brought over and should have been.
    """

    taken: int = 0
    bare: int = 0
    present: int = 0
    unfinished: int = 0
    problems: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Bring the runs of results folders, and records in files, into one results folder.

    A run that is there several times comes from the folder where it is ok, else where it failed rather than was
    stopped, else from the first; files come after folders, as they have the record alone. An interrupted merge is
    finished by the next one. The files of finished runs are hard links where the file system allows it, else copies.

    Args:
        sources: results folders, and files made by `run_folder.save`; nothing in them is changed.
        target: results folder, which may hold runs.

    Raises:
        MergeError: a source is neither a results folder nor a file, a run is ok in two places with different numbers,
            or a file cannot be read or written.
    """
    if empty := [str(source) for source in sources if not source.is_file() and not (source / "runs").is_dir()]:
        raise MergeError(f"{', '.join(empty)}: no runs/ there; name results folders or files of records")
    result = Merged()
    best: dict[str, _Candidate] = {}
    conflicts: list[str] = []
    for source in (target, *sorted(sources, key=Path.is_file)):
        for name, candidate in _candidates(source, result, source == target):
            other = best.get(name)
            if other is None or candidate.finality > other.finality:
                best[name] = candidate
            elif candidate.finality == other.finality == 2 and candidate.numbers != other.numbers:
                conflicts += _conflict(other, candidate)
    if conflicts:
        way_out = "remove one folder or line of each, and merge again"
        raise MergeError("\n  ".join([f"runs with different numbers, nothing was merged; {way_out}:", *conflicts]))
    for name, candidate in best.items():
        destination = RunFolder(target, name)
        if candidate.folder is not None and candidate.folder.path == destination.path:
            result.present += 1
        else:
            _take(candidate, destination, result)
    return result


def _candidates(source: Path, result: Merged, in_target: bool) -> Iterator[tuple[str, _Candidate]]:
    """The runs of a source by run_id, as far as a merge looks at them; what has no record is counted, or named."""
    places: Sequence[tuple[RunFolder | None, Callable[[], RunRecord | None]]]
    if source.is_file():
        places = [(None, read) for read in readers(source)]
    else:
        places = [(folder, folder.record) for folder in run_folders(source)]
    for folder, read in places:
        try:
            record = read()
        except RecordError as error:
            result.problems.append(f"{error}; not merged")
            continue
        if record is None:
            result.unfinished += not in_target
        elif not re.fullmatch(r"\w+", record.run_id):  # it becomes the name of a folder
            result.problems.append(f"{source}: {record.run_id!r} names no run; not merged")
        else:
            place = f"{source} (run {record.run_id})" if folder is None else str(folder.path)
            finality = 2 if record.status == "ok" else 0 if record.status in STOPPED else 1
            content = json.dumps([getattr(record, key) for key in NUMBERS], sort_keys=True)
            numbers = hashlib.sha256(content.encode()).hexdigest()
            yield record.run_id, _Candidate(place, folder, read, finality, numbers)


def _conflict(*candidates: _Candidate) -> Iterator[str]:
    """In what two records of a run differ."""
    first, second = (candidate.read() for candidate in candidates)
    differing = [key for key in NUMBERS if getattr(first, key) != getattr(second, key)]
    yield f"{candidates[0].place} and {candidates[1].place}: {', '.join(differing)}"


def _take(candidate: _Candidate, destination: RunFolder, result: Merged) -> None:
    """Put a copy of a run in its place: in one step where there is none, else under the lock, the record last."""
    staged = destination.path.with_name(f".{destination.run_id}.merging")
    replaces = destination.path.exists()
    shutil.rmtree(staged, ignore_errors=True)  # of a merge that was interrupted
    try:
        if candidate.folder is None:
            record = candidate.read()
            assert record is not None
            staged.mkdir(parents=True)
            (staged / RECORD).write_text(record.to_json())
        else:
            # only what nobody writes to any more may be one file under two names
            copy = _link if candidate.finality == 2 and not replaces else shutil.copy2
            shutil.copytree(candidate.folder.path, staged, symlinks=True, copy_function=copy, ignore=_hidden)
        if not replaces:
            staged.rename(destination.path)
        else:
            with destination.open():
                _replace(staged, destination.path)
        result.taken += 1
        result.bare += candidate.folder is None
    except StoreError as error:
        shutil.rmtree(staged)
        result.problems.append(f"{candidate.place}: not merged: {error}")
    except OSError as error:
        raise MergeError(
            f"{candidate.place}: cannot be brought to {destination.path} ({error}); merge again"
        ) from error


def _replace(staged: Path, place: Path) -> None:
    for old in place.iterdir():
        if old.name != LOCK:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for new in sorted(staged.iterdir(), key=lambda file: file.name == RECORD):
        new.rename(place / new.name)
    staged.rmdir()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _hidden(folder: str, names: list[str]) -> list[str]:
    """Names that stay behind: the lock, which is a process's own, and what a killed process had begun to write."""
    return [name for name in names if name.startswith(".")]
