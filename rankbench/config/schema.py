"""What a setting may be: pydantic models with choices and bounds, and one sentence for everything that is wrong.

Fields have a type and no default; defaults live in conf/, meanings in the docstring of the class. Use::

    class Config(Settings):
        score: Literal["ratio", "product", "sensitivity"]
        beta1: float = Field(ge=0, lt=1)
        warmup: int | None = Field(ge=0)
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from rankbench import RankbenchError
from rankbench.records.record import RENAMED


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


class Interpolated(str):
    """A text that an interpolation put in: ${oc.env:STEPS} is one, whatever the variable spells."""


class Section(BaseModel):
    """A part of a configuration: frozen, strict (true is no integer, "1" no number), without unknown keys.

    Attributes:
        filled_in: keys that rankbench fills in itself, so that no advice names them.
    """

    filled_in: ClassVar[frozenset[str]] = frozenset()
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_marks(cls, data: Any) -> Any:
        """A value that the user must give and has not given is missing; interpolated texts become what is wanted."""
        if not isinstance(data, Mapping):
            return data
        present = {key: value for key, value in data.items() if not (isinstance(value, str) and value == MISSING)}
        fields = cls.model_fields
        return {
            key: _spelled(value, fields[key].annotation) if isinstance(value, Interpolated) and key in fields else value
            for key, value in present.items()
        }

    def plain(self) -> dict[str, Any]:
        """The same as dictionaries, lists and scalars, in the order of the fields."""
        return self.model_dump()

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, which are not checked."""
        return self.model_copy(update=changes)


class Settings(Section):
    """A section with a name; the settings of every method and task are a subclass, with a field for each.

    Attributes:
        name: what the command line calls it ("igu" in method=igu).
    """

    name: str


def _spelled(text: str, annotation: Any) -> Any:
    """The number or truth value that a text spells, where one is wanted; else the text."""
    try:
        return TypeAdapter(annotation).validate_strings(str(text))
    except ValidationError:
        return str(text)


SectionT = TypeVar("SectionT", bound=Section)
Hint = Callable[[str], str]  # dotted path of an unknown key -> where such a key exists ("" if nowhere)

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")  # pydantic's errors of a bound
WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string", type(None): "null"}


class Mistake(NamedTuple):
    """One thing wrong with a configuration.

    Attributes:
        key: dotted place ("train.steps").
        sentence: key, value, and what is expected.
    """

    key: str
    sentence: str

    @property
    def root(self) -> str:
        """The section, or the key of the root, that it lies in."""
        return self.key.partition(".")[0]


def settings_of(cls: type[Any]) -> type[Settings] | None:
    """The settings that a class names as the parameter of its base: C of `class Mine(Allocator[C])`; None without."""
    for base in cls.__dict__.get("__orig_bases__", ()):
        for argument in typing.get_args(base):
            if isinstance(argument, type) and issubclass(argument, Settings):
                return argument
    return None


def keys(schema: type[Section], path: str = "") -> list[str]:
    """Dotted names of all settings of a schema, nested ones included."""
    names = []
    for name, field in schema.model_fields.items():
        place = _join(path, name)
        nested = _section(field.annotation)
        names += keys(nested, place) if nested else [place]
    return names


def conform(
    schema: type[SectionT], data: Mapping[str, Any], path: str = "", hint: Hint = lambda path: ""
) -> tuple[SectionT | None, list[Mistake]]:
    """Bring plain data into a schema, and say everything that is wrong with it.

    Args:
        schema: what the data should be.
        data: resolved plain values (dict, list, scalars), as from OmegaConf.to_container.
        path: dotted place of the section in the configuration ("method"), "" at its root.
        hint: adds to the message of an unknown key.

    Returns:
        The section (an int given for a float becomes a float), None if there is a mistake; and the mistakes, in the
        order of the fields, unknown keys of a section before the others.
    """
    try:
        return schema.model_validate(data), []
    except ValidationError as error:
        told = sorted(_told(schema, data, details, path, hint) for details in error.errors(include_url=False))
        return None, list(dict.fromkeys(mistake for _, mistake in told))


def describe(annotation: Any) -> str:
    """A type in words: "an integer or null", "a list, each item a string"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return describe(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is Literal:
        return describe(type(arguments[0]))
    if origin is list:
        return f"a list, each item {describe(arguments[0])}"
    if origin is dict or _section(annotation):
        return "a mapping of keys to values"
    return WORDS.get(annotation) or str(getattr(annotation, "__name__", annotation))


def show(value: Any) -> str:
    """A value as one types it: null, true, '' for the empty string."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if value != "" else "''"


def near(name: str, known: Iterable[str]) -> str:
    """What to read after an unknown name: "did you mean a, b? known are a, b, c."; after a former one, the present."""
    names = sorted(known)
    if RENAMED.get(name) in names:
        return f"it is called {RENAMED[name]} now."
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    guess = f"did you mean {', '.join(close)}? " if close else ""
    return f"{guess}known are {', '.join(names)}."


