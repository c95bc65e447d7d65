"""A short run that notes what the contract of a method asks about (see rankbench.contract.checks)."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankbench.config.sections import Config
from rankbench.core.adapter_set import AdapterSet
from rankbench.records.record import RunRecord, run_id
from rankbench.records.run_folder import RunFolder
from rankbench.training.engine import make_accelerator
from rankbench.training.observer import Observer
from rankbench.training.run import Run

STOP = 7  # the step after which a run is interrupted
FILES = ("steps.jsonl", "ranks.jsonl", "items.jsonl", "adapter/adapter_model.safetensors")


class Notes(Observer):
    """What an observer of a run saw.

    Attributes:
        initial: what `initial_ranks` returned; None where the run did not get there.
        disturbed: what calibration did not leave as it was.
        identical: whether the start was compared with the base model, and equal.
        resumed_at: step of the checkpoint that the run went on from; None where it began anew.

    Args:
        when_trained: called after the last step, before anything is evaluated.
    """

    def __init__(self, when_trained: Callable[[], None]) -> None:
        self.initial: dict[str, Any] | None = None
        self.disturbed: list[str] = []
        self.identical = False
        self.resumed_at: int | None = None
        self._when_trained = when_trained

    def ranks_chosen(self, ranks: dict[str, int]) -> None:
        """Note the ranks."""
        self.initial = ranks

    def calibrate(self, adapters: AdapterSet, calibration: Callable[[], None]) -> None:
        """Compare the model's surroundings before and after."""
        before = surroundings(adapters)
        calibration()
        after = surroundings(adapters)
        self.disturbed = [what for what in before if before[what] != after[what]]

    def start_is_identical(self) -> None:
        """Note the equality."""
        self.identical = True

    def resumed(self, done: int) -> None:
        """Note the step."""
        self.resumed_at = done

    def trained(self) -> None:
        """Pass it on."""
        self._when_trained()


class ObservedRun:
    """A run, done at once, with what its observer noted.

    Args:
        settings: checked and resolved configuration.
        results_dir: takes the run's folder.
        stop: folder that takes what a process killed after step STOP leaves; None keeps nothing.
        end: the same for a process killed after training.

    Attributes:
        notes: what was seen on the way.
        assembly: model, task, budget, method, adapter and trainer, as far as the run made them.
        folder: the run's folder.
        record: its record, the same as on disk.
        status, reason: the record's.
    """

    def __init__(self, settings: Config, results_dir: Path, stop: Path | None = None, end: Path | None = None) -> None:
        self.folder = RunFolder(results_dir, run_id(settings.plain()))
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.notes = Notes(lambda: self._copy(end))
        run = Run(settings, self.folder, make_accelerator(settings.train.precision), self.notes)
        self.assembly = run.assembly
        with contextlib.redirect_stdout(io.StringIO()):
            self.status, self.reason = run.attempt(lambda row: self._copy(stop) if row["step"] == STOP else None)
        self.record: RunRecord = run.record(self.status, self.reason)
        self.folder.write_record(self.record)

    def _copy(self, to: Path | None) -> None:
        """Copy the folder as it is now into another results folder."""
        if to is not None:
            shutil.copytree(self.folder.path, to / "runs" / self.folder.run_id)

    @property
    def adapters(self) -> AdapterSet:
        """The adapter of a run that got as far as having one."""
        assert self.assembly.adapters is not None, "the run did not get to its adapter"
        return self.assembly.adapters

    @torch.no_grad()
    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        """Logits of a model for the test split, in evaluation mode."""
        task = self.assembly.task
        batch = task.collate(task.splits["test"])
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        return model.eval()(**inputs).logits  # type: ignore[no-any-return]

    @property
    def losses(self) -> list[float]:
        """Losses of the steps taken."""
        return [row["loss"] for row in self.folder.lines("steps.jsonl")]

    def left(self) -> dict[str, Any]:
        """All that two runs of one configuration must share, to the bit: no seconds, no memory, no paths."""
        keys = ("status", "reason", "metrics", "ranks", "ledger", "history_events")
        files = {name: self.folder.path / name for name in FILES}
        passes = {
            phase: {unit: count for unit, count in spent.items() if unit != "seconds"}
            for phase, spent in self.assembly.meter.state_dict().items()
        }
        # metrics through JSON: nan equals nan there
        record = {key: json.dumps(getattr(self.record, key), sort_keys=True) for key in keys}
        return {**record, "passes": passes, **{n: f.read_bytes() if f.exists() else None for n, f in files.items()}}


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def surroundings(adapters: AdapterSet) -> dict[str, Any]:
    """State that a method must leave as it was when it looks at the model."""
    modules = dict(adapters.model.named_modules())
    return {
        "training mode": {name: module.training for name, module in modules.items()},
        "gradients": [name for name, p in adapters.model.named_parameters() if p.grad is not None],
        "frozen parameters": [name for name, p in adapters.model.named_parameters() if p.requires_grad],
        "hooks": {name: [len(getattr(module, kind)) for kind in HOOKS] for name, module in modules.items()},
        "torch's random state": torch.get_rng_state().tolist(),
        "numpy's random state": [np.asarray(part).tolist() for part in np.random.get_state(legacy=True)],
        "python's random state": random.getstate(),
    }
