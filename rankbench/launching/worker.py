"""One frozen run of a sweep, and the process that is forked for it."""

from __future__ import annotations

import ctypes
import faulthandler
import io
import multiprocessing
import os
import resource
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path

from rankbench.files import disk_is_full
from rankbench.launching.jobs import SlotResources
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.run_folder import HELD_UP, LOG

CONTEXT = 2**30  # bytes on a device that a process takes outside torch's allocator: CUDA's context and libraries
DIE_WITH_PARENT = 1  # Linux: PR_SET_PDEATHSIG of prctl


def perform(frozen: FrozenRun) -> int:
    """Do a frozen run, unless it is done, and return its exit code."""
    from rankbench.config.sections import Config
    from rankbench.training.run import execute

    return execute(Config.from_plain(frozen.config), sweep=True, redo=frozen.redo)


def run(frozen: FrozenRun, room: SlotResources) -> None:
    """Do one job in the process that was forked for it, and end that process.

    Args:
        frozen: the run; what the job prints goes into its log.
        room: resources of its slot.
    """
    os.setsid()  # Ctrl-C is the launcher's to hear
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _die_with_launcher()
    code = 1
    try:
        _print_to(frozen.folder.path / LOG)
        _settle(room)
        code = perform(frozen)
    except Exception as error:
        code = HELD_UP if disk_is_full(error) else 1
        with suppress(OSError):
            traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # not sys.exit: what cannot be flushed onto a full disk would change the code


def _settle(room: SlotResources) -> None:
    if room.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = room.device
    if room.memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (room.memory, room.memory))
    if room.threads is not None:
        import torch

        torch.set_num_threads(room.threads)
    if room.sharing > 1:
        _share_device(room.sharing)


def _share_device(slots: int) -> None:
    """Keep torch's allocator to this slot's share of the device, less what CUDA itself takes for each process."""
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(max(0.0, 1 / slots - CONTEXT / total))


def _die_with_launcher() -> None:
    """Let this job die with its launcher, with all that it started: nobody would wait for it.

    It also dies with the fork server. To watch that alone would not do: it lives as long as its jobs.
    """
    launcher = multiprocessing.parent_process()
    assert launcher is not None

    def watch() -> None:
        wait([launcher.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _print_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # a job that is killed leaves what it said
    faulthandler.enable()  # and where it was, if it crashes
