"""A sweep made up from records that no sweep names: a file of records, or a results folder as a whole."""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rankbench.analysis.labels import flat, labels
from rankbench.config import yaml_files
from rankbench.records.record import RunRecord, complete
from rankbench.sweeps.grid import spell
from rankbench.sweeps.manifest import Job, Sweep

NAMED = ("model", "task", "method", "budget")  # sections of a configuration that a name on the command line chooses
FILLED_IN = ("name", "ranks")  # the ranks of a source run, which the command names
RATE = "train.learning_rate"
KIND = "task.kind"  # cannot change a number, and names the settings that can


def sweep_of(records: Sequence[RunRecord], name: str) -> Sweep:
    """The sweep that would have asked for the records: a job for each, and the axes in which runs of one arm differ.

    Args:
        records: finished runs; those with `trial` in their configuration are tuning trials.
        name: name of the sweep.
    """
    settings = [dict(flat(complete(record.config))) for record in records]
    keys = axes(records, settings)
    in_order = sorted(
        zip(records, settings, strict=True), key=lambda pair: [_order(pair[1].get(key, "null")) for key in keys]
    )
    jobs = [
        Job(None, record.run_id, bool(record.config.get("trial")), tuple(_words(record, own, keys)))
        for record, own in in_order
    ]
    asked = [f"{key}={','.join(_values(records, key))}" for key in NAMED]
    asked += [f"{key}={','.join(dict.fromkeys(own.get(key, 'null') for own in settings))}" for key in keys]
    return Sweep(name, name, 0, asked, None, None, jobs)


def axes(records: Sequence[RunRecord], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Settings in which runs of one arm, model, task and budget differ, but for what every comparison leaves free.

    A setting that follows from those before it, by name, is none: task.kind=few-r8 stands for task.map and task.rank.
    The learning rate is one where reported runs of an arm differ in nothing else: then none was chosen.

    Args:
        records: finished runs.
        settings: dotted key -> value as text, for each record.
    """
    from rankbench.analysis.mixed_records import FREE  # pandas takes a moment to import

    names = {key for own in settings for key in own}
    free = [key for key in FREE if key != KIND]
    keys = [key for key in sorted(names) if not any(key == part or key.startswith(f"{part}.") for part in free)]
    reported = [place for place, record in enumerate(records) if not record.config.get("trial")]
    keys += [RATE] * bool(reported)  # the last, so that it parts nothing that another setting parts
    places, label = reported or range(len(records)), labels(records)
    points: list[tuple[Any, ...]] = [
        (label[place], *(getattr(records[place], key) for key in NAMED)) for place in places
    ]
    chosen = []
    for key in keys:
        values = [settings[place].get(key, "null") for place in places]
        if len(set(values)) == 1:
            continue
        at_point: dict[tuple[Any, ...], set[str]] = defaultdict(set)
        for point, value in zip(points, values, strict=True):
            at_point[point].add(value)
        if any(len(several) > 1 for several in at_point.values()):
            chosen.append(key)
            points = [(*point, value) for point, value in zip(points, values, strict=True)]
    return chosen


def _words(record: RunRecord, own: Mapping[str, str], keys: Sequence[str]) -> Iterator[str]:
    """A command line that does the run again: names, seed, axes, and the settings that differ from their defaults."""
    yield from (f"{key}={getattr(record, key)}" for key in NAMED)
    yield f"seed={record.seed}"
    yield from (f"{key}={own.get(key, 'null')}" for key in keys)
    for section, name in (*((key, getattr(record, key)) for key in NAMED), ("train", "default")):
        usual = _defaults(section, name)
        for key, value in (record.config.get(section) or {}).items():
            changed = key in usual and value != usual[key]
            if changed and f"{section}.{key}" not in keys and key not in FILLED_IN:
                yield spell(f"{section}.{key}", value)


@functools.cache
def _defaults(section: str, name: str) -> Mapping[str, Any]:
    return yaml_files.defaults(section, name)


def _order(value: str) -> tuple[float, str]:
    """Key to sort values by: numbers by size, before words."""
    return (float(value), "") if re.fullmatch(r"-?\d+(\.\d+)?(e[-+]?\d+)?", value) else (math.inf, value)


def _values(records: Sequence[RunRecord], key: str) -> list[str]:
    return list(dict.fromkeys(str(getattr(record, key)) for record in records))
