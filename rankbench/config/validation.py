"""The configuration of a run: its schemas, and every mistake in it found before any work.

Defaults stand in conf/, meanings here. The sections method, task and model have their schemas beside their code
(`Config` of the class that registry.get finds, rankbench.models.ModelConfig).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rankbench.config import control_sources, registry, schema
from rankbench.config.schema import ConfigError, Mistake
from rankbench.config.sections import ROOT, SECTIONS
from rankbench.config.yaml_files import defaults, without_display


def build(composed: DictConfig) -> DictConfig:
    """The frozen configuration of one run, from what Hydra composed.

    Raises:
        ConfigError: with every mistake.
    """
    config, problems = examine(composed)
    if problems:
        raise ConfigError(problems)
    return config


def examine(composed: DictConfig, skip: frozenset[str] = frozenset()) -> tuple[DictConfig, list[str]]:
    """The configuration in its schemas' types, frozen, and every mistake in it.

    Args:
        composed: as Hydra composed it, overrides applied.
        skip: sections whose choice is wrong already, so that nothing can be said about their keys.
    """
    try:
        data = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except OmegaConfBaseException as error:
        return composed, [f"{error.full_key}: {str(error).splitlines()[0]}"]
    if isinstance(data.get("method"), dict):
        data["method"] = without_display(data["method"])
    types, mistakes = _types(data, skip)
    if not skip.union(mistake.key.partition(".")[0] for mistake in mistakes).intersection({"method"}):
        data["method"], wrong = _complete(data)
        mistakes += wrong
    root = dataclasses.make_dataclass("Root", types.items())
    values, wrong = schema.conform(root, data, hint=lambda place: _elsewhere(place, types))
    mistakes += wrong
    config = OmegaConf.create(values)
    OmegaConf.set_readonly(config, True)
    broken = skip.union(mistake.key.partition(".")[0] for mistake in mistakes)
    return config, [mistake.sentence for mistake in mistakes] + validate(config, broken)


def validate(config: DictConfig, broken: frozenset[str] = frozenset()) -> list[str]:
    """What no single key shows: combinations that cannot run, and a results_dir that cannot be written.

    A method's or a task's class may add its own through `check(section) -> list[str]` (static or class method; it gets
    its own section).

    Args:
        config: in its schemas' types.
        broken: keys of the root that are not; combinations with one of them are not judged.
    """
    problems = []
    for check, needed in CHECKS.items():
        if not broken.intersection(needed):
            problems += check(config)
    return problems


def section_schema(section: str, name: str) -> type[Any]:
    """The schema of a section; `name` matters for method and task only.

    Raises:
        RegistryError: no such method or task, or one that cannot be loaded.
    """
    if section == "model":
        from rankbench.config.sections import ModelConfig

        return ModelConfig
    if section in registry.PACKAGES:
        return cast(type[Any], registry.get(section, name).Config)
    return SECTIONS[section]


def _types(data: dict[str, Any], skip: frozenset[str]) -> tuple[dict[str, Any], list[Mistake]]:
    """The type of each key of the root (any keys where none is known), and the names that nobody registered."""
    types: dict[str, Any] = {}
    mistakes = []
    for section in ("method", "model", "task", *SECTIONS):
        types[section] = dict[str, Any]
        if section in skip:
            continue
        given = data.get(section)
        name = schema.show(given.get("name")) if isinstance(given, dict) else "none given"
        try:
            types[section] = section_schema(section, name)
        except registry.RegistryError as error:
            mistakes.append(Mistake(f"{section}.name", f"{section}.name={name}: {error}"))
    return {**types, **ROOT}, mistakes


def _complete(data: dict[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """The method's section, with what a control takes from its source."""
    section = cast(dict[str, Any], data["method"])
    if "source" not in registry.get("method", section["name"]).needs:
        return section, []
    return control_sources.complete(section, Path(str(data["results_dir"])), lambda name: defaults("method", name))


