"""Methods as tables and figures show them: their order, their colours, and labels for settings that differ."""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rankbench.config import yaml_files
from rankbench.records.record import RENAMED, RunRecord, complete

UNKNOWN = "#757575"  # colour of a method that says none, dark enough to be read on white
# A rank map in the settings is what a method does, not a variant of it; `origin` tells its source runs apart.
NO_VARIANT = ("name", "ranks", "source_run")


@dataclass(frozen=True)
class Display:
    """How tables and figures show a method: what its YAML says under `display`; the defaults serve unknown methods.

    Attributes:
        title: display name; "" where there is none but the method's own.
        colour: hexadecimal. In the files here: black for the reference, golds for reference arms outside the budget,
            greys for controls without a score, blues for what is pruned or grown while training, reds for what is
            scored before, greens for what is known afterwards, purples for a method's own map, altered; each can be
            read on white.
        marker: a letter of matplotlib's; "" takes any that is free.
        order: methods stand in tables in this order, those without one last, by name.
    """

    title: str = ""
    colour: str = UNKNOWN
    marker: str = ""
    order: float = math.inf


@functools.cache
def displays() -> dict[str, Display]:
    """Method -> how it is shown, for methods here and in installed packages whose YAML says so."""
    names = [field.name for field in fields(Display)]
    return {
        method: Display(**{key: value for key, value in block.items() if key in names})
        for method, block in yaml_files.displays().items()
    }


def display(label: str) -> Display:
    """How a label's method is shown; one of an older record as what it is called today."""
    method = method_of(label)
    return displays().get(RENAMED.get(method, method), Display())


def sort_key(label: str) -> tuple[float, str]:
    """Key to sort by: methods in the order that their YAML says, then those that say none, by name."""
    return display(label).order, label


def colour(label: str) -> str:
    """Hexadecimal colour of a label's method."""
    return display(label).colour


def method_of(label: str) -> str:
    """The method of a label, which `labels` made."""
    return label.split(" (")[0]


def labels(records: Sequence[RunRecord]) -> list[str]:
    """A label per record: its method and, in brackets, those of the method's settings that differ within `records`.

    "permuted (source=fim)". Settings of settings (source_settings.beta1) count only among records that agree in those
    above them, from which they follow. A setting that a record lacks is null.
    """
    own = [dict(_own(record)) for record in records]
    names: list[tuple[str, ...]] = [(record.method,) for record in records]
    for depth in sorted({key.count(".") for settings in own for key in settings}):
        groups = defaultdict(list)
        for settings, name in zip(own, names, strict=True):
            groups[name].append({key: value for key, value in settings.items() if key.count(".") == depth})
        differing = {name: _differing(members) for name, members in groups.items()}
        names = [
            (*name, *(f"{key}={settings.get(key, 'null')}" for key in differing[name]))
            for settings, name in zip(own, names, strict=True)
        ]
    return [f"{method} ({', '.join(settings)})" if settings else method for method, *settings in names]


def file_name(title: str) -> str:
    """File stem for what a title names, in lower case with hyphens: "tiny, planted, budget r8" -> "tiny-planted-r8"."""
    return re.sub(r"[^a-z0-9.]+", "-", title.lower().replace("budget ", "")).strip("-")


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of a config and their values as text: ("train.steps", "60")."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", text_of(value)


def _own(record: RunRecord) -> Iterator[tuple[str, str]]:
    section = complete(record.config)["method"]
    return flat({key: value for key, value in section.items() if key not in NO_VARIANT})


def _differing(members: Sequence[Mapping[str, str]]) -> list[str]:
    keys = sorted({key for member in members for key in member})
    return [key for key in keys if len({member.get(key, "null") for member in members}) > 1]


def text_of(value: Any) -> str:
    """A setting as labels show it: "null", "true", "q+v"."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "+".join(map(text_of, value)) if isinstance(value, list) else str(value)
