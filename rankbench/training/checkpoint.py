"""The checkpoint of a run: all that it needs to go on after it was stopped, as if it had not been."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch.serialization import default_restore_location

from rankbench.records.run_folder import RunFolder, StoreError
from rankbench.training.assembly import Assembly


def save(assembly: Assembly, folder: RunFolder, done: int, metrics: dict[str, Any]) -> None:
    """Write the checkpoint of step `done`.

    Args:
        assembly: complete, with an optimizer.
        folder: the run's folder.
        done: steps made.
        metrics: metrics of the record so far.
    """
    trainer = assembly.trainer
    state = {
        "run_id": folder.run_id,
        "done": done,
        "adapters": trainer.adapters.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "allocator": trainer.allocator.state_dict(),
        "last_loss": trainer.last_loss,
        "meter": assembly.meter.state_dict(),
        "metrics": metrics,
        "ledger": assembly.ledger.to_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    folder.write_checkpoint(buffer.getvalue())


def load(assembly: Assembly, folder: RunFolder) -> tuple[int, dict[str, Any]]:
    """Take up the checkpoint: (steps made, metrics of the record so far).

    Args:
        assembly: complete, without an optimizer.
        folder: the run's folder; it has a checkpoint.

    Raises:
        StoreError: the checkpoint is another run's.
    """
    file, trainer = folder.checkpoint_file(), assembly.trainer
    state = torch.load(file, map_location=placed_on(assembly.accelerator.device), weights_only=True)
    if state["run_id"] != folder.run_id:
        raise StoreError(
            f"{file} is a checkpoint of another config (run {state['run_id']}, "
            f"this is {folder.run_id}): delete it to start from the beginning"
        )
    trainer.adapters.load_state_dict(state["adapters"])
    trainer.build_optimizer()
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.allocator.load_state_dict(state["allocator"])
    trainer.last_loss = state["last_loss"]
    assembly.meter.load_state_dict(state["meter"])
    for key, value in state["ledger"].items():
        setattr(assembly.ledger, key, value)
    return int(state["done"]), state["metrics"]


def placed_on(device: torch.device) -> Callable[[Any, str], Any]:
    """`map_location` of torch.load: what was kept on the CPU stays there, and what lay on a device lies on this one."""

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" else default_restore_location(storage, str(device))  # type: ignore[no-untyped-call]

    return place
