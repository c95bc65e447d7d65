"""An arm over several panels at once: the decision on it over panels like these, and its mean over these alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankbench.analysis.comparison import NOT_RUN, Comparison
from rankbench.statistics.decision import Decision, Declaration, decide
from rankbench.statistics.estimates import Array, Estimate
from rankbench.statistics.family import joint_level
from rankbench.statistics.over_tasks import mean_of_such, mean_of_these


@dataclass(frozen=True)
class Pooled:
    """An arm over panels.

    Attributes:
        decision: by the rule of a single panel, where the mean gains of the panels are the pairs: panels are a sample.
        these: gain over the reference, these panels alone, with the level of a family; None where a panel lacks two
            pairs, as for the others.
        deviation: tau, of true gains between panels.
        another: gain that one more such panel would show, with an interval of its own.
    """

    decision: Decision
    these: Estimate | None = None
    deviation: float | None = None
    another: Estimate | None = None


@dataclass(frozen=True)
class PooledPanels:
    """Panels that are taken together.

    Attributes:
        comparisons: of the panels with headroom, two or more, all with the same reference.
        family: arms x looks at the data; the intervals over one reference or control hold together over them.
    """

    comparisons: Sequence[Comparison]
    family: int

    @property
    def one_unit(self) -> bool:
        """Whether all panels have gains in one unit: the same metric on the same scale."""
        units = {(comparison.metrics[0], comparison.terms.log) for comparison in self.comparisons}
        return len(units) == 1

    @property
    def smallest(self) -> float:
        """Smallest effect of interest: the mean of the panels', which is the unit where they have several."""
        return float(np.mean([float(each.terms.margin or 1) for each in self.comparisons])) if self.one_unit else 1.0

    def gains(self, label: str, others: Sequence[str]) -> list[Array]:
        """Gains of each panel by seed, in the common unit; none where the label or all the others are not run."""
        return [
            comparison.gains(label, here) / (1.0 if self.one_unit else float(comparison.terms.margin or 1))
            for comparison in self.comparisons
            if label in comparison.rows and (here := comparison.planned(others))
        ]

    def pool(self, label: str, controls: Mapping[str, Sequence[str]]) -> Pooled:
        """Decide on an arm that is not the reference; arguments of `Comparison.decide`."""
        first = self.comparisons[0]
        reference, level = str(first.reference), first.terms.level
        planned = {
            name: [each for each in several if any(here.planned([each]) for here in self.comparisons)]
            for name, several in controls.items()
        }
        others = {reference: [reference]} | {name: each for name, each in planned.items() if each}
        by_seed = {name: self.gains(label, each) for name, each in others.items()}
        means = {name: [values.mean() for values in gains if len(values)] for name, gains in by_seed.items()}
        faults = list(self._faults(label, others))
        if not means[reference]:
            return Pooled(Decision("withheld", "; ".join(faults), {}))
        decision = decide(
            {name: values for name, values in means.items() if values},
            Declaration(len(self.comparisons), self.family, self.smallest, level, unit="panels"),
            [f"{name}: {NOT_RUN}" for name, each in planned.items() if not each],
            faults,
        )
        gains = by_seed[reference]
        if len(gains) < 2 or min(map(len, gains)) < 2:
            return Pooled(decision)
        these, such = mean_of_these(gains, joint_level(self.family, level)), mean_of_such(gains, level)
        return Pooled(decision, these, such.deviation, such.another)

    def _faults(self, label: str, others: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """What withholds a decision in a panel, and in how many of them; how its pairs scatter is left to the means."""
        reasons: Counter[str] = Counter()
        for comparison in self.comparisons:
            if label not in comparison.rows:
                reasons[NOT_RUN] += 1
            elif why := comparison.why_untested(label):
                reasons[why] += 1
            else:
                here = {name: several for name, each in others.items() if (several := comparison.planned(each))}
                reasons.update(comparison.faults(label, here))
                counts = [
                    (len(comparison.gains(label, each)), comparison.declared([label, *each])) for each in here.values()
                ]
                reasons["seeds are lost"] += any(pairs < declared for pairs, declared in counts)
        panels = len(self.comparisons)
        yield from (f"{why} ({count} of {panels} panels)" for why, count in reasons.most_common() if count)
