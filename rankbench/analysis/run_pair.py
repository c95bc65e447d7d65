"""Two finished runs as a pair: whether they may be compared, warnings about it, and settings in which they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankbench import RankbenchError
from rankbench.analysis.labels import flat
from rankbench.records.record import RecordError, RunRecord, complete
from rankbench.records.run_folder import RunFolder, places

NAMED = 5  # items that a message names
MAP = "method.ranks."  # a map given as a setting is shown among the ranks

Item = dict[str, Any]


class CompareError(RankbenchError, ValueError):
    """Runs that cannot be compared; the message says why, and what to give."""


@dataclass(frozen=True)
class PairedRun:
    """One of the two runs.

    Attributes:
        name: "A" or "B".
        record: its record, read from disk.
        items: id -> row of items.jsonl; empty where the run left none.
    """

    name: str
    record: RunRecord
    items: dict[Any, Item]


def load(name: str, run: str, results_dir: Path) -> PairedRun:
    """Load a run by its folder, or by its run_id under results_dir/runs.

    Raises:
        CompareError: there is none, or its files cannot be read.
    """
    tried = places(run, results_dir)
    folder = next((RunFolder.from_path(path) for path in tried if (path / "record.json").is_file()), None)
    if folder is None:
        raise CompareError(
            f"{name}: no run {run!r}: neither {tried[0]} nor {tried[1]} has a record.json; give a run's folder, or "
            "its run_id and --results DIR"
        )
    try:
        record, rows = folder.record(), folder.lines("items.jsonl")
        items = {row["id"]: row for row in rows}
    except (RecordError, json.JSONDecodeError, KeyError) as error:
        raise CompareError(f"{name}: {folder.path} cannot be read: {error!r}; do the run again") from error
    if len(items) < len(rows):
        raise CompareError(
            f"{name}: {folder.path}/items.jsonl names {len(rows)} items by {len(items)} ids: they make no pairs; do "
            "the run again"
        )
    assert record is not None  # the file is there
    return PairedRun(name, record, items)


def refuse_unlike(a: PairedRun, b: PairedRun) -> None:
    """Refuse runs of two tasks and, where both have items, runs scored on different items.

    Raises:
        CompareError: other tasks, item ids, gold answers, or generated items whose sameness cannot be seen.
    """
    if a.record.task != b.record.task:
        raise CompareError(f"A is a run of {a.record.task}, B of {b.record.task}: give two of one task")
    if not (a.items and b.items):
        return
    for one, other in ((a, b), (b, a)):
        _refuse(f"{one.name} has items that {other.name} has not", [key for key in one.items if key not in other.items])
    shared = [(key, a.items[key], b.items[key]) for key in a.items]
    _refuse("gold answers differ", [key for key, one, other in shared if one["gold"] != other["gold"]])
    drawn_by = [key for key, *_ in config_differences(a.record, b.record) if key == "seed" or key.startswith("task.")]
    if drawn_by and any(one["gold"] is None for _, one, _ in shared):
        raise CompareError(
            f"the items have no gold answer to be known by, and {', '.join(drawn_by)} differ: item 0 of A need not be "
            "item 0 of B; give runs that agree in them"
        )


def _refuse(what: str, keys: Sequence[Any]) -> None:
    if keys:
        raise CompareError(f"{what}: {listed(keys)}; give runs scored on the same items (data, seed, sizes)")


def listed(keys: Sequence[Any]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(map(str, keys[:NAMED])) + more


def warnings(a: PairedRun, b: PairedRun) -> Iterator[str]:
    """Sentences to read before the numbers: runs that are not ok, different code, different data."""
    for run in (a, b):
        if run.record.status != "ok":
            yield f"{run.name} is {run.record.status} ({run.record.reason}): what it did measure is shown"
    for fact in (_code_fact(a.record, b.record), "task"):
        values = [run.record.provenance.get(fact) for run in (a, b)]
        if values[0] != values[1]:
            yield f"provenance: {fact} differs: {_said(values[0])} and {_said(values[1])}"
    for run in (a, b):
        if run.record.provenance.get("git_dirty"):
            yield f"{run.name}: its code had changes that were not committed"


def _code_fact(a: RunRecord, b: RunRecord) -> str:
    """Key of the provenance that tells whether two runs had one code: numbers_code for runs of one method and task."""
    alike = (a.method, a.task) == (b.method, b.task)
    return "numbers_code" if alike and all(each.provenance.get("numbers_code") for each in (a, b)) else "git_commit"


def _said(value: Any) -> str:
    """A fact as text; of a hash, the first digits."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(part)}" for key, part in value.items())
    return str(value)[:12]


def config_differences(a: RunRecord, b: RunRecord) -> list[tuple[str, str, str]]:
    """Dotted key and both values of each setting that differs, a given rank map left out; "" where a run lacks it."""
    first, second = dict(flat(complete(a.config))), dict(flat(complete(b.config)))
    keys = sorted(key for key in first.keys() | second.keys() if not key.startswith(MAP))
    return [(key, first.get(key, ""), second.get(key, "")) for key in keys if first.get(key) != second.get(key)]
