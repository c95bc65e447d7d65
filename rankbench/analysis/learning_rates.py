"""Learning rates chosen on validation: pure functions on a frame of runs, which cannot see its test columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rankbench.analysis.frame import SelectionError, refuse_twice
from rankbench.analysis.metrics import VALIDATION, directions, higher_is_better

GROUP = ("model", "task", "budget", "label")  # what one learning rate is chosen for


def rate_curves(data: pd.DataFrame, metric: str, seeds: Collection[int] = ()) -> pd.DataFrame:
    """Learning-rate curves of a validation metric: a row per GROUP and learning rate, with mean, n and missing.

    Test columns are taken away first: nothing here can see them.

    Args:
        data: frame of runs, as `frame` makes it.
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
    metrics = [str(column) for column in data if str(column).startswith(VALIDATION) and column != f"{VALIDATION}step"]
    if metric not in metrics:
        raise SelectionError(
            f"rates are chosen on validation alone, and {metric!r} is not one of its metrics here: "
            f"{', '.join(metrics) or 'there are none'}"
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
            f"{label}: no seed was run at all of its learning rates {', '.join(map(str, rates))}; run one, or name "
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
        data, metric, seeds: arguments of `rate_curves`.

    Returns:
        A row of `rate_curves` each; edge: whether no lower, or no higher, rate was tried; rates: how many were. A
        group without a rate that has all tuning seeds has the one with the fewest missing, which `missing` tells; it
        is at an edge of what is known.

    Raises:
        SelectionError: as in `rate_curves`, a metric whose direction is not known, or no group can choose.
    """
    return best_of(rate_curves(data, metric, seeds), metric)


def pooled_curves(points: Sequence[pd.DataFrame], metric: str, seeds: Collection[int] = ()) -> pd.DataFrame:
    """One learning-rate curve of a method over several points, such as many small panels, that are to share a rate.

    Points differ in the size of their losses, and the largest would choose alone. A metric of which less is better is
    therefore averaged over the points by its logarithm: `mean` is the geometric mean. Others, all shares of one, are
    averaged as they are.

    Args:
        points: frames of runs of one method, one for each point; a single one gives its `rate_curves`.
        metric, seeds: arguments of `rate_curves`.

    Returns:
        Columns of `rate_curves` and the GROUP of the first point; n is 0 and mean NaN where a point has no run.

    Raises:
        SelectionError: as in `rate_curves`, or a loss that has no logarithm.
    """
    curves = [rate_curves(data, metric, seeds) for data in points]
    if len(curves) == 1:
        return curves[0]
    group = dict(curves[0].iloc[0][list(GROUP)])
    rows = []
    for rate, at in pd.concat(curves).groupby("learning_rate", sort=True):
        everywhere = len(at) == len(points) and bool(at["n"].all())
        row = {"learning_rate": rate, "mean": _over_points(metric, at["mean"]) if everywhere else np.nan}
        counts = {"n": int(at["n"].sum()) if everywhere else 0, "missing": int(at["missing"].sum())}
        rows.append({**group, **row, **counts, "seeds": at["seeds"].iloc[0]})
    return pd.DataFrame(rows)


def _over_points(metric: str, means: pd.Series) -> float:
    if higher_is_better(metric):
        return float(means.mean())
    if (means <= 0).any():
        raise SelectionError(f"{metric}: {means.min():g} has no logarithm, so one rate cannot be chosen over points")
    return float(np.exp(np.log(means).mean()))


def best_of(curves: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The learning rate of each GROUP of `rate_curves` or `pooled_curves` that is best; returns what `best_rates` does.

    Raises:
        SelectionError: a metric whose direction is not known, or no group can choose.
    """
    higher = higher_is_better(metric)
    if higher is None:
        raise SelectionError(f"rates cannot be chosen by {metric}: its direction is not known ({directions()})")
    best = pd.DataFrame([_best(curve.to_dict("records"), higher) for _, curve in curves.groupby(list(GROUP))])
    if best["missing"].all():
        first = best.iloc[0]
        tuning = ", ".join(map(str, first["seeds"]))
        raise SelectionError(
            f"{first['label']}: no learning rate has {metric} at every tuning seed ({tuning}); "
            "finish the runs, or name other seeds with --tuning-seeds"
        )
    return best


def _best(curve: Sequence[dict[Any, Any]], higher: bool) -> dict[Any, Any]:
    rates = [point["learning_rate"] for point in curve]
    whole = [point for point in curve if not point["missing"]]
    if not whole:
        return {**min(curve, key=lambda point: point["missing"]), "edge": True, "rates": len(rates)}
    sign = -1 if higher else 1
    best = min(whole, key=lambda point: (sign * point["mean"], point["learning_rate"]))
    return {**best, "edge": best["learning_rate"] in (rates[0], rates[-1]), "rates": len(rates)}
