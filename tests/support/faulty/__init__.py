"""A method that fails on demand, in a separate package (`harness.install_faulty` registers it)."""

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import parent_process
from pathlib import Path

import torch

from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import Step
from rankbench.methods.lora import Uniform
from rankbench.records import run_folder


class Config(Settings):
    """Settings of the fault.

    Attributes:
        fault: one of FAULTS.
        at: step after which it fails.
        note: file that gets a line when an attempt begins and when it ends; null: no file.
        megabytes: memory held for a moment at that step.
        target: a file or folder that the fault needs.
    """

    fault: str
    at: int
    note: str | None
    megabytes: int
    target: str | None


class Faulty(Uniform):
    """Uniform LoRA that fails after step `at`."""

    Config = Config

    def initial_ranks(self) -> dict[str, int]:
        self._note("begin")
        return super().initial_ranks()

    def on_step_end(self, adapters: AdapterSet, step: Step) -> None:
        if step.index == self.config.at:
            held = torch.ones(self.config.megabytes, 2**18)
            del held
            FAULTS[self.config.fault](self)

    def finish(self, adapters: AdapterSet) -> None:
        self._note("end")

    def _note(self, event: str) -> None:
        if self.config.note is not None:
            row = {
                "event": event,
                "fault": self.config.fault,
                "pid": os.getpid(),
                "time": time.monotonic(),
                "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "threads": torch.get_num_threads(),
            }
            with open(self.config.note, "a") as file:
                file.write(json.dumps(row) + "\n")


def stop(number: int) -> Callable[[Faulty], None]:
    return lambda method: os.kill(os.getpid(), number)


def stop_the_worker(method: Faulty) -> None:
    """That is, the process of another launcher in which ours does the run."""
    os.kill(parent_process().pid, signal.SIGKILL)
    time.sleep(3600)


def divide(method: Faulty) -> None:
    raise ZeroDivisionError("as told")


def leave(method: Faulty) -> None:
    sys.exit(3)


def hang(method: Faulty) -> None:
    method._note("hangs")
    time.sleep(3600)


def meet(method: Faulty) -> None:
    """Wait until another run of its kind has begun."""
    while Path(method.config.note).read_text().count('"begin", "fault": "meet"') < 2:
        time.sleep(0.01)


def take_too_much(method: Faulty) -> None:
    torch.ones(2**10, 2**20)  # 4 GiB


def lose_the_server(method: Faulty) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


def outgrow_a_control_group(method: Faulty) -> None:
    """`target` is a memory control group with less than this."""
    (Path(method.config.target) / "cgroup.procs").write_text(str(os.getpid()))
    torch.ones(2**10, 2**18)  # 1 GiB


def fill_the_disk(method: Faulty) -> None:
    """As far as records are concerned."""
    write = run_folder.write_atomically

    def refuse(file: Path, *rest: object) -> None:
        if file.name == run_folder.RECORD:
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        write(file, *rest)

    run_folder.write_atomically = refuse


def turn_back_the_clock(method: Faulty) -> None:
    start = time.monotonic()
    time.time = lambda: 1e9 - 1000 * (time.monotonic() - start)


def once(fault: Callable[[Faulty], None]) -> Callable[[Faulty], None]:
    """The first time only, as `target` remembers."""

    def maybe(method: Faulty) -> None:
        mark = Path(method.config.target)
        if not mark.exists():
            mark.write_text("")
            fault(method)

    return maybe


FAULTS: dict[str, Callable[[Faulty], None]] = {
    "none": lambda method: None,
    "raise": divide,
    "raise once": once(divide),
    "exit": leave,
    "vanish": lambda method: os._exit(4),
    "kill": stop(signal.SIGKILL),
    "kill once": once(stop(signal.SIGKILL)),
    "crash": stop(signal.SIGSEGV),
    "hang": hang,
    "hang once": once(hang),
    "full once": once(fill_the_disk),
    "clock": turn_back_the_clock,
    "meet": meet,
    "server": once(lose_the_server),
    "worker once": once(stop_the_worker),
    "too much": take_too_much,
    "outgrow": outgrow_a_control_group,
}
