"""Which published numbers does a study reproduce? `rankbench verify [experiment=X] [scale=small ...]`.

A report's folder may stand in place of the words. Each number of the tables that the experiment names, and each
difference to the table's reference (uniform LoRA, or the arm named first) where both were run, is equivalent,
consistent, contradicted, not comparable or not run, with the reason; of a difference the sign is confirmed,
contradicted or not shown. The rule is `reproduction` of rankbench.statistics.reproduction.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rankbench.analysis.metrics import is_share, metric_of
from rankbench.config.yaml_files import defaults
from rankbench.published import numbers
from rankbench.published.numbers import AVERAGE, ITEMS, SETS
from rankbench.records.record import RunRecord
from rankbench.statistics.reproduction import ReproductionOutcome, reproduction
from rankbench.studies.study import Study
from rankbench.sweeps import experiment_files
from rankbench.sweeps.experiment import FULL
from rankbench.sweeps.manifest import SweepError
from rankbench.sweeps.report_settings import Published, Report


@dataclass(frozen=True)
class Verification:
    """What a study says of one published number.

    Attributes:
        row: row of the number; for a difference, its method is "A - B" and its printed value the difference of both.
        ours: our mean and interval, in its unit; "" where there is none.
        reason: why, and what weakens it.
    """

    row: Row
    outcome: ReproductionOutcome
    ours: str
    reason: str


def findings(study: Study) -> list[Verification]:
    """Verify every number of the study's published tables, and the differences in them.

    Raises:
        SweepError: a sweep without an experiment, which names no tables.
        PublishedError: a file that cannot be read.
    """
    experiment = study.sweep.experiment
    if experiment is None:
        raise SweepError(f"sweep {study.sweep.sweep_id} has no experiment, so there is nothing published to hold it to")
    return [finding for table in experiment.report.published for finding in _of_table(study, experiment.report, table)]


def _of_table(study: Study, report: Report, table: Published) -> Iterator[Verification]:
    data = numbers.load(table.file)
    data = data[(data["table"] == table.table) & ((table.model is None) | (data["model"] == table.model))]
    rows: list[Row] = [dict(row) for row in data.to_dict("records")]
    counterparts = [counterpart(study, report, table, row, rows) for row in rows]
    yield from (_judged(report, row, ours) for row, ours in zip(rows, counterparts, strict=True))
    for index, base in _pairs(report, table, rows):
        first, second = counterparts[index].values, counterparts[base].values
        both = {seed: first[seed] - second[seed] for seed in first if seed in second}
        if both:
            yield _judged(report, _difference(rows[index], rows[base]), Counterpart(both), difference=True)


def _pairs(report: Report, table: Published, rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Places of a number and of the reference's at the same model, task, metric and budget."""
    if not table.arms:
        return
    reference = report.reference if report.reference in table.arms else next(iter(table.arms))
    for index, row in enumerate(rows):
        if row["method"] == table.arms[reference] or row["method"] not in table.arms.values():
            continue
        bases = [
            other
            for other, base in enumerate(rows)
            if base["method"] == table.arms[reference]
            and all(base[key] == row[key] for key in ("model", "task", "metric"))
            and our_budgets(table, base) == our_budgets(table, row)
        ]
        yield from ((index, base) for base in bases if len(bases) == 1)


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
        "rounding": numbers.half_digit(row["printed"]) + numbers.half_digit(base["printed"]),
        "n_seeds": pd.NA if any(pd.isna(count) for count in seeds) else min(seeds),
    }


def _judged(report: Report, row: Row, own: Counterpart, difference: bool = False) -> Verification:
    if not own.values:
        return Verification(row, own.outcome, "", own.reason)
    unit = 100.0 if row["unit"] == "percent" else 1.0
    runs: int | None = None if pd.isna(row["n_seeds"]) else int(row["n_seeds"])
    judged = reproduction(
        list(own.values.values()),
        row["value"] / unit,
        report.margin_of(row["task"]),
        row.get("rounding", numbers.half_digit(row["printed"])) / unit,
        runs,
        own.items,
        difference,
    )
    sign = [] if judged.sign is None else [f"sign {judged.sign}"]
    ours, digits = judged.ours, len(row["printed"].partition(".")[2])
    text = f"{ours.value * unit:.{digits}f}"
    if ours.low is not None and ours.high is not None:
        text += f" [{ours.low * unit:.{digits}f}, {ours.high * unit:.{digits}f}]"
    return Verification(
        row, judged.outcome, f"{text}, n = {len(own.values)}", "; ".join([judged.reason, *sign, *_doubts(row)])
    )


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


