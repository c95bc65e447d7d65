"""Names and values under which a mirror shows a run, live or afterwards; independent of any service.

Namespaces: train/ (steps), ranks/, budget/, eval/<split>/<metric>, cost/<phase>/<what>.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rankbench.core.sites import parse_site
from rankbench.records.record import RunRecord, group_id

# Keys of a row of steps.jsonl -> names; the others are train/<key>.
PLACES = {"ranks": "ranks/total", "params": "budget/params"}
MOST_MAPS = 8  # pictures of a run's rank map over time
Row = tuple[str, int | None, str, int]


def names(run_id: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Id, display name, group and job type: a group differs in the seed alone, a job type is a method."""
    parts = [config[section]["name"] for section in ("model", "task", "method", "budget")]
    return {
        "id": run_id,
        "name": "-".join([*parts, f"seed{config['seed']}"]),
        "group": "-".join([*parts, group_id(config)]),
        "job_type": parts[2],
    }


def step_figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of steps.jsonl by the mirror's names, without what was not measured."""
    return {PLACES.get(key, f"train/{key}"): value for key, value in row.items() if key != "step" and value is not None}


def record_figures(record: RunRecord) -> dict[str, Any]:
    """Everything a record says in one number or word, by the mirror's names, without what was not measured."""
    figures = {
        "status": record.status,
        "reason": record.reason,
        "ranks/changes": record.history_events,
        **dict(_flat("eval", record.metrics or {})),
        **dict(_flat("budget", record.ledger or {})),
        **dict(_flat("cost", record.cost or {})),
    }
    return {key: value for key, value in figures.items() if value is not None}


def rank_rows(ranks: Mapping[str, int]) -> list[Row]:
    """Site, layer, kind and rank of each site, by name: a record read from disk has lost the model's order."""
    return [(site, *parse_site(site), rank) for site, rank in sorted(ranks.items())]


def maps_over_time(ranks: Mapping[str, int], changes: Sequence[Mapping[str, Any]]) -> list[tuple[int, dict[str, int]]]:
    """Step and rank map at the start (step 0) and after each step that changed it; at most MOST_MAPS, spread evenly.

    Args:
        ranks: final ranks, site -> rank.
        changes: rows of ranks.jsonl, in their order (step, site, before, after).
    """
    current, maps = dict(ranks), []
    for step in sorted({row["step"] for row in changes}, reverse=True):
        maps.append((step, dict(current)))
        for row in reversed([row for row in changes if row["step"] == step]):
            current[row["site"]] = row["before"]
    maps = [*maps, (0, current)][::-1]
    if len(maps) <= MOST_MAPS:
        return maps
    return [maps[round(place * (len(maps) - 1) / (MOST_MAPS - 1))] for place in range(MOST_MAPS)]


def _flat(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}/{key}", value)
        else:
            yield f"{prefix}/{key}", value
