"""The command `rankbench`: a file for each command, imported when it is chosen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module

from rankbench import __version__
from rankbench.cli.exit_codes import FAILED, INTERRUPTED, MISTAKE, OK, complain, print_error

COMMANDS = {
    "run": "one run; the word may be left out",
    "sweep": "a run for each combination, or an experiment; the same as -m",
    "plan": "what a sweep would do: runs, budgets, time; nothing is run",
    "status": "what became of the runs of a sweep",
    "report": "tables, figures and one page of a study; --wandb mirrors it",
    "verify": "published numbers that a study reproduces; --published lists all",
    "records": "finished runs: runs, rates, table, maps; merge joins folders",
    "maps": "a method's rank map: the mean of its runs at several seeds",
    "export": "a run's adapter again; --uniform-r gives all sites one rank",
    "compare": "two runs: settings, metrics, items, rank maps",
    "noise": "spread between reruns and seeds; the seeds that an effect needs",
    "methods": "the methods and their facts",
    "check": "whether a method keeps the contract, in seconds",
    "quadrature": "error of integrated gradients on a real path",
}
BESIDE = {"check": "methods"}  # command -> the file that it shares with another, as the function of its name
HELP_FLAGS = ("-h", "--help")
SWEEP_FLAGS = ("-m", "--multirun")
RUNNING = ("run", "sweep")  # commands that Hydra reads the flags of
READING = ("plan", "status", "report")  # commands that take the words of a sweep, as they were typed behind -m
WRITING = (*RUNNING, "report", "quadrature")  # commands that leave more than what they print


def main(words: Sequence[str] | None = None) -> int:
    """Do what a command line says; the exit code.

    Args:
        words: the command line without the program's name; None takes the process's own.
    """
    try:
        code = _answer(list(sys.argv[1:] if words is None else words))
        if sys.stdout is not None:  # closed from the start (>&-)
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print_error("interrupted; the same command goes on from the last checkpoint")
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
    if first == "help" or (asks_help and first not in COMMANDS) or (asks_help and first in RUNNING):
        from rankbench.cli.help import show_help

        return show_help(_topics(words))
    name, rest = (first, words[1:]) if first in COMMANDS else ("run", words)
    if name == "run" and first != name and first and "=" not in first and first[0].isalpha():
        print_error(_no_command(first, words[1:]))
        return MISTAKE
    if name in RUNNING and (sentence := _dashed(rest)):
        print_error(sentence)
        return MISTAKE
    if name == "run" and set(SWEEP_FLAGS) & set(rest):
        name = "sweep"
    if name in READING:
        rest = [word for word in rest if word not in SWEEP_FLAGS]
    if name in WRITING:
        from rankbench.terminal import outlive_readers  # rich takes a moment to import

        outlive_readers()
    return command(name)(rest)


def _topics(words: Sequence[str]) -> list[str]:
    """What help is asked for: what stands beside run, sweep and -m, else the one of them that is there."""
    named = ["sweep" if word in SWEEP_FLAGS else word for word in words if word not in (*HELP_FLAGS, "help")]
    return [word for word in named if word not in RUNNING] or named[-1:]


def command(name: str) -> Callable[[Sequence[str]], int]:
    """The function that does a command: words after its name -> exit code."""
    module = import_module(f"rankbench.cli.{BESIDE.get(name, name)}")
    function: Callable[[Sequence[str]], int] = getattr(module, name if name in BESIDE else "main")
    return function


def _no_command(word: str, rest: Sequence[str]) -> str:
    """The sentence on a first word that is no command: advice on settings where it is one with its value behind it."""
    if rest and rest[0][:1] != "-" and "=" not in rest[0] and _is_setting(word):
        return f"{word}: settings are written key=value: {word}={rest[0]}"
    near = get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    guess = f"did you mean rankbench {near[0]}? " if near else ""
    return f"unknown command {word!r}; {guess}settings are written key=value; see rankbench --help"


def _dashed(words: Sequence[str]) -> str:
    """The sentence on a setting that is written like a flag; "" where none is."""
    for place, word in enumerate(words):
        key, _, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and _is_setting(key := key.replace("-", "_")):
            value = value or next((each for each in words[place + 1 : place + 2] if each[:1] != "-"), "VALUE")
            return f"{word}: settings have no dashes and are written key=value: {key}={value}"
    return ""


def _is_setting(key: str) -> bool:
    """Whether a key, or the section that it is in, is a group or a key of conf/config.yaml."""
    from rankbench.cli.help import groups
    from rankbench.config.yaml_files import CONF_DIR, content

    return key.partition(".")[0] in {*groups(), *content(CONF_DIR / "config.yaml")} - {"defaults", "hydra"}
