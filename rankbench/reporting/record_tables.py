"""The tables that commands print: runs, learning rates, methods beside a reference; and how they are printed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from rankbench.analysis.comparison import compare
from rankbench.analysis.frame import frame
from rankbench.analysis.labels import arm_title, metric_title, sort_key
from rankbench.analysis.learning_rates import GROUP, best_rates, rate_curves
from rankbench.records.record import RunRecord
from rankbench.reporting.comparison_table import make_table
from rankbench.reporting.table import Table
from rankbench.terminal import print_table

LEGEND = (
    "Mean ± standard deviation over seeds. Differences are paired by seed; the intervals of a column hold together "
    "with 95 % probability (Bonferroni); not resolved: the interval contains 0; detectable: the true difference whose "
    "interval would leave out 0 with 80 % probability. own: calibration and the method's decisions, without training."
)


def rates_frame(data: pd.DataFrame, metric: str, seeds: Collection[int] = ()) -> pd.DataFrame:
    """Texts: the curve of each label, the chosen rate, and whether it is at the edge of what was tried."""
    curves, best = rate_curves(data, metric, seeds).to_dict("records"), best_rates(data, metric, seeds)
    rows = []
    for chosen in sorted(best.to_dict("records"), key=lambda row: sort_key(row["label"])):
        points = [_point(point) for point in curves if all(point[key] == chosen[key] for key in GROUP)]
        edge = "no" if not chosen["edge"] else "yes: extend the grid" if len(points) > 1 else "one rate only"
        choice = ["none: seeds missing", ""] if chosen["missing"] else [f"{chosen['learning_rate']:g}", edge]
        rows.append([arm_title(chosen["label"]), "; ".join(points), *choice])
    return pd.DataFrame(rows, columns=["method", f"rate: mean {metric_title(metric)} (n)", "chosen", "at the edge"])


def _point(point: dict[Any, Any]) -> str:
    mean = "no run" if not point["n"] else f"{point['mean']:.4f}"
    missing = f", {point['missing']} missing" if point["missing"] else ""
    return f"{point['learning_rate']:g}: {mean} ({point['n']}{missing})"


def runs_frame(records: Sequence[RunRecord], metrics: Sequence[str]) -> pd.DataFrame:
    """Texts, one row per run: metrics before and after, budget asked and got, seconds, peak memory, record.

    Learning rates stand in it where a label has several, and where there are tuning trials. `metrics`: columns of
    `frame`, such as "before/loss" and "test/accuracy".
    """
    data = frame(records)
    trials = pd.Series([bool(record.config.get("trial")) for record in records], index=data.index)
    several = data.groupby("label")["learning_rate"].nunique().gt(1).any()
    columns = {
        **({"learning rate": ("learning_rate", "{:g}")} if several or trials.any() else {}),
        **{metric_title(name, arrow=True, short=True): (name, "{:.4f}") for name in metrics if name in data},
        "asked": ("target", "{:,.0f}"),
        "got": ("final/params", "{:,.0f}"),
        "peak": ("peak/params", "{:,.0f}"),
        "train s": ("training/seconds", "{:.0f}"),
        "method's own s": ("allocation/seconds", "{:.1f}"),
        "eval s": ("evaluation/seconds", "{:.0f}"),
        "peak MiB": ("peak_memory_mib", "{:,.0f}"),
    }
    data["peak_memory_mib"] = data["peak_memory_bytes"].astype(float) / 2**20
    data = data.reindex(columns=[*data, *({name for name, _ in columns.values()} - set(data))])  # all failed early
    texts = {
        title: data[name].astype(float).map(form.format, na_action="ignore") for title, (name, form) in columns.items()
    }
    status = data["status"].mask(trials, data["status"] + ", tuning trial")
    named = {"method": data["label"].map(arm_title), "seed": data["seed"], "status": status}
    return pd.DataFrame({**named, **texts, "run": data["run_id"]})


def comparison_table(
    records: Sequence[RunRecord], metrics: Sequence[str], reference: str = "lora", names: Sequence[str] | None = None
) -> Table:
    """A row per label, the reference first, then by the mean of the first metric, the best first.

    Args:
        records: those of one comparison, at most one per label and seed.
        metrics: columns of `frame`; differences to the reference are given for each.
        names: labels of `records`, where they were given within more records.

    Raises:
        SelectionError: an unknown metric or reference.
    """
    return make_table(compare(frame(records, names=names), metrics, reference))


def print_frame(frame: pd.DataFrame, spare: Sequence[str] = (), title: str = "") -> None:
    """Print a frame of texts; what is missing is empty. `spare`, `title`: as in `print_table`."""
    texts = frame.astype(object).where(frame.notna(), "").astype(str)
    print_table([str(column) for column in frame], texts.values.tolist(), title, spare)


def print_cells(table: Table) -> None:
    """Print a table of a report; what stands behind the finding is left out first where the terminal is narrow."""
    spare = [] if table.strip is None else list(table.columns)[table.strip + 2 :][::-1]
    print_table(list(table.columns), [[cell.text for cell in row] for row in table.rows], table.title, spare)