def _elsewhere(place: str, types: dict[str, Any]) -> str:
    """Where a key of this name does exist: in another method or task, or in another section of this run."""
    section, _, leaf = place.rpartition(".")
    found = []
    if section in registry.PACKAGES:
        owners = [name for name in registry.names(section) if leaf in _keys_of(section, name)]
        found += [f"{leaf} belongs to {section}={', '.join(owners)}."] if owners else []
    for other, known in types.items():
        if other != section and dataclasses.is_dataclass(known) and leaf in schema.keys(cast(type[Any], known)):
            found.append(f"{other}.{leaf} exists.")
    return " ".join(found)


def _keys_of(section: str, name: str) -> Collection[str]:
    try:
        return schema.keys(section_schema(section, name))
    except registry.RegistryError:  # another package's, and not what was asked for: no reason to stop
        return ()


def _check_budget(config: DictConfig) -> list[str]:
    rank, source = config.budget.reference_rank, config.budget.source
    if source == "true_ranks" and rank is not None:
        return [f"budget.reference_rank={rank}: must be null with budget.source=true_ranks; take budget=r{rank}"]
    if source == "uniform" and rank is None:
        return ["budget.reference_rank=null: must be a rank with budget.source=uniform; take budget=r8"]
    if rank is not None and rank < 1:
        return [
            f"budget.reference_rank={rank}: must be >= 1; for a frozen base there is nothing to compare, "
            "take budget=r1 for the smallest budget"
        ]
    return []


def _check_true_ranks(config: DictConfig) -> list[str]:
    """A method that needs the truth, and a budget made of it, want a task that knows it."""
    asked = []
    if "truth" in getattr(registry.get("method", config.method.name), "needs", ()):
        asked.append(f"method={config.method.name}")
    if config.budget.source == "true_ranks":
        asked.append(f"budget={config.budget.name}")
    if not asked or _knows_true_ranks(config.task.name):
        return []
    able = " or ".join(f"task={name}" for name in registry.names("task") if _knows_true_ranks(name))
    return [
        f"{what} with task={config.task.name}: needs a task whose true ranks are known; take {able}" for what in asked
    ]


def _knows_true_ranks(task: str) -> bool:
    from rankbench.tasks.base import Task

    return registry.get("task", task).true_ranks is not Task.true_ranks


def _check_batch(config: DictConfig) -> list[str]:
    batch, micro = config.train.batch_size, config.train.micro_batch_size
    if micro is None or batch % micro == 0:
        return []
    return [f"train.micro_batch_size={micro}: must divide train.batch_size={batch}"]


def _check_tracking(config: DictConfig) -> list[str]:
    if config.tracking.name == "none":
        return []
    missing = [key for key in ("project", "mode", "timeout") if config.tracking[key] is None]
    return [f"tracking.{key}=null: must be given with tracking={config.tracking.name}" for key in missing]


def _check_results_dir(config: DictConfig) -> list[str]:
    """Try to write in the folder or, before it exists, in the nearest parent that does."""
    folder = Path(config.results_dir)
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return []
    except OSError as error:
        return [
            f"results_dir={folder}: cannot be written ({nearest}: {error.strerror}); "
            "give results_dir=<a folder that you may write to>"
        ]


def _check_own(config: DictConfig) -> list[str]:
    """What the classes of the method and of the task say about their own sections."""
    owners = {kind: registry.get(kind, config[kind].name) for kind in registry.PACKAGES}
    return [problem for kind, cls in owners.items() if hasattr(cls, "check") for problem in cls.check(config[kind])]


# Each check with the keys of the root that it, or what it calls, reads.
CHECKS: dict[Callable[[DictConfig], list[str]], tuple[str, ...]] = {
    _check_budget: ("budget",),
    _check_true_ranks: ("budget", "method", "task"),
    _check_batch: ("train",),
    _check_tracking: ("tracking",),
    _check_results_dir: ("results_dir",),
    _check_own: ("method", "task"),
}
