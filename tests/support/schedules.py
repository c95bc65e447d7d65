"""Plays a sweep on made-up records, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.records import record

from rankbench.records.frozen_run import Order
from rankbench.sweeps.composition import Layout, describe, words
from rankbench.sweeps.manifest import Job
from rankbench.sweeps.schedule import SweepSchedule

BEST = {"lora": 1e-2, "random": 1e-3, "shuffled": 1e-3}  # an end of the grid each
RANKS = {"lora": {"a": 2, "b": 2}, "random": {"a": 1, "b": 3}}


def loss(order: Order) -> float:
    """Validation loss, lowest at the rate in BEST."""
    config = order.config
    return abs(config["train"]["learning_rate"] - BEST.get(config["method"]["name"], 1e-2))


def finish(order: Order, status: str = "ok", loss: Callable[[Order], float] = loss) -> None:
    """Write the record that the run might have left; its loss on the test split is negated."""
    value = loss(order)
    metrics = {
        "before": None,
        "validation": {"step": 3, "loss": value},
        "test": None if order.config["trial"] else {"step": 3, "loss": -value},
    }
    name = order.config["method"]["name"]
    made = record(
        name,
        order.config["seed"],
        run_id=order.run_id,
        status=status,
        config=order.config,
        metrics=metrics if status == "ok" else None,
        ranks={site: rank + order.config["seed"] for site, rank in RANKS.get(name, {"a": 9}).items()},
    )
    order.folder.path.mkdir(parents=True, exist_ok=True)
    order.folder.write_record(made)


class Played:
    """A sweep on made-up records: the batches of jobs that the schedule gave out, and the order of each job."""

    def __init__(
        self, layout: Layout, results: Path, retry: bool = False, kill_after: int | None = None, **how
    ) -> None:
        self.sweep = describe(words([]), layout, ["typed"], results)
        self.schedule = SweepSchedule(layout, self.sweep, results, retry)
        self.batches: list[list[Job]] = []
        self.orders: dict[str, Order] = {}
        while batch := self.schedule.advance():
            self.batches.append(batch)
            for job in batch:
                order = self.orders[job.run_id] = self.schedule.order(job)
                record = order.folder.record()
                if record is not None and record.is_final(order.redo):
                    continue
                if kill_after == 0:
                    return
                kill_after = None if kill_after is None else kill_after - 1
                finish(order, **how)

    def jobs(self, arm: str | None, trial: bool = False) -> list[Job]:
        return [job for batch in self.batches for job in batch if (job.arm, job.trial) == (arm, trial)]

    def rates(self, arm: str | None, trial: bool = False) -> list[float]:
        return [self.config(job)["train"]["learning_rate"] for job in self.jobs(arm, trial)]

    def config(self, job: Job) -> dict:
        return self.orders[job.run_id].config
