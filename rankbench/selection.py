"""Which records stand in one table or figure: split by settings, one learning rate each, nothing mixed unsaid."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankbench.collect import frame, integers, records, split
from rankbench.labels import flat, labels
from rankbench.rates import SelectionError, best_rates, refuse_twice
from rankbench.record import CONTENT, NOT_IDENTITY, RunRecord

BEST = "best:"
# What may differ within a comparison: what is compared, what pairs are made by, what is chosen, what is no setting.
FREE = ("method", "seed", "train.learning_rate", *NOT_IDENTITY, *CONTENT)


@dataclass(frozen=True)
class Selection:
    """Records of one table or figure.

    Attributes:
        title: model, task, budget, and the settings it was split by.
        records: those shown; at most one per label and seed.
        notes: sentences that belong under it.
    """

    title: str
    records: list[RunRecord]
    notes: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `selections` reads."""
    parser.add_argument("source", type=Path, help="results folder, or a JSON-lines file of records")
    parser.add_argument("--by", action="append", default=[], metavar="KEY", help="one for each value, such as task.map")
    parser.add_argument("--rates", metavar="RATE", help="learning rate: a number, or best:validation/loss")
    parser.add_argument("--tuning-seeds", type=integers, default=[], help="choose on these, show the others: 100,101")
    parser.add_argument("--allow-mixed", action="store_true", help="even if code, versions or settings differ")


def selections(arguments: argparse.Namespace) -> list[Selection]:
    """One for each model, task, budget and value of the `--by` settings, in this order.

    Raises:
        SelectionError: nothing to read, or records that are no comparison.
    """
    found, problems = records(arguments.source)
    if not found:
        raise SelectionError(f"{arguments.source} holds no records; give a results folder or a file made with --save")
    return [
        select(title, group, arguments.rates, arguments.tuning_seeds, arguments.allow_mixed, problems)
        for title, group in split(found, arguments.by)
    ]


def select(
    title: str,
    found: Sequence[RunRecord],
    rates: str | None = None,
    tuning_seeds: Sequence[int] = (),
    allow_mixed: bool = False,
    notes: Sequence[str] = (),
) -> Selection:
    """The records of one comparison.

    Args:
        found: of one model, task and budget.
        rates: learning rate of all, or "best:" and the validation metric each label's is chosen on; None where each
            label has one.
        tuning_seeds: choose on these, and show the others.
        allow_mixed: say what differs instead of refusing it.

    Raises:
        SelectionError: code, versions or settings differ; several learning rates; two records of one label and seed.
    """
    mixed = differences(found)
    if mixed and not allow_mixed:
        raise SelectionError(
            f"{title}: not one comparison, these differ: {'; '.join(mixed)}. Split by a setting with --by KEY, give "
            "records of one code, or take --allow-mixed"
        )
    chosen, chosen_notes = _at_rates(found, rates, tuning_seeds)
    _refuse_doubt(title, chosen)
    said = [f"mixed: {'; '.join(mixed)}"] if mixed else []
    return Selection(title, chosen, [*(f"not counted: {note}" for note in notes), *said, *chosen_notes])


def differences(found: Sequence[RunRecord]) -> list[str]:
    """What has to agree in a comparison and does not, with its values: "torch: 2.13, 2.14", "train.steps: 60, 100"."""
    facts = [_facts(record) for record in found]
    values = {key: {fact.get(key, "null") for fact in facts} for key in {key for fact in facts for key in fact}}
    return [f"{key}: {', '.join(sorted(held))}" for key, held in sorted(values.items()) if len(held) > 1]


def _facts(record: RunRecord) -> dict[str, str]:
    origin = record.provenance
    commit, dirty = origin.get("git_commit"), origin.get("git_dirty")
    facts = {"code": f"{(commit or 'null')[:7]}{' changed' if dirty else ''}"}
    facts |= {name: str(version) for name, version in (origin.get("packages") or {}).items()}
    return facts | {key: value for key, value in flat(record.config) if not _is_free(key)}


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _at_rates(
    found: Sequence[RunRecord], rates: str | None, tuning_seeds: Sequence[int]
) -> tuple[list[RunRecord], list[str]]:
    """The records at the rates asked for, and what is to be said of the choice."""
    if tuning_seeds and not (rates or "").startswith(BEST):
        raise SelectionError(f"--tuning-seeds choose nothing without --rates {BEST}METRIC; give both or neither")
    if rates is None:
        return list(found), []
    if not rates.startswith(BEST):
        return _at_one_rate(found, rates), [f"learning rate {rates}"]
    best: dict[str, dict[Any, Any]] = {
        row["label"]: row for row in best_rates(frame(found), rates.removeprefix(BEST), tuning_seeds).to_dict("records")
    }
    chosen = [
        record
        for record, label in zip(found, labels(found), strict=True)
        if record.config["train"]["learning_rate"] == best[label]["learning_rate"] and record.seed not in tuning_seeds
    ]
    if not chosen:
        raise SelectionError("every record is of a tuning seed; run the chosen rates at other seeds")
    return chosen, _say(best, rates.removeprefix(BEST), shown=not tuning_seeds)


def _at_one_rate(found: Sequence[RunRecord], rates: str) -> list[RunRecord]:
    try:
        chosen = [record for record in found if record.config["train"]["learning_rate"] == float(rates)]
    except ValueError:
        raise SelectionError(f"--rates {rates} is neither a number nor {BEST}METRIC") from None
    if not chosen:
        tried = sorted({record.config["train"]["learning_rate"] for record in found})
        raise SelectionError(f"--rates {rates}: no run has this learning rate; there are {', '.join(map(str, tried))}")
    return chosen


def _say(best: dict[str, dict[Any, Any]], metric: str, shown: bool) -> list[str]:
    rates = [f"{label} {row['learning_rate']:g}{' (edge of its grid)' * row['edge']}" for label, row in best.items()]
    seeds = sorted({seed for row in best.values() for seed in row["seeds"]})
    also = "which are shown as well" if shown else "which are not shown"
    return [f"learning rates with the best {metric} of seeds {', '.join(map(str, seeds))}, {also}: {', '.join(rates)}"]


def _refuse_doubt(title: str, chosen: Sequence[RunRecord]) -> None:
    """One learning rate per label, and one record per label and seed: else a mean would hide what it is of."""
    data = frame(chosen)
    for label, runs in data.groupby("label"):
        rates = sorted(runs["learning_rate"].dropna().unique())
        if len(rates) > 1:
            raise SelectionError(
                f"{title}: {label} has learning rates {', '.join(f'{rate:g}' for rate in rates)}; pick one with "
                "--rates RATE, or each method's best on validation with --rates best:validation/loss"
            )
        refuse_twice(runs)
