"""A run that notes what the contract of a method asks about (see rankbench.contract.short_runs, rankbench.contract.checks)."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankbench.config.sections import Config
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Budget
from rankbench.core.seeding import Streams
from rankbench.methods.base import Allocator, Probe
from rankbench.models import loading
from rankbench.records.record import RunRecord, run_id
from rankbench.records.run_folder import RunFolder
from rankbench.training.engine import accelerator
from rankbench.training.run import Run
from rankbench.training.trainer import Trainer

STOP = 7  # the step after which a run is interrupted
FILES = ("steps.jsonl", "ranks.jsonl", "items.jsonl", "adapter/adapter_model.safetensors")


class ObservedRun(Run):
    """A run that notes what the contract asks about.

    Args:
        settings: of the run.
        folder: takes its results.
        stop: folder that takes what a process killed after step STOP leaves; None keeps nothing.
        end: the same for a process killed after training.

    Attributes:
        initial: what `initial_ranks` gave.
        disturbed: what calibration did not leave as found.
        identical: whether the start was held against the base model, and equal.
        resumed: the step a checkpoint was taken up at.
        outcome: status, reason.
    """

    def __init__(self, settings: Config, folder: Path, stop: Path | None = None, end: Path | None = None) -> None:
        plain = settings.plain()
        super().__init__(settings, plain, RunFolder(folder, run_id(plain)), accelerator(settings.train.precision))
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.initial: dict[str, Any] | None = None
        self.disturbed: list[str] = []
        self.identical = False
        self.resumed: int | None = None
        self._stop, self._end = stop, end
        with contextlib.redirect_stdout(io.StringIO()):
            self.status, self.reason = self.attempt(self._log)
        self.done: RunRecord = self.record(self.status, self.reason)
        self.folder.write_record(self.done)

    def _log(self, row: dict[str, Any]) -> None:
        if row["step"] == STOP and self._stop is not None:
            self._copy(self._stop)

    def _copy(self, to: Path) -> None:
        shutil.copytree(self.folder.path, to / "runs" / self.folder.run_id)

    def _attach(
        self, loaded: loading.LoadedModel, allocator: Allocator, budget: Budget, streams: Streams
    ) -> AdapterSet:
        """Note what the method answers on the way."""
        self.allocator, self.budget, self.sites = allocator, budget, loaded.sites
        initial_ranks, calibrate = allocator.initial_ranks, allocator.calibrate

        def answer() -> dict[str, int]:
            self.initial = initial_ranks()
            return self.initial

        def watched(adapters: AdapterSet, probe: Probe) -> None:
            before = surroundings(adapters)
            calibrate(adapters, probe)
            after = surroundings(adapters)
            self.disturbed = [what for what in before if before[what] != after[what]]

        allocator.initial_ranks, allocator.calibrate = answer, watched  # type: ignore[method-assign]
        return super()._attach(loaded, allocator, budget, streams)

    def _prepare(self) -> tuple[Trainer, Budget]:
        trainer, budget = super()._prepare()
        check = trainer.check_identity

        def noted() -> None:
            check()
            self.identical = self.allocator.starts_at_identity

        trainer.check_identity = noted  # type: ignore[method-assign]
        return trainer, budget

    def _load(self, trainer: Trainer, state: dict[str, Any]) -> int:
        self.resumed = super()._load(trainer, state)
        return self.resumed

    def _conclude(self, trainer: Trainer, budget: Budget) -> tuple[str, str | None]:
        if self._end is not None:
            self._copy(self._end)
        return super()._conclude(trainer, budget)

    @torch.no_grad()
    def logits(self, model: torch.nn.Module) -> torch.Tensor:
        """What a model says of the test split, in evaluation mode."""
        batch = self.task.collate(self.task.splits["test"])
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        return model.eval()(**inputs).logits  # type: ignore[no-any-return]

    @property
    def losses(self) -> list[float]:
        """Of the steps taken."""
        return [row["loss"] for row in self.folder.lines("steps.jsonl")]

    def left(self) -> dict[str, Any]:
        """All that two runs of one configuration must have in common, to the bit: no seconds, no memory, no paths."""
        keys = ("status", "reason", "metrics", "ranks", "ledger", "history_events")
        files = {name: self.folder.path / name for name in FILES}
        passes = {
            phase: {unit: count for unit, count in spent.items() if unit != "seconds"}
            for phase, spent in self.meter.state_dict().items()
        }
        # metrics through JSON: nan equals nan there
        record = {key: json.dumps(getattr(self.done, key), sort_keys=True) for key in keys}
        return {**record, "passes": passes, **{n: f.read_bytes() if f.exists() else None for n, f in files.items()}}


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def surroundings(adapters: AdapterSet) -> dict[str, Any]:
    """What a method must leave as it found it when it looks at the model."""
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
