"""The command `rankbench`: one file per command, imported when it is chosen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module

from rankbench import __version__
from rankbench.cli.exit_codes import FAILED, INTERRUPTED, MISTAKE, OK, complain

COMMANDS = {
    "run": "one run; the word may be left out",
    "sweep": "a run for each combination, or an experiment; the same as -m",
    "plan": "what a sweep would do: runs, budgets, time; nothing is run",
    "status": "what became of the runs of a sweep",
    "report": "tables, figures and one page of a study; --wandb mirrors it",
    "verify": "which published numbers a study reproduces; --published lists them",
    "records": "finished runs as tables: runs, rates, table, maps",
    "compare": "two runs: settings, metrics, items, rank maps",
    "noise": "spread between reruns and seeds, and the seeds that an effect needs",
    "methods": "the methods and their facts",
    "check": "whether a method keeps the contract, in seconds",
    "quadrature": "error of integrated gradients on a real path",
}
HELP_FLAGS = ("-h", "--help")
SWEEP_FLAGS = ("-m", "--multirun")


def main(words: Sequence[str] | None = None) -> int:
    """Do what a command line says; the exit code.

    Args:
        words: the command line without the program's name; None takes the process's own.
    """
    try:
        code = _answer(list(sys.argv[1:] if words is None else words))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("rankbench: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except SystemExit as error:  # argparse ends a command line that it cannot read, and --help, so
        return error.code if isinstance(error.code, int) else OK if error.code is None else FAILED
    except Exception as error:
        return complain(error)


def _answer(words: list[str]) -> int:
    first = words[0] if words else ""
    if first == "--version":
        print(f"rankbench {__version__}")
        return OK
    asks_help = bool(set(HELP_FLAGS) & set(words))
    if first == "help" or (asks_help and first not in COMMANDS) or (asks_help and first in ("run", "sweep")):
        from rankbench.cli.help import show_help

        return show_help([word for word in words if word not in (*HELP_FLAGS, *SWEEP_FLAGS, "help", "run", "sweep")])
    name, rest = (first, words[1:]) if first in COMMANDS else ("run", words)
    if name == "run" and first != name and first and "=" not in first and first[0].isalpha():
        print(f"rankbench: {_no_command(first)}", file=sys.stderr)
        return MISTAKE
    if name == "run" and set(SWEEP_FLAGS) & set(rest):
        name = "sweep"
    return command(name)(rest)


def command(name: str) -> Callable[[Sequence[str]], int]:
    """The function that does a command: words after its name -> exit code."""
    function: Callable[[Sequence[str]], int] = import_module(f"rankbench.cli.{name}").main
    return function


def _no_command(word: str) -> str:
    near = get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    guess = f"did you mean rankbench {near[0]}? " if near else ""
    return f"{word}: no command has this name; {guess}A setting is written key=value; rankbench --help names both"
