"""The rank log: who may change ranks, and what was changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DECIDING_HOOKS = ("calibrate", "on_step_end", "finish")


class RankChangeError(RuntimeError):
    """A rank was changed outside the hooks that may change ranks."""


class RankLog:
    """Knows which hook of which method is running, and keeps every rank change.

    Attributes:
        history: every rank change: {step, site, before, after, reason}.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self._method, self._hook, self._step = "?", "no hook", 0

    @contextmanager
    def deciding(self, method: str, hook: str, step: int) -> Iterator[None]:
        """Name the hook that runs inside the block; ranks may change in DECIDING_HOOKS only."""
        before = self._method, self._hook, self._step
        self._method, self._hook, self._step = method, hook, step
        try:
            yield
        finally:
            self._method, self._hook, self._step = before

    def step_of_change(self, site: str) -> int:
        """Step at which a rank changes now.

        Raises:
            RankChangeError: the running hook may not change ranks.
        """
        if self._hook not in DECIDING_HOOKS:
            raise RankChangeError(
                f"method {self._method} changed the rank of {site} in {self._hook}; "
                "ranks change only in calibrate, on_step_end and finish"
            )
        return self._step

    def note(self, site: str, before: int, after: int, reason: str) -> None:
        """Add a change to the history, if the rank differs from what it was.

        Raises:
            RankChangeError: the running hook may not change ranks.
        """
        step = self.step_of_change(site)
        if before != after:
            self.history.append({"step": step, "site": site, "before": before, "after": after, "reason": reason})

    def begin(self) -> None:
        """Replace what calibration did by its net change per site: temporary ranks are no history of the run."""
        first = {event["site"]: event["before"] for event in reversed(self.history)}
        last = {event["site"]: event for event in self.history}
        net = [{**event, "before": first[site]} for site, event in last.items()]
        self.history = [event for event in net if event["before"] != event["after"]]
