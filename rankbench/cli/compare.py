"""`rankbench compare RUN_A RUN_B [--results DIR] [--split test]`: two runs beside each other.

Shows what differs in their settings, metrics, items and ranks. Differences are B - A.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from rankbench.analysis.labels import metric_title
from rankbench.analysis.metrics import PER_ITEM
from rankbench.analysis.run_pair import (
    Item,
    PairedRun,
    config_differences,
    listed,
    load,
    refuse_unlike,
    warnings,
)
from rankbench.cli.arguments import add_results, results_of
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import OK
from rankbench.core.sites import rank_grid
from rankbench.records.record import RunRecord
from rankbench.statistics.estimates import Estimate
from rankbench.statistics.items import mcnemar, paired_bootstrap_items, wilson
from rankbench.terminal import console

SPLITS = ("test", "validation", "before")
TUNED = "tuned"  # section of a configuration: how a sweep chose the learning rate
WITH_ITEMS = "test"  # the split of which a run keeps the items
NOTE = (
    "Intervals (95 %) are over the items of these two runs: they do not say what other seeds would give. To compare "
    "methods, take several seeds and rankbench records table."
)


def metrics(a: RunRecord, b: RunRecord, split: str) -> list[tuple[str, float | None, float | None]]:
    """Name and both values of each metric of a split, the step they were taken at among them; None: not measured."""
    first, second = (((record.metrics or {}).get(split) or {}) for record in (a, b))
    return [(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]


@dataclass(frozen=True)
class Flips:
    """Items that one run has right and the other wrong, by id, in A's order."""

    to_right: list[Any]
    to_wrong: list[Any]


def flips(pairs: Sequence[tuple[Item, Item]]) -> Flips:
    """The flips among the pairs (A, B); an item that either run did not judge counts for neither."""
    judged = [(a["id"], a["correct"], b["correct"]) for a, b in pairs if None not in (a["correct"], b["correct"])]
    right = [key for key, before, after in judged if after and not before]
    return Flips(right, [key for key, before, after in judged if before and not after])


def item_rows(pairs: Sequence[tuple[Item, Item]], title: str) -> Iterator[tuple[str, ...]]:
    """Cells of the item table, for what was measured of items: what, items, A, B, B - A, McNemar's p."""
    right = [(float(a["correct"]), float(b["correct"])) for a, b in pairs if None not in (a["correct"], b["correct"])]
    if right:
        first, second = zip(*right, strict=True)
        shares = (interval(wilson(int(sum(side)), len(side)), "") for side in (first, second))
        gain = interval(paired_bootstrap_items(second, first))
        yield f"correct{title}", str(len(right)), *shares, gain, f"{mcnemar(first, second).p:.3g}"
    for name in PER_ITEM:
        values = [(a[name], b[name]) for a, b in pairs if None not in (a.get(name), b.get(name))]
        if values:
            first, second = zip(*values, strict=True)
            means = (f"{sum(side) / len(side):.4g}" for side in (first, second))
            yield f"{name}{title}", str(len(values)), *means, interval(paired_bootstrap_items(second, first)), ""
    lost = [(a, b) for a, b in pairs if None not in (a.get("loss"), b.get("loss"))]
    if lost:
        yield f"loss{title}", str(len(lost)), *_losses(lost), ""


def _losses(pairs: Sequence[tuple[Item, Item]]) -> tuple[str, ...]:
    """Means per unit, as the metric has them; one tokenizer's units are not another's."""
    units, others = ([float(item.get("units", 1)) for item in side] for side in zip(*pairs, strict=True))
    first, second = ([float(item["loss"]) for item in side] for side in zip(*pairs, strict=True))
    means = (f"{sum(map(float.__mul__, loss, by)) / sum(by):.4g}" for loss, by in ((first, units), (second, others)))
    if units != others:
        return *means, "units differ: no pairs"
    return *means, interval(paired_bootstrap_items(second, first, units))


def interval(estimate: Estimate, sign: str = "+") -> str:
    """A value and its ends: "+0.01 [-0.02, +0.03]"; without a sign for what is no difference."""
    text = f"{estimate.value:{sign}.3g}"
    return text if estimate.low is None else f"{text} [{estimate.low:{sign}.3g}, {estimate.high:{sign}.3g}]"


