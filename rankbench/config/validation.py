"""The configuration of a run, and every mistake in it, found before any work.

Defaults stand in conf/, meanings in rankbench.config.sections and, for a method or a task, beside its code (the
`Config` of the class that registry.get finds).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rankbench.config import control_sources, environment, matched_runs, registry, schema
from rankbench.config.schema import ConfigError, Mistake, Section, Settings
from rankbench.config.sections import Config, config_class, section_schema, section_types
from rankbench.config.yaml_files import defaults, strip_display
from rankbench.records.record import PLACES


def build(composed: DictConfig) -> Config:
    """The configuration of one run, from what Hydra composed.

    Raises:
        ConfigError: with every mistake.
    """
    config, problems = examine(strip_display(composed))
    if problems:
        raise ConfigError(problems)
    return config


def examine(composed: DictConfig, skip: frozenset[str] = frozenset()) -> tuple[Config, list[str]]:
    """The configuration, complete only if nothing is wrong with it, and every mistake in it.

    Args:
        composed: as Hydra composed it, overrides applied.
        skip: sections whose choice is wrong already, so that nothing can be said about their keys.
    """
    try:
        data = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
        data = _with_interpolations(data, OmegaConf.to_container(composed))
    except OmegaConfBaseException as error:
        return Config.model_construct(), [f"{error.full_key}: {str(error).splitlines()[0]}"]
    if "model" not in skip:
        data["model"] = _called_by_path(data["model"])
    types, mistakes = section_types(data, skip)
    if "method" not in skip.union(mistake.root for mistake in mistakes):
        data["method"], wrong = _complete(data)
        mistakes += wrong
    data, wrong = matched_runs.complete(data, Path(str(data.get("results_dir"))), skip)
    mistakes += wrong
    config, wrong = schema.conform(config_class(types), data, hint=lambda place: _elsewhere(place, types))
    mistakes += wrong
    broken = skip.union(mistake.root for mistake in mistakes)
    config = config or _without(broken, types, data)
    return config, [mistake.sentence for mistake in mistakes] + validate(config, broken)


def _with_interpolations(data: Any, unresolved: Any) -> Any:
    """The values, texts marked that come from an interpolation: the environment knows no numbers."""
    if isinstance(data, dict) and isinstance(unresolved, dict):
        return {key: _with_interpolations(value, unresolved[key]) for key, value in data.items()}
    return schema.Interpolated(data) if isinstance(data, str) and data != unresolved else data


def validate(config: Config, broken: frozenset[str] = frozenset()) -> list[str]:
    """What no single key shows: combinations that cannot run, and a results_dir that cannot be written.

    Args:
        config: complete but for the broken keys.
        broken: keys of the root that do not fit their schemas; combinations with one of them are not judged.
    """
    problems = []
    for check, needed in CHECKS.items():
        if not broken.intersection(needed):
            problems += check(config)
    return problems


def _without(broken: frozenset[str], types: dict[str, Any], data: dict[str, Any]) -> Config:
    """The configuration with None in place of what is broken, so that the rest can be judged."""
    sound = {key: value for key, value in data.items() if key in types and key not in broken}
    config, _ = schema.conform(
        config_class({**types, **dict.fromkeys(broken & types.keys(), Any)}), {**dict.fromkeys(types), **sound}
    )
    assert config is not None, "what is left has no mistake"
    return config


def _complete(data: dict[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """The method's section, with what a control takes from its source."""
    section = cast(dict[str, Any], data["method"])
    if "source" not in registry.get("method", section["name"]).needs:
        return section, []
    return control_sources.complete(section, Path(str(data.get("results_dir"))), lambda name: defaults("method", name))


def _called_by_path(model: Any) -> Any:
    """The section of model=auto with a name: the last part of its path, which may be the name of a hub's repository."""
    path = model.get("path") if isinstance(model, dict) and model.get("name") == "auto" else None
    if not isinstance(path, str) or path == schema.MISSING:
        return model
    on_hub = not Path(path).expanduser().exists() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path)
    source = {"hub": path, "path": None} if on_hub else {}
    return {**model, "name": Path(path).expanduser().resolve().name, **source}


def _elsewhere(place: str, types: Mapping[str, Any]) -> str:
    """Where a key of this name does exist: in another method or task, or in another section of this run."""
    section, _, leaf = place.rpartition(".")
    sentences = []
    if section in registry.PACKAGES:
        owners = [name for name in registry.names(section) if leaf in _keys_of(section, name)]
        sentences += [f"{leaf} belongs to {section}={', '.join(owners)}."] if owners else []
    for other, known in types.items():
        if other != section and isinstance(known, type) and issubclass(known, Section) and leaf in schema.keys(known):
            sentences.append(f"{other}.{leaf} exists.")
    return " ".join(sentences)


def _keys_of(section: registry.Kind, name: str) -> Collection[str]:
    try:
        return schema.keys(section_schema(section, name))
    except registry.RegistryError:  # another package's, and not what was asked for: no reason to stop
        return ()


