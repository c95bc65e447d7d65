"""Which records stand in one table or figure: one learning rate per label, and no silent mixing of code or settings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rankbench.analysis.frame import SelectionError, frame, refuse_twice
from rankbench.analysis.labels import labels, sort_key
from rankbench.analysis.learning_rates import best_rates
from rankbench.analysis.mixed_records import differences, refuse
from rankbench.records.record import RunRecord

BEST = "best:"


@dataclass(frozen=True)
class Selection:
    """Records of one table or figure.

    Attributes:
        title: model, task, budget, and the settings it was split by.
        records: records that are shown; at most one per label and seed.
        labels: a label per record; they tell apart all records, those at other learning rates included.
        notes: sentences that belong under it.
    """

    title: str
    records: list[RunRecord]
    labels: list[str]
    notes: list[str]


def select(
    title: str,
    records: Sequence[RunRecord],
    rates: str | None = None,
    tuning_seeds: Sequence[int] = (),
    allow_mixed: Collection[str] = (),
    notes: Sequence[str] = (),
) -> Selection:
    """Select the records of one comparison.

    Args:
        records: records of one model, task and budget.
        rates: learning rate of all, or "best:" and the validation metric each label's is chosen on; None where each
            label has one.
        tuning_seeds: choose on these, and show the others.
        allow_mixed: names ("code", "torch", "train.steps") of what may differ; it is said instead of refused.

    Raises:
        SelectionError: code, versions or settings differ; several learning rates; two records of one label and seed.
    """
    mixed = differences(records)
    refuse({title: mixed}, allow_mixed, "Split by a setting with --by KEY, give records of one code")
    names = labels(records)
    chosen, chosen_notes = _at_rates(records, names, rates, tuning_seeds)
    chosen_records, shown_names = [records[index] for index in chosen], [names[index] for index in chosen]
    refuse_doubt(title, frame(chosen_records, names=shown_names))
    lost = sorted(set(names) - set(shown_names), key=sort_key)
    sentences = [
        *(f"not counted: {note}" for note in notes),
        *([f"mixed: {'; '.join(mixed)}"] if mixed else []),
        *_unclean(chosen_records),
        *chosen_notes,
        *([f"not run at the chosen rate: {', '.join(lost)}"] if lost else []),
    ]
    return Selection(title, chosen_records, shown_names, sentences)


def _unclean(records: Sequence[RunRecord]) -> list[str]:
    """A note on runs whose code cannot be had again: uncommitted changes, or neither a commit nor a version."""
    changed = sum(bool(record.provenance.get("git_dirty")) for record in records)
    unknown = sum(
        not record.provenance.get("git_commit") and not (record.provenance.get("packages") or {}).get("rankbench")
        for record in records
    )
    counts = {"of code with uncommitted changes": changed, "of unknown code, without commit or version": unknown}
    return [f"{count} of {len(records)} runs are {what}" for what, count in counts.items() if count]


def _at_rates(
    records: Sequence[RunRecord], names: Sequence[str], rates: str | None, tuning_seeds: Sequence[int]
) -> tuple[list[int], list[str]]:
    """Indices of the records at the rates asked for, and notes on the choice."""
    if tuning_seeds and not (rates or "").startswith(BEST):
        raise SelectionError(f"--tuning-seeds needs --rates {BEST}METRIC")
    if rates is None:
        return list(range(len(records))), _say_given(records, names)
    if not rates.startswith(BEST):
        return _at_one_rate(records, rates), [f"learning rate {rates}"]
    metric = rates.removeprefix(BEST)
    best = {
        row["label"]: row for row in best_rates(frame(records, names=names), metric, tuning_seeds).to_dict("records")
    }
    at_best = [index for index, name in enumerate(names) if _rate(records[index]) == best[name]["learning_rate"]]
    chosen = [index for index in at_best if records[index].seed not in tuning_seeds]
    if not chosen:
        raise SelectionError("every record is of a tuning seed; run the chosen rates at other seeds")
    labels_shown = {names[index] for index in chosen}  # a label that failed while tuning is a row, not a hole
    chosen += [index for index in at_best if best[names[index]]["missing"] and names[index] not in labels_shown]
    return sorted(chosen), _say(best, metric, tuning_seeds_shown=not tuning_seeds)


def _at_one_rate(records: Sequence[RunRecord], rates: str) -> list[int]:
    try:
        chosen = [index for index, record in enumerate(records) if _rate(record) == float(rates)]
    except ValueError:
        raise SelectionError(f"--rates {rates} is neither a number nor {BEST}METRIC") from None
    if not chosen:
        tried = sorted({_rate(record) for record in records})
        raise SelectionError(f"--rates {rates}: no run has this learning rate; there are {', '.join(map(str, tried))}")
    return chosen


def _rate(record: RunRecord) -> Any:
    return record.config.get("train", {}).get("learning_rate")


def _say_given(records: Sequence[RunRecord], names: Sequence[str]) -> list[str]:
    rates = {name: _rate(record) for record, name in zip(records, names, strict=True)}
    rate_texts = [f"{name} {rates[name]:g}" for name in sorted(rates, key=sort_key) if rates[name] is not None]
    return [f"learning rates, not tuned here: {', '.join(rate_texts)}"] if rate_texts else []


def _say(best: dict[Any, dict[Any, Any]], metric: str, tuning_seeds_shown: bool) -> list[str]:
    """Notes on the rates chosen: on which seeds, of how many rates (by label where that differs), and failures."""
    rows = [best[name] for name in sorted(best, key=sort_key)]
    chosen = [row for row in rows if not row["missing"]]
    same = len({(row["seeds"], row["rates"]) for row in chosen}) == 1
    rates = [
        f"{row['label']} {row['learning_rate']:g}"
        + ("" if same else f" of {row['rates']} (seeds {_seeds(row)})")
        + (" (edge of its grid)" if row["edge"] else "")
        for row in chosen
    ]
    seeds = f"of seeds {_seeds(chosen[0])}" if same else "of the seeds named"
    also = "which are shown as well" if tuning_seeds_shown else "which are not shown"
    return [f"learning rates with the best {metric} {seeds}, {also}: {', '.join(rates)}"] + [
        f"{row['label']}: no learning rate has {metric} at every tuning seed ({_seeds(row)}); shown at "
        f"{row['learning_rate']:g}, {row['missing']} of {len(row['seeds'])} missing"
        for row in rows
        if row["missing"]
    ]


def _seeds(row: dict[Any, Any]) -> str:
    return ", ".join(map(str, row["seeds"]))


def refuse_doubt(title: str, data: pd.DataFrame) -> None:
    """Refuse several learning rates of a label, and several records of a label and seed.

    Raises:
        SelectionError: a label with more.
    """
    several = data.groupby("label")["learning_rate"].nunique() > 1
    twice = data.loc[data.duplicated(["label", "seed"]), "label"]
    doubtful = data[data["label"].isin({*several.index[several], *twice})]
    for label, runs in doubtful[["label", "seed", "learning_rate", "run_id"]].groupby("label"):
        rates = sorted(runs["learning_rate"].dropna().unique())
        if len(rates) > 1:
            raise SelectionError(
                f"{title}: {label} has learning rates {', '.join(f'{rate:g}' for rate in rates)}; pick one with "
                "--rates RATE, or each method's best on validation with --rates best:validation/loss"
            )
        refuse_twice(runs)
