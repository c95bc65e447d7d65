"""Which published numbers does a study reproduce? `python -m rankbench.verify [experiment=X] [scale=small ...]`.

A report's folder may stand in place of the words. Of every number of the tables that the experiment names, and of every
difference to the table's reference (uniform LoRA, or the arm named first) where both were run: reproduced, not
reproduced, not comparable or not run, and why. The rule is rankbench.reproduction's. Markdown; exit code 0.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from rankbench import published
from rankbench.analysis.frame import SelectionError, markdown
from rankbench.analysis.selection import ALLOW_MIXED, names
from rankbench.counterparts import Counterpart, Row, counterpart, our_budgets
from rankbench.published import PublishedError
from rankbench.statistics.decision_rules import OUTCOMES, ReproductionOutcome, reproduction
from rankbench.studies import study
from rankbench.studies.panels import panels, refuse_mixed
from rankbench.studies.study import Study
from rankbench.sweeps.experiment import Published, Report
from rankbench.sweeps.manifest import SweepError


@dataclass(frozen=True)
class Finding:
    """What a study says of one published number.

    Attributes:
        row: of the number; of a difference, its method is "A - B" and its printed value the difference of both.
        ours: our mean and interval, in its unit; "" where there is none.
        reason: for the outcome, and what weakens it.
    """

    row: Row
    outcome: ReproductionOutcome
    ours: str
    reason: str


def findings(found: Study) -> list[Finding]:
    """Of every number of the study's published tables, and of the differences in them.

    Raises:
        SweepError: a sweep without an experiment, which names no tables.
        PublishedError: a file that cannot be read.
    """
    experiment = found.sweep.experiment
    if experiment is None:
        raise SweepError(f"sweep {found.sweep.sweep_id} has no experiment, so there is nothing published to hold it to")
    return [finding for table in experiment.report.published for finding in _of_table(found, experiment.report, table)]


def _of_table(found: Study, report: Report, table: Published) -> Iterator[Finding]:
    data = published.load(table.file)
    data = data[(data["table"] == table.table) & ((table.model is None) | (data["model"] == table.model))]
    rows: list[Row] = [dict(row) for row in data.to_dict("records")]
    known = [counterpart(found, report, table, row, rows) for row in rows]
    yield from (_judged(report, row, held) for row, held in zip(rows, known, strict=True))
    for place, base in _pairs(report, table, rows):
        first, second = known[place].values, known[base].values
        both = {seed: first[seed] - second[seed] for seed in first if seed in second}
        if both:
            yield _judged(report, _difference(rows[place], rows[base]), Counterpart(both))


def _pairs(report: Report, table: Published, rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Places of a number and of the reference's at the same model, task, metric and budget."""
    if not table.arms:
        return
    reference = report.reference if report.reference in table.arms else next(iter(table.arms))
    for place, row in enumerate(rows):
        if row["method"] == table.arms[reference] or row["method"] not in table.arms.values():
            continue
        bases = [
            other
            for other, base in enumerate(rows)
            if base["method"] == table.arms[reference]
            and all(base[key] == row[key] for key in ("model", "task", "metric"))
            and our_budgets(table, base) == our_budgets(table, row)
        ]
        yield from ((place, base) for base in bases if len(bases) == 1)


def _difference(row: Row, base: Row) -> Row:
    """Two numbers as one; its rounding is that of both."""
    seeds = [part["n_seeds"] for part in (row, base)]
    digits = max(len(part["printed"].partition(".")[2]) for part in (row, base))
    value = row["value"] - base["value"]
    return {
        **row,
        "method": f"{row['method']} - {base['method']}",
        "value": value,
        "printed": f"{value:+.{digits}f}",
        "rounding": published.half_digit(row["printed"]) + published.half_digit(base["printed"]),
        "n_seeds": pd.NA if any(pd.isna(count) for count in seeds) else min(seeds),
    }


def _judged(report: Report, row: Row, known: Counterpart) -> Finding:
    if not known.values:
        return Finding(row, known.outcome, "", known.reason)
    unit = 100.0 if row["unit"] == "percent" else 1.0
    runs: int | None = None if pd.isna(row["n_seeds"]) else int(row["n_seeds"])
    judged = reproduction(
        list(known.values.values()),
        row["value"] / unit,
        report.margin_of(row["task"]),
        row.get("rounding", published.half_digit(row["printed"])) / unit,
        runs,
        known.items,
    )
    ours, digits = judged.ours, len(row["printed"].partition(".")[2])
    shown = f"{ours.value * unit:.{digits}f}"
    if ours.low is not None and ours.high is not None:
        shown += f" [{ours.low * unit:.{digits}f}, {ours.high * unit:.{digits}f}]"
    return Finding(row, judged.outcome, f"{shown}, n = {len(known.values)}", "; ".join([judged.reason, *_doubts(row)]))


def _doubts(row: Row) -> Iterator[str]:
    """What weakens a published number itself."""
    if row["confidence"] != "read in full":
        yield row["confidence"]
    if pd.isna(row["n_seeds"]):
        yield "the paper's seeds are not known"
    elif row["n_seeds"] == 1:
        yield "one run in the paper"
    if row["note"]:
        yield row["note"]


def report(found: Sequence[Finding]) -> str:
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
    return f"{len(found)} published numbers and differences: {said}.\n\n{markdown(shown)}"


def main(words: Sequence[str] | None = None) -> int:
    """Print what the study of the words reproduces."""
    parser = argparse.ArgumentParser(
        "python -m rankbench.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="of the sweep, or the folder of a report")
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)
    arguments = parser.parse_args(words)
    try:
        found = study.load(arguments.words)
        refuse_mixed(found, panels(found), arguments.allow_mixed)
        known = findings(found)
    except (SweepError, PublishedError, SelectionError) as error:
        print(f"rankbench.verify: {error}", file=sys.stderr)
        return 2
    print(f"# {found.sweep.name}: published numbers\n")
    print(report(known) if known else "The experiment names no published numbers.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
