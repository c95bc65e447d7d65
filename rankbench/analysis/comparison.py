"""Comparisons of arms with a reference, paired by seed: the numbers of a table, and what each comparison shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import pandas as pd

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import sort_key
from rankbench.analysis.metrics import higher_is_better
from rankbench.statistics.decision import Decision, Declaration, Outcome, decide
from rankbench.statistics.estimates import PairedDifference, mean_interval, smallest_difference
from rankbench.statistics.family import LEVEL, joint_level, paired_gains

WHEN, UNITS = ("final", "peak"), ("params", "ranks")  # values of budget.match and of budget.unit
OFF = 0.01  # share of the target by which an equal budget may be missed

Kind = Outcome | Literal["reference", "untested"]
SHOWN = ("works", "worthwhile")  # kinds of a finding that is better than the reference
NOT_RUN = "not run"


@dataclass(frozen=True)
class Finding:
    """What the comparison of an arm with the reference alone shows.

    Attributes:
        kind: an outcome of `decision.decide` without controls; untested: no pair, not at an equal budget, or no
            direction or margin to judge by.
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
        margin: smallest effect of interest, in the unit of the first metric; None: nothing is judged.
        family: number of comparisons whose intervals hold together.
        level: probability that they do.
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
    margin: float | None
    family: int
    level: float
    paired: dict[str, dict[str, pd.Series]]
    findings: dict[str, Finding] = field(default_factory=dict)

    @property
    def judged(self) -> list[str]:
        """Labels that share a seed with the reference at an equal budget."""
        return [label for label in self.rows if label != self.reference and self._why_untested(label) is None]

    def pairs(self, metric: str, label: str) -> pd.Series:
        """Label minus reference at the seeds both have; empty for the reference."""
        return self.paired[metric].get(label, pd.Series(dtype=float))

    def difference(self, metric: str, label: str) -> PairedDifference | None:
        """Mean and simultaneous interval of the pairs; None where there is none."""
        pairs = self.pairs(metric, label)
        return mean_interval(pairs, joint_level(self.family, self.level)) if len(pairs) else None

    def detectable(self, metric: str, label: str) -> float | None:
        """Smallest true difference whose interval would leave out 0 with 80 % probability, with these pairs."""
        pairs = self.pairs(metric, label)
        return smallest_difference(pairs, level=joint_level(self.family, self.level)) if len(pairs) else None

    def decide(self, label: str, controls: Mapping[str, str | None] = MappingProxyType({})) -> Decision | None:
        """Decide on a label that is judged, by the reference and its controls; None where nothing can be said.

        Args:
            label: one of `judged`.
            controls: name of a control -> the label that has this part; None: it is not in the experiment.
        """
        higher = higher_is_better(self.metrics[0])
        if label not in self.judged or self.margin is None or higher is None:
            return None
        absent = {name: why for name, control in controls.items() if (why := self.why_absent(label, control))}
        others = {str(self.reference): self.reference} | {
            name: control for name, control in controls.items() if name not in absent
        }
        values = self.values[self.metrics[0]]
        pairs = {name: values[[label, other]].dropna() for name, other in others.items()}
        gains = {name: paired_gains(both.iloc[:, 0], both.iloc[:, 1], higher) for name, both in pairs.items()}
        members = [label, *others.values()]
        seeds = self.data["seed"][self.data["label"].isin(members)].nunique()
        return decide(
            gains,
            Declaration(seeds, self.family, self.margin, self.level),
            [f"{name}: {why}" for name, why in absent.items()],
            lost=seeds - len(values[members].dropna()),
            at_edge=bool(self.data["at_edge"][self.data["label"].isin(members)].eq(True).any()),
        )

    def why_absent(self, label: str, control: str | None) -> str | None:
        """Why a label cannot be compared with a control, if it cannot."""
        if control not in self.rows:
            return NOT_RUN
        values = self.values[self.metrics[0]]
        if values[control].dropna().empty:
            return "none ok"
        if control in self.off.index:
            return "not at an equal budget"
        return "no common seed" if values[[label, control]].dropna().empty else None

    def find(self, label: str) -> Finding:
        """Judge a label: what `findings` has of it."""
        if label == self.reference:
            return Finding("reference", "reference")
        if why := self._why_untested(label):
            return Finding("untested", why)
        decision = self.decide(label)
        if decision is None:
            return Finding("untested", "" if self.margin is None else f"direction of {self.metrics[0]} not known")
        return Finding(decision.outcome, _in_words(decision, self.margin))

    def _why_untested(self, label: str) -> str | None:
        if self.reference is None or self.values[self.metrics[0]][self.reference].dropna().empty:
            return "no reference"
        if {label, self.reference} & set(self.off.index):
            return "not at an equal budget"
        return "no common seed" if self.pairs(self.metrics[0], label).empty else None


def compare(
    data: pd.DataFrame,
    metrics: Sequence[str],
    reference: str | None = "lora",
    margin: float | None = None,
    family: int | None = None,
    level: float = LEVEL,
) -> Comparison:
    """Compare the labels of a frame.

    Args:
        data: frame of runs of one comparison; at most one row per label and seed.
        metrics: names of columns of `data`.
        reference: label the others are compared with; None: nothing is compared.
        margin: smallest effect of interest; None: nothing is judged.
        family: number of comparisons whose intervals are to hold together; None: those of this frame.
        level: probability that they do.

    Raises:
        SelectionError: a metric or a reference that no run has.
    """
    _refuse_unknown(data, metrics, reference)
    rows = _ordered(data, metrics[0], reference)
    values = {metric: _values(data, metric, rows) for metric in metrics}
    spent = _spent(data, reference)
    shares = (spent["spent"] / spent["target"]).groupby(spent["label"]).mean()
    off = shares[_off(spent).reindex(shares.index)]
    family = family or max(1, len(rows) - 1)
    paired = {metric: _paired(of_metric, reference) for metric, of_metric in values.items()}
    comparison = Comparison(data, list(metrics), reference, rows, values, shares, off, margin, family, level, paired)
    comparison.findings.update((label, comparison.find(label)) for label in rows)
    return comparison


def _in_words(decision: Decision, margin: float | None) -> str:
    """A decision by the reference alone."""
    if decision.outcome == "open":
        return f"open: {decision.seeds} seeds" if decision.seeds else "open"
    if decision.outcome == "withheld":
        return f"withheld: {decision.reason}"
    words = {"works": "better", "worthwhile": f"better by more than {margin:g}", "harmful": "worse"}
    return words.get(decision.outcome, decision.outcome)


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
