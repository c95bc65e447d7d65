"""What an experiment runs and what it reports, and what becomes of it on another scale or with fewer arms.

Its file is conf/experiment/NAME.yaml (rankbench.sweeps.experiment_files); `experiment=NAME scale=small model=tiny` lays
out the same file on a smaller grid (rankbench.sweeps.composition).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, field_validator

from rankbench.config import schema
from rankbench.config.schema import Section
from rankbench.sweeps.report_settings import DottedSettings, Report

FULL = "full"  # the scale of the file itself


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
