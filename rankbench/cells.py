"""An experiment laid out as cells: every run of it, as a user would type it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankbench.config import schema
from rankbench.config.yaml_files import CONF_DIR, content
from rankbench.experiment import Experiment, Settings, arms


@dataclass(frozen=True)
class Cell:
    """One run as a user would type it.

    Attributes:
        arm: its label; None where nobody named one.
        point: where it stands on the axes: key -> override.
        settings: dotted key -> the override that sets it ("train.steps=60", "+method.settings.batches=4").
    """

    arm: str | None
    point: dict[str, str]
    settings: dict[str, str]

    @property
    def overrides(self) -> list[str]:
        """As on the command line."""
        return list(self.settings.values())


def cells_of(experiment: Experiment, typed: Mapping[str, Sequence[str]]) -> list[Cell]:
    """Every run of an experiment, arms varying fastest.

    Args:
        typed: what the user added on the command line: key -> overrides; several take the place of an axis or make one
            more. They win over the file.
    """
    fixed = {key: overrides[0] for key, overrides in typed.items() if len(overrides) == 1}
    axes = {key: [spell(key, value) for value in values] for key, values in experiment.axes.items() if key not in fixed}
    axes |= {key: list(overrides) for key, overrides in typed.items() if len(overrides) > 1}
    found = []
    for point in itertools.product(*axes.values()):
        at_point = dict(zip(axes, point, strict=True))
        for arm, settings in arms(experiment).items():
            base = {**_spelled(experiment.settings), **at_point}
            chosen = {**base, **_spelled(settings), **fixed}
            fitting = _spelled(_conditional(experiment.when, chosen))
            found.append(Cell(arm, at_point, {**base, **fitting, **at_point, **_spelled(settings), **fixed}))
    return found


def spell(key: str, value: Any) -> str:
    """A setting as one types it: method.beta1=0.85, task.terms=[2,3]."""
    return f"{key}={_value(value)}"


def _spelled(settings: Settings) -> dict[str, str]:
    return {key.lstrip("+"): spell(key, value) for key, value in settings.items()}


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_value(held)}' for key, held in value.items())}}}"
    text = value if isinstance(value, str) else schema.show(value)
    plain_text = not isinstance(value, str) or (
        text and all(letter.isalnum() or letter in "_-./${}" for letter in text)
    )
    return text if plain_text and not text.startswith("{") else "'" + text.replace("'", r"\'") + "'"


def _conditional(when: Mapping[str, Settings], chosen: Mapping[str, str]) -> Settings:
    """Settings of the conditions that hold, later ones over earlier ones; the defaults of conf/config.yaml count."""
    found: Settings = {}
    for condition, settings in when.items():
        keys = [word.partition("=")[0] for word in condition.split()]
        given = [chosen.get(key, spell(key, _defaults().get(key))) for key in keys]
        found |= settings if given == condition.split() else {}
    return found


@functools.cache
def _defaults() -> Settings:
    """Group -> option of conf/config.yaml."""
    root = content(CONF_DIR / "config.yaml")
    return {key: value for entry in root["defaults"] if isinstance(entry, dict) for key, value in entry.items()}
