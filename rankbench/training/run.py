"""One run, from its configuration to its record: skip if done, assemble, train, evaluate, judge."""

from __future__ import annotations

import functools
import json
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rankbench.config import environment, matched_runs
from rankbench.config.schema import ConfigError
from rankbench.config.sections import Config, TrackingConfig
from rankbench.core.peft_export import export
from rankbench.core.sites import describe_unevenness
from rankbench.records.record import RecordError, RunRecord, run_id
from rankbench.records.run_folder import HELD_UP, STARTED, RunFolder, StoreError
from rankbench.tasks.text.tokens import counting
from rankbench.terminal import console
from rankbench.tracking.wandb_run import tracker
from rankbench.training import checkpoint, precision
from rankbench.training.assembly import Assembly
from rankbench.training.cost_meter import forget_peak_memory, peak_memory
from rankbench.training.engine import make_accelerator
from rankbench.training.failures import failure_of
from rankbench.training.observer import Observer
from rankbench.training.progress import DONE_ALREADY, EvaluationProgress, TrainingProgress, summarize
from rankbench.training.provenance import provenance
from rankbench.training.trainer import NotFiniteError

NO_TRACKING = TrackingConfig(name="none", project=None, mode=None, timeout=None)  # for every process but the first
TRACEBACK = "error.txt"


def execute(config: Config, sweep: bool = False, redo: str | None = None) -> int:
    """Do one run and leave a record of it, whatever happens.

    A finished run is not done again; an interrupted one goes on from its last checkpoint; a failed one starts anew.

    Args:
        config: checked and resolved.
        sweep: whether it is a job of a sweep: then it waits while another process works on the run, and leaves a failed
            run as it is.
        redo: digest of a failed record: a run whose stored record has this digest is done again.

    Returns:
        Exit code: 0 if its status is ok, else 1; HELD_UP where its folder cannot be used, which leaves no record.
    """
    folder = RunFolder(Path(config.results_dir), run_id(config.plain()))
    accelerator = make_accelerator(config.train.precision)
    if not accelerator.is_main_process:
        return _perform(config, folder, accelerator, sweep, redo)
    try:
        with folder.open(wait=sweep):
            return _perform(config, folder, accelerator, sweep, redo)
    except StoreError as error:
        console().print(str(error), style="red", markup=False)
        return HELD_UP


def _perform(config: Config, folder: RunFolder, accelerator: Any, sweep: bool, redo: str | None) -> int:
    accelerator.wait_for_everyone()
    main = accelerator.is_main_process
    earlier = folder.readable_record()
    accelerator.wait_for_everyone()  # all have looked before one of them moves the file
    if main:
        _set_aside_unreadable(folder)
    if earlier is not None and (earlier.is_final(redo) if sweep else earlier.status == "ok"):
        if main:
            summarize(earlier, str(folder.path), DONE_ALREADY)
        return 0 if earlier.status == "ok" else 1
    run = Run(config, folder, accelerator)
    if main:
        folder.write(STARTED, json.dumps(provenance(run.assembly)))
    mirror = tracker(config.tracking if main else NO_TRACKING, folder.run_id, run.plain, folder.path)
    status, reason = run.attempt(mirror.step)
    record = run.record(status, reason)
    if main:
        record = _leave(folder, record, run.steps)
        summarize(record, str(folder.path))
    mirror.finish(record)
    return 0 if record.status == "ok" else 1


def _leave(folder: RunFolder, record: RunRecord, steps: list[dict[str, Any]]) -> RunRecord:
    """Write the record and return it; on a file system where locks do nothing, one that is ok by now stays."""
    meanwhile = folder.readable_record()
    if meanwhile is not None and meanwhile.status == "ok":
        record = meanwhile
    else:
        folder.write_record(record)
    folder.settle_lines("steps.jsonl", steps)
    folder.forget()
    return record


def _set_aside_unreadable(folder: RunFolder) -> None:
    """Keep a record.json that is no record of this run under another name, and say that the run starts anew."""
    try:
        folder.record()
    except RecordError as error:
        console().print(f"{error}; kept as {folder.set_aside().name}, the run starts anew", style="red", markup=False)


