"""One run: config -> identity -> skip if done -> train -> evaluate -> record."""

from __future__ import annotations

import io
import json
import math
import time
import traceback
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf

from rankbench import RankbenchError
from rankbench.config import registry
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Budget, Ledger
from rankbench.core.gated_lora import Scale
from rankbench.core.peft_export import export
from rankbench.core.seeding import Streams
from rankbench.files import disk_is_full
from rankbench.methods.base import Allocator, Setting
from rankbench.models import loading
from rankbench.records.record import RecordError, RunRecord, run_id
from rankbench.records.run_folder import HELD_UP, STARTED, RunFolder, StoreError
from rankbench.tasks.base import Task
from rankbench.terminal import console
from rankbench.tracking.wandb_run import tracker
from rankbench.training.cost_meter import Meter, forget_peak_memory, peak_memory
from rankbench.training.engine import Engine, accelerator
from rankbench.training.progress import DONE_ALREADY, TrainingProgress, summarize
from rankbench.training.provenance import provenance
from rankbench.training.trainer import NotFiniteError, Trainer

USER_ERRORS = (RankbenchError, OSError)  # their message says it all; others come with a traceback
NO_MEMORY = "can't allocate memory"  # torch's RuntimeError on a CPU


def execute(config: DictConfig, sweep: bool = False, redo: str | None = None) -> int:
    """Do one run and leave a record of it, whatever happens; its exit code.

    0 if its status is ok, else 1; HELD_UP where its folder cannot be used, which leaves no record.

    A finished run is not done again; an interrupted one goes on from its last checkpoint; a failed one starts anew.

    Args:
        config: frozen.
        sweep: as a job of a sweep: while another process is at the run, wait for it; leave a failed run as it is.
        redo: digest of a failed record; of a sweep's runs, the one with this record is done anew.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    folder = RunFolder(Path(config.results_dir), run_id(plain))
    processes = accelerator(config.train.precision)
    if not processes.is_main_process:
        return _perform(config, plain, folder, processes, sweep, redo)
    try:
        with folder.open(wait=sweep):
            return _perform(config, plain, folder, processes, sweep, redo)
    except StoreError as error:
        console().print(str(error), style="red", markup=False)
        return HELD_UP


def _perform(
    config: DictConfig, plain: dict[str, Any], folder: RunFolder, processes: Any, sweep: bool, redo: str | None
) -> int:
    processes.wait_for_everyone()
    done = _readable_record(folder, processes.is_main_process)
    processes.wait_for_everyone()
    main = processes.is_main_process
    if done is not None and (done.stands(redo) if sweep else done.status == "ok"):
        if main:
            summarize(done, str(folder.path), DONE_ALREADY)
        return 0 if done.status == "ok" else 1
    run = Run(config, plain, folder, processes)
    if main:
        folder.write(STARTED, json.dumps(run.origin()))
    mirror = tracker(config.tracking if main else OmegaConf.create({"name": "none"}), folder.run_id, plain, folder.path)
    status, reason = run.attempt(mirror.step)
    record = run.record(status, reason)
    if main:
        folder.write_record(record)
        folder.forget()
        summarize(record, str(folder.path))
    mirror.finish(record)
    return 0 if status == "ok" else 1


def _readable_record(folder: RunFolder, main: bool) -> RunRecord | None:
    """The record; what is none is kept under another name."""
    try:
        return folder.record()
    except RecordError as error:
        if main:
            console().print(f"{error}; kept as {folder.set_aside().name}, the run is done", style="red", markup=False)
        return None


class Run:
    """The state of one run, filled in as it gets on; its record can be made at any moment."""

    def __init__(self, config: DictConfig, plain: dict[str, Any], folder: RunFolder, processes: Any) -> None:
        self.config, self.plain, self.folder, self.processes = config, plain, folder, processes
        self.meter = Meter()
        self.metrics: dict[str, Any] = {"before": None, "validation": None, "test": None}
        self.revisions: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self.adapters: AdapterSet | None = None
        forget_peak_memory(processes.device)

    def attempt(self, log: Any) -> tuple[str, str | None]:
        """Do it; (status, reason).

        Raises:
            StoreError: the folder holds what is not this run's; nothing in it is touched.
            Exception: the disk is full. Not the run's fault: it goes on from its checkpoint.
        """
        try:
            result = self._work(log)
            if self.processes.is_main_process:
                self.folder.remove("error.txt")  # of an earlier attempt
            return result
        except StoreError:
            raise
        except NotFiniteError as error:
            return "nan", str(error)
        except (torch.OutOfMemoryError, MemoryError) as error:
            return "oom", str(error) or "out of memory"
        except SystemExit as error:
            self._keep_traceback()
            return "error", f"it called sys.exit({error.code!r}) (traceback: {self.folder.path}/error.txt)"
        except Exception as error:
            if disk_is_full(error):
                raise
            if NO_MEMORY in str(error):
                return "oom", str(error).splitlines()[0]
            self._keep_traceback()
            if isinstance(error, USER_ERRORS):
                return "error", f"{error}"
            return "error", f"{type(error).__name__}: {error} (traceback: {self.folder.path}/error.txt)"

    def _keep_traceback(self) -> None:
        if self.processes.is_main_process:
            self.folder.write("error.txt", traceback.format_exc())

    def _work(self, log: Any) -> tuple[str, str | None]:
        if self.config.train.threads is not None:
            torch.set_num_threads(self.config.train.threads)
        trainer, budget = self._prepare()
        start = self._resume(trainer)
        total = self.config.train.steps
        clock = [time.perf_counter()]
        with TrainingProgress(self.config.method.name, total, start, self.processes.is_main_process) as progress:

            def after_step(row: dict[str, Any]) -> None:
                if self.processes.is_main_process:
                    self.folder.append("steps.jsonl", row)
                log(row)
                progress.show(row, time.perf_counter() - clock[0])
                clock[0] = time.perf_counter()

            trainer.log = after_step
            trainer.run(start)
        return self._conclude(trainer, budget)

    def _prepare(self) -> tuple[Trainer, Budget]:
        """Model, data, budget, method, adapter: everything before the first pass."""
        config, streams = self.config, Streams(self.config.seed)
        loaded = self.base(streams)
        self.revisions = (loaded.revision, self.task.revision)
        truth = self.task.true_ranks()
        budget = Budget.of(config.budget, loaded.sites, truth)
        setting = Setting(loaded.sites, budget, config.train.steps, streams.numpy("allocator", "start"), truth)
        allocator: Allocator = registry.get("method", config.method.name)(config.method, setting)
        loaded.model.to(self.processes.device)
        self.ledger = Ledger(budget.unit, budget.target, max(budget.costs.values()))
        adapters = self.adapters = self._attach(loaded, allocator, budget, streams)
        self.ledger.head_params = sum(parameter.numel() for parameter in adapters.head)
        self.engine = Engine(
            self.processes,
            adapters.model,
            self.task,
            self.meter,
            config.train.batch_size,
            config.train.micro_batch_size,
            streams,
        )
        self.engine.count_passes()
        trainer = Trainer(
            self.engine,
            adapters,
            allocator,
            config.method.name,
            self.task.splits["train"],
            config.train,
            log=lambda row: None,
            checkpoint=lambda done: self._checkpoint(trainer, done),
        )
        return trainer, budget

    def base(self, streams: Streams) -> loading.LoadedModel:
        """The base model as the task wants it, the task's data read."""
        config = self.config
        self.task: Task = registry.get("task", config.task.name)(config.task)
        labels = self.task.num_labels() if config.model.architecture == "encoder" else None
        problem: Literal["classification", "regression"] | None
        problem = None if labels is None else ("regression" if labels == 1 else "classification")
        loaded = loading.load(config.model, labels, problem, streams)
        self.task.load(loaded.tokenizer, loaded.architecture, streams)
        self.task.prepare(loaded.model, loaded.sites, streams)
        return loaded

    def _attach(
        self, loaded: loading.LoadedModel, allocator: Allocator, budget: Budget, streams: Streams
    ) -> AdapterSet:
        """The adapter, as method, budget and the `adapter` section want it."""
        config = self.config.adapter
        return AdapterSet.attach(
            loaded.model,
            loaded.sites,
            allocator.initial_ranks(),
            scale=Scale(config.scale_rule, config.alpha, budget.reference_rank),
            streams=streams,
            ledger=self.ledger,
            gate=allocator.gate(),
            path="path" in allocator.needs,
            dropout=config.dropout,
            head=loaded.head,
            task_type="CAUSAL_LM" if loaded.architecture == "decoder" else "SEQ_CLS",
        )

    def _resume(self, trainer: Trainer) -> int:
        """Go on from the checkpoint, or prepare the first step; the number of steps done."""
        file = self.folder.checkpoint_file()
        found = file.exists()
        self.processes.wait_for_everyone()  # before one of them writes a checkpoint that another takes for an old one
        if found:
            return self._load(trainer, torch.load(file, map_location="cpu", weights_only=True))
        if self.processes.is_main_process:
            self.folder.write("steps.jsonl", "")
        trainer.calibrate()
        if trainer.allocator.scores is not None and self.processes.is_main_process:
            self.folder.write("scores.json", json.dumps(trainer.allocator.scores, indent=2) + "\n")
        if self.config.train.evaluate_before:
            self._evaluate(trainer, "validation", "before", 0)
        trainer.build_optimizer()
        if self.config.train.checkpoint_every:
            self._checkpoint(trainer, 0)
        return 0

    def _load(self, trainer: Trainer, state: dict[str, Any]) -> int:
        if state["run_id"] != self.folder.run_id:
            raise StoreError(
                f"{self.folder.checkpoint_file()} is a checkpoint of another config (run {state['run_id']}, "
                f"this is {self.folder.run_id}): delete it to start from the beginning"
            )
        done = int(state["done"])
        trainer.adapters.load_state_dict(state["adapters"])
        trainer.build_optimizer()
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.allocator.load_state_dict(state["allocator"])
        trainer.last_loss = state["last_loss"]
        self.meter.load_state_dict(state["meter"])
        self.metrics = state["metrics"]
        for key, value in state["ledger"].items():
            setattr(self.ledger, key, value)
        if self.processes.is_main_process:
            kept = [row for row in self.folder.lines("steps.jsonl") if row["step"] <= done]
            self.folder.write_lines("steps.jsonl", kept)
            console().print(f"resuming {self.folder.run_id} after step {done}")
        return done

    def _checkpoint(self, trainer: Trainer, done: int) -> None:
        if not (self.config.train.checkpoint_every and self.processes.is_main_process):
            return
        state = {
            "run_id": self.folder.run_id,
            "done": done,
            "adapters": trainer.adapters.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "allocator": trainer.allocator.state_dict(),
            "last_loss": trainer.last_loss,
            "meter": self.meter.state_dict(),
            "metrics": self.metrics,
            "ledger": self.ledger.to_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.folder.write_checkpoint(buffer.getvalue())

    def _evaluate(self, trainer: Trainer, split: str, name: str, step: int) -> list[dict[str, Any]]:
        """Metrics of a split into the record; its items.

        Raises:
            NotFiniteError: the last step broke the model.
        """
        if self.processes.is_main_process:
            console().print(f"evaluating {split} ({len(self.task.splits[split])} examples)", style="dim")
        engine = self.engine
        with self.meter.phase("evaluation"), engine.inert(), torch.no_grad(), engine.accelerator.autocast():
            result = self.task.evaluate(engine.model, self.task.splits[split], self.config.train.eval_batch_size)
        loss = result.metrics["loss"]
        if not math.isfinite(loss):
            raise NotFiniteError(f"{split} loss is {loss} after step {step}; last good loss {trainer.last_good()}")
        self.metrics[name] = {"step": step, **result.metrics}
        return result.items

    def _conclude(self, trainer: Trainer, budget: Budget) -> tuple[str, str | None]:
        """Evaluate, export, and judge the run as a whole."""
        total, adapters = self.config.train.steps, trainer.adapters
        self._evaluate(trainer, "validation", "validation", total)
        if not self.config.trial:
            items = self._evaluate(trainer, "test", "test", total)
            self.metrics["test"].update(self.task.judge(adapters.ranks()))
        if self.processes.is_main_process:
            if not self.config.trial:
                self.folder.write_lines("items.jsonl", items)
            self.folder.write_lines("ranks.jsonl", adapters.history)
            export(adapters, self.folder.path / "adapter")
        broken = self.ledger.verdict(budget, trainer.allocator.budget_kind)
        if broken:
            return "over_budget", broken
        if not trainer.allocator.static and not adapters.history:
            return "inert", f"method {trainer.method} is not static and changed no rank in {total} steps"
        return "ok", None

    def origin(self) -> dict[str, Any]:
        """Where its numbers come from."""
        return provenance(self.processes.device, self.processes.num_processes, *self.revisions)

    def record(self, status: str, reason: str | None) -> RunRecord:
        """The record as things stand."""
        config, adapters = self.plain, self.adapters
        cost = {**self.meter.state_dict(), "peak_memory_bytes": peak_memory(self.processes.device)}
        return RunRecord(
            run_id=self.folder.run_id,
            status=status,
            reason=reason,
            method=config["method"]["name"],
            model=config["model"]["name"],
            task=config["task"]["name"],
            budget=config["budget"]["name"],
            seed=config["seed"],
            config=config,
            provenance=self.origin(),
            ledger=self.ledger.to_dict() if adapters else None,
            ranks=adapters.ranks() if adapters else None,
            history_events=len(adapters.history) if adapters else None,
            metrics=self.metrics,
            cost=cost,
        )
