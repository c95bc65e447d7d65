"""Plays a sweep on made-up records, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.records import record

from rankbench.records.frozen_run import FrozenRun
from rankbench.sweeps.composition import Layout, describe, words
from rankbench.sweeps.manifest import Job
from rankbench.sweeps.schedule import SweepSchedule

BEST = {"lora": 1e-2, "random": 1e-3, "permuted": 1e-3}  # an end of the grid each
RANKS = {"lora": {"a": 2, "b": 2}, "random": {"a": 1, "b": 3}}


def loss(frozen: FrozenRun) -> float:
    """Validation loss, lowest at the rate in BEST."""
    config = frozen.config
    return abs(config["train"]["learning_rate"] - BEST.get(config["method"]["name"], 1e-2))


def finish(frozen: FrozenRun, status: str = "ok", loss: Callable[[FrozenRun], float] = loss) -> None:
    """Write the record that the run might have left; its loss on the test split is negated."""
    value = loss(frozen)
    metrics = {
        "before": None,
        "validation": {"step": 3, "loss": value},
        "test": None if frozen.config["trial"] else {"step": 3, "loss": -value},
    }
    name = frozen.config["method"]["name"]
    made = record(
        name,
        frozen.config["seed"],
        run_id=frozen.run_id,
        status=status,
        config=frozen.config,
        metrics=metrics if status == "ok" else None,
        ranks={site: rank + frozen.config["seed"] for site, rank in RANKS.get(name, {"a": 9}).items()},
    )
    frozen.folder.path.mkdir(parents=True, exist_ok=True)
    frozen.folder.write_record(made)


class Played:
    """A sweep on made-up records: the batches of jobs that the schedule gave out, and the frozen run of each job."""

    def __init__(
        self, layout: Layout, results: Path, retry: bool = False, kill_after: int | None = None, **how
    ) -> None:
        self.sweep = describe(words([]), layout, ["typed"], results)
        self.schedule = SweepSchedule(layout, self.sweep, results, retry)
        self.batches: list[list[Job]] = []
        self.frozen_runs: dict[str, FrozenRun] = {}
        while batch := self.schedule.advance():
            self.batches.append(batch)
            for job in batch:
                frozen = self.frozen_runs[job.run_id] = self.schedule.frozen_run(job)
                record = frozen.folder.record()
                if record is not None and record.is_final(frozen.redo):
                    continue
                if kill_after == 0:
                    return
                kill_after = None if kill_after is None else kill_after - 1
                finish(frozen, **how)

    def jobs(self, arm: str | None, trial: bool = False) -> list[Job]:
        return [job for batch in self.batches for job in batch if (job.arm, job.trial) == (arm, trial)]

    def rates(self, arm: str | None, trial: bool = False) -> list[float]:
        return [self.config(job)["train"]["learning_rate"] for job in self.jobs(arm, trial)]

    def config(self, job: Job) -> dict:
        return self.frozen_runs[job.run_id].config
