"""What has to agree among the records of a table (code, versions, data, settings); the refusal of what does not."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import flat
from rankbench.records.record import CONTENT, NOT_IDENTITY, RunRecord

# What may differ within a comparison: what is compared, what pairs are made by, what is chosen, what is no setting.
FREE = ("method", "seed", "train.learning_rate", "trial", *NOT_IDENTITY, *CONTENT)

# What is filled in from another run may differ wherever that run may be named.
FILLED_IN = {"train.passes_of": "train.steps", "budget.peak_of": "budget.target"}


def differences(records: Sequence[RunRecord], free: Collection[str] = ()) -> list[str]:
    """What has to agree in a comparison and does not, with its values: "torch: 2.13, 2.14", "train.steps: 60, 100".

    Args:
        records: records of one table.
        free: settings in which they may differ, besides FREE.
    """
    one_each = {
        json.dumps([record.provenance.get("packages"), _compared(record)], sort_keys=True): record for record in records
    }
    free = [*free, *(FILLED_IN[key] for key in free if key in FILLED_IN)]
    settings = [_versions(record) | dict(flat(_compared(record))) for record in one_each.values()]
    sources = [_sources(record) for record in records]
    values = {key: {each.get(key, "null") for each in settings} for key in {key for each in settings for key in each}}
    values |= {key: {each[key] for each in sources if key in each} for key in {key for each in sources for key in each}}
    differing = {key: several for key, several in values.items() if len(several) > 1 and not _is_free(key, free)}
    return sorted([*_differing_code(records), *_lines(differing)], key=_name)


def differing_code(records: Sequence[RunRecord]) -> list[str]:
    """Lines on code and library versions that differ, as `differences` returns them."""
    one_each = {json.dumps(record.provenance.get("packages")): record for record in records}
    versions = [_versions(record) for record in one_each.values()]
    values = {key: {each.get(key, "null") for each in versions} for key in {key for each in versions for key in each}}
    return sorted([*_differing_code(records), *_lines(values)], key=_name)


def refuse(mixed: Mapping[str, Sequence[str]], allowed: Collection[str], way_out: str) -> None:
    """Refuse records that differ where that was not allowed, in all tables at once.

    Args:
        mixed: title of a table -> what `differences` finds in it.
        allowed: names ("code", "torch", "train.steps") of what may differ.
        way_out: sentence on what can be done about it, besides allowing it.

    Raises:
        SelectionError: with each table, what differs in it, and the names that would allow it.
    """
    refused = {title: [line for line in lines if _name(line) not in allowed] for title, lines in mixed.items()}
    tables = [f"{title}: {'; '.join(lines)}" for title, lines in refused.items() if lines]
    if tables:
        names = ",".join(dict.fromkeys(_name(line) for lines in refused.values() for line in lines))
        raise SelectionError(
            f"not one comparison, these differ within a table: {' | '.join(tables)}. {way_out}, or allow by name what "
            f"may differ: --allow-mixed {names}"
        )


def code_of(record: RunRecord) -> str:
    """The commit of a record's code, and whether it was changed: "1a2b3c4 changed"."""
    commit, changed = record.provenance.get("git_commit"), record.provenance.get("git_dirty")
    return f"{(commit or 'null')[:7]}{' changed' if changed else ''}"


def _differing_code(records: Sequence[RunRecord]) -> Iterator[str]:
    """Yield a line if the records come from several versions of the code.

    provenance.numbers_code is the hash of the code that can change a run's numbers: one for each method and task, so
    that neither a change to a page nor one to another method parts a table. provenance.shared_code is that of what all
    methods go through on a task: one for each task, or methods would be compared across a change to the trainer.
    Records without numbers_code go by their commit.
    """
    hashed = [record for record in records if record.provenance.get("numbers_code")]
    commits = sorted({code_of(record) for record in records if not record.provenance.get("numbers_code")})
    if hashed and commits:  # nobody knows whether it is the same code
        yield (
            f"code: {len(hashed)} records with numbers_code, {len(records) - len(hashed)} made before there was one "
            f"({', '.join(commits)})"
        )
    elif hashed:
        codes: dict[str, set[str]] = defaultdict(set)
        for record in hashed:
            codes[f"{record.method} on {record.task}"].add(str(record.provenance["numbers_code"]))
            codes[f"all methods on {record.task}"].add(str(record.provenance.get("shared_code")))
        parted = [
            f"{what} ({', '.join(sorted(several))})" for what, several in sorted(codes.items()) if len(several) > 1
        ]
        if parted:
            yield f"code: {', '.join(parted)}"
    elif len(commits) > 1:
        yield f"code: {', '.join(commits)}"


def _lines(values: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """A line for each key with several values."""
    for key, several in values.items():
        if len(set(several)) > 1:
            yield f"{key}: {', '.join(sorted(several))}"


def _name(line: str) -> str:
    """What a line of `differences` is about, as --allow-mixed takes it."""
    return line.partition(": ")[0]


def _compared(record: RunRecord) -> dict[str, Any]:
    """The config without the sections that are free."""
    return {key: value for key, value in record.config.items() if key not in FREE}


def _versions(record: RunRecord) -> dict[str, str]:
    return {name: str(version) for name, version in (record.provenance.get("packages") or {}).items()}


def _sources(record: RunRecord) -> dict[str, str]:
    """Hashes or revisions of weights, data and prompt; without those that a run failed too early to know."""
    model, task = (record.provenance.get(key) or {} for key in ("model", "task"))
    sources = {"weights": model.get("model"), "data": task.get("data"), "prompt": task.get("prompt")}
    return {key: str(value) for key, value in sources.items() if value}


def _is_free(key: str, also: Collection[str]) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in (*FREE, *also))
