"""Compare published numbers with a study."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rankbench.analysis.frame import SelectionError
from rankbench.cli.records import ALLOW_MIXED, names
from rankbench.published import verification
from rankbench.published.numbers import COLUMNS, PLACE, PublishedError, averages, load, select
from rankbench.published.verification import Verification, findings
from rankbench.reporting.table import markdown_of_frame
from rankbench.statistics.decision_rules import OUTCOMES
from rankbench.studies import study
from rankbench.studies.panels import panels, refuse_mixed
from rankbench.sweeps.manifest import SweepError


def published_table(data: pd.DataFrame) -> str:
    """Markdown: every column, the value with the paper's own digits."""
    return _published_table(data.assign(value=data["printed"], n_seeds=data["n_seeds"].astype("string"))[list(COLUMNS)])


def _published_table(data: pd.DataFrame) -> str:
    texts = data.astype(object).where(data.notna(), "").astype(str)
    return markdown_of_frame(texts.apply(lambda column: column.str.replace("|", "\\|", regex=False)))


def published_main() -> None:
    """Print published numbers, or the averages the papers print beside those of their rows."""
    parser = argparse.ArgumentParser(prog="rankbench verify --published", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="?", help="of a file, such as adalora; all without")
    parser.add_argument("--task", help="such as glue-rte")
    parser.add_argument("--method", help="by our name or the paper's")
    parser.add_argument("--averages", action="store_true", help="check the averages against their rows")
    parser.add_argument("--folder", type=Path, help=f"of the files; by default {PLACE}")
    arguments = parser.parse_args()
    try:
        data = select(load(arguments.name, arguments.folder), arguments.task, arguments.method)
    except PublishedError as error:
        parser.exit(2, f"{error}\n")
    print(_published_table(averages(data).round({"recomputed": 3})) if arguments.averages else published_table(data))


def report(found: Sequence[Verification]) -> str:
    """Markdown: how many of each outcome, then a row per number."""
    counts = Counter(finding.outcome for finding in found)
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES)
    columns = ["table", "model", "task", "metric", "method", "budget", "published", "ours", "outcome", "why"]
    rows = [
        [
            *(row["table"], row["model"], row["task"], row["metric"], row["method"], row["rank_or_budget"]),
            *(row["printed"], finding.ours, finding.outcome, finding.reason),
        ]
        for finding in found
        for row in [finding.row]
    ]
    shown = pd.DataFrame(rows, columns=columns).apply(lambda column: column.str.replace("|", "\\|", regex=False))
    return f"{len(found)} published numbers and differences: {said}.\n\n{markdown_of_frame(shown)}"


def main(words: Sequence[str] | None = None) -> int:
    """Print what the study of the words reproduces."""
    parser = argparse.ArgumentParser(
        "rankbench verify", description=verification.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="of the sweep, or the folder of a report")
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)
    arguments = parser.parse_args(words)
    try:
        found = study.load(arguments.words)
        refuse_mixed(found, panels(found), arguments.allow_mixed)
        known = findings(found)
    except (SweepError, PublishedError, SelectionError) as error:
        print(f"rankbench.published.verification: {error}", file=sys.stderr)
        return 2
    print(f"# {found.sweep.name}: published numbers\n")
    print(report(known) if known else "The experiment names no published numbers.")
    return 0
