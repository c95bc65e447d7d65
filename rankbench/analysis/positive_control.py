"""The positive control: an arm that is known to be better has to win, or the study cannot see what it looks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankbench.analysis.comparison import NOT_RUN, Comparison
from rankbench.statistics.estimates import Estimate
from rankbench.statistics.over_tasks import mean_of_these

LOST = "the positive control is not shown to win"


@dataclass(frozen=True)
class ControlTest:
    """The positive control where one condition is met.

    Attributes:
        condition: condition on panels.
        panels: number of panels that meet it.
        gain: mean gain over the reference in these panels, in units of their smallest effects of interest; None where
            it has no interval.
        why: why it is not shown to win; "" where it is.
    """

    condition: str
    panels: int
    gain: Estimate | None
    why: str


def check_control(arm: str, where: Mapping[str, Sequence[Comparison | None]], level: float) -> list[ControlTest]:
    """Whether an arm wins under each condition: the interval of its mean gain over these panels lies above 0.

    It has to win under all, which needs no correction: one interval has to err for a wrong "won" (Berger 1982).

    Args:
        arm: label of the positive control.
        where: condition -> comparisons of the panels that meet it; None: nothing was measured there.
        level: coverage of each interval, in (0, 1).
    """
    return [_test(arm, condition, comparisons, level) for condition, comparisons in where.items()]


def _test(arm: str, condition: str, all_comparisons: Sequence[Comparison | None], level: float) -> ControlTest:
    panels, comparisons = len(all_comparisons), [each for each in all_comparisons if each and arm in each.rows]
    if not panels:
        return ControlTest(condition, 0, None, "no panel meets the condition")
    if len(comparisons) < panels:
        return ControlTest(
            condition, panels, None, f"{arm}: {NOT_RUN} on {panels - len(comparisons)} of {panels} panels"
        )
    for why in filter(None, (comparison.why_untested(arm) for comparison in comparisons)):
        return ControlTest(condition, panels, None, f"{arm}: {why}")
    gains = [each.gains(arm, [str(each.reference)]) / (each.terms.margin or 1.0) for each in comparisons]
    declared = [max(each.declared([arm, str(each.reference)]), 2) for each in comparisons]
    lost = sum(len(values) < seeds for seeds, values in zip(declared, gains, strict=True))
    if lost:
        return ControlTest(condition, panels, None, f"seeds of {arm} are missing ({lost} of {panels} panels)")
    gain = mean_of_these(gains, level)
    return ControlTest(condition, panels, gain, "" if (gain.low or 0.0) > 0 else "not shown to be better")