def _check_budget(config: Config) -> list[str]:
    rank, source = config.budget.reference_rank, config.budget.source
    if source == "true_ranks" and rank is not None:
        return [f"budget.reference_rank={rank}: must be null with budget.source=true_ranks; take budget=r{rank}"]
    if source == "uniform" and rank is None:
        return ["budget.reference_rank=null: must be a rank with budget.source=uniform; take budget=r8"]
    if config.budget.target is not None and config.budget.peak_of is None:
        return ["budget.target: is filled in from budget.peak_of; give that run, or budget.factor"]
    if config.budget.peak_of is not None and config.budget.factor != 1:
        return [f"budget.factor={config.budget.factor:g}: budget.peak_of sets the target; give one of the two"]
    if rank is not None and rank < 1:
        return [
            f"budget.reference_rank={rank}: must be >= 1; for a frozen base there is nothing to compare, "
            "take budget=r1 for the smallest budget"
        ]
    return []


def _check_true_ranks(config: Config) -> list[str]:
    """A method that needs the truth, and a budget made of it, want a task that knows it."""
    wanting = []
    if "truth" in registry.get("method", config.method.name).needs:
        wanting.append(f"method={config.method.name}")
    if config.budget.source == "true_ranks":
        wanting.append(f"budget={config.budget.name}")
    if not wanting or registry.get("task", config.task.name).knows_true_ranks:
        return []
    able = (name for name in registry.names("task") if registry.get("task", name).knows_true_ranks)
    ways_out = " or ".join(f"task={name}" for name in able)
    return [
        f"{what} with task={config.task.name}: needs a task whose true ranks are known; take {ways_out}"
        for what in wanting
    ]


def _check_quantization(config: Config) -> list[str]:
    """A task that plants an update changes the weights of its base, and so does a method that trains the base."""
    quantization = config.model.quantization
    changing = {
        "task": registry.get("task", config.task.name).knows_true_ranks,
        "method": not registry.get("method", config.method.name).has_adapter(),
    }
    return [
        f"model.quantization={quantization} with {group}={getattr(config, group).name}: the {group} changes the "
        f"weights of the base, which are fixed once quantised; take another {group}"
        for group, changes in changing.items()
        if quantization is not None and changes
    ]


def _check_attention(config: Config) -> list[str]:
    """Fused kernels of that package multiply 16 bits alone, also in the checks before the first step."""
    if config.model.attention != "flash_attention_2" or config.model.dtype == "bfloat16":
        return []
    return [
        f"model.attention=flash_attention_2 with model.dtype={config.model.dtype}: computes in 16 bits alone; set "
        "model.dtype=bfloat16 and train.precision=bf16, or model.attention=sdpa"
    ]


def _check_batch(config: Config) -> list[str]:
    batch, micro = config.train.batch_size, config.train.micro_batch_size
    if micro is None or batch % micro == 0:
        return []
    return [f"train.micro_batch_size={micro}: must divide train.batch_size={batch}"]


def _check_head_rate(config: Config) -> list[str]:
    """Of model.architecture=auto, the run says so once it has read the model's files."""
    architecture = config.model.architecture
    return [] if architecture == "auto" else config.train.headless(architecture)


def _check_tracking(config: Config) -> list[str]:
    tracking = config.tracking
    if tracking.name == "none":
        return []
    values = {"project": tracking.project, "mode": tracking.mode, "timeout": tracking.timeout}
    missing = [key for key, value in values.items() if value is None]
    return [f"tracking.{key}=null: must be given with tracking={tracking.name}" for key in missing]


def _check_places(config: Config) -> list[str]:
    """An empty text is the working directory to the system, and an oversight of whoever typed it."""
    plain = config.plain()
    sections = {place: plain if "." not in place else plain[place.partition(".")[0]] for place in PLACES}
    empty = [place for place, section in sections.items() if section.get(place.rpartition(".")[2]) == ""]
    return [f"{place}='': is empty; give a folder" for place in empty]


def _check_results_dir(config: Config) -> list[str]:
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


def _check_environment(config: Config) -> list[str]:
    return environment.refused()


def _check_own(config: Config) -> list[str]:
    """What the classes of the method and of the task say about their own settings."""
    sections: dict[registry.Kind, Settings] = {"method": config.method, "task": config.task}
    return [
        problem for kind, section in sections.items() for problem in registry.get(kind, section.name).check(section)
    ]


# Each check with the keys of the root that it, or what it calls, reads.
CHECKS: dict[Callable[[Config], list[str]], tuple[str, ...]] = {
    _check_budget: ("budget",),
    _check_true_ranks: ("budget", "method", "task"),
    _check_quantization: ("model", "task", "method"),
    _check_attention: ("model",),
    _check_batch: ("train",),
    _check_head_rate: ("train", "model"),
    _check_tracking: ("tracking",),
    _check_places: ("results_dir", "method", "model", "task", "budget", "train"),
    _check_results_dir: ("results_dir",),
    _check_environment: (),
    _check_own: ("method", "task"),
}
