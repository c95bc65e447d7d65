"""The exit codes of the command line, and its one line for an error."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import traceback

from rankbench import RankbenchError

OK = 0
FAILED = 1  # a run failed, or is not done; a run may end with a code of its own
MISTAKE = 2  # the command line asks for what cannot be; nothing was run
INTERRUPTED = 130

SHOW_TRACEBACK = "HYDRA_FULL_ERROR"  # environment variable, the same as Hydra's


def complain(error: Exception) -> int:
    """Say in one line what went wrong; the exit code.

    A RankbenchError is advice to the user. An OSError is what the system says. Everything else is a fault of rankbench.
    """
    shown = bool(os.environ.get(SHOW_TRACEBACK))
    if shown:
        traceback.print_exception(error)
    print_error(_sentence(error, shown))
    mistaken = isinstance(error, RankbenchError) and not isinstance(error, RuntimeError)
    return MISTAKE if mistaken else FAILED


def print_error(sentence: str) -> None:
    """Print a sentence on stderr, its lines filled to the width of the terminal where it is one."""
    lines = f"rankbench: {sentence}".splitlines()
    if sys.stderr is not None and sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        lines = [_filled(line, width) for line in lines]
    print("\n".join(lines), file=sys.stderr)


def _filled(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _sentence(error: Exception, shown: bool) -> str:
    if isinstance(error, RankbenchError):
        return str(error)
    where = "" if shown else f"; {SHOW_TRACEBACK}=1 shows where"
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error}{where}"
    return f"unexpected {type(error).__name__}: {error} (this is a fault of rankbench, not of your command{where})"
