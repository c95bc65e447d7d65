"""Slots, launch settings, and the outcome of a job."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import LOG, STARTED, RunFolder, StoreError

AGAIN = "goes on from its checkpoint when started again"
LOST = 255  # exit code where the fork server died before its child
# Signals that a process draws on itself: it would do so again.
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS)


@dataclass
class LauncherConfig:
    """Schema of hydra.launcher.*, for Hydra; `LaunchSettings` says what the fields mean."""

    _target_: str = "hydra_plugins.rankbench_launcher.LocalLauncher"
    slots: int | None = None
    timeout: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class LaunchSettings:
    """How jobs are launched.

    Attributes:
        slots: jobs at a time; None: one for each device; without devices as many as the CPU has room for where every
            run fixes its own threads, else one.
        devices: values for CUDA_VISIBLE_DEVICES, dealt to the slots in turn; () where there is none. Slots of one
            device share its memory equally: a run that wants more ends as oom, and takes no other with it.
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

    def rooms(self) -> list[SlotResources]:
        """Resources of each slot."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        fitting = cores // self.threads if self.threads else 1
        count = self.slots or len(self.devices) or max(1, fitting)
        memory = None if self.memory is None else int(self.memory * 2**30)
        threads = None if count == 1 else max(1, cores // count)
        if not self.devices:
            return [SlotResources(None, threads, memory)] * count
        dealt = [self.devices[slot % len(self.devices)] for slot in range(count)]
        return [SlotResources(device, threads, memory, sharing=dealt.count(device)) for device in dealt]


def fixed_threads(files: Sequence[Path]) -> int | None:
    """`LaunchSettings.threads` of frozen runs."""
    counts = [FrozenRun.read(file).config["train"]["threads"] for file in files]
    return None if None in counts else max(counts, default=None)


@dataclass(frozen=True)
class JobOutcome:
    """Outcome of a job.

    Attributes:
        run: the frozen run.
        record: on disk; None where the job left none.
        seconds: duration; None where it was not started here.
        code: exit code of its process, -N for signal N; None where it was not started here.
    """

    run: FrozenRun
    record: RunRecord | None
    seconds: float | None = None
    code: int | None = None

    @property
    def exit_code(self) -> int:
        """0 if its record says ok, else the exit code of its process, or 1."""
        return 0 if self.record is not None and self.record.status == "ok" else self.code or 1

    @property
    def log(self) -> Path:
        """File with what it printed."""
        return self.run.folder.path / LOG


def leave_record(folder: RunFolder, frozen: FrozenRun, status: str, reason: str) -> RunRecord | None:
    """Write the record of a run that could not write its own; one that is final already stays.

    Returns:
        The record on disk; None where another process is at the run, or the disk is full.
    """
    record = RunRecord.of(frozen.config, frozen.run_id, status, reason, folder.json(STARTED) or {})
    try:
        with folder.open():
            earlier = folder.readable_record()
            if earlier is not None and earlier.is_final(frozen.redo):
                return earlier
            folder.write_record(record)
            return record
    except (StoreError, OSError):
        return None


def devices() -> tuple[str, ...]:
    """CUDA devices of this machine, as CUDA_VISIBLE_DEVICES names them; makes no CUDA context."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(part.strip() for part in visible.split(",") if part.strip())
    import torch

    return tuple(str(index) for index in range(torch.cuda.device_count()))


@dataclass(frozen=True)
class SlotResources:
    """Resources of one slot, which its job may use.

    Attributes:
        device: value for CUDA_VISIBLE_DEVICES; None leaves it.
        threads: CPU threads, where the run's own setting leaves it open; None: what torch chooses.
        memory: address space for data, bytes; None: no limit.
        sharing: slots of its device, each of which gets an equal share of the device's memory.
    """

    device: str | None = None
    threads: int | None = None
    memory: int | None = None
    sharing: int = 1
