"""Comparisons of arms with a reference, paired by seed: the numbers of a table, and what each comparison shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import sort_key
from rankbench.analysis.metrics import higher_is_better
from rankbench.statistics.estimates import PairedDifference, equivalence, mean_interval, smallest_difference
from rankbench.statistics.permutation import holm, sign_flip_tests, smallest_p

WHEN, UNITS = ("final", "peak"), ("params", "ranks")  # values of budget.match and of budget.unit
OFF = 0.01  # share of the target by which an equal budget may be missed
ALPHA = 0.05  # size of the corrected test, and of the test for a tie

Kind = Literal["reference", "better", "worse", "differs", "tie", "unresolved", "unresolvable", "untested"]


@dataclass(frozen=True)
class Finding:
    """What the comparison of an arm with the reference shows.

    Attributes:
        kind: better, worse, differs: the corrected test says so; tie: the means are shown to lie within the margin;
            unresolvable: not even equal signs of all pairs would pass the corrected test; untested: no pair, or not
            at an equal budget.
        text: what is shown, in words.
    """

    kind: Kind
    text: str


@dataclass(frozen=True)
class Comparison:
    """Labels of one model, task and budget, compared on some metrics.

    Attributes:
        data: a row per run.
        metrics: names of columns; the first one sorts the rows and is tested.
        reference: label that the others are compared with; None: they are compared with nothing.
        rows: labels: the reference, then the others from the best mean of the first metric to the worst.
        values: metric -> runs that are ok: seeds x labels, NaN where there is none.
        shares: label -> mean of what its runs used of the target; NaN without a run that is ok.
        off: the part of `shares` whose labels are not at an equal budget.
        tests: a row per label that is tested: p (sign flips), smallest (the lowest possible p), corrected (Holm).
        margin: a difference below it does not matter; None: nothing is said of ties.
        paired: metric -> label -> label minus reference at the seeds both have; without the reference itself.
        findings: label -> what the comparison on the first metric shows.
    """

    data: pd.DataFrame
    metrics: list[str]
    reference: str | None
    rows: list[str]
    values: dict[str, pd.DataFrame]
    shares: pd.Series
    off: pd.Series
    tests: pd.DataFrame
    margin: float | None
    paired: dict[str, dict[str, pd.Series]]
    findings: dict[str, Finding] = field(default_factory=dict)

    def pairs(self, metric: str, label: str) -> pd.Series:
        """Label minus reference at the seeds both have; empty for the reference."""
        return self.paired[metric].get(label, pd.Series(dtype=float))

    def minus(self, metric: str, label: str, other: str | None) -> pd.Series:
        """One label minus another at the seeds both have."""
        return (self.values[metric][label] - self.values[metric][other]).dropna()

    def difference(self, metric: str, label: str) -> PairedDifference | None:
        """Mean and interval of the pairs; None where there is none."""
        pairs = self.pairs(metric, label)
        return mean_interval(pairs) if len(pairs) else None

    def detectable(self, metric: str, label: str) -> float | None:
        """Smallest true difference that these pairs would have found with 80 % probability."""
        pairs = self.pairs(metric, label)
        return smallest_difference(pairs) if len(pairs) else None

    def find(self, label: str) -> Finding:
        """Judge a label: what `findings` has of it."""
        if label == self.reference:
            return Finding("reference", "reference")
        if label not in self.tests.index:
            return Finding("untested", self._why_untested(label))
        pairs, within = self.pairs(self.metrics[0], label), self._tie(label)
        if self.tests["corrected"][label] <= ALPHA:
            kind = _side(float(pairs.mean()), higher_is_better(self.metrics[0]))
            return Finding(kind, f"{kind}, by less than {self.margin:g}" if within else kind)
        if within:
            return Finding("tie", f"tie shown (±{self.margin:g})")
        if self._at_best(label) > ALPHA:
            return Finding("unresolvable", f"not resolvable at n = {len(pairs)}")
        return Finding("unresolved", f"not resolved at n = {len(pairs)}")

    def _why_untested(self, label: str) -> str:
        if self.reference is None or self.values[self.metrics[0]][self.reference].dropna().empty:
            return "no reference"
        return "not at an equal budget" if {label, self.reference} & set(self.off.index) else "no common seed"

    def _at_best(self, label: str) -> float:
        """The corrected p of a label if all its pairs had one sign, the other labels as they are."""
        p = self.tests["p"].copy()
        p[label] = self.tests["smallest"][label]
        return float(holm(p)[p.index.get_loc(label)])

    def _tie(self, label: str) -> bool:
        """Whether the mean difference in the first metric is shown to lie within the margin."""
        pairs = self.pairs(self.metrics[0], label)
        return self.margin is not None and equivalence(pairs, [0.0] * len(pairs), self.margin, ALPHA).shown


def compare(
    data: pd.DataFrame, metrics: Sequence[str], reference: str | None = "lora", margin: float | None = None
) -> Comparison:
    """Compare the labels of a frame.

    Args:
        data: frame of runs of one comparison; at most one row per label and seed.
        metrics: names of columns of `data`.
        reference: label the others are compared with; None: nothing is compared.
        margin: a difference below it does not matter.

    Raises:
        SelectionError: a metric or a reference that no run has.
    """
    _refuse_unknown(data, metrics, reference)
    rows = _ordered(data, metrics[0], reference)
    values = {metric: _values(data, metric, rows) for metric in metrics}
    spent = _spent(data, reference)
    shares = (spent["spent"] / spent["target"]).groupby(spent["label"]).mean()
    off = shares[_off(spent).reindex(shares.index)]
    equal = [name for name in rows if name == reference or not {name, reference} & set(off.index)]
    tests = _tests(values[metrics[0]][equal], reference)
    paired = {metric: _paired(of_metric, reference) for metric, of_metric in values.items()}
    comparison = Comparison(data, list(metrics), reference, rows, values, shares, off, tests, margin, paired)
    comparison.findings.update((label, comparison.find(label)) for label in rows)
    return comparison


def _side(mean: float, higher: bool | None) -> Literal["better", "worse", "differs"]:
    if higher is None:
        return "differs"
    return "better" if (mean > 0) == higher else "worse"


def decimals(values: pd.DataFrame) -> int:
    """Digits after the point that show two of a typical deviation; 4 where there is none."""
    deviations = values.std(ddof=1)
    typical = deviations[deviations > 0].median()
    return 4 if math.isnan(typical) else min(8, max(2, 1 - math.floor(math.log10(typical))))


def _refuse_unknown(data: pd.DataFrame, metrics: Sequence[str], reference: str | None) -> None:
    measured = sorted(str(column) for column in data if str(column).startswith(("test/", "validation/", "before/")))
    for metric in metrics:
        if metric not in measured:
            labels = ", ".join(name for name in measured if not name.endswith("/step"))
            raise SelectionError(f"no run has the metric {metric!r}; there are {labels or 'none'}")
    if reference is not None and reference not in set(data["label"]):
        labels = ", ".join(sorted(set(data["label"]), key=sort_key))
        raise SelectionError(f"there is no run of the reference {reference!r}; name one of {labels} with --reference")


def _values(data: pd.DataFrame, metric: str, rows: list[str]) -> pd.DataFrame:
    done = data[data["status"] == "ok"].pivot(index="seed", columns="label", values=metric)
    return done.reindex(columns=rows).astype(float)


def _ordered(data: pd.DataFrame, metric: str, reference: str | None) -> list[str]:
    sign = {True: -1, False: 1, None: 0}[higher_is_better(metric)]
    means = _values(data, metric, data["label"].unique().tolist()).mean() * sign
    rank_of = {str(label): mean for label, mean in means.fillna(math.inf).items()}
    return sorted(rank_of, key=lambda label: (label != reference, rank_of[label], sort_key(label)))


def _spent(data: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """What each run that is ok used of its budget (final or peak, as it was matched), and the target.

    The target is the reference's at the same seed, so that an arm with a budget of its own is off it; the run's own
    where the reference has no such run. grain: the price of the dearest rank; NaN in records that do not say.
    """
    wanted = [
        "label",
        "seed",
        "match",
        "unit",
        "target",
        "grain",
        "budget_kind",
        *(f"{when}/{unit}" for when in WHEN for unit in UNITS),
    ]
    done = data.loc[data["status"] == "ok"].reindex(columns=wanted)
    names = done["match"] + "/" + done["unit"]
    spent = pd.Series(float("nan"), index=done.index)
    for name in names.unique():
        spent[names == name] = done.loc[names == name, name].astype(float)
    own = done[done["label"] == reference].drop_duplicates("seed").set_index("seed")["target"]
    target = done["seed"].map(own).fillna(done["target"]).astype(float)
    return done.assign(spent=spent, target=target)


def _off(spent: pd.DataFrame) -> pd.Series:
    """Whether the runs of a label miss their budget: by more than OFF, and by more than integers cannot help.

    A label whose method keeps none is off its budget whatever it happened to spend.
    """
    missed = spent["spent"] - spent["target"]
    close = (-missed).between(0, spent["grain"].astype(float), inclusive="left")
    share = (missed / spent["target"]).abs().groupby(spent["label"]).mean()  # too much does not make up for too little
    implicit = (spent["budget_kind"] == "implicit").groupby(spent["label"]).any()
    return (share > OFF) & ~close.groupby(spent["label"]).all() | implicit


def _paired(values: pd.DataFrame, reference: str | None) -> dict[str, pd.Series]:
    """Label -> its values minus those of the reference, at the seeds both have."""
    others = [label for label in values if label != reference and reference is not None]
    return {str(label): (values[label] - values[reference]).dropna() for label in others}


def _tests(values: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """The p and the lowest possible p of each label that shares a seed with the reference; corrected together."""
    others = [label for label in values if label != reference and reference is not None]
    paired = values[others].sub(values[reference], axis=0).dropna(axis=1, how="all") if others else values[others]
    pairs = [paired[label].dropna() for label in paired]
    tests = {"p": sign_flip_tests(pairs), "smallest": [smallest_p(len(each)) for each in pairs]}
    frame = pd.DataFrame(tests, index=list(paired), dtype=float)
    return frame.assign(corrected=holm(frame["p"]))
