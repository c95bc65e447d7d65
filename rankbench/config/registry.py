"""Names of methods and tasks: the classes of this package, found by file, and those of others, found by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args

from rankbench.config.schema import near

Kind = Literal["method", "task"]
Class = TypeVar("Class", bound=type)

ENTRY_POINTS: dict[Kind, str] = {"method": "rankbench.methods", "task": "rankbench.tasks"}

PACKAGES: dict[Kind, str] = {"method": "rankbench.methods", "task": "rankbench.tasks"}

_classes: dict[Kind, dict[str, type[Any]]] = {kind: {} for kind in get_args(Kind)}


class RegistryError(ValueError):
    """A name that leads to no class, or to more than one."""


class UnknownName(RegistryError):
    """A name that nobody registered; the message says which are near and which exist."""


def register(kind: Kind, name: str) -> Callable[[Class], Class]:
    """Class decorator that makes a class known under `name`; stack it to give one class several names.

    The class carries its settings as a dataclass `Config` (see rankbench.schema) and conf/<kind>/<name>.yaml has their
    defaults. A class of this package lives in a module of rankbench.methods or rankbench.tasks.

    Raises:
        ValueError: the name is taken by another class, or the class has no `Config`.
    """

    def add(cls: Class) -> Class:
        taken = _classes[kind].get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{kind} {name!r} is registered twice: {_place(taken)} and {_place(cls)}; rename one")
        if not hasattr(cls, "Config"):
            raise ValueError(f"{kind} {name!r}: {_place(cls)} has no dataclass Config (the schema of its settings)")
        _classes[kind][name] = cls
        return cls

    return add


def get(kind: Kind, name: str) -> type[Any]:
    """The class registered as `name`; imports as few modules as it can.

    A module named like the name ("igu") or like its part before the first dash ("glue" for "glue-sst2") is tried first;
    every module of the package is imported only if that fails, or if an installed package claims the name.

    Raises:
        UnknownName: nobody registered the name.
        RegistryError: two packages claim it, or the one that does cannot be loaded.
    """
    if name not in _classes[kind]:
        _find(kind, name)
    return _classes[kind][name]


def _find(kind: Kind, name: str) -> None:
    claims = [point for point in points(kind) if point.name == name]
    _import_by_stem(kind, name)
    if name not in _classes[kind] or claims:
        _import_all(kind)
    own = ["rankbench"] if name in _classes[kind] else []
    owners = own + [package(point) for point in claims]
    if not owners:
        raise UnknownName(f"{kind} {name!r} is unknown; {near(name, names(kind))}")
    if len(owners) > 1:
        raise RegistryError(
            f"{kind} {name!r} comes from {' and from '.join(owners)}: uninstall one, or rename it there"
        )
    for point in claims:
        try:
            register(kind, name)(point.load())
        except Exception as error:  # whatever another package's import may raise
            raise RegistryError(
                f"{kind} {name!r}: {point.value} of package {owners[0]} cannot be loaded: {error}"
            ) from error


def names(kind: Kind) -> list[str]:
    """All names, sorted. Imports every built-in module, so torch too; entry points are listed but not loaded."""
    _import_all(kind)
    return sorted({*_classes[kind], *(point.name for point in points(kind))})


def _place(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _package(kind: Kind) -> ModuleType:
    return importlib.import_module(PACKAGES[kind])


def _stems(kind: Kind) -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(_package(kind).__path__))


def _import_by_stem(kind: Kind, name: str) -> None:
    stem = name.replace("-", "_")
    for candidate in (stem, name.split("-")[0], stem.split("_")[0]):
        if candidate in _stems(kind):
            importlib.import_module(f"{PACKAGES[kind]}.{candidate}")
            return


def _import_all(kind: Kind) -> None:
    for stem in _stems(kind):
        importlib.import_module(f"{PACKAGES[kind]}.{stem}")


def points(kind: Kind) -> list[EntryPoint]:
    """Every entry point of a kind, by name; two packages may claim one name."""
    found: Iterable[EntryPoint] = entry_points(group=ENTRY_POINTS[kind])
    return sorted(found, key=lambda point: (point.name, package(point)))


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
    found = {conf_folder(point): package(point) for kind in ENTRY_POINTS for point in points(kind)}
    return {folder: name for folder, name in found.items() if folder and folder.is_dir()}


def missing_yaml(kind: Kind, name: str) -> str | None:
    """What to say where a package names a method or task and has no YAML for it; None if no package names it."""
    for point in points(kind):
        if point.name == name:
            folder = conf_folder(point)
            at = f"expected at {folder / kind / name}.yaml" if folder else f"{point.module} is no package with a folder"
            return f"package {package(point)} names this {kind} and brings no conf/{kind}/{name}.yaml for it; {at}"
    return None
