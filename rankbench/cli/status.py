"""What became of the runs of a sweep: `rankbench status [experiment=X] [results_dir=DIR]`.

Without an experiment: of the sweep that was started last. Exit code 0 if every run is done.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rankbench.records.record import STOPPED, RunRecord
from rankbench.records.run_folder import LOG, RunFolder
from rankbench.studies import study
from rankbench.studies.study import Study
from rankbench.sweeps.manifest import Job, SweepError
from rankbench.terminal import console

STATES = ("done", "running", "failed", "interrupted", "missing")


@dataclass(frozen=True)
class State:
    """Where a run of a sweep stands.

    Attributes:
        job: the run.
        state: of STATES. interrupted: begun, and nobody is at it; the same command goes on with it.
        status: of the record; None without one.
        reason: why it is not ok.
        log: what it printed; None where there is no file.
    """

    job: Job
    state: str
    status: str | None
    reason: str | None
    log: Path | None


def states(found: Study, results_dir: Path) -> list[State]:
    """Of every run frozen so far, in the order they are done in."""
    return [_state(job, found.records.get(job.run_id), RunFolder(results_dir, job.run_id)) for job in found.sweep.jobs]


def _state(job: Job, record: RunRecord | None, folder: RunFolder) -> State:
    log = folder.path / LOG
    status, reason = (record.status, record.reason) if record else (None, None)
    return State(job, _name(record, folder), status, reason, log if log.exists() else None)


def _name(record: RunRecord | None, folder: RunFolder) -> str:
    if record is not None and record.status == "ok":
        return "done"
    if folder.busy():
        return "running"
    if record is None:
        return "interrupted" if folder.path.exists() else "missing"
    return "interrupted" if record.status in STOPPED else "failed"


def table(found: Sequence[State]) -> Table:
    """A row for each arm, trials apart, and one for all."""
    rows: dict[str, Counter[str]] = {}
    for state in found:
        name = state.job.arm or state.job.method
        rows.setdefault(f"{name} (trials)" if state.job.trial else name, Counter())[state.state] += 1
    shown = Table(box=None, pad_edge=False, padding=(0, 2))
    shown.add_column("runs of")
    for title in STATES:
        shown.add_column(title, justify="right")
    for name, counts in rows.items():
        shown.add_row(Text(name), *(str(counts[state] or "") for state in STATES))
    total = Counter(state.state for state in found)
    shown.add_row("all", *(str(total[state]) for state in STATES), style="bold")
    return shown


def main(words: Sequence[str] | None = None) -> int:
    """Print the table, and each failure with its reason and log."""
    given = sys.argv[1:] if words is None else list(words)
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    try:
        found = study.load(given)
    except SweepError as error:
        print(f"rankbench.cli.status: {error}", file=sys.stderr)
        return 2
    known = states(found, study.results_dir_of(given))
    out = console()
    out.print(f"{found.sweep.name}: python -m rankbench -m {' '.join(found.sweep.words)}", markup=False, soft_wrap=True)
    out.print(table(known))
    for state in known:
        if state.state == "failed":
            out.print(
                f"{state.status}: {state.job.title}  {state.job.run_id}", style="red", markup=False, soft_wrap=True
            )
            out.print(f"    {state.reason}\n    log: {state.log or 'none'}", markup=False, soft_wrap=True)
    for sentence in [*found.problems, *(f"not run: {waiting}" for waiting in found.sweep.waiting)]:
        out.print(sentence, style="yellow", markup=False, soft_wrap=True)
    return 0 if known and all(state.state == "done" for state in known) and not found.sweep.waiting else 1
