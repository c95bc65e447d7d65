"""On what terms the arms of a comparison are judged: what was declared of it before its runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rankbench.statistics.budget_ladder import BudgetLadder
from rankbench.statistics.family import LEVEL


@dataclass(frozen=True)
class Terms:
    """What was declared of a comparison before its runs.

    Attributes:
        margin: smallest effect of interest, in the unit of the gains; None: nothing is judged.
        source: where the margin comes from, a clause; "" where nobody asks.
        log: whether the first metric is compared by differences of natural logarithms.
        family: number of comparisons whose intervals hold together; None: those of the comparison alone.
        level: probability that they do.
        seeds: label -> seeds declared; None: every label was to be run at all seeds at hand.
        controls: labels that are nothing but controls of others: no gain of theirs is a claim.
        headroom: whether more budget helps here.
        fault: what else keeps every arm from being judged, a clause; "" for nothing.
        ladder: uniform ranks over the budget, in the unit of the gains; None: not run.
    """

    margin: float | None = None
    source: str = ""
    log: bool = False
    family: int | None = None
    level: float = LEVEL
    seeds: Mapping[str, frozenset[int]] | None = None
    controls: Collection[str] = ()
    headroom: bool = True
    fault: str = ""
    ladder: BudgetLadder | None = None

    def amount(self, change: float, rises: bool = False) -> float:
        """A gain or difference as it is printed: as it is, on the logarithmic scale in per cent of the other's value.

        Args:
            change: on the scale that is judged.
            rises: whether the metric rises with it. That of a gain in a loss falls: a gain of log 2 is half of it, 50.
        """
        if not self.log:
            return change
        return 100 * math.expm1(change) if rises else -100 * math.expm1(-change)

    def pairs(self, labels: Iterable[str]) -> int | None:
        """Number of pairs that were declared for labels that are compared with each other; None: not known."""
        if self.seeds is None:
            return None
        return len(frozenset[int].intersection(*(self.seeds.get(label, frozenset()) for label in labels)))

    @property
    def smallest(self) -> str:
        """The smallest effect of interest as text; "" without one."""
        if self.margin is None:
            return ""
        return f"{self.amount(self.margin):.2g} %" if self.log else f"{self.margin:.3g}"
