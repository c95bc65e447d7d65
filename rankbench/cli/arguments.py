"""Command-line arguments that several commands share."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path("results")
ALLOW_MIXED = "differences to tolerate, by name, such as code,torch,train.steps"
WIDEST = 110  # characters; longer lines are hard to read


def width() -> int:
    """Columns that a help text may use."""
    return max(40, min(shutil.get_terminal_size((100, 24)).columns, WIDEST))


class Paragraphs(argparse.HelpFormatter):
    """Fills each paragraph of a description by itself; lines that are indented stay as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = textwrap.dedent(text).strip().split("\n\n")
        filled = (part if part.startswith(" ") else textwrap.fill(part, width) for part in parts)
        return textwrap.indent("\n\n".join(filled), indent)


def parser(command: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """An empty parser of a command.

    Args:
        command: its name, as typed after `rankbench`.
        description: paragraphs, parted by empty lines.
        epilog: paragraphs at the end of the help.
    """
    return argparse.ArgumentParser(
        f"rankbench {command}", description=description, epilog=epilog, formatter_class=Paragraphs, allow_abbrev=False
    )


def add_results(parser: argparse.ArgumentParser, *old: str, file: bool = False) -> None:
    """The option that says where results are: the same for every command that reads them.

    Args:
        old: earlier spellings of the option, which go on working; no help names them.
        file: whether a file of records (records.jsonl) may stand in place of the folder.
    """
    what = "results folder" + (", or a file of records (records.jsonl)" if file else "")
    parser.add_argument("--results", type=Path, metavar="DIR", help=f"{what} (default: {RESULTS})")
    if old:  # argparse would name them all in one line
        parser.add_argument(*old, type=Path, dest="results", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def results_of(arguments: argparse.Namespace, words: Sequence[str] = ()) -> Path:
    """Where results are: --results, else the word results_dir=DIR, else `results`."""
    if arguments.results is not None:
        return Path(arguments.results)
    typed = [word.partition("=")[2] for word in words if word.startswith("results_dir=")]
    return Path(typed[-1]) if typed else RESULTS


def with_results(words: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """The words of a sweep or run with --results among them as results_dir=DIR; a report's folder needs none.

    The name of a study alone ("igu_ablation") stands for its folder in the results folder, where that is there.
    """
    if len(words) == 1 and "=" not in words[0]:
        named = results_of(arguments) / words[0]
        return [str(named)] if named.is_dir() and not Path(words[0]).exists() else list(words)
    if arguments.results is None:
        return list(words)
    return [*(word for word in words if not word.startswith("results_dir=")), f"results_dir={arguments.results}"]


def names(text: str) -> list[str]:
    """Names as a command line has them: "code,torch"."""
    return [part.strip() for part in text.split(",")]


def integers(text: str) -> list[int]:
    """Numbers as a command line has them: "100,101"."""
    return [int(part) for part in text.split(",")]
