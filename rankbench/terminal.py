"""The terminal: its width, and durations in words."""

from __future__ import annotations

from rich.console import Console


def console() -> Console:
    """Standard output, as wide as the terminal; 100 columns wide where it is no terminal."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=100)


def duration(seconds: float) -> str:
    """A duration in words: 45 s, 12 min, 3.5 h, 2.1 days."""
    for limit, unit, size in ((100, "s", 1), (100 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{1 if size == 3600 else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"