class Run:
    """One run as it gets on; its record can be made at any moment.

    Args:
        config: checked and resolved.
        folder: takes what the run leaves; it exists.
        accelerator: the Accelerator of the run.
        observer: sees the instants of the run.

    Attributes:
        plain: the config as nested dictionaries.
        assembly: model, task, budget, method, adapter and trainer, as far as they are made.
        metrics: metrics of the record so far: {before, validation, test}.
        steps: rows of steps.jsonl so far.
    """

    def __init__(self, config: Config, folder: RunFolder, accelerator: Any, observer: Observer | None = None) -> None:
        self.plain = config.plain()
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.observer = Observer() if observer is None else observer
        self.assembly = Assembly(config, accelerator, self.observer)
        self.metrics: dict[str, Any] = {"before": None, "validation": None, "test": None}
        self.steps: list[dict[str, Any]] = []
        forget_peak_memory(accelerator.device)

    def attempt(self, log: Callable[[dict[str, Any]], None]) -> tuple[str, str | None]:
        """Do the run and return its status and the reason for it.

        Args:
            log: called with the row of each step, after it is written down.

        Raises:
            StoreError: the folder holds what is not this run's; nothing in it is touched.
            Exception: the disk is full. Not the run's fault: it goes on from its checkpoint.
        """
        try:
            result = self._work(log)
        except (Exception, SystemExit) as error:
            failure = failure_of(error)
            if failure is None:
                raise
            if failure.traceback and self.accelerator.is_main_process:
                self.folder.write(TRACEBACK, traceback.format_exc())
            where = f" (traceback: {self.folder.path}/{TRACEBACK})" if failure.unforeseen else ""
            return failure.status, failure.reason + where
        if self.accelerator.is_main_process:
            self.folder.remove(TRACEBACK)  # of an earlier attempt
        return result

    def _work(self, log: Callable[[dict[str, Any]], None]) -> tuple[str, str | None]:
        # of this machine: the configuration was checked on another one, maybe
        if problems := [
            *matched_runs.unresolved(self.plain),
            *environment.refused(),
            *precision.refused(self.config, self.accelerator.device),
        ]:
            raise ConfigError(problems)
        if self.config.train.threads is not None:
            torch.set_num_threads(self.config.train.threads)
        self.assembly.complete()
        if self.accelerator.is_main_process:
            for note in self.assembly.notes:
                console().print(note, style="dim", markup=False)
        trainer, total = self.assembly.trainer, self.config.train.steps
        start = self.start()
        clock = [time.perf_counter()]
        with TrainingProgress(self.config.method.name, total, start, self.accelerator.is_main_process) as progress:

            def after_step(row: dict[str, Any]) -> None:
                self.steps.append(row)
                if self.accelerator.is_main_process:
                    self.folder.append("steps.jsonl", row)
                log(row)
                progress.show(row, time.perf_counter() - clock[0])
                clock[0] = time.perf_counter()

            trainer.log, trainer.checkpoint = after_step, self._checkpoint
            trainer.run(start)
        self.observer.trained()
        return self._conclude()

    def start(self) -> int:
        """Go on from the checkpoint, or prepare the first step, and return the number of steps done.

        The assembly comes first.

        Raises:
            StoreError: the checkpoint is another run's.
        """
        resuming = self.folder.checkpoint_file().exists()
        self.accelerator.wait_for_everyone()  # before one of them writes a checkpoint that another takes for an old one
        return self._resume() if resuming else self._begin()

    def _begin(self) -> int:
        trainer = self.assembly.trainer
        if self.accelerator.is_main_process:
            self.folder.write("steps.jsonl", "")
        trainer.calibrate()
        if trainer.allocator.scores is not None and self.accelerator.is_main_process:
            self.folder.write("scores.json", json.dumps(trainer.allocator.scores, indent=2) + "\n")
        if self.config.train.evaluate_before and not self._starts_at_base():
            self.evaluate("validation", "before", 0)
        trainer.build_optimizer()
        self._checkpoint(0)
        return 0

    def _starts_at_base(self) -> bool:
        """Whether the model before the first step is the base model, which is still there after the last one.

        Evaluating it takes minutes for which the first step, and whoever watches for it, need not wait.
        """
        allocator = self.assembly.allocator
        return (
            allocator.starts_at_identity and allocator.trains == "adapter" and not self.assembly.trainer.adapters.head
        )

    def _resume(self) -> int:
        done, self.metrics = checkpoint.load(self.assembly, self.folder)
        if self.accelerator.is_main_process:
            self.steps = [row for row in self.folder.lines("steps.jsonl") if row["step"] <= done]
            self.folder.write_lines("steps.jsonl", self.steps)
            console().print(f"resuming {self.folder.run_id} after step {done}")
        self.observer.resumed(done)
        return done

    def _checkpoint(self, done: int) -> None:
        if self.config.train.checkpoint_every and self.accelerator.is_main_process:
            checkpoint.save(self.assembly, self.folder, done, self.metrics)

    def evaluate(self, split: str, name: str, step: int) -> list[dict[str, Any]]:
        """Put the metrics of a split into the record under `name`, as taken at `step`, and return the split's items.

        Raises:
            NotFiniteError: the last step broke the model.
        """
        task, engine, trainer = self.assembly.task, self.assembly.engine, self.assembly.trainer
        title, main = f"{split} at step {step}", self.accelerator.is_main_process
        progress = EvaluationProgress(title, len(task.splits[split]), main)
        with (
            progress,
            counting(progress.show),
            engine.meter.phase("evaluation"),
            engine.inert(),
            engine.accelerator.autocast(),
            trainer.adapters.folding(),
        ):
            result = task.evaluate(engine.model, task.splits[split], self.config.train.eval_batch_size)
        loss = result.metrics["loss"]
        if not math.isfinite(loss):
            raise NotFiniteError(f"{split} loss is {loss} after step {step}; last good loss {trainer.last_good()}")
        self.metrics[name] = {"step": step, **result.metrics}
        return result.items

    def _conclude(self) -> tuple[str, str | None]:
        """Evaluate, export, and judge the run as a whole."""
        assembly, total, items = self.assembly, self.config.train.steps, None
        adapters, allocator = assembly.trainer.adapters, assembly.allocator
        if self.config.train.evaluate_before and self.metrics["before"] is None:
            with adapters.disabled():
                self.evaluate("validation", "before", 0)
        self.evaluate("validation", "validation", total)
        if not self.config.trial:
            items = self.evaluate("test", "test", total)
            if allocator.has_adapter():
                self.metrics["test"].update(assembly.task.judge(adapters.ranks()))
        if self.accelerator.is_main_process:
            if items is not None:
                self.folder.write_lines("items.jsonl", items)
            self.folder.write_lines("ranks.jsonl", adapters.history)
            if allocator.has_adapter():
                self.folder.write_folder("adapter", functools.partial(export, adapters))
        assembly.notes += filter(None, [describe_unevenness(adapters.ranks(), assembly.budget.costs)])
        broken = assembly.ledger.budget_violation(assembly.budget, allocator.budget_kind)
        if broken:
            return "over_budget", broken
        if not allocator.static and not adapters.history:
            return "inert", f"method {assembly.trainer.method} is not static and changed no rank in {total} steps"
        return "ok", None

    def record(self, status: str, reason: str | None) -> RunRecord:
        """Make the record as things stand."""
        assembly, adapters = self.assembly, self.assembly.adapters
        cost = {**assembly.meter.state_dict(), "peak_memory_bytes": peak_memory(self.accelerator.device)}
        return RunRecord.of(
            self.plain,
            self.folder.run_id,
            status,
            reason,
            provenance(assembly),
            ledger=assembly.ledger.to_dict() if adapters else None,
            ranks=adapters.ranks() if adapters and assembly.allocator.has_adapter() else None,
            history_events=len(adapters.history) if adapters else None,
            metrics=self.metrics,
            cost=cost,
            budget_kind=assembly.allocator.budget_kind if adapters else None,
            notes=list(assembly.notes),
        )
