"""The configuration of a run: its schemas, and every mistake in it found before any work.

Defaults stand in conf/, meanings here. The sections method, task and model have their schemas beside their code
(`Config` of the class that registry.get finds, rankbench.models.ModelConfig).
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rankbench import origins, registry, schema
from rankbench.packages import conf_folders
from rankbench.schema import Mistake, choice, number

PACKAGED = Path(__file__).resolve().parent / "conf"  # in a wheel; a checkout has conf/ beside the package
CONF_DIR = PACKAGED if (PACKAGED / "config.yaml").is_file() else PACKAGED.parent.parent / "conf"


class ConfigError(ValueError):
    """A configuration that cannot be run.

    Attributes:
        problems: one sentence per mistake.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{count} in the configuration, nothing was run:{lines}")


@dataclass(kw_only=True)
class BudgetConfig:
    """How much adapter a run may have at its end.

    Attributes:
        name: of the option, for tables.
        reference_rank: uniform rank that defines the budget on the run's sites; null with source=true_ranks.
        unit: what is counted: trainable adapter parameters, or ranks.
        match: compare the final adapter with the budget, or the largest one on the way.
        tolerance: share of the target by which a run may exceed it before its status is over_budget.
        source: uniform rank, or the sum of the true ranks of a task that knows them.
    """

    name: str
    reference_rank: int | None
    unit: str = choice("params", "ranks")
    match: str = choice("final", "peak")
    tolerance: float = number(low=0, below=1)
    source: str = choice("uniform", "true_ranks")


@dataclass(kw_only=True)
class TrainConfig:
    """How every method is trained.

    Attributes:
        steps: optimizer steps; second stages are part of them.
        batch_size: examples per optimizer step, over all processes.
        micro_batch_size: examples per forward pass, over all processes; divides batch_size; null: the whole batch.
        eval_batch_size: examples per forward pass of an evaluation.
        learning_rate: peak learning rate of AdamW.
        weight_decay: of AdamW, decoupled.
        schedule: of the learning rate after the warm-up; linear and cosine end at 0.
        warmup_share: share of the steps over which the rate rises linearly from 0.
        max_grad_norm: the gradient is clipped to this norm; null does not clip.
        precision: bf16 is autocast of the base's computation; adapter parameters stay fp32.
        checkpoint_every: steps between checkpoints; 0 writes none.
        threads: CPU threads of torch; null leaves torch's choice.
        evaluate_before: score the untrained adapter on the validation split, too.
    """

    steps: int = number(low=1)
    batch_size: int = number(low=1)
    micro_batch_size: int | None = number(low=1)
    eval_batch_size: int = number(low=1)
    learning_rate: float = number(above=0)
    weight_decay: float = number(low=0)
    schedule: str = choice("linear", "cosine", "constant")
    warmup_share: float = number(low=0, high=1)
    max_grad_norm: float | None = number(above=0)
    precision: str = choice("fp32", "bf16")
    checkpoint_every: int = number(low=0)
    threads: int | None = number(low=1)
    evaluate_before: bool


@dataclass(kw_only=True)
class AdapterConfig:
    """The adapter that all methods share.

    Attributes:
        scale_rule: fixed alpha / reference rank, live alpha / r, rslora alpha / sqrt(r).
        alpha: numerator of the scale (lora_alpha of PEFT).
        dropout: probability of dropping an input of the adapter while training.
    """

    scale_rule: str = choice("fixed", "live", "rslora")
    alpha: float = number(above=0)
    dropout: float = number(low=0, below=1)


@dataclass(kw_only=True)
class TrackingConfig:
    """A mirror of the record; no number is read from it.

    Attributes:
        name: none or wandb.
        project: of Weights & Biases; null with none.
        mode: of Weights & Biases; auto is online if a key is set up, else offline; null with none.
        timeout: seconds that the service may take to open a run, and again to close it; null with none.
    """

    name: str = choice("none", "wandb")
    project: str | None
    mode: str | None = choice("auto", "online", "offline")
    timeout: float | None = number(above=0)


# Keys beside the sections. trial: a tuning trial, scored on validation alone. tuned: the choice of the learning rate
# (rankbench.tuning), in the record before the test split is scored.
ROOT: dict[str, Any] = {"seed": int, "trial": bool, "tuned": dict[str, Any] | None, "results_dir": str}

SECTIONS: dict[str, type[Any]] = {
    "budget": BudgetConfig,
    "train": TrainConfig,
    "adapter": AdapterConfig,
    "tracking": TrackingConfig,
}


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
        from rankbench.models import ModelConfig

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
    return origins.complete(section, Path(str(data["results_dir"])), lambda name: defaults("method", name))


def defaults(group: str, name: str) -> dict[str, Any]:
    """What the YAML of an option says, here or in an installed package; {} if there is none."""
    files = [folder / group / f"{name}.yaml" for folder in (CONF_DIR, *conf_folders())]
    found = next((file for file in files if file.is_file()), None)
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(found))) if found else {}


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
