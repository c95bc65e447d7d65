"""Methods beside a reference, paired by seed: `python -m rankbench.tables SOURCE --metric test/kl [--by task.map]`.

One row per label. Failed runs are counted, not averaged. Which records may stand together: rankbench.selection.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import pandas as pd

from rankbench.collect import frame, markdown, written
from rankbench.labels import order
from rankbench.rates import SelectionError, higher_is_better
from rankbench.record import RunRecord
from rankbench.selection import Selection, add_arguments, selections
from rankbench.stats import holm, paired_difference, sign_flip_test, smallest_difference, smallest_p

OFF = 0.01  # of the target: as far as an equal budget may be missed
OWN = [f"{phase}/{what}" for what in ("forward_passes", "backward_passes") for phase in ("calibration", "allocation")]

LEGEND = (
    "Mean ± standard deviation over seeds. Differences are paired by seed, with 95 % Student intervals; not resolved: "
    "the interval contains 0; detectable: what these pairs would have found with 80 % probability. Intervals and "
    "detectable differences are not corrected for the number of methods; p is, within this table. own: calibration "
    "and the method's decisions, apart from training."
)


def table(
    found: Sequence[RunRecord], metrics: Sequence[str], reference: str = "lora", names: Sequence[str] | None = None
) -> str:
    """Markdown: a row per label, the reference first, then by the mean of the first metric, the best first.

    Args:
        found: records of one comparison, at most one per label and seed.
        metrics: columns of `frame`; differences to the reference are given for each, p for the first.
        reference: label the others are compared with.
        names: labels of `found`, where they were given within more records.

    Raises:
        SelectionError: a metric or a reference that is not there.
    """
    data = frame(found, names=names)
    _refuse_unknown(data, metrics, reference)
    rows = _ordered(data, metrics[0], reference)
    columns = {"method": pd.Series(rows, index=rows)} | _counts(data)
    for metric in metrics:
        values = _values(data, metric, rows)
        runs, decimals = columns["n"], _decimals(values)
        columns[metric] = pd.Series({name: _mean(values[name], runs[name], decimals) for name in rows}, dtype=str)
        columns[f"{metric} - {reference}"] = _differences(values, reference)
    shares = _shares(data)
    off = shares[(shares - 1).abs() > OFF]
    equal = [name for name in rows if name == reference or not {name, reference} & set(off.index)]
    p = _p_values(_values(data, metrics[0], equal), reference)
    columns["p (Holm)"] = written(pd.Series(holm(p["p"]), index=p.index), "{:.3g}")
    columns[f"{' or '.join(sorted(set(data['match'])))}/target"] = written(shares * 100, "{:.4g} %")
    shown = pd.DataFrame({**columns, **_costs(data)}).loc[rows]
    return "\n\n".join([markdown(shown), _about_p(p, metrics[0]), *_about_budget(off, reference)])


def _refuse_unknown(data: pd.DataFrame, metrics: Sequence[str], reference: str) -> None:
    there = sorted(str(column) for column in data if str(column).startswith(("test/", "validation/", "before/")))
    for metric in metrics:
        if metric not in there:
            known = ", ".join(name for name in there if not name.endswith("/step"))
            raise SelectionError(f"no run has the metric {metric!r}; there are {known or 'none'}")
    if reference not in set(data["label"]):
        known = ", ".join(sorted(set(data["label"]), key=order))
        raise SelectionError(f"there is no run of the reference {reference!r}; name one of {known} with --reference")


def _values(data: pd.DataFrame, metric: str, rows: list[str]) -> pd.DataFrame:
    """Runs that are ok: seeds x labels, NaN where there is none."""
    done = data[data["status"] == "ok"].pivot(index="seed", columns="label", values=metric)
    return done.reindex(columns=rows).astype(float)


def _ordered(data: pd.DataFrame, metric: str, reference: str) -> list[str]:
    sign = {True: -1, False: 1, None: 0}[higher_is_better(metric)]
    means = _values(data, metric, data["label"].unique().tolist()).mean() * sign
    place = {str(label): mean for label, mean in means.fillna(math.inf).items()}
    return sorted(place, key=lambda label: (label != reference, place[label], order(label)))


def _counts(data: pd.DataFrame) -> dict[str, pd.Series]:
    """Runs that are ok; where some are not, of how many, and what became of the others."""
    runs = data.groupby("label")["status"]
    ok = runs.agg(lambda status: (status == "ok").sum())
    if (data["status"] == "ok").all():
        return {"n": ok}
    failed = runs.agg(lambda status: ", ".join(f"{n} {name}" for name, n in status.value_counts().items()))
    return {"n": ok, "ok/all": ok.astype(str) + "/" + runs.size().astype(str), "status": failed}


def _costs(data: pd.DataFrame) -> dict[str, pd.Series]:
    """Means over runs that are ok: parameters, and what the method's own calibration and decisions took."""
    means = data[data["status"] == "ok"].groupby("label").mean(numeric_only=True)
    own = means[["calibration/seconds", "allocation/seconds"]].sum(axis=1, skipna=False)
    return {
        "final params": written(means["final/params"], "{:,.0f}"),
        "peak params": written(means["peak/params"], "{:,.0f}"),
        "own s": written(own, "{:.1f}"),
        "own passes": written(means[OWN].sum(axis=1, skipna=False), "{:,.0f}"),
    }


