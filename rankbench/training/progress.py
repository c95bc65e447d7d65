"""Terminal output of a run: progress while it works, a summary at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rankbench.core.sites import rank_grid
from rankbench.records.record import RunRecord
from rankbench.terminal import console, duration

EVERY = 20.0  # seconds between the lines on an evaluation, where there is no terminal
DONE_ALREADY = "(done already; delete its folder to run it again)"


class _Bar:
    """A bar on a terminal, which goes when its block ends.

    Args:
        columns: what stands between its count and its times.
        visible: False prints nothing (all processes but the first).
    """

    def __init__(self, visible: bool, *columns: TextColumn) -> None:
        self._console, self._visible = console(), visible
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            *columns,
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (visible and self._console.is_terminal),
            transient=True,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()


class TrainingProgress(_Bar):
    """A bar with loss, rate and time left; a line every tenth of the run where there is no terminal.

    Args:
        visible: False prints nothing (all processes but the first).
    """

    def __init__(self, title: str, total: int, done: int, visible: bool) -> None:
        super().__init__(visible, TextColumn("{task.fields[state]}"))
        self._total = total
        self._task = self._progress.add_task(title, total=total, completed=done, state="")

    def show(self, row: dict[str, Any], seconds: float) -> None:
        """After a step: its row of steps.jsonl and how long it took."""
        step, state = row["step"], f"loss {row['loss']:.4f}  rank sum {row['ranks']}  {seconds:.2f} s/step"
        self._progress.update(self._task, advance=1, state=state)
        if self._visible and not self._console.is_terminal and (step % max(1, self._total // 10) == 0 or step == 1):
            self._console.print(f"step {step}/{self._total}  {state}")


class EvaluationProgress(_Bar):
    """How much of an evaluation is done: a bar; where there is no terminal, a line now and then in a long one.

    Args:
        title: what is evaluated.
        total: its examples.
        visible: False prints nothing (all processes but the first).
    """

    def __init__(self, title: str, total: int, visible: bool) -> None:
        super().__init__(visible)
        self._title = title
        if visible:
            self._console.print(f"evaluating {title} ({total} examples)", style="dim")
        self._task = self._progress.add_task(title, total=total)
        self._start = self._said = time.monotonic()

    def show(self, done: int, total: int) -> None:
        """After a batch: sequences read or answered, of all in this pass over the split; a second pass starts anew."""
        now = time.monotonic()
        self._progress.update(self._task, completed=done, total=total)
        if self._visible and not self._console.is_terminal and now - self._said > EVERY and done < total:
            left = duration((now - self._start) / done * (total - done))
            self._console.print(f"{self._title} {done}/{total}  about {left} left", style="dim")
            self._said = now
        if done == total:
            self._start = now


def summarize(record: RunRecord, folder: str, note: str = "") -> None:
    """Print status, metrics, budget asked and got, cost, rank map, notes, and where the record is."""
    out = console()
    colour = "green" if record.status == "ok" else "red"
    title = f"{record.method} on {record.model}, {record.task}, budget {record.budget}, seed {record.seed}"
    out.print(f"\n[bold]{title}[/bold]  [{colour}]{record.status}[/{colour}] {note}")
    if record.reason:
        out.print(f"  {record.reason}", style=colour, markup=False)
    if record.metrics and any(record.metrics.values()):
        out.print(_metrics(record.metrics))
    if record.ledger:
        out.print(_budget(record.ledger), markup=False)
    if record.cost and (spent := _cost(record.cost)):
        out.print(spent, markup=False)
    if record.ranks and record.status in ("ok", "over_budget", "inert"):
        out.print(rank_map(record.ranks, out.width))
    if record.notes:
        out.print("notes", style="bold")
    for sentence in record.notes:
        out.print(f"  {sentence}", markup=False)
    out.print(f"record: {folder}/record.json", markup=False, soft_wrap=True)


def _metrics(metrics: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    columns = {"before": "validation before", "validation": "validation", "test": "test"}
    present = {key: title for key, title in columns.items() if metrics.get(key)}
    table.add_column("metric")
    for key, title in present.items():
        table.add_column(f"{title} (step {metrics[key]['step']})", justify="right")
    names = dict.fromkeys(name for key in present for name in metrics[key] if name != "step")
    for name in names:
        values = (metrics[key].get(name) for key in present)
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    return table


def _budget(ledger: dict[str, Any]) -> str:
    unit = ledger["unit"]
    got = ", ".join(f"{when} {ledger[when][unit]:,}" for when in ("start", "peak", "final") if ledger[when])
    head = f"; head {ledger['head_params']:,} apart" if ledger["head_params"] else ""
    return f"budget: asked {ledger['target']:,} {unit}, got {got}{head}"


def _cost(cost: dict[str, Any]) -> str:
    """Empty where nothing has run."""
    phases = [
        f"{phase} {spent['seconds']:.1f} s ({spent['forward_passes']}+{spent['backward_passes']} passes)"
        for phase, spent in cost.items()
        if isinstance(spent, dict) and spent["seconds"] >= 0.05
    ]
    if not phases:
        return ""
    memory = f"; peak memory {cost['peak_memory_bytes'] / 2**20:,.0f} MiB" if cost["peak_memory_bytes"] else ""
    return "cost (forward+backward): " + ", ".join(phases) + memory


def rank_map(ranks: Mapping[str, int], width: int) -> Table:
    """Ranks as kinds x layers; neighbouring layers are averaged where the terminal is too narrow.

    Sites outside the layers have a separate column, titled "-".

    Args:
        ranks: site -> rank, sites by plain module name.
        width: width of the terminal, in characters.
    """
    grid = rank_grid(ranks)
    layers = [layer for layer in grid.layers if layer is not None]
    outside: list[list[int | None]] = [[None]] if None in grid.layers else []
    title = "rank by layer"
    columns = max(1, (width - max(map(len, [title, *grid.kinds])) - 10) // 4 - len(outside))
    size = -(-len(layers) // columns) or 1
    groups: list[Sequence[int | None]] = [
        *(layers[start : start + size] for start in range(0, len(layers), size)),
        *outside,
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title)
    for group in groups:
        table.add_column("-" if group[0] is None else str(group[0]), justify="right")
    table.add_column("mean", justify="right", style="bold")
    for kind in grid.kinds:
        values = [[grid.cells[layer, kind] for layer in group if (layer, kind) in grid.cells] for group in groups]
        row = [rank for group in values for rank in group]
        shown = [f"{sum(group) / len(group):.0f}" if group else "" for group in values]
        table.add_row(kind, *shown, f"{sum(row) / len(row):.1f}")
    return table
