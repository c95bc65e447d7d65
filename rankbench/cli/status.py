"""What became of the runs of a sweep: `rankbench status [experiment=X] [--results DIR]`.

Without an experiment, the sweep that was started last is shown. The exit code is 0 if every run is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankbench.cli.arguments import add_results, with_results
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import FAILED, OK
from rankbench.records.record import STOPPED, RunRecord
from rankbench.records.run_folder import LOG, RunFolder
from rankbench.studies import study
from rankbench.studies.study import Study
from rankbench.sweeps.manifest import Job
from rankbench.sweeps.run_titles import RunTitles
from rankbench.terminal import console, print_table

STATES = ("done", "running", "failed", "interrupted", "missing")


@dataclass(frozen=True)
class State:
    """Where a run of a sweep stands.

    Attributes:
        job: the run.
        state: one of STATES. interrupted: begun, and no process is at it; the same command goes on with it.
        status: status in its record; None without a record.
        reason: why it is not ok.
        folder: of the run.
    """

    job: Job
    state: str
    status: str | None
    reason: str | None
    folder: RunFolder

    @property
    def log(self) -> Path | None:
        """File with what it printed; None where there is none."""
        file = self.folder.path / LOG
        return file if file.exists() else None


def states(swept: Study, results_dir: Path) -> list[State]:
    """The state of every run frozen so far, in the order they are done in."""
    return [_state(job, swept.records.get(job.run_id), RunFolder(results_dir, job.run_id)) for job in swept.sweep.jobs]


def _state(job: Job, record: RunRecord | None, folder: RunFolder) -> State:
    status, reason = (record.status, record.reason) if record else (None, None)
    return State(job, _name(record, folder), status, reason, folder)


def _name(record: RunRecord | None, folder: RunFolder) -> str:
    if record is not None and record.status == "ok":
        return "done"
    if folder.busy():
        return "running"
    if record is None:
        return "interrupted" if folder.path.exists() else "missing"
    return "interrupted" if record.status in STOPPED else "failed"


def show(runs: Sequence[State]) -> None:
    """Print a row for each arm, its tuning trials apart, and one for all."""
    rows: dict[str, Counter[str]] = {}
    for run in runs:
        rows.setdefault(run.job.row, Counter())[run.state] += 1
    total = Counter(run.state for run in runs)
    cells = [[name, *(str(counts[state] or "") for state in STATES)] for name, counts in rows.items()]
    print_table(["runs of", *STATES], [*cells, ["all", *(str(total[state]) for state in STATES)]], last="bold")


def main(words: Sequence[str]) -> int:
    """Print the table, and each failure with its reason and log; 0 if every run is done, else 1.

    Raises:
        SweepError: there is no such sweep.
    """
    parser = command_parser("status", __doc__ or "")
    parser.add_argument("words", nargs="*", metavar="WORD", help="experiment=X, more words of its sweep")
    add_results(parser)
    arguments = parser.parse_intermixed_args(words)
    typed = with_results(arguments.words, arguments)
    swept = study.load(typed, curves=False)
    runs = states(swept, study.results_dir_of(typed))
    out = console()
    out.print(f"{swept.sweep.name}: rankbench -m {' '.join(swept.sweep.words)}", markup=False, soft_wrap=True)
    show(runs)
    titles = RunTitles.of(swept.sweep)
    for run in runs:
        if run.state == "failed":
            out.print(
                f"{run.status}: {titles.run(run.job)}  {run.job.run_id}", style="red", markup=False, soft_wrap=True
            )
            out.print(f"    {run.reason}\n    log: {run.log or 'none'}", markup=False, soft_wrap=True)
    for sentence in [
        *swept.problems,
        *swept.sweep.kept_back,
        *(f"not run: {waiting}" for waiting in swept.sweep.waiting),
    ]:
        out.print(sentence, style="yellow", markup=False, soft_wrap=True)
    done = runs and all(run.state == "done" for run in runs) and not swept.sweep.waiting
    return OK if done else FAILED
