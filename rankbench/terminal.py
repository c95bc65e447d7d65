"""The terminal: its width, what becomes of output that nobody takes, and durations in words."""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console


class QuietConsole(Console):
    """A console that falls silent when its reader has gone; rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True


def console() -> Console:
    """Standard output, as wide as the terminal; 100 columns wide where it is no terminal."""
    terminal = QuietConsole(highlight=False)
    return terminal if terminal.is_terminal else QuietConsole(highlight=False, width=100)


class _Unfailing(io.FileIO):
    """A file that says that it has written what the system did not take."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:  # a closed pipe, a full device, a terminal that is gone
            return len(data)


def outlive_readers() -> None:
    """Let this process go on when nobody takes what it prints: its work does not hang on its output."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            file = io.BufferedWriter(_Unfailing(stream.fileno(), "wb", closefd=False))
            buffering = stream.line_buffering or name == "stderr"
            wrapped = io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=buffering)
            setattr(sys, name, wrapped)


def duration(seconds: float) -> str:
    """A duration in words: 45 s, 12 min, 3.5 h, 2.1 days."""
    for limit, unit, size in ((100, "s", 1), (100 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{1 if size == 3600 else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"
