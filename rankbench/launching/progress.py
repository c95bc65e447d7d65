"""Progress of a sweep: a live table of all its runs on a terminal, elsewhere a line for each run as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rankbench.analysis.labels import metric_title
from rankbench.analysis.run_costs import from_records
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import RunRecord
from rankbench.sweeps.experiment_files import usual_metric
from rankbench.terminal import console, duration

if TYPE_CHECKING:
    from rankbench.launching.jobs import JobOutcome

# state -> its mark, the mark where the terminal has letters alone, and its colour
MARKS = {
    "waiting": ("·", ".", "dim"),
    "running": ("◐", ">", "yellow"),
    "ok": ("●", "o", "green"),
    "failed": ("✗", "x", "bold red"),
}
OTHER_LINES = 4  # of the live table: its head, its foot, the line that is typed next


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, as progress shows it.

    Attributes:
        row: the arm and its point of the axes.
        title: the row and what tells its runs apart.
        config: configuration; what it takes from other runs may be missing.
        folder: its folder; None while the run cannot be frozen.
        trial: whether it is a tuning trial.
    """

    row: str
    title: str
    config: Mapping[str, Any]
    folder: Path | None
    trial: bool = False


class SweepProgress:
    """How far all runs of a sweep are, and how long the rest may take.

    As a context it shows a live table, if standard output is a terminal.

    Args:
        metric_of: task -> column of the frame of runs; its mean on validation is shown.
    """

    def __init__(self, metric_of: Callable[[str], str] = usual_metric) -> None:
        self._metric_of, self._out = metric_of, console()
        self._runs: list[PlannedRun] = []
        self._more = False
        self._slots, self._began = 1, time.monotonic()
        self._running: dict[Path, float] = {}
        self._records: dict[Path, RunRecord | None] = {}
        self._seconds: dict[Path, float] = {}  # of runs that were done here
        self._shows_table = False
        self._live: Live | None = None  # from the first launch on: before it there is nothing to show

    def __enter__(self) -> Self:
        self._shows_table = self._out.is_terminal
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            if kind is not None:
                self._out.print(self._table())

    def plan(self, runs: Sequence[PlannedRun], more: bool = False) -> None:
        """Take the runs of the whole sweep as far as they are known; `more`: others may follow."""
        self._runs, self._more = list(runs), more

    def take(self, folder: Path, record: RunRecord) -> None:
        """Count a run that was done before."""
        self._records[folder] = record

    def use(self, slots: int, threads: int | None) -> None:
        """Say once how many runs there are at a time; `threads`: CPU threads of each, None: what torch chooses."""
        if not self._running and not self._seconds:
            share = "" if threads is None else f", {threads} CPU thread{'s' if threads > 1 else ''} each"
            self._out.print(f"{self._count()} runs, {slots} at a time{share}", style="dim")
        self._slots = slots
        if self._shows_table and self._live is None:
            self._live = Live(get_renderable=self._table, console=self._out, refresh_per_second=1, transient=True)
            self._live.start()

    def start(self, frozen: FrozenRun) -> None:
        """Mark a run as running."""
        self._running[frozen.folder.path] = time.monotonic()

    def show(self, ended: JobOutcome) -> None:
        """Count a run that has ended, and print its line: on a terminal only where it did not end well."""
        folder = ended.run.folder.path
        self._running.pop(folder, None)
        self._records[folder] = ended.record
        if ended.seconds is not None:
            self._seconds[folder] = ended.seconds
        if self._live is not None and ended.exit_code == 0:
            return
        width, left = len(str(len(self._runs))), self._left()
        after = "" if left is None or not self._pending() else f"  (about {duration(left)} left)"
        title = next((run.title for run in self._runs if run.folder == folder), ended.run.title)
        announce(ended, f"[{len(self._records):>{width}}/{self._count()}] ", after, title)

    def _count(self) -> str:
        return f"{len(self._runs)}{'+' * self._more}"

    def _pending(self) -> list[PlannedRun]:
        return [run for run in self._runs if run.folder is None or run.folder not in self._records]

    def _left(self) -> float | None:
        """Seconds that the rest of the sweep may take, from the records of runs like them; None before the first.

        The live table asks this from a thread of its own, while runs start and end: lists are copies.
        """
        cost = from_records([record for record in list(self._records.values()) if record is not None])
        estimates = [cost(run.config) for run in self._pending()]
        measured = [each for each in estimates if each is not None]
        if not measured and not self._seconds:
            return None
        usual = mean(measured or list(self._seconds.values()))
        now = time.monotonic()
        spent = sum(now - since for since in list(self._running.values()))
        total = sum(usual if each is None else each for each in estimates) * self._pace(cost)
        return max(0.0, total - spent) / self._slots

    def _pace(self, cost: Callable[[Mapping[str, Any]], float | None]) -> float:
        """Seconds that runs took here, with the start of their process, per second that records like theirs say."""
        pairs = [
            (seconds, recorded)
            for run in self._runs
            if run.folder is not None and (seconds := self._seconds.get(run.folder)) and (recorded := cost(run.config))
        ]
        return sum(seconds for seconds, _ in pairs) / sum(recorded for _, recorded in pairs) if pairs else 1.0

    def _table(self) -> Group:
        """A row for each arm and point of the axes: its runs, and the mean of what they measured so far."""
        rows: dict[str, list[PlannedRun]] = {}
        for run in self._runs:
            rows.setdefault(run.row, []).append(run)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title, justify in (("arm", "left"), ("runs", "left"), ("done", "right"), ("mean so far", "left")):
            table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
        shown = self._fitting(rows)
        for name in shown:
            runs = rows[name]
            done = sum(self._state(run) in ("ok", "failed") for run in runs)
            marks = Text.assemble(*(self._mark(run) for run in runs))
            table.add_row(Text(name), marks, f"{done}/{len(runs)}", self._mean(runs))
        hidden = len(rows) - len(shown)
        return Group(table, Text(f"and {hidden} more rows", "dim") if hidden else Text(""), self._foot())

    def _fitting(self, rows: Mapping[str, Sequence[PlannedRun]]) -> list[str]:
        """The rows for which the terminal has lines: those with running runs first, then those that are not done."""

        def urgency(name: str) -> int:
            states = {self._state(run) for run in rows[name]}
            return 0 if "running" in states else 1 if "waiting" in states else 2

        chosen = set(sorted(rows, key=urgency)[: max(1, self._out.height - OTHER_LINES)])
        return [name for name in rows if name in chosen]

    def _state(self, run: PlannedRun) -> str:
        if run.folder in self._running:
            return "running"
        if run.folder is None or run.folder not in self._records:
            return "waiting"
        record = self._records[run.folder]
        return "ok" if record is not None and record.status == "ok" else "failed"

    def _mark(self, run: PlannedRun) -> tuple[str, str]:
        mark, letter, style = MARKS[self._state(run)]
        return (mark if self._out.encoding.startswith("utf") else letter), style

    def _mean(self, runs: Sequence[PlannedRun]) -> str:
        """Mean and deviation of the metric over the runs that are ok; tuning trials differ in their rates.

        On validation: test scores of arms beside each other are a look at the data, which a report counts.
        """
        if runs[0].trial:
            return ""
        name = self._metric_of(str(runs[0].config["task"]["name"])).rpartition("/")[2]
        records = [self._records.get(run.folder) for run in runs if run.folder is not None]
        measured = [
            ((record.metrics or {}).get("validation") or {}).get(name) for record in records if record is not None
        ]
        values = [float(value) for value in measured if value is not None]
        if not values:
            return ""
        title = metric_title(f"validation/{name}", arrow=True, short=True)
        return f"{title} {mean(values):.4g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")

    def _foot(self) -> Text:
        left = self._left()
        parts = [f"{len(self._runs) - len(self._pending())} of {self._count()} runs, {self._slots} at a time"]
        parts += [duration(time.monotonic() - self._began)]
        parts += [] if left is None or not self._pending() else [f"about {duration(left)} left"]
        return Text("; ".join(parts), "dim")


def announce(ended: JobOutcome, before: str = "", after: str = "", title: str = "") -> None:
    """Print a line for a run that has ended, and the reason where it did not end well.

    Args:
        ended: the run.
        before, after: text around the line.
        title: short name of the run; "" takes the one that it was frozen with.
    """
    out, record = console(), ended.record
    status = "no record" if record is None else record.status
    took = "done already" if ended.seconds is None else duration(ended.seconds)
    out.print(f"{before}{status:<9} {title or ended.run.title}  {took}{after}", markup=False, soft_wrap=True)
    if status != "ok":
        reason = record.reason if record is not None else "it ended before it could write one"
        out.print(f"    {reason}\n    log: {ended.log}", style="red", markup=False, soft_wrap=True)


def stopping(asked: int) -> None:
    """Tell the user what this Ctrl-C does (first: finish running jobs; second: kill them)."""
    text = "no more runs are started; those that run are finished, Ctrl-C again stops them"
    console().print(text if asked == 1 else "stopping; the same command goes on from here", style="yellow")
