"""Made-up records for the tests of code that reads records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankbench.records.record import RunRecord


def record(method: str, seed: int, **changes) -> RunRecord:
    figures = {"ranks": 4, "params": 64}
    spent = {"seconds": 2.0, "forward_passes": 3, "backward_passes": 1, "tokens": 10}
    content = {
        "run_id": f"{method}{seed}",
        "status": "ok",
        "reason": None,
        "method": method,
        "model": "tiny",
        "task": "planted",
        "budget": "r1",
        "seed": seed,
        "config": {},
        "provenance": {"git_commit": "c" * 40, "git_dirty": False},
        "ledger": {
            "unit": "params",
            "target": 64,
            "head_params": 0,
            **dict.fromkeys(("start", "peak", "final"), figures),
        },
        "metrics": {"before": {"step": 0, "kl": 0.5}, "validation": None, "test": {"step": 9, "kl": 0.25}},
        "cost": {
            **dict.fromkeys(("calibration", "training", "allocation", "evaluation"), spent),
            "peak_memory_bytes": 2**20,
        },
    }
    return RunRecord(**{**content, **changes})


def sweep(
    curve: Mapping[float, Sequence[float]],
    metric: str = "loss",
    method: str = "lora",
    settings: Mapping[str, Any] | None = None,
) -> list[RunRecord]:
    """Records of one method; `curve`: learning rate -> validation metric at seeds 0, 1, ... (test: negated)."""
    return [
        record(
            method,
            seed,
            config={"method": {"name": method, **(settings or {})}, "train": {"learning_rate": rate}},
            metrics={"validation": {"step": 9, metric: value}, "test": {"step": 9, metric: -value}},
        )
        for rate, values in curve.items()
        for seed, value in enumerate(values)
    ]


def runs(
    method: str,
    values: Mapping[int, float],
    metric: str = "kl",
    settings: Mapping[str, Any] | None = None,
    **config: Mapping[str, Any],
) -> list[RunRecord]:
    """Records of one method at one learning rate from the test metric of each seed; `config` adds sections."""
    section = {"name": method, **(settings or {})}
    return [
        record(
            method,
            seed,
            run_id=f"{method}{seed}",
            config={"method": section, "train": {"learning_rate": 0.01}, **config},
            metrics={"test": {"step": 9, metric: value}},
        )
        for seed, value in values.items()
    ]
