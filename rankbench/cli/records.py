"""Print, compare, draw and save the records of a results folder."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rankbench.analysis.comparison import compare
from rankbench.analysis.frame import SelectionError, frame, split
from rankbench.analysis.labels import file_name, order
from rankbench.analysis.learning_rates import GROUP, best_rates, rate_curves
from rankbench.analysis.selection import Selection, select
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import records, save
from rankbench.reporting.comparison_table import make_table
from rankbench.reporting.plotting import write
from rankbench.reporting.rank_map_figures import (
    agreement,
    count_drawn,
    draw_agreement,
    draw_maps,
    mean_ranks,
    rank_maps,
)
from rankbench.reporting.table import markdown_of_frame, markdown_table


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


def runs_table(found: Sequence[RunRecord], metrics: Sequence[str]) -> str:
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
    parser = argparse.ArgumentParser(prog="rankbench records", description=(__doc__ or "").splitlines()[0])
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
    return runs_table(
        found, [c for split in ("before", "validation", "test") for c in columns if c.startswith(f"{split}/")]
    )


ALLOW_MIXED = "what may differ all the same, by name, such as code,torch,train.steps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `selections` reads."""
    parser.add_argument("source", type=Path, help="results folder, or a JSON-lines file of records")
    parser.add_argument("--by", action="append", default=[], metavar="KEY", help="one for each value, such as task.map")
    parser.add_argument("--rates", metavar="RATE", help="learning rate: a number, or best:validation/loss")
    parser.add_argument("--tuning-seeds", type=integers, default=[], help="choose on these, show the others: 100,101")
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)


def names(text: str) -> list[str]:
    """As a command line has them: "code,torch"."""
    return [part.strip() for part in text.split(",")]


def selections(arguments: argparse.Namespace) -> list[Selection]:
    """One for each model, task, budget and value of the `--by` settings, in this order.

    Raises:
        SelectionError: nothing to read, or records that are no comparison.
    """
    found, problems = records(arguments.source)
    if not found:
        raise SelectionError(f"{arguments.source} holds no records; give a results folder or a file made with --save")
    return [
        select(title, group, arguments.rates, arguments.tuning_seeds, arguments.allow_mixed, problems)
        for title, group in split(found, arguments.by)
    ]


LEGEND = (
    "Mean ± standard deviation over seeds. Differences are paired by seed, with 95 % Student intervals; not resolved: "
    "the interval contains 0; detectable: the difference whose interval would leave out 0 with 80 % probability. "
    "Intervals and detectable differences are not corrected for the number of methods; p is, within this table. own: "
    "calibration and the method's decisions, apart from training."
)


def comparison_table(
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
    made = make_table(compare(frame(found, names=names), metrics, reference))
    return "\n\n".join([markdown_table(made), *made.notes])


def tables_main() -> None:
    """Print a table for each selection."""
    parser = argparse.ArgumentParser(prog="rankbench records table", description=(__doc__ or "").splitlines()[0])
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
        shown, whole = comparison_table(selection.records, metrics, reference, selection.labels), True
    except SelectionError as error:
        shown, whole = str(error), False
    notes = "".join(f"\n\n{note}" for note in selection.notes)
    print(f"\n{selection.title}: {len(selection.records)} runs\n\n{shown}{notes}")
    return whole


def draw(selection: Selection, out: Path) -> Iterable[Path]:
    """Both figures of one selection, in files named by its title; the figures say which runs they leave out."""
    maps = rank_maps(selection.records, selection.labels)
    name = file_name(selection.title)
    means, agreeing = mean_ranks(maps), agreement(maps)
    partly = [note for note in count_drawn(selection.records, selection.labels) if "," in note]
    title = "\n".join([selection.title, "; ".join(partly)])
    yield from write(draw_maps(means, title), means, out / f"ranks-{name}")
    yield from write(draw_agreement(agreeing, title), agreeing, out / f"agreement-{name}")


def figures_main() -> None:
    """Draw each selection; print what was written, and what is to be said of it."""
    parser = argparse.ArgumentParser(prog="rankbench records maps", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    try:
        for selection in selections(arguments):
            for file in draw(selection, arguments.out):
                print(file)
            for note in [*count_drawn(selection.records, selection.labels), *selection.notes]:
                print(note)
    except SelectionError as error:
        parser.exit(2, f"{error}\n")
