"""`rankbench verify [experiment=X] [--results DIR]`: which published numbers does a study reproduce?

A report's folder may stand in place of the words. Each number of the tables that the experiment names, and each
difference to the table's reference (uniform LoRA, or the arm named first) where both were run, is equivalent (shown to
lie within the margin), consistent, contradicted, not comparable or not run, with the reason; of a difference the sign
is confirmed, contradicted or not shown.

With --redo N it does N of the study's runs again, drawn at random, each by its own command line, and says whether every
metric and every rank is the same; 1 if one is not. With --published it lists the papers' numbers instead.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankbench.cli.arguments import ALLOW_MIXED, add_results, names, with_results
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import FAILED, OK
from rankbench.terminal import loading, print_table, print_text

if TYPE_CHECKING:  # pandas takes a moment to import: after the arguments are read
    import pandas as pd

    from rankbench.published.verification import Verification
    from rankbench.studies.repetition import Repetition

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
    parser.add_argument("--redo", type=int, metavar="N", help="do N runs of the study again and compare the numbers")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of these runs (0)")
    arguments = parser.parse_intermixed_args(words)
    if arguments.redo is not None and arguments.redo < 1:
        parser.error(f"--redo {arguments.redo}: needs a number of runs, 1 or more")
    loading("records")
    if arguments.redo is not None:
        return _redo(arguments)
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


def _redo(arguments: Namespace) -> int:
    """Print a line for each run that is done again; 1 if a number of one is another."""
    from rankbench.studies import study
    from rankbench.studies.repetition import repeat

    loaded = study.load(with_results(arguments.words, arguments), curves=False)
    other = count = 0
    for count, repetition in enumerate(repeat(loaded, arguments.redo, arguments.seed), 1):
        other += bool(repetition.differences)
        print_text(f"[{count}] {repetition.job.title}: {_outcome(repetition)}")
    print_text(
        f"{loaded.sweep.name}: {count - other} of {count} runs done again have the same numbers to the last bit."
    )
    return FAILED if other or not count else OK


def _outcome(repetition: Repetition) -> str:
    if repetition.record is None:
        return f"left no record\n{repetition.output}"
    if not repetition.differences:
        return "the same"
    if repetition.largest is not None:
        return f"other numbers, by at most {repetition.largest:.1e} of them"
    some = list(repetition.differences.items())[:3]
    return "other: " + "; ".join(f"{key} {one} before, {now} now" for key, (one, now) in some)


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