def grids(a: RunRecord, b: RunRecord, width: int) -> list[RenderableType]:
    """Rank maps, kinds x layers, A beside B where the width allows; * marks a cell in which they differ."""
    maps = [rank_grid(record.ranks or {}).cells for record in (a, b)]
    whole = rank_grid({**(a.ranks or {}), **(b.ranks or {})})
    kinds, layers = whole.kinds, whole.layers
    digits = max(len(str(rank)) for ranks in maps for rank in [0, *ranks.values()])
    size = max(1, (width - max(map(len, [*kinds, "B, layer"]), default=0)) // (max(2, digits + 1) + 1))
    blocks: list[RenderableType] = []
    for start in range(0, len(layers), size):
        block = layers[start : start + size]
        tables = [_grid(name, maps[place], maps[1 - place], kinds, block) for place, name in enumerate("AB")]
        blocks.append(Columns(tables, padding=(1, 4)))
    return blocks


def _grid(name: str, own: Any, other: Any, kinds: Sequence[str], layers: Sequence[int | None]) -> Table:
    table = _table(f"{name}, layer", *("other" if layer is None else str(layer) for layer in layers), gap=1)
    for kind in kinds:
        cells = [_cell(own.get((layer, kind)), other.get((layer, kind))) for layer in layers]
        table.add_row(Text(kind), *cells)
    return table


def _cell(own: int | None, other: int | None) -> Text:
    text = "" if own is None else str(own)
    return Text(f"{text} ") if own == other else Text(f"{text}*", style="bold")


def _table(*titles: str, gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for place, title in enumerate(titles):
        table.add_column(Text(title), justify="right" if place else "left", overflow="fold")
    return table


def show(a: PairedRun, b: PairedRun, split: str, out: Console) -> None:
    """Print the comparison."""
    for run in (a, b):
        record = run.record
        title = f"{record.method} on {record.model}, {record.task}, budget {record.budget}, seed {record.seed}"
        out.print(Text(f"{run.name}  {record.run_id}  {title}  {record.status}", style="bold"))
    for warning in warnings(a, b):
        out.print(Text(f"warning: {warning}", style="yellow"))
    _show_rows(out, "settings that differ", ("setting", "A", "B"), setting_rows(a.record, b.record))
    _show_rows(out, f"{split} metrics", ("metric", "A", "B", "B - A"), _metric_cells(a.record, b.record, split))
    if split == WITH_ITEMS:
        _show_items(a, b, out)
    else:
        out.print(f"\nitems: runs keep those of {WITH_ITEMS}, not of {split}")
    _show_ranks(a.record, b.record, out)


def setting_rows(a: RunRecord, b: RunRecord) -> list[tuple[str, str, str]]:
    """Setting and both values where they differ; how a learning rate was chosen is one row, in words."""
    rows = [row for row in config_differences(a, b) if row[0].partition(".")[0] != TUNED]
    choices = _choice(a), _choice(b)
    return rows if choices[0] == choices[1] else [*rows, (TUNED, *choices)]


def _choice(record: RunRecord) -> str:
    """How the learning rate of a run was chosen: "0.01, the best of 5 by validation/loss"."""
    tuned = record.config.get(TUNED)
    if not tuned:
        return "no"
    edge = " (edge of its grid)" * bool(tuned["edge"])
    return f"{tuned['chosen']:g}, the best of {len(tuned['curve'])} by {tuned['metric']}{edge}"


def _show_rows(out: Console, heading: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    out.print(f"\n[bold]{heading}[/bold]" + ("" if rows else ": none"))
    table = _table(*titles)
    for row in rows:
        table.add_row(*map(Text, row))
    if rows:
        out.print(table)


def _metric_cells(a: RunRecord, b: RunRecord, split: str) -> list[tuple[str, ...]]:
    return [
        (
            metric_title(name, arrow=True, short=True),
            *("" if value is None else f"{value:.4g}" for value in (x, y)),
            _minus(x, y),
        )
        for name, x, y in metrics(a, b, split)
    ]


def _minus(a: float | None, b: float | None) -> str:
    return "" if a is None or b is None else f"{b - a:+.4g}"


def _show_items(a: PairedRun, b: PairedRun, out: Console) -> None:
    lacking = [run.name for run in (a, b) if not run.items]
    if lacking:
        out.print(f"\nitems: none to pair, {' and '.join(lacking)} left no items.jsonl")
        return
    pairs = [(item, b.items[key]) for key, item in a.items.items()]
    parts = dict.fromkeys(str(item.get("part", "")) for item, _ in pairs)
    chosen = {part: [pair for pair in pairs if pair[0].get("part", "") == part] for part in parts}
    rows = [row for part in parts for row in item_rows(chosen[part], f"_{part}" if part else "")]
    _show_rows(out, "items", ("per item", "items", "A", "B", "B - A", "McNemar p"), rows)
    flipped = flips(pairs)
    for what, keys in (("A wrong, B right", flipped.to_right), ("A right, B wrong", flipped.to_wrong)):
        if any(row[0].startswith("correct") for row in rows):
            out.print(Text(f"{what}: {len(keys)}" + (f" ({listed(keys)})" if keys else "")))
    out.print(Text(NOTE, style="dim"))


def _show_ranks(a: RunRecord, b: RunRecord, out: Console) -> None:
    first, second = a.ranks or {}, b.ranks or {}
    changed = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    out.print(f"\n[bold]ranks[/bold]: {len(changed)} of {len({**first, **second})} sites differ (*)")
    for name, ranks in (("A", first), ("B", second)):
        if not ranks:
            out.print(f"{name} has no rank map")
    for grid in grids(a, b, out.width):
        out.print(grid)


def main(words: Sequence[str]) -> int:
    """Print the comparison of two runs.

    Raises:
        CompareError: a run is missing, or the two cannot be compared.
    """
    parser = command_parser("compare", "Two runs beside each other. Differences are B - A.")
    parser.add_argument("runs", nargs=2, metavar="RUN", help="folder of a run, or its run_id")
    add_results(parser, "--results-dir")
    parser.add_argument(
        "--split", choices=SPLITS, default=WITH_ITEMS, help="split of the metrics; runs keep test items"
    )
    arguments = parser.parse_intermixed_args(words)
    results = results_of(arguments)
    a, b = (load(name, run, results) for name, run in zip("AB", arguments.runs, strict=True))
    refuse_unlike(a, b)
    show(a, b, arguments.split, console())
    return OK