def unreadable(argument: str) -> str:
    """The sentence on a word that Hydra cannot read, and the word quoted, for the shell and for Hydra."""
    key, _, value = argument.partition("=")
    quoted = "" if not value or set(value) & set("\"'[") else f": '{key}=\"{value}\"'"
    return f"{argument}: cannot be read; write key=value, and quote a value with special characters{quoted}"


def _told(
    schema: type[Section], data: Any, error: ErrorDetails, path: str, hint: Hint
) -> tuple[tuple[tuple[bool, int], ...], Mistake]:
    """One of pydantic's errors in our words, behind its rank: where it stands among the mistakes of the whole."""
    annotation: Any = schema
    place, rank = path, []
    for key in error["loc"]:
        owner = _section(annotation)
        unknown = owner is not None and key not in owner.model_fields
        if unknown and error["type"] != "extra_forbidden":
            break  # the name of a union's member: its mistake is the union's
        inner = None if unknown else _inner(annotation, key)
        if inner is None and not unknown:
            break
        rank.append((not unknown, _index(owner.model_fields if owner and not unknown else data, key)))
        place = f"{place}[{key}]" if isinstance(data, list) else _join(place, key)
        data = data.get(key, MISSING) if isinstance(data, Mapping) else data[key]
        if unknown:
            break
        annotation = inner
    return tuple(rank), Mistake(place, _sentence(annotation, data, error, place, hint))


def _sentence(annotation: Any, value: Any, error: ErrorDetails, place: str, hint: Hint) -> str:
    """What is wrong with the value at a place.

    Args:
        annotation: type of the place, or of the section around it where the key is unknown.
        value: what stands there.
        error: as pydantic gives it.
        place: dotted.
        hint: as in `conform`.
    """
    kind, setting = error["type"], f"{place}={show(value)}"
    if kind == "missing":
        return f"{place}: missing; give {place}=<{'|'.join(_options(annotation)) or describe(annotation)}>"
    if kind == "extra_forbidden":
        section = _section(annotation)
        names = set(section.model_fields) - section.filled_in if section else ()
        advice = f"{near(str(error['loc'][-1]), names)} {hint(place)}".rstrip()
        return f"{setting}: unknown key; {advice}"
    if error["loc"][-1:] == ("[key]",):
        return f"{place}: the key is no string; put it into quotes"
    if kind == "finite_number":
        return f"{setting}: expected a finite number"
    if kind in BOUNDS:
        limits = " and ".join(f"{sign} {limit:g}" for sign, limit in _limits(annotation))
        return f"{setting}: expected a number {limits}"
    if kind == "literal_error" and isinstance(value, str):
        return f"{setting}: expected one of {', '.join(_options(annotation))}"
    if kind == "literal_error" or kind.endswith("_type"):
        return f"{setting}: expected {describe(annotation)}"
    return f"{setting}: {error['msg'].removeprefix('Value error, ')}"  # a validator of somebody's own


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _index(known: Any, key: Any) -> int:
    """Where a key stands among the keys of its mapping; an item of a list by its number."""
    return key if isinstance(key, int) else list(known).index(key) if key in known else len(known)


def _members(annotation: Any) -> Iterator[Any]:
    """An annotation without marks, unions taken apart."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield from _members(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _members(argument)
    else:
        yield annotation


def _section(annotation: Any) -> type[Section] | None:
    """The section in an annotation (Shape, Shape | None), if there is one."""
    classes = (member for member in _members(annotation) if isinstance(member, type))
    return next((member for member in classes if issubclass(member, Section)), None)


def _inner(annotation: Any, key: Any) -> Any:
    """The annotation of what stands under a key, or at an index; None where nothing does."""
    for member in _members(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if isinstance(member, type) and issubclass(member, Section):
            field = member.model_fields[key]
            return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        if origin is dict and key != "[key]":
            return arguments[1]
        if origin is list and isinstance(key, int):
            return arguments[0]
    return None


def _options(annotation: Any) -> list[str]:
    """The choices of a Literal."""
    literals = (member for member in _members(annotation) if typing.get_origin(member) is Literal)
    return [str(option) for literal in literals for option in typing.get_args(literal)]


def _limits(annotation: Any) -> Iterator[tuple[str, float]]:
    """The bounds of a number, each with its sign."""
    marks = list(_marks(annotation))
    for bound, sign in SIGNS.items():
        yield from ((sign, getattr(mark, bound)) for mark in marks if hasattr(mark, bound))


def _marks(annotation: Any) -> Iterator[Any]:
    """What stands beside the types in an annotation, taken out of pydantic's Field."""
    for argument in typing.get_args(annotation):
        yield from _marks(argument)
    for mark in getattr(annotation, "__metadata__", ()):
        yield from getattr(mark, "metadata", None) or [mark]


def __getattr__(name: str) -> Any:
    """Names of the time when settings were dataclasses, for packages that still ask for them."""
    if name in ("choice", "number"):
        raise ImportError(
            f"{name} is gone: settings are pydantic models; write class Config(Settings): power: float = Field(gt=0), "
            "or a Literal for choices, and class Mine(Allocator[Config]), all from rankbench.plugin"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
