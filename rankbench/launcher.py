"""Runs on this machine, each in a process of its own: N slots, a device or a share of the CPU threads for each.

Processes are forked from one that has imported everything and computed nothing (multiprocessing's fork server), so a
job starts at once and its memory is its own. Whatever happens to a job, the others go on; what was stopped from outside
leaves a record that says so.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any

from rankbench import job as jobs
from rankbench.job import Room
from rankbench.records.frozen_run import Order
from rankbench.records.record import RecordError, RunRecord
from rankbench.records.run_folder import HELD_UP, LOG, STARTED, RunFolder, StoreError

AGAIN = "goes on from its checkpoint when started again"
POLL = 0.5  # seconds between looks at runs that another launcher is at, and at the clock
LOST = 255  # exit code where the fork server died before its child
STARTS = 3  # of the fork server, one after the other, before it is given up
OOM_KILLS = Path("/proc/vmstat")  # Linux: counts what the kernel killed for memory
# Signals that a process draws on itself: it would do so again.
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS)


class LaunchError(RuntimeError):
    """Jobs cannot be started here; the message says what to do."""


@dataclass
class Schema:
    """hydra.launcher.*, for Hydra; what they mean says `Settings`."""

    _target_: str = "hydra_plugins.rankbench_launcher.LocalLauncher"
    slots: int | None = None
    timeout: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Settings:
    """How jobs are launched.

    Attributes:
        slots: jobs at a time; None: one for each device; without devices as many as the CPU has room for where every
            run fixes its own threads, else one.
        devices: for CUDA_VISIBLE_DEVICES, dealt to the slots in turn; () where there is none.
        timeout: seconds a job may take; None: no limit.
        memory: GiB of data a job may hold; None: no limit.
        threads: the most CPU threads that a run fixes for itself (train.threads); None where one of them does not.
    """

    slots: int | None = None
    devices: tuple[str, ...] = ()
    timeout: float | None = None
    memory: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for key in ("slots", "timeout", "memory"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"hydra.launcher.{key}={value}: expected a number > 0, or null")

    def rooms(self) -> list[Room]:
        """What each slot has to give."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        fitting = cores // self.threads if self.threads else 1
        count = self.slots or len(self.devices) or max(1, fitting)
        memory = None if self.memory is None else int(self.memory * 2**30)
        threads = None if count == 1 else max(1, cores // count)
        return [
            Room(self.devices[slot % len(self.devices)] if self.devices else None, threads, memory)
            for slot in range(count)
        ]


def fixed_threads(files: Sequence[Path]) -> int | None:
    """For `Settings.threads`: of frozen runs."""
    found = [Order.read(file).config["train"]["threads"] for file in files]
    return None if None in found else max(found, default=None)


@dataclass(frozen=True)
class Ended:
    """What became of a job.

    Attributes:
        order: the run.
        record: on disk; None where the job left none.
        seconds: it took; None where it was not started here.
        code: exit code of its process, -N for signal N; None where it was not started here.
    """

    order: Order
    record: RunRecord | None
    seconds: float | None = None
    code: int | None = None

    @property
    def exit_code(self) -> int:
        """0 if its record says ok, else that of its process, or 1."""
        return 0 if self.record is not None and self.record.status == "ok" else self.code or 1

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.order.folder.path / LOG


@dataclass
class _Running:
    order: Order
    folder: RunFolder
    room: Room
    process: ForkServerProcess
    since: float
    kills: int
    overdue: bool = False
    stopped: bool = False


@dataclass
class _Stop:
    """How often the user asked to stop: once, no more jobs are started; twice, those that run are stopped."""

    asked: int = 0
    told: Callable[[int], None] = field(default=lambda asked: None)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked += 2 if number == signal.SIGTERM else 1
        self.told(self.asked)


def launch(
    files: Sequence[Path],
    settings: Settings,
    report: Callable[[Ended], None] = lambda ended: None,
    told: Callable[[int], None] | None = None,
) -> list[Ended]:
    """Do every frozen run that is not done, and say of each what became of it, in the order given.

    A run that another launcher is at is left to it: it is looked at again until it has ended.

    Args:
        files: of frozen runs.
        settings: slots and limits.
        report: called as each job ends.
        told: called with the number of times that the user asked to stop; None leaves the signals to the caller.

    Raises:
        KeyboardInterrupt: the user asked to stop; the jobs that ran then have been waited for, or stopped.
        LaunchError: no job can be started.
    """
    pool = _Pool(files, settings, report)
    with nullcontext(_Stop()) if told is None else _hearing(_Stop(told=told)) as stop:
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
    """Ctrl-C and SIGTERM are counted until the block ends."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Pool:
    """The slots of one launch."""

    def __init__(self, files: Sequence[Path], settings: Settings, report: Callable[[Ended], None]) -> None:
        self._settings, self._report = settings, report
        self._context = multiprocessing.get_context("forkserver")
        self._free = settings.rooms()[::-1]
        self._running: dict[Path, _Running] = {}
        self.queue = deque(files)
        self.ended: dict[Path, Ended] = {}

    def busy(self) -> bool:
        """Whether there is something to wait for."""
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
        """Kill what runs."""
        for running in self._running.values():
            running.stopped = True
            _kill(running)

    def _fill(self) -> bool:
        """Start jobs while there is room; whether some are left to another launcher."""
        elsewhere = []
        while self._free and self.queue:
            file = self.queue.popleft()
            order = Order.read(file)
            folder = order.folder
            record = _record(folder)
            if record is not None and record.stands(order.redo):
                self._end(file, Ended(order, record))
            elif folder.busy():
                elsewhere.append(file)
            else:
                self._running[file] = self._start(order, self._free.pop())
        self.queue.extend(elsewhere)
        return bool(elsewhere)

    def _start(self, order: Order, room: Room) -> _Running:
        for _ in range(STARTS):
            process = self._context.Process(target=jobs.run, args=(order, room))
            running = _Running(order, order.folder, room, process, time.monotonic(), _oom_kills())
            start_server()
            try:
                process.start()
                return running
            except (EOFError, OSError):
                time.sleep(POLL)  # the server has died a moment ago, and may not be known to be dead
        raise LaunchError(
            f"the process that jobs are forked from has died {STARTS} times: "
            "python -c 'import rankbench.preload' may say why; or it is out of memory"
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
        self._end(file, Ended(running.order, self._what_is_left(running, code), seconds, code))

    def _end(self, file: Path, ended: Ended) -> None:
        self.ended[file] = ended
        self._report(ended)

    def _what_is_left(self, running: _Running, code: int) -> RunRecord | None:
        """The job's record; where it ended before it could write one, we do."""
        record = _record(running.folder)
        if code == HELD_UP or (record is not None and record.stands(running.order.redo)):
            return record
        status, reason = self._why(running, code)
        return _leave_record(running.folder, running.order, status, reason) or record

    def _why(self, running: _Running, code: int) -> tuple[str, str]:
        """Status and reason of a job that left no record."""
        if running.overdue:
            return "timeout", f"took longer than the {self._settings.timeout:g} s it was given"
        if code == -signal.SIGKILL and not running.stopped and _oom_kills() > running.kills:
            return "oom", "killed by the kernel: the machine was out of memory"
        if code == LOST:
            return "killed", f"lost with the process it was forked from; {AGAIN}"
        if code >= 0:
            return "error", f"ended with exit code {code} and without a record"
        name = signal.Signals(-code).name
        return ("error", f"crashed: {name}") if -code in CRASHES else ("killed", f"killed by {name}; {AGAIN}")


def _record(folder: RunFolder) -> RunRecord | None:
    """None also for what cannot be read: the job says so, and does the run."""
    try:
        return folder.record()
    except RecordError:
        return None


def _leave_record(folder: RunFolder, order: Order, status: str, reason: str) -> RunRecord | None:
    """A record of a run that could not write its own; None where another process is at it, or the disk is full."""
    config = order.config
    record = RunRecord(
        run_id=order.run_id,
        status=status,
        reason=reason,
        method=config["method"]["name"],
        model=config["model"]["name"],
        task=config["task"]["name"],
        budget=config["budget"]["name"],
        seed=config["seed"],
        config=config,
        provenance=folder.json(STARTED) or {},
    )
    try:
        with folder.open():
            found = _record(folder)
            if found is None or not found.stands(order.redo):
                folder.write_record(record)
                return record
            return found
    except (StoreError, OSError):
        return None


def _kill(running: _Running) -> None:
    """With all that it started; a process that has not become a group of its own yet goes alone."""
    pid = running.process.pid
    if pid is None or running.process.exitcode is not None:
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        running.process.kill()


def start_server() -> None:
    """Start the process that jobs are forked from, unless it runs; it imports what they need while we go on.

    It does not hear Ctrl-C, not even while it imports, and goes when we go: it holds our streams.
    """
    forkserver.set_forkserver_preload(["rankbench.preload"])
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, heard)
    atexit.unregister(_stop_server)
    atexit.register(_stop_server)


def _stop_server() -> None:
    """At once: left alone it would import all before it sees that nobody needs it."""
    with suppress(ProcessLookupError):
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)  # type: ignore[attr-defined]


def _oom_kills() -> int:
    if not OOM_KILLS.exists():
        return 0
    counts = dict(line.split() for line in OOM_KILLS.read_text().splitlines())
    return int(counts.get("oom_kill", 0))


def devices() -> tuple[str, ...]:
    """The CUDA devices there are, as CUDA_VISIBLE_DEVICES names them; without making a CUDA context."""
    given: Any = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(part.strip() for part in given.split(",") if part.strip())
    import torch

    return tuple(str(index) for index in range(torch.cuda.device_count()))
