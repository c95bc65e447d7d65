"""What an experiment runs and what it reports, and what becomes of it on another scale or with fewer arms.

Its file is conf/experiment/NAME.yaml (rankbench.sweeps.experiment_files); `experiment=NAME scale=small model=tiny` lays
out the same file on a smaller grid (rankbench.sweeps.composition).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from rankbench.config import schema
from rankbench.config.schema import Section

DottedSettings = dict[str, Any]  # dotted key, as on the command line -> value
FULL = "full"  # the scale of the file itself
DEFAULT = "default"  # key of report.metrics for tasks that are not named
UNIFORM = "uniform"  # control of decision.CONTROLS that the reference is, unless it was left out of the arms


class Tune(Section):
    """How the learning rate of each arm is chosen: on validation, before the runs that are reported.

    Attributes:
        learning_rate: the grid; every arm tries all of it, for each combination of the axes but the seed. Arms that
            share another's rate try none.
        pooled: axes over which an arm has one rate, chosen by the mean over them (`learning_rates.pooled_curves`): for
            many small panels, such as 24 kinds of true map.
        seeds: seeds used for tuning; they must differ from the reported ones, otherwise results would be selected on.
        metric: metric of the validation split ("validation/loss").
        widen: how often the grid may grow by one rate, for all arms alike, where an arm's best rate is at its edge.
    """

    learning_rate: list[float]
    pooled: list[str] = Field(default=[])
    seeds: list[int] = Field(default=[100, 101, 102])
    metric: str = "validation/loss"
    widen: int = Field(default=2, ge=0)


class Ladder(Section):
    """That the reference is run at half, twice and four times the budget, on tuning seeds (rankbench.sweeps.ladder).

    Attributes:
        gate: whether a panel where more budget does not help (no headroom) keeps its reported runs back.
    """

    gate: bool = True


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

    def metric_of(self, task: str) -> str:
        """Column of the frame of runs that is shown for a task."""
        return self.metrics.get(task, self.metrics[DEFAULT])

    def margin_of(self, task: str) -> float:
        """Smallest effect of interest on a task, in the unit of its metric; of logarithms where `log_of` says so."""
        return self.log.get(task) or self.margins.get(task, self.margin)

    def log_of(self, task: str) -> bool:
        """Whether a task's metric is judged on the logarithmic scale."""
        return self.log.get(task) is not None


class ScaleChanges(Section):
    """What a scale puts in place of the file's own; what it leaves out stays.

    Attributes:
        arms: labels of the arms that are run; null: all.
        settings, when: replace those of the file as a whole, as the runs have another size; null keeps them.
        axes: replace those of the file key by key; an axis without values is dropped.
        tune: replaces that of the file; null keeps it.
    """

    arms: list[str] | None = None
    settings: DottedSettings | None = None
    axes: dict[str, list[Any]] = Field(default={})
    when: dict[str, DottedSettings] | None = None
    tune: Tune | None = None


class CellChanges(Section):
    """What a cell of a study, such as another model and task, changes; what it leaves out stays.

    Attributes:
        arms: labels of the arms that are run; null: all.
        settings, when: over those of the file, key by key.
        axes: over those of the file, key by key; an axis without values is dropped.
        only: over that of the file, arm by arm.
        tune: replaces that of the file; null keeps it.
        maps: FOLDER/PANEL of `rankbench maps`, "${task.map}" in it standing for the run's; a control of "{ARM}" takes
            the map of that name, and ARM need not be run. null: the ranks of ARM's run at the same axes.
    """

    arms: list[str] | None = None
    settings: DottedSettings = Field(default={})
    axes: dict[str, list[Any]] = Field(default={})
    when: dict[str, DottedSettings] = Field(default={})
    only: dict[str, dict[str, list[Any]]] = Field(default={})
    tune: Tune | None = None
    maps: str | None = None


