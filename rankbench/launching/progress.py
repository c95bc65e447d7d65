"""Progress of a sweep on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankbench.terminal import console, duration

if TYPE_CHECKING:
    from rankbench.launching.jobs import JobOutcome


class SweepProgress:
    """A line for each run of a batch as it ends, and how long the rest may take.

    Args:
        total: runs of the batch.
        slots: runs at a time.
        threads: CPU threads of each; None: what torch chooses.
    """

    def __init__(self, total: int, slots: int, threads: int | None) -> None:
        self._total, self._slots, self._done = total, slots, 0
        self._seconds: list[float] = []
        share = "" if threads is None else f", {threads} CPU thread{'s' if threads > 1 else ''} each"
        console().print(f"{total} runs, {slots} at a time{share}", style="dim")

    def show(self, ended: JobOutcome) -> None:
        """Print the line of a run that has ended."""
        self._done += 1
        if ended.seconds is not None:
            self._seconds.append(ended.seconds)
        announce(ended, f"[{self._done:>{len(str(self._total))}}/{self._total}] ", self._left())

    def _left(self) -> str:
        """Time that the rest may take, from the mean of the runs that were done here."""
        rest = self._total - self._done
        if not (rest and self._seconds):
            return ""
        return f"  (about {duration(sum(self._seconds) / len(self._seconds) * rest / self._slots)} left)"


def announce(ended: JobOutcome, before: str = "", after: str = "") -> None:
    """Print a line for a run that has ended, and the reason where it did not end well.

    Args:
        ended: the run.
        before, after: text around the line.
    """
    out, record = console(), ended.record
    status = "no record" if record is None else record.status
    took = "done already" if ended.seconds is None else f"{ended.seconds:.1f} s"
    out.print(f"{before}{status:<9} {ended.run.title}  {took}{after}", markup=False, soft_wrap=True)
    if status != "ok":
        reason = record.reason if record is not None else "it ended before it could write one"
        out.print(f"    {reason}\n    log: {ended.log}", style="red", markup=False, soft_wrap=True)


def stopping(asked: int) -> None:
    """Tell the user what this Ctrl-C does (first: finish running jobs; second: kill them)."""
    text = "no more runs are started; those that run are finished, Ctrl-C again stops them"
    console().print(text if asked == 1 else "stopping; the same command goes on from here", style="yellow")
