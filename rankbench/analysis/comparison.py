"""Comparisons of arms with a reference, paired by seed: the numbers of a table, and what each comparison shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import sort_key
from rankbench.analysis.metrics import higher_is_better
from rankbench.analysis.terms import Terms
from rankbench.statistics.budget_ladder import budget_equivalent
from rankbench.statistics.decision import Decision, Declaration, Outcome, decide
from rankbench.statistics.estimates import Array, Estimate, PairedDifference, mean_interval, smallest_difference
from rankbench.statistics.family import joint_level, paired_gains

WHEN, UNITS = ("final", "peak"), ("params", "ranks")  # values of budget.match and of budget.unit
OFF = 0.01  # share of the target by which an equal budget may be missed

Kind = Literal["worthwhile gain", "better", "no worthwhile gain", "worse", "open", "withheld", "reference", "untested"]
SHOWN = ("better", "worthwhile gain")  # kinds of a finding that is better than the reference
KIND_OF: Mapping[Outcome, Kind] = {  # an outcome without controls: less than the verdict on an arm
    "worthwhile": "worthwhile gain",
    "works": "better",
    "no worthwhile gain": "no worthwhile gain",
    "harmful": "worse",
    "open": "open",
    "withheld": "withheld",
}
NOT_RUN = "not run"
NO_RUN, NO_PAIR, OFF_BUDGET = "no run that is ok", "no common seed", "not at an equal budget"


@dataclass(frozen=True)
class Finding:
    """What the comparison of an arm with the reference alone shows.

    Attributes:
        kind: in the words of KIND_OF; untested: no pair, not at an equal budget, or no direction or margin to judge by.
        text: what is shown, in words.
    """

    kind: Kind
    text: str


@dataclass(frozen=True)
class Comparison:
    """Labels of one model, task and budget, compared on some metrics.

    Attributes:
        data: a row per run.
        metrics: names of columns; the first one sorts the rows and is judged.
        reference: label that the others are compared with; None: they are compared with nothing.
        rows: labels: the reference, then the others from the best mean of the first metric to the worst.
        values: metric -> runs that are ok: seeds x labels, NaN where there is none.
        shares: label -> mean of what its runs used of the target; NaN without a run that is ok.
        off: the part of `shares` whose labels are not at an equal budget.
        terms: on what terms arms are judged.
        paired: metric -> label -> label minus reference at the seeds both have, of logarithms where the terms say so;
            without the reference itself.
        findings: label -> what the comparison on the first metric shows.
    """

    data: pd.DataFrame
    metrics: list[str]
    reference: str | None
    rows: list[str]
    values: dict[str, pd.DataFrame]
    shares: pd.Series
    off: pd.Series
    terms: Terms
    paired: dict[str, dict[str, pd.Series]]
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def judged(self) -> list[str]:
        """Labels that share a seed with the reference at an equal budget, and are more than controls."""
        return [label for label in self.rows if label != self.reference and self.why_untested(label) is None]

    @property
    def family(self) -> int:
        """Number of comparisons whose intervals hold together."""
        return self.terms.family or max(1, len(self.rows) - 1)

    @property
    def level(self) -> float:
        """Coverage of each interval."""
        return joint_level(self.family, self.terms.level)

    def pairs(self, metric: str, label: str) -> pd.Series:
        """Label minus reference at the seeds both have, as in `paired`; empty for the reference."""
        return self.paired[metric].get(label, pd.Series(dtype=float))

    def difference(self, metric: str, label: str) -> PairedDifference | None:
        """Mean and simultaneous interval of the pairs; None where there is none."""
        pairs = self.pairs(metric, label)
        return mean_interval(pairs, self.level) if len(pairs) else None

    def detectable(self, metric: str, label: str) -> float | None:
        """Smallest true difference whose interval would leave out 0 with 80 % probability, with these pairs."""
        pairs = self.pairs(metric, label)
        return smallest_difference(pairs, level=self.level) if len(pairs) else None

    def gains(self, label: str, others: Sequence[str]) -> Array:
        """Gains in the first metric at the seeds that all have, (n,), above 0 where the label is better.

        Args:
            label: one of the rows.
            others: what it is compared with; of several the mean at each seed.
        """
        higher, known = bool(higher_is_better(self.metrics[0])), [other for other in others if other in self.rows]
        both = self.values[self.metrics[0]][[label, *known]].dropna()
        if both.empty or len(known) < len(others):
            return np.array([])
        gains = [paired_gains(both[label], both[other], higher, self.terms.log) for other in others]
        mean: Array = np.mean(gains, axis=0)
        return mean

    def worth(self, label: str) -> Estimate | None:
        """Factor of the budget at which uniform ranks are as good; None without a ladder, or without two pairs."""
        if self.terms.ladder is None or label not in self.judged or self.reference is None:
            return None
        gains = self.gains(label, [self.reference])
        return budget_equivalent(gains, self.terms.ladder, self.level) if len(gains) > 1 else None

    def decide(self, label: str, controls: Mapping[str, Sequence[str]] = MappingProxyType({})) -> Decision | None:
        """Decide on a label by the reference and its controls; None where there is nothing to judge by.

        Args:
            label: one of the rows, at an equal budget.
            controls: name of a control -> the labels that have this part, averaged at each seed; those that are not
                to be run here are left out, and (): it was never to be run.
        """
        if label == self.reference or self.terms.margin is None or higher_is_better(self.metrics[0]) is None:
            return None
        if why := self.why_untested(label):
            return None if why == OFF_BUDGET else Decision("withheld", f"{label}: {why}", {})
        controls = {name: self.planned(each) for name, each in controls.items()}
        others = {str(self.reference): [str(self.reference)]} | {name: each for name, each in controls.items() if each}
        gains = {name: self.gains(label, each) for name, each in others.items()}
        seeds = {name: self.declared([label, *each]) for name, each in others.items()}
        return decide(
            {name: values for name, values in gains.items() if len(values)},
            Declaration(seeds, self.family, self.terms.margin, self.terms.level, self.terms.headroom),
            [f"{name}: {NOT_RUN}" for name, each in controls.items() if not each],
            list(self.faults(label, others)),
        )

    def planned(self, labels: Sequence[str]) -> list[str]:
        """Those of some labels that are to be run here: a control of several arms may have fewer in some cells."""
        return [label for label in labels if self.terms.seeds is None or label in self.terms.seeds]

    def why_lost(self, label: str, control: Sequence[str]) -> str | None:
        """Why a label cannot be compared with a control that was to be run, if it cannot.

        A control that spent more than the budget is beaten the harder; one that spent less is none.
        """
        values, control = self.values[self.metrics[0]], self.planned(control)
        if not control:
            return NOT_RUN
        if any(each not in self.rows or values[each].dropna().empty for each in control):
            return NO_RUN
        if less := [each for each in control if each in self.off.index and self.off[each] < 1 - OFF]:
            return f"{' and '.join(less)} spent less than the budget"
        return None if len(self.gains(label, control)) else NO_PAIR

    def declared(self, labels: Sequence[str]) -> int:
        """Number of seeds at which all of some labels were to be run."""
        declared = self.terms.pairs(labels)
        return self.data["seed"].nunique() if declared is None else declared

    def faults(self, label: str, others: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """What withholds a decision on a label by others that are to be run, beside the pairs and their spread."""
        yield from filter(None, [self.terms.fault])
        yield from (f"{name}: {why}" for name, each in others.items() if (why := self.why_lost(label, each)))
        members = {label, *(other for each in others.values() for other in each)}
        at_edge = self.data["label"][self.data["at_edge"].eq(True)]
        edges = sorted(members & set(at_edge), key=sort_key)
        if edges:
            yield f"no learning rate inside of its grid was chosen for {' and '.join(edges)}"

    def find(self, label: str) -> Finding:
        """Judge a label: what `findings` has of it."""
        if label == self.reference:
            return Finding("reference", "reference")
        if why := self.why_untested(label):
            lost = why == NO_PAIR and self.terms.margin is not None
            return Finding("withheld", f"withheld: {why}") if lost else Finding("untested", why)
        decision = self.decide(label)
        if decision is None:
            return Finding("untested", "" if self.terms.margin is None else f"direction of {self.metrics[0]} not known")
        return Finding(KIND_OF[decision.outcome], self._in_words(decision))

    def _in_words(self, decision: Decision) -> str:
        """A decision by the reference alone."""
        if decision.outcome == "open":
            return f"open: {decision.seeds} seeds" if decision.seeds else "open"
        if decision.outcome == "withheld":
            return f"withheld: {decision.reason}"
        more = f"better by more than {self.terms.smallest}"
        return more if decision.outcome == "worthwhile" else KIND_OF[decision.outcome]

    def why_untested(self, label: str) -> str | None:
        """Why a label is not judged, if it is not."""
        if self.reference is None or self.values[self.metrics[0]][self.reference].dropna().empty:
            return "no reference"
        if label in self.terms.controls:
            return "a control"
        if {label, self.reference} & set(self.off.index):
            return OFF_BUDGET
        return NO_PAIR if self.pairs(self.metrics[0], label).empty else None


def compare(
    data: pd.DataFrame, metrics: Sequence[str], reference: str | None = "lora", terms: Terms | None = None
) -> Comparison:
    """Compare the labels of a frame.

    Args:
        data: frame of runs of one comparison; at most one row per label and seed.
        metrics: names of columns of `data`.
        reference: label the others are compared with; None: nothing is compared.
        terms: on what terms; None: nothing is judged.

    Raises:
        SelectionError: a metric or a reference that no run has.
    """
    terms = terms or Terms()
    _refuse_unknown(data, metrics, reference)
    rows = _ordered(data, metrics[0], reference)
    values = {metric: _values(data, metric, rows) for metric in metrics}
    spent = _spent(data, reference)
    shares = (spent["spent"] / spent["target"]).groupby(spent["label"]).mean()
    off = shares[_off(spent).reindex(shares.index)]
    if terms.log and (why := _no_logarithm(values[metrics[0]], metrics[0])):
        terms = replace(terms, log=False, fault=why)
    compared = values | ({metrics[0]: pd.DataFrame(np.log(values[metrics[0]]))} if terms.log else {})
    paired = {metric: _paired(of_metric, reference) for metric, of_metric in compared.items()}
    comparison = Comparison(data, list(metrics), reference, rows, values, shares, off, terms, paired)
    comparison.findings.update((label, comparison.find(label)) for label in rows)
    return comparison


def _no_logarithm(values: pd.DataFrame, metric: str) -> str | None:
    """Why the logarithms that were declared cannot be taken, if they cannot."""
    wrong = values.columns[(values <= 0).any()]
    return f"{metric} of {wrong[0]} is {values[wrong[0]].min():g}, which has no logarithm" if len(wrong) else None


def decimals(values: pd.DataFrame, least: int = 2) -> int:
    """Digits after the point that show two of a typical deviation, at least `least`; 2 more where there is none."""
    deviations = values.std(ddof=1)
    typical = deviations[deviations > 0].median()
    return least + 2 if math.isnan(typical) else min(8, max(least, 1 - math.floor(math.log10(typical))))


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
