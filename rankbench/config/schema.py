"""What a setting may be: dataclass fields with choices and bounds, and the check of a section against them.

A schema is a dataclass whose fields have a type and no default; defaults live in conf/. Use::

    @dataclass
    class Config:
        name: str
        score: str = choice("ratio", "product", "sensitivity")
        beta1: float = number(low=0, below=1)
        warmup: int | None
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from rankbench import RankbenchError


class ConfigError(RankbenchError, ValueError):
    """A configuration that cannot be run.

    Attributes:
        problems: one sentence per mistake.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{count} in the configuration, nothing was run:{lines}")


MISSING = "???"  # OmegaConf's mark of a value that the user must give

Hint = Callable[[str], str]  # dotted path of an unknown key -> where such a key exists ("" if nowhere)

LIMITS = {
    "low": (">=", operator.ge),
    "high": ("<=", operator.le),
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
}
WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


class Mistake(NamedTuple):
    """One thing wrong with a configuration.

    Attributes:
        key: dotted place ("train.steps").
        sentence: key, value, and what is expected.
    """

    key: str
    sentence: str


def choice(*options: str) -> Any:
    """Field whose value is one of `options` (or null, where its type says so)."""
    return dataclasses.field(metadata={"choices": options})


def number(
    low: float | None = None, high: float | None = None, *, above: float | None = None, below: float | None = None
) -> Any:
    """Field with low <= value <= high and above < value < below; None leaves an end open."""
    return dataclasses.field(metadata={"low": low, "high": high, "above": above, "below": below})


def keys(schema: type[Any], path: str = "") -> list[str]:
    """Dotted names of all settings of a schema, nested ones included."""
    found = []
    for field in dataclasses.fields(schema):
        name = f"{path}.{field.name}" if path else field.name
        inner = _nested(typing.get_type_hints(schema)[field.name])
        found += keys(inner, name) if inner else [name]
    return found


def conform(
    schema: type[Any], data: Mapping[str, Any], path: str = "", hint: Hint = lambda path: ""
) -> tuple[dict[str, Any], list[Mistake]]:
    """Bring plain data into a schema's types and order, and say everything that is wrong with it.

    Args:
        schema: dataclass; fields may nest dataclasses.
        data: resolved plain values (dict, list, scalars), as from OmegaConf.to_container.
        path: dotted place of the section in the configuration ("method"), "" at its root.
        hint: adds to the message of an unknown key.

    Returns:
        The values (an int given for a float becomes a float) and the mistakes; complete only if there is none.
    """
    hints = typing.get_type_hints(schema)
    names = [field.name for field in dataclasses.fields(schema)]
    mistakes = []
    for key, value in data.items():
        if key not in names:
            place = _join(path, key)
            advice = f"{near(str(key), names)} {hint(place)}".rstrip()
            mistakes.append(Mistake(place, f"{place}={show(value)}: unknown key; {advice}"))
    values: dict[str, Any] = {}
    for field in dataclasses.fields(schema):
        place = _join(path, field.name)
        value = data.get(field.name, MISSING)
        if isinstance(value, str) and value == MISSING:
            expected = "|".join(field.metadata.get("choices", ())) or describe(hints[field.name])
            mistakes.append(Mistake(place, f"{place}: missing; give {place}=<{expected}>"))
            continue
        values[field.name], wrong = _convert(hints[field.name], value, place, hint)
        mistakes += wrong or _outside(field.metadata, value, place)
    return values, mistakes


def describe(annotation: Any) -> str:
    """A type in words: "an integer or null", "a list, each item a string"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is list:
        return f"a list, each item {describe(arguments[0])}"
    if origin is dict or dataclasses.is_dataclass(annotation):
        return "a mapping of keys to values"
    return WORDS[annotation]


def show(value: Any) -> str:
    """A value as one types it: null, true, '' for the empty string."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if value != "" else "''"


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _nested(annotation: Any) -> type[Any] | None:
    """The dataclass in an annotation (Shape, Shape | None), if there is one."""
    options = (annotation, *typing.get_args(annotation))
    return next((option for option in options if dataclasses.is_dataclass(option) and isinstance(option, type)), None)


def _convert(annotation: Any, value: Any, place: str, hint: Hint) -> tuple[Any, list[Mistake]]:
    """The value as the annotated type, and what is wrong with it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value, []
    if origin in (typing.Union, types.UnionType):
        return _convert_optional(annotation, value, place, hint)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) and isinstance(value, Mapping):
        return conform(annotation, value, place, hint)
    if origin is list and isinstance(value, list):
        items = [_convert(arguments[0], item, f"{place}[{index}]", hint) for index, item in enumerate(value)]
        return [item for item, _ in items], [mistake for _, wrong in items for mistake in wrong]
    if origin is dict and isinstance(value, Mapping):
        pairs = {key: _convert(arguments[1], item, _join(place, key), hint) for key, item in value.items()}
        return {key: item for key, (item, _) in pairs.items()}, [m for _, wrong in pairs.values() for m in wrong]
    if annotation is float and type(value) is int:
        value = float(value)
    if type(value) is not annotation:  # exact: true is no integer
        return value, [Mistake(place, f"{place}={show(value)}: expected {describe(annotation)}")]
    if isinstance(value, float) and not math.isfinite(value):
        return value, [Mistake(place, f"{place}={value}: expected a finite number")]
    return value, []


def _convert_optional(annotation: Any, value: Any, place: str, hint: Hint) -> tuple[Any, list[Mistake]]:
    """The value as the first member of a union that takes it; a container's own mistakes are named, not the union."""
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    if value is None and len(members) < len(typing.get_args(annotation)):
        return None, []
    tries = [_convert(member, value, place, hint) for member in members]
    for converted, wrong in tries:
        if not wrong:
            return converted, []
    if len(members) == 1 and isinstance(value, list | dict):
        return tries[0]
    return value, [Mistake(place, f"{place}={show(value)}: expected {describe(annotation)}")]


def _outside(metadata: Mapping[str, Any], value: Any, place: str) -> list[Mistake]:
    """Choices and bounds of the field; null is the type's affair."""
    if value is None:
        return []
    options = metadata.get("choices")
    if options is not None and value not in options:
        return [Mistake(place, f"{place}={show(value)}: expected one of {', '.join(options)}")]
    bounds = {name: metadata[name] for name in LIMITS if metadata.get(name) is not None}
    if all(LIMITS[name][1](value, bound) for name, bound in bounds.items()):
        return []
    limits = " and ".join(f"{LIMITS[name][0]} {bound:g}" for name, bound in bounds.items())
    return [Mistake(place, f"{place}={show(value)}: expected a number {limits}")]


def near(name: str, known: Iterable[str]) -> str:
    """What to read after an unknown name: "did you mean a, b? known are a, b, c."."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    guess = f"did you mean {', '.join(close)}? " if close else ""
    return f"{guess}known are {', '.join(known)}."
