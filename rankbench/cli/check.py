"""Check the contract of a method."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rankbench.contract.checks import CHECKS, CheckResult, judge
from rankbench.contract.short_runs import ShortRuns
from rankbench.terminal import console

COLOURS = {"pass": "green", "fail": "bold red", "skip": "yellow"}


def report(title: str, verdicts: Sequence[CheckResult]) -> None:
    """Print the verdicts."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2))
    for column in ("check", "verdict", "what was seen"):
        table.add_column(column, overflow="fold")
    for verdict in verdicts:
        colour = COLOURS[verdict.verdict]
        table.add_row(verdict.check, f"[{colour}]{verdict.verdict}[/{colour}]", Text(verdict.seen))
    console().print(table)


def main() -> int:
    """Examine the method that the command line names; 0 if no check fails."""
    parser = argparse.ArgumentParser(prog="rankbench check", description="Checks a method's contract.")
    parser.add_argument("--config-dir", type=Path, help="a folder with more configuration files")
    parser.add_argument("overrides", nargs="+", help="method=NAME, method.key=value, as for rankbench")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankbench-doctor-") as folder:
        exam = ShortRuns(arguments.overrides, Path(folder), arguments.config_dir)
        verdicts = [judge(name, exam) for name in CHECKS]
    report(" ".join(arguments.overrides), verdicts)
    failed = sum(verdict.verdict == "fail" for verdict in verdicts)
    print(f"{failed} of {len(verdicts)} checks failed" if failed else "every check holds")
    return 1 if failed else 0
