"""Learning rates chosen on validation: pure functions on a frame of runs, which cannot see its test columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pandas as pd

GROUP = ("model", "task", "budget", "label")  # what one learning rate is chosen for
LOWER_IS_BETTER = frozenset({"loss", "kl"})  # of all other metrics more is better
VALIDATION = "validation/"


class SelectionError(ValueError):
    """Records that cannot be compared as asked; the message names them and says what to do."""


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric ("validation/accuracy", "kl") is better."""
    return metric.split("/")[-1] not in LOWER_IS_BETTER


def rate_curves(data: pd.DataFrame, metric: str, seeds: Collection[int] = ()) -> pd.DataFrame:
    """Learning-rate curves of a validation metric: a row per GROUP and learning rate, with mean, n and missing.

    Test columns are taken away first: nothing here can see them.

    Args:
        data: of `frame`.
        metric: "validation/...".
        seeds: tuning seeds; () takes those that were run at every rate of a group.

    Returns:
        mean: over the tuning seeds whose run is ok, NaN without one. n: their number. missing: tuning seeds that
        failed, or were not run at this rate. seeds: the tuning seeds, a tuple.

    Raises:
        SelectionError: not a validation metric, none of that name, a group whose rates share no seed, or one with
            several records of a seed and rate.
    """
    data = data[[column for column in data if not str(column).startswith("test/")]]
    known = [str(column) for column in data if str(column).startswith(VALIDATION) and column != f"{VALIDATION}step"]
    if metric not in known:
        raise SelectionError(
            f"rates are chosen on validation alone, and {metric!r} is not one of its metrics here: "
            f"{', '.join(known) or 'there are none'}"
        )
    return pd.DataFrame(
        [
            dict(zip(GROUP, group, strict=True)) | row
            for group, runs in data.groupby(list(GROUP), sort=True)
            for row in _curve(str(group[-1]), runs, metric, seeds)
        ]
    )


def _curve(label: str, runs: pd.DataFrame, metric: str, seeds: Collection[int]) -> list[dict[str, Any]]:
    rates = {rate: at for rate, at in runs.groupby("learning_rate", sort=True)}
    tuning = set(seeds) or set.intersection(*(set(at["seed"]) for at in rates.values()))
    if not tuning:
        raise SelectionError(
            f"{label}: no seed was run at all of its learning rates {_listed(rates)}; run one, or name "
            "the tuning seeds with --tuning-seeds"
        )
    rows = []
    for rate, at in rates.items():
        refuse_twice(at)
        values = at[(at["status"] == "ok") & at["seed"].isin(tuning)].set_index("seed")[metric].dropna()
        row = {"learning_rate": rate, "mean": values.mean(), "n": len(values)}
        rows.append({**row, "missing": len(tuning - set(values.index)), "seeds": tuple(sorted(tuning))})
    return rows


def best_rates(data: pd.DataFrame, metric: str, seeds: Collection[int] = ()) -> pd.DataFrame:
    """The learning rate of each GROUP with the best mean of a validation metric over the tuning seeds.

    A rate at which a tuning seed is missing is not chosen: the mean of the seeds that survived would flatter it. It
    still is part of the grid: next to a rate that fails, the best one is not at the edge. Of equal means the lower
    rate is taken.

    Args:
        data, metric, seeds: as in `rate_curves`.

    Returns:
        The chosen rows of `rate_curves` and edge: whether no lower, or no higher, rate was tried.

    Raises:
        SelectionError: as in `rate_curves`, or no rate of a group has all tuning seeds.
    """
    curves = rate_curves(data, metric, seeds).groupby(list(GROUP))
    return pd.DataFrame([_best(curve.to_dict("records"), metric) for _, curve in curves])


def _best(curve: Sequence[dict[Any, Any]], metric: str) -> dict[Any, Any]:
    whole = [point for point in curve if not point["missing"]]
    if not whole:
        raise SelectionError(
            f"{curve[0]['label']}: no learning rate has {metric} at every tuning seed ({_listed(curve[0]['seeds'])}); "
            "finish the runs, or name other seeds with --tuning-seeds"
        )
    sign = -1 if higher_is_better(metric) else 1
    best = min(whole, key=lambda point: (sign * point["mean"], point["learning_rate"]))
    return {**best, "edge": best["learning_rate"] in (curve[0]["learning_rate"], curve[-1]["learning_rate"])}


def refuse_twice(runs: pd.DataFrame) -> None:
    """Runs of one label and one learning rate have one record per seed: pairs are made by it.

    Raises:
        SelectionError: a seed with several, by their run ids.
    """
    twice = runs[runs["seed"].duplicated(keep=False)].sort_values("seed")
    if len(twice):
        seed = twice["seed"].iloc[0]
        raise SelectionError(
            f"{twice['label'].iloc[0]} has several records of seed {seed}: "
            f"{_listed(twice['run_id'][twice['seed'] == seed])}; split them by the setting that differs with --by KEY, "
            "or keep one"
        )


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
