"""`rankbench verify [experiment=X] [--results DIR]`: which published numbers does a study reproduce?

A report's folder may stand in place of the words. Each number of the tables that the experiment names, and each
difference to the table's reference (uniform LoRA, or the arm named first) where both were run, is equivalent (shown to
lie within the margin), consistent, contradicted, not comparable or not run, with the reason; of a difference the sign
is confirmed, contradicted or not shown.

With --published it lists the papers' numbers instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankbench.cli.arguments import ALLOW_MIXED, add_results, names, with_results
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import OK
from rankbench.terminal import loading, print_table, print_text

if TYPE_CHECKING:  # pandas takes a moment to import: after the arguments are read
    import pandas as pd

    from rankbench.published.verification import Verification

# Columns that go first where the terminal is too narrow for all.
VERIFY_SPARE = ("table", "metric", "model", "budget")
PUBLISHED_FIRST = ("method", "rank_or_budget", "task", "metric", "value", "unit", "n_seeds")
PUBLISHED_SPARE = ("confidence", "note", "paper", "our_method", "table", "model", "seeds", "unit")
AVERAGES_SPARE = ("paper", "note", "model")
OUTCOME_COLOURS = {"equivalent": "green", "consistent": "green", "contradicted": "bold red", "not run": "dim"}


def main(words: Sequence[str]) -> int:
    """Print what the study of the words reproduces, or the published numbers."""
    listed = "--published" in words
    return _published([word for word in words if word != "--published"]) if listed else _verify(words)


def _verify(words: Sequence[str]) -> int:
    parser = command_parser("verify", __doc__ or "")
    parser.add_argument("words", nargs="*", metavar="WORD", help="experiment=X, ...; or the folder of a report")
    add_results(parser)
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)
    published = "list the papers' numbers; rankbench verify --published --help says more"
    parser.add_argument("--published", action="store_true", help=published)
    arguments = parser.parse_intermixed_args(words)
    loading("records")
    from rankbench.published.verification import findings
    from rankbench.studies import study
    from rankbench.studies.panels import panels, refuse_mixed

    loaded = study.load(with_results(arguments.words, arguments))
    refuse_mixed(loaded, panels(loaded), arguments.allow_mixed)
    verifications = findings(loaded)
    if verifications:
        show(loaded.sweep.name, verifications)
    else:
        print(f"{loaded.sweep.name}: the experiment names no published numbers.")
    return OK


def _published(words: Sequence[str]) -> int:
    """Print published numbers, or the averages the papers print beside those of their rows."""
    parser = command_parser("verify --published", "What the papers print, with source and confidence.")
    parser.add_argument("name", nargs="?", help="one file of numbers, such as adalora; without it all")
    parser.add_argument("--task", help="such as glue-rte")
    parser.add_argument("--method", help="our name or the paper's")
    parser.add_argument("--averages", action="store_true", help="check the averages against their rows")
    parser.add_argument(
        "--coverage", action="store_true", help="which of all numbers an experiment runs for, as Markdown"
    )
    parser.add_argument("--folder", type=Path, help="folder of the files; by default those of rankbench")
    arguments = parser.parse_intermixed_args(words)
    loading("published numbers")
    from rankbench.published.coverage import coverage, markdown, summary
    from rankbench.published.numbers import averages, load, select
    from rankbench.reporting.record_tables import print_frame

    if arguments.coverage:
        tables = coverage()
        print(f"{summary(tables)}\n\n{markdown(tables)}")
        return OK
    data = select(load(arguments.name, arguments.folder), arguments.task, arguments.method)
    if arguments.averages:
        print_frame(averages(data).round({"recomputed": 3}), AVERAGES_SPARE)
    else:
        print_frame(published_frame(data), PUBLISHED_SPARE)
    return OK


def published_frame(data: pd.DataFrame) -> pd.DataFrame:
    """Every column, what tells the numbers apart first; the value with the paper's own digits."""
    from rankbench.published.numbers import COLUMNS

    shown = data.assign(value=data["printed"], n_seeds=data["n_seeds"].astype("string"))
    order = [*PUBLISHED_FIRST, *(column for column in COLUMNS if column not in PUBLISHED_FIRST)]
    return shown[order].rename(columns={"rank_or_budget": "budget", "n_seeds": "seeds"})


def show(name: str, verifications: Sequence[Verification]) -> None:
    """Print how many numbers there are of each outcome, then a row per number.

    Args:
        name: of the experiment.
        verifications: at least one.
    """
    from rankbench.statistics.reproduction import REPRODUCTION_OUTCOMES

    counts = Counter(verification.outcome for verification in verifications)
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in REPRODUCTION_OUTCOMES)
    titles = ["method", "table", "model", "task", "metric", "budget", "published", "ours", "outcome", "why"]
    rows = [
        [
            *(str(verification.row[key]) for key in ("method", "table", "model", "task", "metric", "rank_or_budget")),
            *(verification.row["printed"], verification.ours, verification.outcome, verification.reason),
        ]
        for verification in verifications
    ]
    print_text(f"{name}: published numbers\n\n{len(verifications)} published numbers and differences: {summary}.\n")
    print_table(titles, rows, "", VERIFY_SPARE, OUTCOME_COLOURS)
