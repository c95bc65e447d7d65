"""Cells of a study: one experiment on several models and tasks, each with arms, settings, axes and tuning of its own.

All of them are run by one command and reported as one family (rankbench.studies.panels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankbench.analysis.labels import file_name
from rankbench.config import control_sources
from rankbench.config.schema import ConfigError, near
from rankbench.sweeps import experiment_files
from rankbench.sweeps.experiment import Experiment, arms
from rankbench.sweeps.report_settings import DottedSettings
from rankbench.sweeps.selection import with_arms


def with_cells(experiment: Experiment, chosen: Sequence[str]) -> Experiment:
    """The experiment with some of its cells.

    Raises:
        ConfigError: a cell it does not have.
    """
    problems = [
        f"cells: experiment={experiment.name} has no cell {name!r}; {near(name, list(experiment.cells))}"
        for name in chosen
        if name not in experiment.cells
    ]
    if problems:
        raise ConfigError(problems)
    return experiment.replace(cells={name: part for name, part in experiment.cells.items() if name in chosen})


def with_tuning(experiment: Experiment, typed: Mapping[str, Any]) -> Experiment:
    """The experiment with what was typed (tune.learning_rate=[...]) over its tuning and that of each cell.

    Raises:
        ConfigError: every mistake.
    """
    cells = {
        name: part.replace(tune=experiment_files.tune(typed, part.tune)) if part.tune else part
        for name, part in experiment.cells.items()
    }
    return experiment.replace(tune=experiment_files.tune(typed, experiment.tune), cells=cells)


def parts(experiment: Experiment) -> dict[str | None, Experiment]:
    """Name of each cell -> the experiment as it is run there; without cells, None -> the experiment itself."""
    return {name: _in_cell(experiment, name) for name in experiment.cells} or {None: experiment}


def _in_cell(experiment: Experiment, name: str) -> Experiment:
    part = experiment.cells[name]
    merged = experiment.replace(
        settings=experiment.settings | part.settings,
        axes={axis: values for axis, values in (experiment.axes | part.axes).items() if values},
        when=experiment.when | part.when,
        only=experiment.only | part.only,
        tune=part.tune or experiment.tune,
        cells={},
    )
    some = with_arms(merged, list(arms(experiment)) if part.arms is None else part.arms)
    if part.maps is None:
        return some
    return some.replace(arms={arm: _with_map(settings, part.maps) for arm, settings in some.arms.items()})


def _with_map(settings: DottedSettings, folder: str) -> DottedSettings:
    """Settings of an arm, with a map made beforehand in place of another arm's run."""
    source = control_sources.source_arm({"source_run": settings.get("method.source_run")})
    return settings if source is None else {**settings, "method.source_run": f"{folder}/{file_name(source)}"}
