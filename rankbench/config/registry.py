"""Names of methods and tasks: a table for the classes of this package, entry points for those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from rankbench import RankbenchError
from rankbench.config.schema import Settings, near

Kind = Literal["method", "task"]
Class = TypeVar("Class", bound=type)

ENTRY_POINTS: dict[Kind, str] = {"method": "rankbench.methods", "task": "rankbench.tasks"}

PACKAGES: dict[Kind, str] = {"method": "rankbench.methods", "task": "rankbench.tasks"}
# What exists: module below PACKAGES -> the names that its classes register.
BUILT_IN: dict[Kind, dict[str, tuple[str, ...]]] = {
    "method": {
        "adalora": ("adalora",),
        "derived_controls": ("by_depth", "by_type", "permuted", "reversed", "scaled", "transplant"),
        "eva": ("eva",),
        "fim": ("fim", "fim_code"),
        "fixed_controls": ("linear_depth", "oracle", "random", "svd_lora"),
        "gora": ("gora",),
        "igu": ("igu", "igu_code"),
        "increlora": ("increlora",),
        "l1ra": ("l1ra",),
        "lora": ("lora",),
        "para": ("para", "para_retrain"),
        "reference_arms": ("bitfit", "dora", "full"),
        "sensitivity": ("sensitivity",),
        "sora": ("sora",),
        "stable_rank": ("stable_rank",),
    },
    "task": {
        "arithmetic": ("arithmetic",),
        "boolq": ("boolq",),
        "commonsense": (
            *("commonsense-arc-challenge", "commonsense-arc-easy", "commonsense-boolq", "commonsense-hellaswag"),
            *("commonsense-openbookqa", "commonsense-piqa", "commonsense-siqa", "commonsense-winogrande"),
            "commonsense",
        ),
        "glue": (
            *("glue-cola", "glue-mnli", "glue-mrpc", "glue-qnli", "glue-qqp", "glue-rte", "glue-sst2", "glue-stsb"),
        ),
        "gsm": ("gsm-symbolic", "gsm8k"),
        "instruction": ("instruction", "magpie-pro", "openorca", "openplatypus"),
        "mmlu": ("mmlu",),
        "multiple_choice": ("aqua", "commonsense-qa", "hellaswag"),
        "own_text": ("text",),
        "planted": ("planted",),
        "squad": ("squad-v1", "squad-v2"),
        "summarization": ("cnn-dailymail", "xsum"),
    },
}

EXAMPLE = "class Config(Settings): power: float = Field(gt=0), and class Mine(Allocator[Config])"

_classes: dict[Kind, dict[str, type[Any]]] = {kind: {} for kind in get_args(Kind)}


class RegistryError(RankbenchError, ValueError):
    """A name that leads to no class, or to more than one."""


class UnknownName(RegistryError):
    """A name that nobody registered; the message says which are near and which exist."""


def register(kind: Kind, name: str) -> Callable[[Class], Class]:
    """Class decorator that makes a class known under `name`; stack it to give one class several names.

    The class names the type of its settings (`Config`, a rankbench.config.schema.Settings), conf/<kind>/<name>.yaml has
    their defaults. A class of this package lives in a module of rankbench.methods or rankbench.tasks.

    Raises:
        ValueError: the name is taken by another class, or the class has no settings of that type.
    """

    def add(cls: Class) -> Class:
        taken = _classes[kind].get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{kind} {name!r} is registered twice: {_place(taken)} and {_place(cls)}; rename one")
        settings = getattr(cls, "Config", None)
        if not (isinstance(settings, type) and issubclass(settings, Settings)):
            raise ValueError(
                f"{kind} {name!r}: {_place(cls)} has no Config that is a rankbench.plugin.Settings; write {EXAMPLE}"
            )
        _classes[kind][name] = cls
        return cls

    return add


def get(kind: Kind, name: str) -> type[Any]:
    """The class registered as `name`; only the module that registers it is imported.

    Raises:
        UnknownName: nobody registered the name.
        RegistryError: two packages claim it, or the one that does cannot be loaded.
    """
    if name not in _classes[kind]:
        _find(kind, name)
    return _classes[kind][name]


def _find(kind: Kind, name: str) -> None:
    claims = [point for point in points(kind) if point.name == name]
    module = next((module for module, names in BUILT_IN[kind].items() if name in names), None)
    owners = ["rankbench"] * (module is not None) + [package(point) for point in claims]
    if not owners:
        raise UnknownName(f"{kind} {name!r} is unknown; {near(name, names(kind))}")
    if len(owners) > 1:
        raise RegistryError(
            f"{kind} {name!r} comes from {' and from '.join(owners)}: uninstall one, or rename it there"
        )
    if module is not None:
        import_module(f"{PACKAGES[kind]}.{module}")
        return
    try:
        register(kind, name)(claims[0].load())
    except Exception as error:  # whatever another package's import may raise
        raise RegistryError(
            f"{kind} {name!r}: {claims[0].value} of package {owners[0]} cannot be loaded: {error}"
        ) from error


def names(kind: Kind) -> list[str]:
    """All names, sorted; nothing is imported."""
    built_in = (name for names in BUILT_IN[kind].values() for name in names)
    return sorted({*built_in, *_classes[kind], *(point.name for point in points(kind))})


def import_all(kind: Kind) -> None:
    """Import every built-in module of a kind, as a process does that others are forked from."""
    for module in BUILT_IN[kind]:
        import_module(f"{PACKAGES[kind]}.{module}")


def _place(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def points(kind: Kind) -> list[EntryPoint]:
    """Every entry point of a kind, by name; two packages may claim one name."""
    declared: Iterable[EntryPoint] = entry_points(group=ENTRY_POINTS[kind])
    return sorted(declared, key=lambda point: (point.name, package(point)))


def package(point: EntryPoint) -> str:
    """Name of the distribution that brings an entry point, as pip knows it."""
    return point.dist.name if point.dist else point.module.partition(".")[0]


def conf_folder(point: EntryPoint) -> Path | None:
    """Where the YAML files of an entry point's package are expected; None if it is a single file, or not there."""
    spec = find_spec(point.module.partition(".")[0])
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) / "conf" if places else None


def conf_folders() -> dict[Path, str]:
    """The conf/ folders that exist, in a fixed order, each with its package."""
    folders = {conf_folder(point): package(point) for kind in ENTRY_POINTS for point in points(kind)}
    return {folder: name for folder, name in folders.items() if folder and folder.is_dir()}


def missing_yaml(kind: Kind, name: str) -> str | None:
    """What to say where a package names a method or task and has no YAML for it; None if no package names it."""
    for point in points(kind):
        if point.name == name:
            folder = conf_folder(point)
            at = f"expected at {folder / kind / name}.yaml" if folder else f"{point.module} is no package with a folder"
            return f"package {package(point)} names this {kind} and brings no conf/{kind}/{name}.yaml for it; {at}"
    return None