def _shares(data: pd.DataFrame) -> pd.Series:
    """Mean of the budget that a label's runs used, final or peak as they were matched, over their target."""
    spent = [row.get(f"{row['match']}/{row['unit']}") for row in data.to_dict("records")]
    shares = pd.Series(spent, index=data.index, dtype=float) / data["target"].astype(float)
    return shares[data["status"] == "ok"].groupby(data["label"]).mean()


def _decimals(values: pd.DataFrame) -> int:
    """Digits after the point that show two of a typical deviation; 4 where there is none."""
    deviations = values.std(ddof=1)
    typical = deviations[deviations > 0].median()
    return 4 if math.isnan(typical) else min(8, max(2, 1 - math.floor(math.log10(typical))))


def _mean(values: pd.Series, runs: int, decimals: int) -> str:
    """Mean and deviation; of how many values, where not all `runs` that are ok have one."""
    measured = values.dropna()
    count = "" if len(measured) == runs else f"({len(measured)} values)"
    if measured.empty:
        return count
    spread = f"± {measured.std(ddof=1):.{decimals}f}" if len(measured) > 1 else ""
    return " ".join(filter(None, [f"{measured.mean():.{decimals}f}", spread, count]))


def _paired(values: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Value minus the reference's at the same seed, for the other labels; NaN where one of the two is missing."""
    return values.drop(columns=reference).sub(values[reference], axis=0)


def _differences(values: pd.DataFrame, reference: str) -> pd.Series:
    paired = _paired(values, reference)
    decimals = _decimals(paired)
    return pd.Series(
        {label: _difference(paired[label], values[label].count(), decimals) for label in paired}, dtype=str
    )


def _difference(paired: pd.Series, runs: int, decimals: int) -> str:
    """Mean over the seeds both have, interval, and what the number of pairs can see where 0 is inside."""
    pairs = paired.dropna()
    if pairs.empty:
        return "no common seed"
    found = paired_difference(pairs, [0.0] * len(pairs))
    text = f"{found.mean:+.{decimals}f}"
    if found.low is None:
        return f"{text} ({'1 pair' if len(pairs) == 1 else f'all {len(pairs)} pairs equal'}: no interval)"
    text += f" [{found.low:+.{decimals}f}, {found.high:+.{decimals}f}]"
    if not found.resolved:
        text += f" not resolved (detectable: {smallest_difference(pairs):.{decimals}f})"
    return text if len(pairs) == runs else f"{text} ({len(pairs)} pairs)"


def _p_values(values: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Sign-flip p, and the smallest there could be, of each label that shares a seed with the reference."""
    paired = _paired(values, reference).dropna(axis=1, how="all")
    tests = {
        label: (sign_flip_test(pairs), smallest_p(len(pairs))) for label in paired for pairs in [paired[label].dropna()]
    }
    return pd.DataFrame.from_dict(tests, orient="index", columns=["p", "smallest"])


def _about_p(p: pd.DataFrame, metric: str) -> str:
    if p.empty:
        return "p: no pair to test."
    least, family = p["smallest"].min(), len(p)
    return (
        f"p: two-sided sign-flip test of the differences in {metric}, Holm over {family} methods; the smallest "
        f"possible with these pairs is {least:.3g} before and {min(1.0, least * family):.3g} after the correction."
    )


def _about_budget(off: pd.Series, reference: str) -> list[str]:
    """Who did not spend the budget, and what follows from it."""
    notes = [
        f"{name}: {share * 100:.4g} % of the target, so not at an equal budget: without p, to be shown on a frontier."
        for name, share in off.items()
    ]
    return notes + [f"No method is tested: the reference {reference} is off the target."] * (reference in off)


def main() -> None:
    """Print a table for each selection."""
    parser = argparse.ArgumentParser(prog="python -m rankbench.tables", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--metric", action="append", required=True, help="such as test/kl; the first one sorts")
    parser.add_argument("--reference", default="lora", help="label the others are compared with")
    arguments = parser.parse_args()
    try:
        found = selections(arguments)
    except SelectionError as error:
        parser.exit(2, f"{error}\n")
    broken = [selection.title for selection in found if not _print(selection, arguments.metric, arguments.reference)]
    print(f"\n{LEGEND}")
    if broken:
        parser.exit(2, f"no table of {'; '.join(broken)}\n")


def _print(selection: Selection, metrics: Sequence[str], reference: str) -> bool:
    """Whether there is a table of it; else why not is printed in its place."""
    try:
        shown, whole = table(selection.records, metrics, reference, selection.labels), True
    except SelectionError as error:
        shown, whole = str(error), False
    notes = "".join(f"\n\n{note}" for note in selection.notes)
    print(f"\n{selection.title}: {len(selection.records)} runs\n\n{shown}{notes}")
    return whole


if __name__ == "__main__":
    main()
