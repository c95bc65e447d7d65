"""Methods as tables and figures show them: their order, their colours, and labels for settings that differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rankbench.records.record import RunRecord

# In the order they are shown. Black: the reference; greys: controls without a score; one hue per family, all dark
# enough to be read on white.
COLOURS = {
    "lora": "#000000",
    "svd_lora": "#333333",
    "random": "#555555",
    "oracle": "#6b6b6b",
    # pruned or grown while training: blues
    "adalora": "#08519c",
    "igu": "#2171b5",
    "igu_code": "#3a86c8",
    "l1ra": "#005f73",
    "sora": "#0a7f8c",
    "increlora": "#3b4cc0",
    # scored before training: reds
    "fim": "#a50f15",
    "fim_code": "#cb181d",
    "sensitivity": "#d94801",
    "eva": "#a63603",
    "gora": "#b5520b",
    "stable_rank": "#8c2d04",
    # known afterwards: greens
    "para": "#00592a",
    "para_retrain": "#238b45",
    "transplant": "#4d7c0f",
    # a method's own map, altered: purples
    "shuffled": "#54278f",
    "reversed": "#6a51a3",
    "by_type": "#8568b5",
    "by_depth": "#7a0177",
    "linear_depth": "#ae017e",
    "scaled": "#c51b8a",
}
UNKNOWN = "#757575"
# A map given as a setting is what a method does, not a variant of it; of the run it came from, `origin` is told apart.
NO_VARIANT = ("name", "ranks", "source_run")


def order(label: str) -> tuple[int, str]:
    """Sort key: methods as COLOURS lists them, then those it does not know, by name."""
    method = method_of(label)
    place = list(COLOURS).index(method) if method in COLOURS else len(COLOURS)
    return place, label


def colour(label: str) -> str:
    """Hexadecimal colour of a label's method."""
    return COLOURS.get(method_of(label), UNKNOWN)


def method_of(label: str) -> str:
    """Inverse of `labels`, without the settings."""
    return label.split(" (")[0]


def labels(found: Sequence[RunRecord]) -> list[str]:
    """A label per record: its method and, in brackets, those of the method's settings that differ within `found`.

    "shuffled (source=fim)". Settings of settings (source_settings.beta1) count only among records that agree in those
    above them, from which they follow. A setting that a record lacks is null.
    """
    own = [dict(_own(record)) for record in found]
    names: list[tuple[str, ...]] = [(record.method,) for record in found]
    for depth in sorted({key.count(".") for settings in own for key in settings}):
        groups = defaultdict(list)
        for settings, name in zip(own, names, strict=True):
            groups[name].append({key: value for key, value in settings.items() if key.count(".") == depth})
        shown = {name: _differing(members) for name, members in groups.items()}
        names = [
            (*name, *(f"{key}={settings.get(key, 'null')}" for key in shown[name]))
            for settings, name in zip(own, names, strict=True)
        ]
    return [f"{method} ({', '.join(settings)})" if settings else method for method, *settings in names]


def file_name(title: str) -> str:
    """Of what a title names: lower case, hyphens for all else; "tiny-planted-r8" for "tiny, planted, budget r8"."""
    return re.sub(r"[^a-z0-9.]+", "-", title.lower().replace("budget ", "")).strip("-")


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys of a config and their values as text: ("train.steps", "60")."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", text_of(value)


def _own(record: RunRecord) -> Iterator[tuple[str, str]]:
    section = record.config.get("method", {})
    return flat({key: value for key, value in section.items() if key not in NO_VARIANT})


def _differing(members: Sequence[Mapping[str, str]]) -> list[str]:
    keys = sorted({key for member in members for key in member})
    return [key for key in keys if len({member.get(key, "null") for member in members}) > 1]


def text_of(value: Any) -> str:
    """A setting as labels show it: "null", "true", "q+v"."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "+".join(map(text_of, value)) if isinstance(value, list) else str(value)