Row = Mapping[Any, Any]  # of rankbench.published

# A metric of the papers -> ours, where its name is another; several are averaged.
OURS = {
    "correlation": ("pearson",),
    "accuracy, mean of m and mm": ("accuracy", "accuracy_mismatched"),
    "test perplexity": ("perplexity",),
}
HARDWARE = frozenset({"time", "memory", "speed"})  # words in metrics that depend on the machine
PARAMETERS = 0.1  # share by which a number of parameters may differ and be the same budget
# Typed words that change no number, or that are looked at by themselves; and sections of such words.
HARMLESS = (
    *("experiment", "results_dir", "seed", "retry", "arms", "model", "task", "budget", "scale", "tracking"),
    *("model.path", "model.gguf_file", "task.data_dir", "train.threads", "train.eval_batch_size"),
    *("train.micro_batch_size", "train.checkpoint_every", "train.evaluate_before"),
)
HARMLESS_SECTIONS = ("tracking.", "hydra.", "hydra/", "tune.")


@dataclass(frozen=True)
class Counterpart:
    """Our values for a number, or why there are none.

    Attributes:
        values: seed -> value, in shares; {} where there are none.
        items: number of items of the test split, where a single value is a share of them.
        outcome, reason: why there are no values.
    """

    values: dict[int, float]
    items: int | None = None
    outcome: ReproductionOutcome = "not run"
    reason: str = ""


def measures(ours: str, theirs: str) -> bool:
    """Whether a metric of ours ("exact_match") is by itself what a paper calls so ("accuracy", of answers)."""
    return OURS.get(theirs, (theirs,)) == (ours,) or (theirs, ours) == ("accuracy", "exact_match")


def counterpart(study: Study, report: Report, table: Published, row: Row, rows: Sequence[Row]) -> Counterpart:
    """Our values for one number; the first reason why there are none."""
    arm = next((arm for arm, method in table.arms.items() if method == row["method"]), None)
    if arm is None:
        reason = "no arm of this experiment" if row["our_method"] else "no such method here"
        return Counterpart({}, reason=reason)
    parts = _parts(row, rows, report)
    if unknown := [task for task in parts if task not in known_tasks()]:
        return Counterpart({}, reason=f"no such task here: {', '.join(unknown)}")
    if reason := _unmeasured(parts):
        return Counterpart({}, outcome="not comparable", reason=reason)
    mine = [study.records.get(job.run_id) for job in study.sweep.jobs if job.arm == arm and not job.trial]
    records = [record for record in mine if record is not None and record.status == "ok"]
    if not records:
        return Counterpart({}, reason=f"no finished run of arm {arm}")
    return _values(study, table, row, parts, records)


@functools.cache
def known_tasks() -> dict[str, Path]:
    """Task -> its YAML, in this package and in installed ones."""
    return experiment_files.names(group="task")


def our_budgets(table: Published, row: Row) -> list[str]:
    """Budgets of ours that the experiment holds for a number's; [] where it says nothing of them."""
    return [budget for budget, words in table.budgets.items() if row["rank_or_budget"] in words]


def _parts(row: Row, rows: Sequence[Row], report: Report) -> dict[str, list[str]]:
    """Task -> metrics that a number is the mean of: of an average, those that stand beside it, else those reported."""
    if row["metric"] != AVERAGE:
        return {row["task"]: [row["metric"]]}
    alike = [other for other in rows if all(other[key] == row[key] for key in ("model", "method", "rank_or_budget"))]
    beside = {
        task: [other["metric"] for other in alike if other["task"] == task]
        for task in SETS.get(row["task"], (row["task"],))
    }
    return {task: metrics or [report.metric_of(task).rpartition("/")[2]] for task, metrics in beside.items()}


def is_of_hardware(metric: str) -> bool:
    """Whether a published metric depends on the machine: "training time", but not "Kendall tau, Sentiment140"."""
    return not HARDWARE.isdisjoint(metric.split())


def _unmeasured(parts: Mapping[str, Sequence[str]]) -> str:
    metrics = [metric for names in parts.values() for metric in names]
    if any(is_of_hardware(metric) for metric in metrics):
        return "measured on other hardware"
    ours = [name for metric in metrics for name in OURS.get(metric, (metric,))]
    strange = [name for name in ours if metric_of(name) is None]
    return f"no such metric here: {', '.join(strange)}" if strange else ""


