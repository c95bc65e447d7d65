"""Code identity: a hash over the sources of what can change a run's numbers, and of nothing else.

Records of one method and task whose `numbers_code` agrees, and records of one task whose `shared_code` does, stand in
one table, whatever else was committed between them: a change to a report, a command or another method does not part a
study.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from rankbench.config import registry

OWN = "rankbench"
EVERY_RUN = ("core", "training", "models")  # packages that every run goes through; config/ ends in the run_id
FOLLOWED = ("methods", "tasks")  # packages of which a run goes through what its method and its task import
# from PACKAGE import NAMES, on one line or in parentheses; or import MODULES.
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+([^\n]*))", re.MULTILINE
)
# Modules of training that only show or record.
NEUTRAL = frozenset(f"{OWN}.training.{name}" for name in ("code_identity", "memory", "progress", "provenance"))


@cache
def numbers_code(method: str, task: str, source: str | None = None) -> str | None:
    """Identity of the code behind a run's numbers, as it was when this process first asked: 12 hexadecimal digits.

    Args:
        method, task: names in the registry. For a class of another package that package's sources count, too.
        source: method that a control calibrates inside its own run (method.source); None where there is none.

    Returns:
        None where the class of a method or task has no source file (typed into a notebook).

    Raises:
        RegistryError: no such method or task.
    """
    methods = [method] if source is None else [method, source]
    return _code_of(
        {registry.get("task", task).__module__, *(registry.get("method", name).__module__ for name in methods)}
    )


@cache
def shared_code(task: str) -> str | None:
    """Identity of what all methods go through on a task; where it agrees, runs of different methods may be compared.

    Args:
        task: name in the registry.
    """
    return _code_of({registry.get("task", task).__module__})


def _code_of(modules: set[str]) -> str | None:
    """Identity of the code of modules and of what every run goes through; None if one of them has no source file."""
    sources = dict(own_sources())
    for package in {module.partition(".")[0] for module in modules} - {OWN}:
        other = package_sources(package)
        if not other:
            return None
        sources |= other
        modules = modules | set(other)
    return identity(sources, modules)


def identity(sources: Mapping[str, str], modules: Iterable[str]) -> str:
    """Hash of the sources that a run goes through.

    Args:
        sources: module name -> source; others than those that count are left out.
        modules: where the run's method and task are defined.
    """
    every_run = tuple(f"{OWN}.{package}." for package in EVERY_RUN)
    counted = {name for name in sources if name.startswith(every_run)} - NEUTRAL
    counted |= _reached(sources, [*modules, *counted])  # what every run goes through has imports of its own
    digest = hashlib.sha256()
    for name in sorted(counted):
        digest.update(f"{name}\0{hashlib.sha256(sources[name].encode()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def _reached(sources: Mapping[str, str], modules: Iterable[str]) -> set[str]:
    """The modules, and those of FOLLOWED that they import, directly or through others."""
    followed = tuple(f"{OWN}.{package}." for package in FOLLOWED)
    reached: set[str] = set()
    waiting = [name for name in modules if name in sources]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [other for other in _imports(sources[name]) if other in sources and other.startswith(followed)]
    return reached


def _imports(source: str) -> Iterator[str]:
    """Names that a source imports wherever it does so: modules, and what may be modules of a package."""
    for package, names, plain in IMPORT.findall(source):  # ast.parse takes twenty times as long
        if plain:
            yield from re.findall(r"[\w.]+", plain)
        else:
            yield package
            yield from (f"{package}.{name}" for name in re.findall(r"\w+", names))


@cache
def own_sources() -> Mapping[str, str]:
    """Sources of this package that may count, as they are on disk when first asked for: module name -> source."""
    folder = Path(__file__).parents[1]
    packages = [(f"{OWN}.{name}", folder / name) for name in (*EVERY_RUN, *FOLLOWED)]
    return MappingProxyType({name: source for package in packages for name, source in _modules(*package)})


@cache
def package_sources(package: str) -> Mapping[str, str]:
    """Sources of a top-level package or module, as they are on disk when first asked for; {} where it has none."""
    module = sys.modules.get(package)
    spec = find_spec(package) if module is None else module.__spec__
    if spec is not None and spec.submodule_search_locations:
        folders = [(package, Path(folder)) for folder in spec.submodule_search_locations]
        return {name: source for folder in folders for name, source in _modules(*folder)}
    file = getattr(module, "__file__", None) or (spec.origin if spec else None)
    return {package: _text(Path(file))} if file and Path(file).is_file() else {}


def _modules(package: str, folder: Path) -> Iterator[tuple[str, str]]:
    for file in folder.rglob("*.py"):
        parts = file.relative_to(folder).with_suffix("").parts
        yield ".".join([package, *(part for part in parts if part != "__init__")]), _text(file)


def _text(file: Path) -> str:
    """Source with line endings of one kind."""
    return file.read_text(encoding="utf-8")