class Experiment(Section):
    """One file of conf/experiment.

    Attributes:
        name: stem of the file.
        question: what the experiment decides, one sentence.
        source: paper and table that the experiment redoes.
        arms: label -> settings of that arm; a value "{ARM}" of method.source_run is that arm's run at the same axes.
        vary: arm -> setting -> values: one more arm for each value, which differs in that setting alone.
        grid: arm -> setting -> values: one more arm for each combination.
        axes: setting -> values; every arm is run at each combination.
        settings: settings of every run.
        when: condition -> settings of the runs that meet it: "key=value", or several with blanks between.
        only: arm -> axis -> the values at which it and the arms that vary it are run, where these are fewer.
        scales: name -> what that scale puts in place of the above; "full" is the file itself.
        cells: name -> what that cell changes; all are run, one after the other. {}: the file is one cell.
        shares: arm -> arm whose tuned learning rate it takes. Arms of vary and grid take that of the arm they vary, as
            all else is to be equal.
        tune: how learning rates are chosen; null takes those of the settings.
        ladder: measures what is worth finding in each panel, before the reported runs; null takes the report's margins.
        report: what the report shows.
    """

    name: str
    question: str
    source: str
    arms: dict[str, DottedSettings]
    vary: dict[str, dict[str, list[Any]]] = Field(default={})
    grid: dict[str, dict[str, list[Any]]] = Field(default={})
    axes: dict[str, list[Any]]
    settings: DottedSettings = Field(default={})
    when: dict[str, DottedSettings] = Field(default={})
    only: dict[str, dict[str, list[Any]]] = Field(default={})
    scales: dict[str, ScaleChanges] = Field(default={})
    cells: dict[str, CellChanges] = Field(default={})
    shares: dict[str, str] = Field(default={})
    tune: Tune | None = None
    ladder: Ladder | None = None
    report: Report

    @field_validator("scales", "cells", mode="before")
    @classmethod
    def _empty_parts(cls, parts: Any) -> Any:
        """A scale or cell with nothing below it changes nothing."""
        return {name: part or {} for name, part in parts.items()} if isinstance(parts, dict) else parts


def arms(experiment: Experiment) -> dict[str, DottedSettings]:
    """Every arm with its own settings: those named, then those that vary one, then those of the grids."""
    derived = {name: {**experiment.arms[base], **changed} for name, base, changed in _derived(experiment)}
    return {**experiment.arms, **derived}


def rates_of(experiment: Experiment) -> dict[str, str]:
    """Arm -> the arm whose tuned learning rate it takes, for arms without tuning trials."""
    taken = {**bases_of(experiment), **experiment.shares}
    return {arm: _last(arm, taken) for arm in taken}


def bases_of(experiment: Experiment) -> dict[str, str]:
    """Arm of vary or grid -> the arm that it varies."""
    return {name: base for name, base, _ in _derived(experiment)}


def _last(arm: str, taken: Mapping[str, str]) -> str:
    """The arm that has trials, where one takes the rate of another that takes a third's."""
    passed = [arm]
    while passed[-1] in taken and passed[-1] not in passed[:-1]:
        passed.append(taken[passed[-1]])
    return passed[-1]


def _derived(experiment: Experiment) -> Iterator[tuple[str, str, DottedSettings]]:
    """Label, base and changed settings of each arm of vary and grid."""
    for base, settings in experiment.vary.items():
        for key, values in settings.items():
            yield from ((label(base, {key: value}), base, {key: value}) for value in values)
    for base, settings in experiment.grid.items():
        for point in itertools.product(*settings.values()):
            changed = dict(zip(settings, point, strict=True))
            yield label(base, changed), base, changed


def label(base: str, changed: DottedSettings) -> str:
    """Label of an arm that differs from another in some settings: "igu quadrature_steps=5"."""
    return " ".join([base, *(f"{key.rpartition('.')[2]}={schema.show(value)}" for key, value in changed.items())])
