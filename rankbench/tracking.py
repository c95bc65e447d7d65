"""Weights & Biases: a mirror of the record, never the source of a number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from rankbench.record import RunRecord


class Tracker(Protocol):
    """What a run tells its mirror."""

    def step(self, row: dict[str, Any]) -> None:
        """A row of steps.jsonl."""

    def finish(self, record: RunRecord) -> None:
        """The record; nothing follows."""


class Silent:
    """No mirror."""

    def step(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def finish(self, record: RunRecord) -> None:
        """Nothing."""


class Wandb:
    """One W&B run per run, with the same id; grouped by everything but the seed."""

    def __init__(self, settings: Any, run_id: str, config: dict[str, Any], folder: Path) -> None:
        import wandb

        names = [config[section]["name"] for section in ("model", "task", "method", "budget")]
        self._run = wandb.init(
            project=settings.project,
            id=run_id,
            name="-".join([*names, f"seed{config['seed']}"]),
            group="-".join(names),
            job_type=names[2],
            config=config,
            dir=str(folder),
            mode=_mode(settings.mode),
            resume="allow",
        )

    def step(self, row: dict[str, Any]) -> None:
        """Log a training step."""
        self._run.log({f"train/{key}": value for key, value in row.items()}, step=row["step"])

    def finish(self, record: RunRecord) -> None:
        """Log the record's figures and close."""
        for split, values in (record.metrics or {}).items():
            self._run.summary.update({f"eval/{split}/{key}": value for key, value in (values or {}).items()})
        for phase, spent in (record.cost or {}).items():
            self._run.summary[f"cost/{phase}"] = spent
        self._run.summary.update({"status": record.status, "budget": record.ledger, "ranks": record.ranks})
        self._run.finish(exit_code=0 if record.status == "ok" else 1)


def _mode(asked: str) -> Any:
    """What W&B is asked for: "auto" is online with a key and offline without one: never a prompt."""
    if asked != "auto":
        return asked
    netrc = Path("~/.netrc").expanduser()
    has_key = "WANDB_API_KEY" in os.environ or (netrc.exists() and "api.wandb" in netrc.read_text())
    return "online" if has_key else "offline"


def tracker(settings: Any, run_id: str, config: dict[str, Any], folder: Path) -> Tracker:
    """The mirror the `tracking` section asks for."""
    return Wandb(settings, run_id, config, folder) if settings.name == "wandb" else Silent()
