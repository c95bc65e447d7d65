"""What a run will cost, from the records of runs like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rankbench.records.record import PHASES, RunRecord

KIND = ("batch_size", "micro_batch_size", "threads")  # of the train section: what decides how long a step takes


def kind(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """The settings that decide how long a step takes."""
    train = config["train"]
    return (config["model"]["name"], config["task"]["name"], *(train.get(key) for key in KIND))


def from_records(records: Sequence[RunRecord]) -> Callable[[Mapping[str, Any]], float | None]:
    """Seconds of a run, estimated from finished runs of its kind: those of its method where there are some, else all.

    Calibration and evaluation are taken as they were, training and allocation by the step.
    """
    per_step: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for record in records:
        if record.status == "ok" and record.cost:
            spent = [record.cost[phase]["seconds"] for phase in PHASES]
            steps = record.config["train"]["steps"]
            for key in ((*kind(record.config), record.method), kind(record.config)):
                per_step.setdefault(key, []).append((spent[0] + spent[3], (spent[1] + spent[2]) / steps))
    means = {key: [sum(values) / len(runs) for values in zip(*runs, strict=True)] for key, runs in per_step.items()}

    def cost(config: Mapping[str, Any]) -> float | None:
        mean = means.get((*kind(config), config["method"]["name"])) or means.get(kind(config))
        return None if mean is None else float(mean[0] + mean[1] * config["train"]["steps"])

    return cost
