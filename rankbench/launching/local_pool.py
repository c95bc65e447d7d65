"""Runs on this machine, each in a separate process: N slots, a device or a share of the CPU threads for each.

Processes are forked from one that has imported everything and computed nothing (multiprocessing's fork server), so a
job starts at once and its memory is its own. Whatever happens to a job, the others go on; what was stopped from outside
leaves a record that says so.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType, ModuleType

from rankbench import RankbenchError
from rankbench.launching import worker
from rankbench.launching.jobs import (
    AGAIN,
    CRASHES,
    LOST,
    JobOutcome,
    LaunchSettings,
    SlotResources,
    leave_record,
)
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import HELD_UP, RunFolder

POLL = 0.5  # seconds between looks at the clock, and at runs that another launcher is working on
STARTS = 3  # of the fork server, one after the other, before it is given up
MEMORY_HINT = "if the kernel was out of memory: hydra.launcher.memory limits what a run may take"


class LaunchError(RankbenchError, RuntimeError):
    """Jobs cannot be started here; the message says what to do."""


@dataclass
class _Running:
    frozen: FrozenRun
    folder: RunFolder
    room: SlotResources
    process: ForkServerProcess
    since: float
    overdue: bool = False
    stopped: bool = False


@dataclass
class _Stop:
    """How often the user asked to stop: once, no more jobs are started; twice, those that run are stopped."""

    asked: int = 0
    announce: Callable[[int], None] = field(default=lambda asked: None)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked += 2 if number == signal.SIGTERM else 1
        self.announce(self.asked)


def launch(
    files: Sequence[Path],
    settings: LaunchSettings,
    report: Callable[[JobOutcome], None] = lambda ended: None,
    stopping: Callable[[int], None] | None = None,
    starting: Callable[[FrozenRun], None] = lambda frozen: None,
) -> list[JobOutcome]:
    """Do every frozen run that is not done and return the outcome of each, in the order of `files`.

    A run that another launcher is working on is left to it, and looked at again until it has ended.

    Args:
        files: files of frozen runs.
        settings: slots and limits.
        report: called as each job ends.
        stopping: called with the number of times that the user asked to stop; None leaves signals to the caller.
        starting: called as each job starts.

    Raises:
        KeyboardInterrupt: the user asked to stop; the jobs that ran then have been waited for, or stopped.
        LaunchError: no job can be started.
    """
    pool = _Pool(files, settings, report, starting)
    with nullcontext(_Stop()) if stopping is None else _hearing(_Stop(announce=stopping)) as stop:
        try:
            while pool.busy():
                if stop.asked:
                    pool.queue.clear()
                if stop.asked > 1:
                    pool.stop()
                pool.turn()
        except BaseException:
            pool.stop()  # nobody waits for what runs
            raise
    if stop.asked:
        raise KeyboardInterrupt
    return [pool.ended[file] for file in files]


@contextmanager
def _hearing(stop: _Stop) -> Iterator[_Stop]:
    """Count Ctrl-C and SIGTERM until the block ends."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Pool:
    """The slots of one launch."""

    def __init__(
        self,
        files: Sequence[Path],
        settings: LaunchSettings,
        report: Callable[[JobOutcome], None],
        starting: Callable[[FrozenRun], None],
    ) -> None:
        self._settings, self._report, self._starting = settings, report, starting
        self._context = multiprocessing.get_context("forkserver")
        self._free = settings.rooms()[::-1]
        self._running: dict[Path, _Running] = {}
        self.queue = deque(files)
        self.ended: dict[Path, JobOutcome] = {}

    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return bool(self.queue or self._running)

    def turn(self) -> None:
        """Fill the free slots, then wait for a moment or until a job ends."""
        elsewhere = self._fill()
        if self._running:
            wait([running.process.sentinel for running in self._running.values()], timeout=POLL)
        elif elsewhere:
            time.sleep(POLL)
        for file, running in list(self._running.items()):
            self._look(file, running)

    def stop(self) -> None:
        """Kill all running jobs."""
        for running in self._running.values():
            running.stopped = True
            _kill(running)

    def _fill(self) -> bool:
        """Start jobs while there is room and return whether some are left to another launcher."""
        elsewhere = []
        while self._free and self.queue:
            file = self.queue.popleft()
            frozen = FrozenRun.read(file)
            folder = frozen.folder
            record = folder.readable_record()
            if record is not None and record.is_final(frozen.redo):
                self._end(file, JobOutcome(frozen, record))
            elif folder.busy():
                elsewhere.append(file)
            else:
                self._running[file] = self._start(frozen, self._free.pop())
                self._starting(frozen)
        self.queue.extend(elsewhere)
        return bool(elsewhere)

    def _start(self, frozen: FrozenRun, room: SlotResources) -> _Running:
        for _ in range(STARTS):
            process = self._context.Process(target=worker.run, args=(frozen, room))
            running = _Running(frozen, frozen.folder, room, process, time.monotonic())
            start_server()
            try:
                with _apart_from_main():
                    process.start()
                return running
            except (EOFError, OSError):
                time.sleep(POLL)  # the server has died a moment ago, and may not be known to be dead
        raise LaunchError(
            f"the process that jobs are forked from has died {STARTS} times: "
            "python -c 'import rankbench.launching.preload' may say why; or it is out of memory"
        )

    def _look(self, file: Path, running: _Running) -> None:
        """Reap a job that has ended, kill one that is overdue."""
        if running.process.exitcode is None:
            limit = self._settings.timeout
            if limit is not None and time.monotonic() - running.since > limit:
                running.overdue = True
                _kill(running)
            return
        del self._running[file]
        self._free.append(running.room)
        code, seconds = running.process.exitcode, time.monotonic() - running.since
        running.process.close()
        self._end(file, JobOutcome(running.frozen, self._what_is_left(running, code), seconds, code))

    def _end(self, file: Path, ended: JobOutcome) -> None:
        self.ended[file] = ended
        self._report(ended)

    def _what_is_left(self, running: _Running, code: int) -> RunRecord | None:
        """Return the job's record; where it ended before it could write one, write it."""
        record = running.folder.readable_record()
        if code == HELD_UP or (record is not None and record.is_final(running.frozen.redo)):
            return record
        status, reason = self._why(running, code)
        return leave_record(running.folder, running.frozen, status, reason) or record

    def _why(self, running: _Running, code: int) -> tuple[str, str]:
        """Status and reason of a job that left no record."""
        if running.overdue:
            return "timeout", f"took longer than the {self._settings.timeout:g} s it was given"
        if code == LOST:
            return "killed", f"lost with the process it was forked from; {AGAIN}"
        if code >= 0:
            return "error", f"ended with exit code {code} and without a record"
        name = signal.Signals(-code).name
        if -code in CRASHES:
            return "error", f"crashed: {name}"
        hint = f" ({MEMORY_HINT})" if -code == signal.SIGKILL and not running.stopped else ""
        return "killed", f"killed by {name}; {AGAIN}{hint}"


def _kill(running: _Running) -> None:
    """Kill a job with all that it started, or alone where it has not made its process group yet."""
    pid = running.process.pid
    if pid is None or running.process.exitcode is not None:
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        running.process.kill()


@contextmanager
def _apart_from_main() -> Iterator[None]:
    """Keep multiprocessing from executing the caller's script again in each job, which needs nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def start_server() -> None:
    """Start the fork server if needed; it imports the heavy packages in the background.

    It ignores Ctrl-C, also while it imports, and ends with this process, since it holds its streams.
    """
    forkserver.set_forkserver_preload(["rankbench.launching.preload"])
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, heard)
    atexit.unregister(_stop_server)
    atexit.register(_stop_server)


def _stop_server() -> None:
    """Stop the fork server at once: left alone it would finish its imports before it sees that nobody needs it."""
    with suppress(ProcessLookupError):
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]
