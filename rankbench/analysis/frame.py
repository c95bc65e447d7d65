"""Records -> one tidy frame; the table of single runs; the learning rates that validation chooses.

`python -m rankbench.collect RESULTS_DIR [--save FILE] [--best validation/loss] [--by task.map]`
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rankbench.analysis.labels import flat, labels, order
from rankbench.analysis.learning_rates import GROUP, best_rates, rate_curves
from rankbench.analysis.metrics import _listed
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import KEYS, records, save
from rankbench.reporting.table import markdown_of_frame


def frame(found: Sequence[RunRecord], settings: Iterable[str] = (), names: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per run: keys, label, status, rate, metrics as "test/loss", ledger as "final/params", cost by phase.

    Args:
        found: records; `label` tells those of one method apart by the settings in which they differ.
        settings: dotted keys of the config to show as well, as text ("task.map").
        names: labels that were given within more records than these.
    """
    data = pd.DataFrame([_row(record) for record in found])
    data["label"] = labels(found) if names is None else names
    wanted = list(settings)
    configs = [dict(flat(record.config)) for record in found] if wanted else []
    for key in wanted:
        data[key] = [config.get(key) for config in configs]
    return data


def _row(record: RunRecord) -> dict[str, Any]:
    row: dict[str, Any] = {key: getattr(record, key) for key in ("run_id", *KEYS, "status")}
    row["learning_rate"] = record.config.get("train", {}).get("learning_rate")
    ledger, cost = record.ledger or {}, dict(record.cost or {})
    row |= {key: ledger.get(key) for key in ("unit", "target", "grain", "head_params")}
    row["match"] = record.config.get("budget", {}).get("match", "final")
    row["peak_memory_bytes"] = cost.pop("peak_memory_bytes", None)
    figures = {when: ledger.get(when) for when in ("start", "peak", "final")}
    for group in (record.metrics or {}, figures, cost):
        row |= {f"{name}/{key}": value for name, values in group.items() for key, value in (values or {}).items()}
    return row


def split(found: Sequence[RunRecord], by: Sequence[str]) -> list[tuple[str, list[RunRecord]]]:
    """Title and records of each model, task, budget and value of the settings `by`.

    Raises:
        SelectionError: a key that no record has.
    """
    groups: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    configs = [dict(flat(record.config)) for record in found]
    for key in by:
        if not any(key in config for config in configs):
            raise SelectionError(f"no record has a setting {key!r}; a key is written as on the command line: task.map")
    for record, config in zip(found, configs, strict=True):
        values = (f"{key}={config.get(key, 'null')}" for key in by)
        groups[record.model, record.task, f"budget {record.budget}", *values].append(record)
    return [(", ".join(group), members) for group, members in sorted(groups.items())]


def rate_report(data: pd.DataFrame, metric: str, seeds: Collection[int] = ()) -> str:
    """Markdown: the curve of each label, the chosen rate, and whether it is at the edge of what was tried."""
    curves, best = rate_curves(data, metric, seeds).to_dict("records"), best_rates(data, metric, seeds)
    rows = []
    for chosen in sorted(best.to_dict("records"), key=lambda row: order(row["label"])):
        points = [_point(point) for point in curves if all(point[key] == chosen[key] for key in GROUP)]
        edge = "no" if not chosen["edge"] else "yes: extend the grid" if len(points) > 1 else "one rate only"
        choice = ["none: seeds missing", ""] if chosen["missing"] else [f"{chosen['learning_rate']:g}", edge]
        rows.append([chosen["label"], "; ".join(points), *choice])
    return markdown_of_frame(
        pd.DataFrame(rows, columns=["method", f"rate: mean {metric} (n)", "chosen", "at the edge"])
    )


def _point(point: dict[Any, Any]) -> str:
    mean = "no run" if not point["n"] else f"{point['mean']:.4f}"
    missing = f", {point['missing']} missing" if point["missing"] else ""
    return f"{point['learning_rate']:g}: {mean} ({point['n']}{missing})"


def written(values: pd.Series, form: str) -> pd.Series:
    """Numbers as texts; what is missing stays missing."""
    return values.astype(float).map(form.format, na_action="ignore")


def table(found: Sequence[RunRecord], metrics: Sequence[str]) -> str:
    """Markdown, one row per run: metrics before and after, budget asked and got, seconds, peak memory, record.

    Args:
        found: records.
        metrics: columns of `frame` to show, such as "before/loss" and "test/accuracy".
    """
    data = frame(found)
    columns = {
        **{name: (name, "{:.4f}") for name in metrics if name in data},
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
    texts = {title: written(data[name], form) for title, (name, form) in columns.items()}
    return markdown_of_frame(pd.DataFrame({**data[["method", "seed", "status"]], **texts, "run": data["run_id"]}))


def integers(text: str) -> list[int]:
    """Numbers as a command line has them: "100,101"."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Print a table per model, task and budget, of runs or of learning rates; name what could not be read."""
    parser = argparse.ArgumentParser(prog="python -m rankbench.collect", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="results folder, or a JSON-lines file of records")
    parser.add_argument("--save", type=Path, help="write the records in compact form")
    parser.add_argument("--by", action="append", default=[], metavar="KEY", help="a table for each value: task.map")
    parser.add_argument(
        "--best", metavar="METRIC", help="learning rates instead of runs, chosen by validation/loss, say"
    )
    parser.add_argument("--tuning-seeds", type=integers, default=[], help="choose on these alone, such as 100,101")
    arguments = parser.parse_args()
    found, problems = records(arguments.source)
    for problem in problems:
        print(f"not counted: {problem}")
    if arguments.save:
        save(found, arguments.save)
    try:
        for title, rows in split(found, arguments.by):
            shown = _rates(rows, arguments) if arguments.best else _runs(rows)
            print(f"\n{title}: {len(rows)} runs\n\n{shown}")
    except SelectionError as error:
        parser.exit(2, f"{error}\n")


def _rates(found: Sequence[RunRecord], arguments: argparse.Namespace) -> str:
    return rate_report(frame(found), arguments.best, arguments.tuning_seeds)


def _runs(found: Sequence[RunRecord]) -> str:
    columns = [str(column) for column in frame(found) if not str(column).endswith("/step")]
    return table(found, [c for split in ("before", "validation", "test") for c in columns if c.startswith(f"{split}/")])


if __name__ == "__main__":
    main()


class SelectionError(ValueError):
    """Records that cannot be compared as asked; the message names them and says what to do."""


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


OWN = [f"{phase}/{what}" for what in ("forward_passes", "backward_passes") for phase in ("calibration", "allocation")]
