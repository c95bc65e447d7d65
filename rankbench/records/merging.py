"""Merges results folders: each run once, with the best of its records; refused where two differ in numbers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rankbench import RankbenchError
from rankbench.records.record import STOPPED, RecordError, RunRecord
from rankbench.records.run_folder import LOCK, RECORD, RunFolder, StoreError, run_folders

NUMBERS = ("metrics", "ranks", "ledger", "history_events")  # of a record: the same wherever and whenever it was made


class MergeError(RankbenchError, ValueError):
    """Folders that cannot be merged; the message names every run that is in the way."""


@dataclass(frozen=True)
class _Candidate:
    """A record of a run: where it lies, how final it is (2: ok, 1: failed, 0: stopped), a hash of its numbers."""

    folder: RunFolder
    finality: int
    numbers: str


@dataclass
class Merged:
    """What a merge did.

    Attributes:
        taken: runs that were brought into the target.
        present: runs that the target had already.
        unfinished: run folders without a record, left where they are.
        problems: a sentence on each run that was not brought over and should have been.
    """

    taken: int = 0
    present: int = 0
    unfinished: int = 0
    problems: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Bring the runs of results folders into one.

    A run that is there several times comes from the folder where it is ok, else where it failed rather than was
    stopped, else from the first. An interrupted merge is finished by the next one. The files of finished runs are hard
    links where the file system allows it, else copies.

    Args:
        sources: results folders; nothing in them is changed.
        target: results folder, which may hold runs.

    Raises:
        MergeError: a source holds no runs, a run is ok in two folders with different numbers, or a file cannot be
            read or written.
    """
    if empty := [str(source) for source in sources if not (source / "runs").is_dir()]:
        raise MergeError(f"{', '.join(empty)}: no runs/ there; name results folders")
    result = Merged()
    best: dict[str, _Candidate] = {}
    conflicts: list[str] = []
    for results_dir in (target, *sources):
        for folder in run_folders(results_dir):
            candidate = _candidate(folder, result, results_dir == target)
            other = best.get(folder.run_id)
            if candidate is None:
                continue
            if other is None or candidate.finality > other.finality:
                best[folder.run_id] = candidate
            elif candidate.finality == other.finality == 2 and candidate.numbers != other.numbers:
                conflicts += _conflict(other.folder, candidate.folder)
    if conflicts:
        way_out = "remove one folder of each, and merge again"
        raise MergeError("\n  ".join([f"runs with different numbers, nothing was merged; {way_out}:", *conflicts]))
    for name, candidate in best.items():
        destination = RunFolder(target, name)
        if candidate.folder.path == destination.path:
            result.present += 1
        else:
            _take(candidate, destination, result)
    return result


def _candidate(folder: RunFolder, result: Merged, in_target: bool) -> _Candidate | None:
    """The record of a folder, as far as a merge looks at it; what has none is counted, or named."""
    try:
        record = folder.record()
    except RecordError as error:
        result.problems.append(f"{error}; not merged")
        return None
    if record is None:
        result.unfinished += not in_target
        return None
    finality = 2 if record.status == "ok" else 0 if record.status in STOPPED else 1
    content = json.dumps([getattr(record, key) for key in NUMBERS], sort_keys=True)
    return _Candidate(folder, finality, hashlib.sha256(content.encode()).hexdigest())


def _conflict(*folders: RunFolder) -> Iterator[str]:
    """In what two records of a run differ."""
    first, second = (folder.record() for folder in folders)
    assert isinstance(first, RunRecord)
    differing = [key for key in NUMBERS if getattr(first, key) != getattr(second, key)]
    yield f"{folders[0].path} and {folders[1].path}: {', '.join(differing)}"


def _take(candidate: _Candidate, destination: RunFolder, result: Merged) -> None:
    """Put a copy of a run in its place: in one step where there is none, else under the lock, the record last."""
    source, staged = candidate.folder, destination.path.with_name(f".{destination.run_id}.merging")
    replaces = destination.path.exists()
    shutil.rmtree(staged, ignore_errors=True)  # of a merge that was interrupted
    try:
        # only what nobody writes to any more may be one file under two names
        copy = _link if candidate.finality == 2 and not replaces else shutil.copy2
        shutil.copytree(source.path, staged, symlinks=True, copy_function=copy, ignore=_hidden)
        if not replaces:
            staged.rename(destination.path)
        else:
            with destination.open():
                _replace(staged, destination.path)
        result.taken += 1
    except StoreError as error:
        shutil.rmtree(staged)
        result.problems.append(f"{source.path}: not merged: {error}")
    except OSError as error:
        raise MergeError(f"{source.path}: cannot be brought to {destination.path} ({error}); merge again") from error


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
