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

from rankbench.records.record import PHASES


class Meter:
    """Counts what each phase spends. Phases nest: time inside an inner phase is not charged to the outer one.

    "calibration" is before the first step, "training" the steps themselves, "allocation" a method's own decisions and
    passes between steps, "evaluation" the metrics.
    """

    def __init__(self) -> None:
        self.spent: dict[str, dict[str, float]] = {
            phase: {"seconds": 0.0, "forward_passes": 0, "backward_passes": 0, "tokens": 0} for phase in PHASES
        }
        self._running: list[str] = []
        self._since = 0.0

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

    def count(self, *, forward: int = 0, backward: int = 0, tokens: int = 0) -> None:
        """Charge passes (micro-batches) and tokens (padding left out) to the phase that is running."""
        if self._running:
            spent = self.spent[self._running[-1]]
            spent["forward_passes"] += forward
            spent["backward_passes"] += backward
            spent["tokens"] += tokens

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.spent[self._running[-1]]["seconds"] += now - self._since
        self._since = now

    def state_dict(self) -> dict[str, Any]:
        """Costs as in the record."""
        self._charge()
        return {phase: dict(spent) for phase, spent in self.spent.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what an interrupted run had spent."""
        self.spent = {phase: dict(state[phase]) for phase in PHASES}


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
