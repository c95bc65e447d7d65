"""Hooks at which a run tells an observer where it stands (see rankbench.contract.observed_run)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankbench.core.adapter_set import AdapterSet


class Observer:
    """Sees the instants of a run. Every hook does nothing; an observer overrides those that it needs."""

    def ranks_chosen(self, ranks: dict[str, int]) -> None:
        """The method has said which ranks to inject; nothing has been injected yet."""

    def calibrate(self, adapters: AdapterSet, calibration: Callable[[], None]) -> None:
        """Do the method's calibration; an observer may look at the model before and after it."""
        calibration()

    def start_is_identical(self) -> None:
        """The adapted model has been compared with the base model, and gives the same output."""

    def resumed(self, done: int) -> None:
        """The run goes on from the checkpoint of step `done`."""

    def trained(self) -> None:
        """The last step is made and its checkpoint written; nothing has been evaluated since."""
