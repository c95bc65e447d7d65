"""What a command says at its end: its exit code, and one line for an error."""

from __future__ import annotations

import os
import sys
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
    print(f"rankbench: {_sentence(error, shown)}", file=sys.stderr)
    mistaken = isinstance(error, RankbenchError) and not isinstance(error, RuntimeError)
    return MISTAKE if mistaken else FAILED


def _sentence(error: Exception, shown: bool) -> str:
    if isinstance(error, RankbenchError):
        return str(error)
    where = "" if shown else f"; {SHOW_TRACEBACK}=1 shows where"
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error}{where}"
    return f"unexpected {type(error).__name__}: {error} (this is a fault of rankbench, not of your command{where})"
