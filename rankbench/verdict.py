"""The verdict on an allocator on one task: does it work?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from rankbench.stats import PairedDifference

Outcome = Literal["works", "does not work", "not resolved"]

NOT_RUN = "not run"
CONTROLS = {"uniform": "tuned uniform", "shuffled": "its own shuffled ranks", "random": "random ranks"}


@dataclass(frozen=True)
class Verdict:
    """What the three comparisons say together, and each by itself.

    Attributes:
        outcome: of the rule in `works`.
        reasons: a sentence per control.
    """

    outcome: Outcome
    reasons: tuple[str, ...]


def works(
    found: Mapping[str, PairedDifference | None],
    higher_is_better: bool = True,
    absent: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """An allocator works on a task if it beats every control named, intervals beyond 0.

    It does not work where one of the intervals lies on the wrong side of 0. Everything else is not resolved: a tie is
    shown by `stats.equivalence`, never by an interval that contains 0. All have to be beaten, so their number needs no
    correction: the rule errs no more often than one comparison does.

    Args:
        found: of CONTROLS -> allocator minus control, paired by seed, at rates chosen on validation; None where there
            is no such pair.
        higher_is_better: of the metric.
        absent: of CONTROLS -> why there is none, where it is not that the control was not run.
    """
    sides = {
        role: f"{absent.get(role, NOT_RUN)}:" if difference is None else _side(difference, higher_is_better)
        for role, difference in found.items()
    }
    outcome: Outcome = "not resolved"
    if "worse than" in sides.values():
        outcome = "does not work"
    elif set(sides.values()) == {"better than"}:
        outcome = "works"
    return Verdict(outcome, tuple(_reason(CONTROLS[role], sides[role], held) for role, held in found.items()))


def _side(found: PairedDifference, higher_is_better: bool) -> str:
    if not found.resolved:
        return "not resolved from"
    return "better than" if (found.mean > 0) == higher_is_better else "worse than"


def _reason(name: str, side: str, found: PairedDifference | None) -> str:
    if found is None:
        return f"{side} {name}"
    if found.low is None:
        return f"{side} {name}: {found.mean:+.4g} (1 pair: no interval)"
    return f"{side} {name}: {found.mean:+.4g} [{found.low:+.4g}, {found.high:+.4g}], n = {found.n}"
