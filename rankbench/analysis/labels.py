"""What tables, figures and terminal call things: labels of arms, and the display names, colours and order of methods.

A label ("igu permuted", "fim (beta=1)") identifies an arm; a title ("IGU-LoRA map, permuted") is what a person reads.
Titles come from conf/display.yaml and from `display` in conf/method/NAME.yaml; what has none is shown by its name.
"""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rankbench.analysis.metrics import PARTS, higher_is_better, metric_of, title_of
from rankbench.config import yaml_files
from rankbench.records.record import RENAMED, RunRecord, complete

UNKNOWN = "#757575"  # colour of a method that says none, dark enough to be read on white
# A rank map in the settings is what a method does, not a variant of it; `origin` tells its source runs apart.
NO_VARIANT = ("name", "ranks", "source_run")
PEAK = "peak of "  # begins the label of uniform ranks as large as another arm ever was
MAP = {"map": "transplant"}  # word of a label -> method, where that is not the word itself
SOURCES = ("source", "origin")  # settings that say from which method a control takes its map
ARROWS = {True: " ↑", False: " ↓", None: ""}
SPLITS = {"test": "", "validation": "validation ", "before": "initial "}  # before a short name


@dataclass(frozen=True)
class Display:
    """How tables and figures show a method: what its YAML says under `display`; the defaults serve unknown methods.

    Attributes:
        title: display name; "" where there is none but the method's own.
        colour: hexadecimal. In the files here black is the reference, and no two methods of an experiment look alike,
            whatever one's colour vision; methods that share a marker are still farther apart.
        marker: a letter of matplotlib's; "" takes any that is free.
        order: methods stand in tables in this order, those without one last, by name.
        of: title of a control made from another method, with {} for that method's title; "" for other methods.
        control: whether the method is a control, of whose gains nothing is claimed unless it has controls itself.
    """

    title: str = ""
    colour: str = UNKNOWN
    marker: str = ""
    order: float = math.inf
    of: str = ""
    control: bool = False


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


def arm_title(arm: str) -> str:
    """Display name of an arm or of a label: "IGU-LoRA map, permuted, no. 1" for "igu permuted map_number=1"."""
    if arm.startswith(PEAK):
        return f"LoRA at the peak of {arm_title(arm.removeprefix(PEAK))}"
    head, _, inside = arm.removesuffix(")").partition(" (")
    method, *words = head.split(" ")
    settings = [word.partition("=") for word in [*words, *inside.split(", ")] if "=" in word]
    sources = [value for key, _, value in settings if key in SOURCES and value != "null"]
    title = display(method).of.format(_method_title(sources[0])) if sources else _method_title(method)
    for word in words:
        if "=" not in word:
            title = (display(MAP.get(word, word)).of or f"{{}} {word}").format(title)
    texts = [
        setting_text(f"method.{key.rpartition('.')[2]}", value) for key, _, value in settings if key not in SOURCES
    ]
    return ", ".join([title, *texts])


def with_titles(text: str, arms: Iterable[str]) -> str:
    """A sentence with the display names of arms in the places of their labels.

    "random ranks", paths, settings and the display names of models and tasks, such as "Tiny (random weights)", stay.
    """
    longest_first = sorted(map(re.escape, arms), key=len, reverse=True)
    if not longest_first:
        return text
    titles = "|".join(re.escape(title) for group in ("models", "tasks") for title in _names(group).values())
    pattern = rf"(?<![\w/.=-])(?:({titles})|({'|'.join(longest_first)}))(?![\w/=-]|\.\w| ranks)"
    return re.sub(pattern, lambda match: match[1] or arm_title(match[2]), text)


def task_title(task: str) -> str:
    """Display name of a task."""
    return str(_names("tasks").get(task, task))


def model_title(model: str) -> str:
    """Display name of a model."""
    return str(_names("models").get(model, model))


def metric_title(column: str, arrow: bool = False, short: bool = False) -> str:
    """Display name of a column: "test KL divergence, nats" for "test/kl"; short "KL", with its direction "KL ↓"."""
    split, _, name = column.rpartition("/")
    title = title_of(column)
    if short and (metric := metric_of(name)) is not None:
        part = next((part for part in PARTS if name.endswith(f"_{part}")), "")
        words = [_names("metrics").get(name.removesuffix(f"_{part}"), metric.title), part.replace("_", " ")]
        title = SPLITS.get(split, "") + " ".join(filter(None, words))
    return title + ARROWS[higher_is_better(column)] * arrow


def setting_title(key: str) -> str:
    """Display name of a setting: "path points" for "method.quadrature_steps"."""
    return str(_setting(key).get("title", _plain(key)))


def setting_text(key: str, value: str) -> str:
    """A setting with its value: "M = 4" for "method.quadrature_steps" and "4"; "few sites" for "task.map" and "few"."""
    shown = _setting(key)
    words = shown.get("values", {}).get(value)
    return str(words) if words else str(shown.get("value", f"{setting_title(key)} {{}}")).format(value)


def panel_title(title: str) -> str:
    """Display name of a panel, whole or short: "Tiny, Planted ranks, few sites" for "tiny, planted, task.map=few"."""
    return ", ".join(_part_title(part) for part in title.split(", ") if part)


def _part_title(part: str) -> str:
    key, _, value = part.replace("budget ", "budget=").partition("=")
    if value and key not in ("model", "task"):
        return setting_text(key, value)
    return task_title(value or part) if (value or part) in _names("tasks") else model_title(value or part)


def _method_title(method: str) -> str:
    return display(method).title or method


@functools.cache
def _names(group: str) -> Mapping[str, Any]:
    return yaml_files.display_names().get(group, {})


def _setting(key: str) -> Mapping[str, Any]:
    shown: Mapping[str, Any] = _names("settings").get(key, {})
    return shown


def _plain(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")


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
        if isinstance(value, dict):  # asked for each setting of each record; Mapping takes ten times as long
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", text_of(value)


def _own(record: RunRecord) -> Iterator[tuple[str, str]]:
    section = complete(record.config)["method"]
    return flat({key: value for key, value in section.items() if key not in NO_VARIANT})


def _differing(members: Sequence[Mapping[str, str]]) -> list[str]:
    keys = sorted({key for member in members for key in member})
    return [key for key in keys if len({member.get(key, "null") for member in members}) > 1]


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def text_of(value: Any) -> str:
    """A setting as labels show it: "null", "true", "q+v"."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "+".join(map(text_of, value)) if isinstance(value, list) else str(value)
