"""Metrics: direction, unit and display name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LOWER_IS_BETTER = ("kl", "loss")
HIGHER_IS_BETTER = (
    "accuracy",
    "exact_match",
    "f1",
    "map_correlation",
    "map_overlap",
    "matthews",
    "pearson",
    "spearman",
)
VALIDATION = "validation/"


def higher_is_better(metric: str) -> bool | None:
    """Whether more of a metric ("validation/accuracy", "kl") is better; None where it is not known."""
    name = metric.split("/")[-1]
    return name in HIGHER_IS_BETTER if name in (*HIGHER_IS_BETTER, *LOWER_IS_BETTER) else None


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
