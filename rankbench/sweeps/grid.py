"""The runs of a sweep as a user would type them, one by one; nothing is composed yet (rankbench.sweeps.composition)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankbench.config import schema
from rankbench.config.yaml_files import CONF_DIR, content
from rankbench.sweeps.experiment import Experiment, arms
from rankbench.sweeps.report_settings import DottedSettings

CELL = "cell"  # stands for the cell of an experiment among the axes


@dataclass(frozen=True)
class GridCell:
    """One run as a user would type it.

    Attributes:
        arm: label of the arm; None where nobody named one.
        point: where the run stands on the axes: key -> override; under CELL, the name of its cell.
        settings: dotted key -> the override that sets it ("train.steps=60", "+method.settings.batches=4").
    """

    arm: str | None
    point: dict[str, str]
    settings: dict[str, str]

    @property
    def cell(self) -> str | None:
        """Name of the cell of the experiment; None in one without cells."""
        return self.point.get(CELL)

    @property
    def overrides(self) -> list[str]:
        """The settings as on the command line."""
        return list(self.settings.values())


def product_of(values: Mapping[str, Sequence[str]]) -> Iterator[GridCell]:
    """Every combination of what was typed."""
    for point in itertools.product(*values.values()):
        settings = dict(zip(values, point, strict=True))
        yield GridCell(None, {key: settings[key] for key in values if len(values[key]) > 1}, settings)


def cells_of(experiment: Experiment, typed: Mapping[str, Sequence[str]], name: str | None = None) -> list[GridCell]:
    """Every run of an experiment, or of one of its cells, arms varying fastest.

    Args:
        experiment: the experiment as it is run in the cell.
        typed: what the user added on the command line: key -> overrides; several take the place of an axis or make one
            more. They win over the file.
        name: name of the cell; None without cells.
    """
    fixed = {key: overrides[0] for key, overrides in typed.items() if len(overrides) == 1}
    axes = {key: _each(key, values) for key, values in experiment.axes.items() if key not in fixed}
    axes |= {key: list(overrides) for key, overrides in typed.items() if len(overrides) > 1}
    cells = []
    only = {arm: {axis: _each(axis, values) for axis, values in part.items()} for arm, part in experiment.only.items()}
    for point in itertools.product(*axes.values()):
        at_point = dict(zip(axes, point, strict=True))
        place = at_point if name is None else {CELL: name, **at_point}
        for arm, settings in arms(experiment).items():
            base = {**_spelled(experiment.settings), **at_point}
            chosen = {**base, **_spelled(settings), **fixed}
            if all(chosen.get(axis) in values for axis, values in only.get(arm, {}).items()):
                fitting = _spelled(_conditional(experiment.when, chosen))
                cells.append(GridCell(arm, place, {**base, **fitting, **at_point, **_spelled(settings), **fixed}))
    return cells


def _each(key: str, values: Sequence[Any]) -> list[str]:
    return [spell(key, value) for value in values]


def spell(key: str, value: Any) -> str:
    """A setting as it is typed: method.beta1=0.85, task.terms=[2,3]."""
    return f"{key}={_spelled_value(value)}"


def _spelled(settings: DottedSettings) -> dict[str, str]:
    return {key.lstrip("+"): spell(key, value) for key, value in settings.items()}


def _spelled_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_spelled_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_spelled_value(inner)}' for key, inner in value.items())}}}"
    text = value if isinstance(value, str) else schema.show(value)
    plain_text = not isinstance(value, str) or (
        text and all(letter.isalnum() or letter in "_-./${}" for letter in text)
    )
    return text if plain_text and not text.startswith("{") else "'" + text.replace("'", r"\'") + "'"


def _conditional(when: Mapping[str, DottedSettings], chosen: Mapping[str, str]) -> DottedSettings:
    """Settings of the conditions that hold, later ones over earlier ones; the defaults of conf/config.yaml count."""
    conditional: DottedSettings = {}
    for condition, settings in when.items():
        keys = [word.partition("=")[0] for word in condition.split()]
        overrides = [chosen.get(key, spell(key, _defaults().get(key))) for key in keys]
        conditional |= settings if overrides == condition.split() else {}
    return conditional


@functools.cache
def _defaults() -> DottedSettings:
    """Group -> option of conf/config.yaml."""
    root = content(CONF_DIR / "config.yaml")
    return {key: value for entry in root["defaults"] if isinstance(entry, dict) for key, value in entry.items()}