def _values(
    study: Study, table: Published, row: Row, parts: Mapping[str, Sequence[str]], records: Sequence[RunRecord]
) -> Counterpart:
    """Values of the runs that may stand beside a number; why there are none where none may."""
    alike = [record for record in records if record.model.lower() == row["model"].lower()]
    if not alike:
        ran = sorted({f"{record.model} on {record.task}" for record in records})
        reasons = [f"another model: {', '.join(ran)}", *_changed(study.sweep.words)]
        return Counterpart({}, outcome="not comparable", reason="; ".join(reasons))
    if missing := [task for task in parts if all(record.task != task for record in alike)]:
        return Counterpart({}, reason=f"no finished run of {', '.join(missing)}")
    at_budget = [record for record in alike if record.task in parts and _same_budget(record, table, row)]
    if missing := [task for task in parts if all(record.task != task for record in at_budget)]:
        ran = sorted({record.budget for record in alike})
        reason = f"another budget: {', '.join(ran)}, the paper's is {row['rank_or_budget']}"
        return Counterpart({}, outcome="not comparable", reason=reason)
    if reasons := [*_changed(study.sweep.words), *_parts_of_data(at_budget), *_twice(at_budget)]:
        return Counterpart({}, outcome="not comparable", reason="; ".join(reasons))
    return _means(parts, at_budget)


def _means(parts: Mapping[str, Sequence[str]], records: Sequence[RunRecord]) -> Counterpart:
    """Seed -> mean over the tasks of the mean over their metrics, for seeds that have all of them."""
    scores = {(record.task, record.seed): _score(record, parts[record.task]) for record in records}
    values = {}
    for seed in sorted({record.seed for record in records}):
        per_task = [scores.get((task, seed)) for task in parts]
        whole = [score for score in per_task if score is not None]
        if len(whole) == len(per_task):
            values[seed] = sum(whole) / len(whole)
    if not values:
        return Counterpart({}, reason="no seed has all of its metrics")
    (task, metrics), *others = parts.items()
    single_share = not others and len(metrics) == 1 and is_share(metrics[0])
    return Counterpart(values, ITEMS.get(task) if single_share else None)


def _score(record: RunRecord, metrics: Sequence[str]) -> float | None:
    """Mean of metrics of the test split; None where one was not measured."""
    test = (record.metrics or {}).get("test") or {}
    names = [name for metric in metrics for name in OURS.get(metric, (metric,))]
    values = [test.get(name, test.get("exact_match") if name == "accuracy" else None) for name in names]
    whole = [value for value in values if value is not None]
    return sum(whole) / len(whole) if len(whole) == len(values) else None


def _same_budget(record: RunRecord, table: Published, row: Row) -> bool:
    """Whether a run has the budget of a number: as the experiment says; else its rank, its parameters, where stated."""
    if table.budgets:
        return record.budget in our_budgets(table, row)
    rank = re.search(r"(?:r=(?:\d+->)?|mean rank )(\d+)", row["rank_or_budget"])
    millions = re.search(r"([\d.]+)M parameters", row["rank_or_budget"])
    if rank and int(rank[1]) != record.config["budget"]["reference_rank"]:
        return False
    params = ((record.ledger or {}).get("final") or {}).get("params")
    return not millions or params is None or abs(params / 1e6 / float(millions[1]) - 1) <= PARAMETERS


def _changed(words: Sequence[str]) -> Iterator[str]:
    """Words of the sweep that make its runs others than the file's at full size."""
    for word in words:
        key, _, value = word.partition("=")
        if key == "scale" and value != FULL:
            yield word
        elif key not in HARMLESS and not key.startswith(HARMLESS_SECTIONS):
            yield f"{word} was typed"


def _parts_of_data(records: Sequence[RunRecord]) -> Iterator[str]:
    """Sizes that cut the splits the task has by default: the official ones, or the paper's part of them."""
    for key in ("train_size", "test_size", "generation_size"):
        if any(record.config["task"].get(key) != _defaults(record.task).get(key) for record in records):
            yield f"part of the data (task.{key})"


@functools.cache
def _defaults(task: str) -> dict[str, Any]:
    return defaults("task", task)


def _twice(records: Sequence[RunRecord]) -> Iterator[str]:
    runs = Counter((record.task, record.seed) for record in records)
    if any(count > 1 for count in runs.values()):
        yield "several runs of one seed: they differ in another axis"
