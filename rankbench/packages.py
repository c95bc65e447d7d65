"""Installed packages that bring methods or tasks: what they name, and where their YAML files are. Imports none of them.

A package names its classes as entry points (groups in `ENTRY_POINTS`) and keeps conf/<kind>/<name>.yaml in its folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Kind = Literal["method", "task"]
ENTRY_POINTS: dict[Kind, str] = {"method": "rankbench.methods", "task": "rankbench.tasks"}


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
