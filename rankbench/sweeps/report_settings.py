"""What an experiment says of its report: the key `report` of its file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from rankbench.config.schema import Section

DottedSettings = dict[str, Any]  # dotted key, as on the command line -> value
DEFAULT = "default"  # key of report.metrics for tasks that are not named
UNIFORM = "uniform"  # control of decision.CONTROLS that the reference is, unless it was left out of the arms


class Published(Section):
    """The paper's numbers that stand beside ours.

    Attributes:
        file: name of a file of results/published, without .csv.
        table: name of the table in that file.
        model: name of the model in that file; null: any.
        arms: our arm -> the paper's name for it.
        budgets: our budget -> the paper's words for it (rank_or_budget), where one table has several; {}: all.
    """

    file: str
    table: str
    model: str | None = None
    arms: dict[str, str]
    budgets: dict[str, list[str]] = Field(default={})


class PositiveControl(Section):
    """An arm that has to win, or the study cannot see what it looks for and all of its verdicts are withheld.

    Attributes:
        arm: label, such as that of the oracle of a planted task.
        where: conditions on panels ("task=planted task.map=few"); in the panels that meet one, for each of them, the
            arm's mean gain over the reference has to be shown to be above 0.
    """

    arm: str
    where: Annotated[list[str], Field(min_length=1)]


class Report(Section):
    """What the report shows.

    Attributes:
        reference: the arm that others are compared with.
        metrics: task -> column of the frame of runs ("test/accuracy"); DEFAULT for tasks that are not named.
        beats: controls of rankbench.statistics.decision.CONTROLS that an arm has to beat for the verdict that it
            works.
        level: probability that the intervals of all arms and panels hold together.
        margin: smallest effect of interest, in the metric's unit (0.005: half a point); a smaller gain does not matter.
        margins: task -> margin, where the metric has another unit.
        log: task -> margin as a difference of natural logarithms (0.05: about 5 %), of tasks whose metric is judged on
            that scale, because its spread grows with its size; null: it is judged as it is.
        controls: arm -> its own controls, for the verdict: {permuted: ARM, random: ARM}; of several arms ([ARM, ARM])
            the values are averaged seed by seed.
        curves: title -> the setting on the x axis ("method.quadrature_steps"), over the arms that vary it alone.
        maps: title -> two settings whose grid is drawn as a heat map.
        map_effect: title -> arms with maps drawn alike, such as permutations, the spread of whose effects is shown.
        over: title -> settings ("task.map"); panels that differ in them alone are taken together, as a sample of such.
        positive_control: arm that has to win; null: none.
        published: the paper's numbers beside ours.
    """

    reference: str
    metrics: dict[str, str]
    beats: list[str]
    level: float = Field(gt=0, lt=1)
    margin: float = Field(gt=0)
    margins: dict[str, Annotated[float, Field(gt=0)]]
    log: dict[str, Annotated[float, Field(gt=0)] | None] = Field(default={})
    controls: dict[str, dict[str, str | list[str]]] = Field(default={})
    curves: dict[str, str] = Field(default={})
    maps: dict[str, list[str]] = Field(default={})
    map_effect: dict[str, Annotated[list[str], Field(min_length=2)]] = Field(default={})
    over: dict[str, list[str]] = Field(default={})
    positive_control: PositiveControl | None = None
    published: list[Published] = Field(default=[])

    def controls_of(self, arm: str) -> dict[str, list[str]]:
        """Role -> the arms that are this control of an arm; {} where it has none."""
        own = self.controls.get(arm, {})
        return {role: [control] if isinstance(control, str) else control for role, control in own.items()}

    @property
    def all_controls(self) -> set[str]:
        """Arms that are a control of any arm."""
        return {control for arm in self.controls for group in self.controls_of(arm).values() for control in group}

    @property
    def without_claim(self) -> set[str]:
        """Arms whose gains are no claims of the study: controls, and maps drawn alike, unless they have controls."""
        maps = {arm for group in self.map_effect.values() for arm in group}
        return (self.all_controls | maps) - {*self.controls, self.reference}

    def metric_of(self, task: str) -> str:
        """Column of the frame of runs that is shown for a task."""
        return self.metrics.get(task, self.metrics[DEFAULT])

    def margin_of(self, task: str) -> float:
        """Smallest effect of interest on a task, in the unit of its metric; of logarithms where `log_of` says so."""
        return self.log.get(task) or self.margins.get(task, self.margin)

    def log_of(self, task: str) -> bool:
        """Whether a task's metric is judged on the logarithmic scale."""
        return self.log.get(task) is not None


def _kept(groups: Mapping[str, list[str]], kept: Collection[str]) -> Iterator[tuple[str, str | list[str]]]:
    """Each control with those of its arms that are kept; of one arm, its label."""
    for role, group in groups.items():
        left = [arm for arm in group if arm in kept]
        yield role, left[0] if len(left) == 1 else left


def report_on(kept: Mapping[str, DottedSettings], report: Report) -> Report:
    """What can be shown of some arms; without the reference, the first of them takes its place in tables alone."""
    uniform = {} if report.reference in kept else {UNIFORM: report.reference}
    controls = {
        arm: {**{role: group for role, group in _kept(report.controls_of(arm), kept) if group}, **uniform}
        for arm in report.controls
        if arm in kept
    }
    published = [
        table.replace(arms={arm: name for arm, name in table.arms.items() if arm in kept}) for table in report.published
    ]
    reference = report.reference if report.reference in kept else next(iter(kept))
    groups = {title: [arm for arm in group if arm in kept] for title, group in report.map_effect.items()}
    map_effect = {title: group for title, group in groups.items() if len(group) > 1}
    return report.replace(reference=reference, controls=controls, published=published, map_effect=map_effect)
