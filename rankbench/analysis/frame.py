"""Records as one tidy frame, a row per run; and the groups of records that make one table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from rankbench import RankbenchError
from rankbench.analysis.labels import flat, labels
from rankbench.records.record import RunRecord, complete
from rankbench.records.run_folder import KEYS


def frame(
    records: Sequence[RunRecord], settings: Iterable[str] = (), names: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row per run: keys, label, status, rate, metrics as "test/loss", ledger as "final/params", cost by phase.

    Args:
        records: finished runs; `label` tells those of one method apart by the settings in which they differ.
        settings: dotted keys of the config to show as well, as text ("task.map").
        names: labels, where they tell apart more records than these; None: `labels` of the records.
    """
    data = pd.DataFrame([_row(record) for record in records])
    data["label"] = labels(records) if names is None else names
    wanted = list(settings)
    configs = [dict(flat(complete(record.config))) for record in records] if wanted else []
    for key in wanted:
        data[key] = [config.get(key) for config in configs]
    return data


def _row(record: RunRecord) -> dict[str, Any]:
    row: dict[str, Any] = {key: getattr(record, key) for key in ("run_id", *KEYS, "status")}
    row["learning_rate"] = record.config.get("train", {}).get("learning_rate")
    tuned = record.config.get("tuned") or {}
    row["at_edge"] = bool(tuned.get("edge") or tuned.get("missing"))
    ledger, cost = record.ledger or {}, dict(record.cost or {})
    row |= {key: ledger.get(key) for key in ("unit", "target", "grain", "head_params")}
    row["match"] = record.config.get("budget", {}).get("match", "final")
    row["budget_kind"] = record.budget_kind
    row["peak_memory_bytes"] = cost.pop("peak_memory_bytes", None)
    figures = {when: ledger.get(when) for when in ("start", "peak", "final")}
    for group in (record.metrics or {}, figures, cost):
        row |= {f"{name}/{key}": value for name, values in group.items() for key, value in (values or {}).items()}
    return row


def split(records: Sequence[RunRecord], by: Sequence[str]) -> list[tuple[str, list[RunRecord]]]:
    """Group records by model, task, budget and the values of the settings `by`; title and records of each group.

    Raises:
        SelectionError: a key that no record has.
    """
    groups: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    configs = [dict(flat(complete(record.config))) for record in records]
    for key in by:
        if not any(key in config for config in configs):
            raise SelectionError(f"no record has a setting {key!r}; a key is written as on the command line: task.map")
    for record, config in zip(records, configs, strict=True):
        values = (f"{key}={config.get(key, 'null')}" for key in by)
        groups[record.model, record.task, f"budget {record.budget}", *values].append(record)
    return [(", ".join(group), members) for group, members in sorted(groups.items())]


class SelectionError(RankbenchError, ValueError):
    """Records that cannot be compared as asked; the message names them and says what to do."""


def refuse_twice(runs: pd.DataFrame) -> None:
    """Refuse several records of a seed among runs of one label and learning rate: pairs are made by seed.

    Raises:
        SelectionError: a seed with several, by their run ids.
    """
    twice = runs[runs["seed"].duplicated(keep=False)].sort_values("seed")
    if len(twice):
        seed = twice["seed"].iloc[0]
        run_ids = ", ".join(twice["run_id"][twice["seed"] == seed])
        raise SelectionError(
            f"{twice['label'].iloc[0]} has several records of seed {seed}: {run_ids}; "
            "split them by the setting that differs with --by KEY, or keep one"
        )


OWN = [f"{phase}/{what}" for what in ("forward_passes", "backward_passes") for phase in ("calibration", "allocation")]
