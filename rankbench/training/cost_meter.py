"""What a run costs: seconds, passes and tokens, by phase."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankbench.records.record import PHASES


class Meter:
    """Counts what each phase spends. Phases nest: time inside an inner phase is not charged to the outer one.

    "calibration" is before the first step, "training" the steps themselves, "allocation" a method's own decisions and
    passes between steps, "evaluation" the metrics.
    """

    def __init__(self) -> None:
        self._spent: dict[str, dict[str, float]] = {
            phase: {"seconds": 0.0, "forward_passes": 0, "backward_passes": 0, "tokens": 0} for phase in PHASES
        }
        self._tokens: dict[str, Tensor] = {}  # by phase, on the device: counted there, read when somebody asks
        self._running: list[str] = []
        self._since = 0.0

    @property
    def spent(self) -> dict[str, dict[str, float]]:
        """Seconds, passes and tokens of each phase."""
        for phase, tokens in self._tokens.items():
            self._spent[phase]["tokens"] += int(tokens)
        self._tokens = {}
        return self._spent

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the time of a block to phase `name`."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def count(self, *, forward: int = 0, backward: int = 0, tokens: int | Tensor = 0) -> None:
        """Charge passes (micro-batches) and tokens (padding left out) to the phase that is running.

        Nothing is read from a tensor (), so that no pass makes the host wait for its device.
        """
        if self._running:
            phase = self._running[-1]
            spent = self._spent[phase]
            spent["forward_passes"] += forward
            spent["backward_passes"] += backward
            if isinstance(tokens, Tensor):
                self._tokens[phase] = self._tokens[phase] + tokens if phase in self._tokens else tokens
            else:
                spent["tokens"] += tokens

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._running:
            self._spent[self._running[-1]]["seconds"] += now - self._since
        self._since = now

    def state_dict(self) -> dict[str, Any]:
        """Costs as in the record."""
        self._charge()
        return {phase: dict(spent) for phase, spent in self.spent.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what an interrupted run had spent."""
        self._spent, self._tokens = {phase: dict(state[phase]) for phase in PHASES}, {}


PEAK_SWITCH = Path("/proc/self/clear_refs")  # Linux: writing 5 sets the peak to what is resident now


def forget_peak_memory(device: torch.device) -> None:
    """Start `peak_memory` anew, so that a run does not inherit the peak of another one in this process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif PEAK_SWITCH.exists():
        PEAK_SWITCH.write_text("5")


def peak_memory(device: torch.device) -> int:
    """Largest memory since `forget_peak_memory`, bytes: allocated on the device, or resident of this process on a CPU.

    Where the system is not Linux, of the process's whole life.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if PEAK_SWITCH.exists():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
