"""`rankbench check method=NAME ...`: does a method keep the contract?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import FAILED, OK
from rankbench.cli.run import say
from rankbench.terminal import console

if TYPE_CHECKING:
    from rankbench.contract.checks import CheckResult

DESCRIPTION = """Checks that a method keeps the contract, on short runs of a tiny model.

The contract is what makes runs comparable: a run stays in its budget, repeats itself from the same seed, goes on after
an interruption as if there had been none, and leaves an adapter that plain PEFT can read."""
COLOURS = {"pass": "green", "fail": "bold red", "skip": "yellow"}


def show(title: str, results: Sequence[CheckResult]) -> None:
    """Print a row for each check."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2))
    for column in ("check", "outcome", "what was seen"):
        table.add_column(column, overflow="fold")
    for result in results:
        colour = COLOURS[result.outcome]
        table.add_row(result.check, f"[{colour}]{result.outcome}[/{colour}]", Text(result.seen))
    console().print(table)


def main(words: Sequence[str]) -> int:
    """Check the method that the overrides name; 0 if no check fails, else 1."""
    parser = command_parser("check", DESCRIPTION)
    parser.add_argument("--config-dir", type=Path, help="a folder with more configuration files")
    parser.add_argument("overrides", nargs="+", metavar="WORD", help="method=NAME, method.key=value, as for a run")
    arguments = parser.parse_intermixed_args(words)
    say("loading torch, transformers, PEFT ...")
    from rankbench.contract.checks import CHECKS, judge
    from rankbench.contract.short_runs import ShortRuns

    with tempfile.TemporaryDirectory(prefix="rankbench-check-") as folder:
        runs = ShortRuns(arguments.overrides, Path(folder), arguments.config_dir)
        results = [judge(name, runs) for name in CHECKS]
    show(" ".join(arguments.overrides), results)
    failed = sum(result.outcome == "fail" for result in results)
    print(f"{failed} of {len(results)} checks failed" if failed else "every check holds")
    return FAILED if failed else OK
