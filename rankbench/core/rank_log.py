"""Who may change ranks, and what was changed."""

from __future__ import annotations

DECIDING_HOOKS = ("calibrate", "on_step_end", "finish")


class RankChangeError(RuntimeError):
    """A rank was changed outside the hooks that may change ranks."""
