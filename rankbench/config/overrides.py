"""The command line, checked whole before anything runs: choices, keys, types, values and combinations.

Hydra stops at the first mistake. Here every job of a sweep is composed and examined first, all mistakes are reported
together, and the configuration that was examined is the one that runs.
"""

from __future__ import annotations

import functools
import itertools
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rankbench.config import registry, schema, validation, yaml_files
from rankbench.config.budget_names import is_numbered
from rankbench.config.numbered_budgets import SCHEME, NumberedBudgets
from rankbench.config.schema import ConfigError, near
from rankbench.config.sections import Config

CLASSES = {"method", "task"}  # sections whose keys a class declares, and torch comes with it
KINDS: dict[str, registry.Kind] = {kind: kind for kind in registry.ENTRY_POINTS}


class CheckedRun(NamedTuple):
    """One run, composed once and checked once.

    Attributes:
        config: frozen configuration.
        job_logging: logging that conf/ declares for a run (Hydra's hydra.job_logging).
    """

    config: Config
    job_logging: DictConfig


def one_run(arguments: Sequence[str], config_dir: Path | None = None, config_name: str = "config") -> CheckedRun:
    """The run that a command line describes.

    Args:
        arguments: Hydra overrides ("method=igu", "train.steps=100"); the last one of a key wins.
        config_dir: a folder with more configuration files (--config-dir).
        config_name: name of the primary configuration file.

    Raises:
        ConfigError: every mistake in it.
    """
    with examiner(config_dir, config_name) as examine:
        jobs, problems = _examined(examine, arguments, sweep=False)
        job_logging = examine.job_logging
    if problems:
        raise ConfigError(problems)
    return CheckedRun(jobs[0], job_logging)


def mistakes(
    arguments: Sequence[str], sweep: bool = False, config_dir: Path | None = None, config_name: str = "config"
) -> list[str]:
    """Everything wrong with a command line, one sentence per mistake; empty if every job of it can start.

    Args:
        arguments: Hydra overrides ("method=igu", "train.steps=100", "seed=0,1").
        sweep: whether several values of a key mean several jobs (--multirun).
        config_dir, config_name: as in `one_run`.
    """
    with examiner(config_dir, config_name) as examine:
        return _examined(examine, arguments, sweep)[1]


def _examined(examine: Examiner, arguments: Sequence[str], sweep: bool) -> tuple[list[Config], list[str]]:
    """The configuration of every job, and every mistake once."""
    typed, problems = examine.values(arguments, sweep)
    jobs = [examine.job(job) for job in itertools.product(*(values for values in typed.values() if values))]
    problems += [problem for _, wrong in jobs for problem in wrong]
    return [config for config, _ in jobs], list(dict.fromkeys(problems))


@contextmanager
def examiner(config_dir: Path | None = None, config_name: str = "config") -> Iterator[Examiner]:
    """An examiner that can be asked until the block ends.

    Args:
        config_dir, config_name: as in `one_run`.
    """
    with search(config_dir) as hydra:
        yield Examiner(hydra, config_name)


class Examiner:
    """Reads overrides and composes jobs; what jobs agree in is composed once.

    Args:
        hydra: Hydra with our search path.
        config_name: name of the primary configuration file.

    Attributes:
        job_logging: logging that conf/ declares for a run; known once a job was composed.
    """

    def __init__(self, hydra: Hydra, config_name: str) -> None:
        self._loader = hydra.config_loader
        self._groups = frozenset(self._loader.list_groups(""))
        self._options = functools.cache(functools.partial(_options, self._loader))
        self._compose = functools.cache(functools.partial(_compose, hydra, config_name))
        self._without_seed = functools.cache(self._examine_without_seed)
        parser = OverridesParser.create(self._loader)
        self._parsed = functools.cache(lambda override: parser.parse_overrides([override])[0])
        self._skip: set[str] = set()  # sections of whose keys nothing is said: their only choice is wrong, or any is
        self.job_logging = DictConfig({})

    def values(self, arguments: Sequence[str], sweep: bool) -> tuple[dict[str, list[str]], list[str]]:
        """Key -> an override for each of its values, in the order typed, and what is wrong with them by themselves.

        Args:
            arguments, sweep: as in `mistakes`. Words of Hydra itself (hydra.*) are left to Hydra.
        """
        typed, problems = _parse(arguments, sweep, self._loader)
        overrides = {}
        for override in typed:
            values = _values(override)
            wrong = [value for value in values if self._chooses(override) and not self._known(value)]
            problems += map(self._unknown, wrong)
            if wrong:
                self._skip |= CLASSES if len(wrong) < len(values) else {*CLASSES, override.key_or_group}
            overrides[override.key_or_group] = [value.input_line or "" for value in values if value not in wrong]
        return overrides, problems

    def job(self, overrides: Sequence[str]) -> tuple[Config, list[str]]:
        """The frozen configuration of one job, and everything wrong with it; complete only if nothing is."""
        job = [self._parsed(override) for override in overrides]
        chosen = [override for override in job if self._chooses(override)]
        unknown = [self._unknown(override) for override in chosen if not self._known(override)]
        if unknown:
            return Config.model_construct(), unknown
        composed = self._compose(tuple(override.input_line or "" for override in chosen))
        if composed.problems:
            return Config.model_construct(), composed.problems
        self.job_logging = composed.job_logging
        rest = [override for override in job if not self._chooses(override)]
        others = tuple(override.input_line or "" for override in rest if override.key_or_group != "seed")
        seeds = [override.value() for override in rest if _is_whole_seed(override)]
        if len(seeds) == 1 and len(others) == len(rest) - 1:
            config = self._without_seed(composed.blank, others)
            if config is not None:
                return config.replace(seed=seeds[0]), []
        return _examine(pickle.loads(composed.blank), rest, frozenset(self._skip))

    def _examine_without_seed(self, blank: bytes, lines: tuple[str, ...]) -> Config | None:
        """What jobs share that differ in their seed alone; None where it is wrong, or another value follows the seed.

        Args:
            blank: as in `Composed`.
            lines: the overrides of values, that of the seed left out.
        """
        composed = pickle.loads(blank)
        config, problems = _examine(composed, [self._parsed(line) for line in lines], frozenset(self._skip))
        interpolates = "${" in str(OmegaConf.to_container(composed))
        return None if problems or interpolates else config

    def _chooses(self, override: Override) -> bool:
        """Whether it picks an option of a group (and is not a key=value inside one)."""
        return override.key_or_group in self._groups and not isinstance(override.value(), dict)

    def _known(self, override: Override) -> bool:
        """Whether the option that it picks exists."""
        value, group = override.value(), override.key_or_group
        names = [name for name in (value if isinstance(value, list) else [value]) if not is_numbered(group, str(name))]
        return override.is_delete() or all(name in self._options(group) for name in names)

    def _unknown(self, override: Override) -> str:
        """The sentence on an option that does not exist."""
        group, name = override.key_or_group, schema.show(override.value())
        if (kind := KINDS.get(group)) and (sentence := registry.missing_yaml(kind, name)):
            return f"{group}={name}: {sentence}"
        return f"{group}={name}: unknown {group}; {near(name, self._options(group))}"


def compose(arguments: Sequence[str], config_dir: Path | None = None) -> DictConfig:
    """The configuration of one run, as Hydra composes it.

    Args:
        arguments: overrides in which `mistakes` finds none.
        config_dir: a folder with more configuration files.

    Raises:
        ConfigError: it cannot be composed.
    """
    with search(config_dir) as hydra:
        composed = _compose(hydra, "config", tuple(arguments))
    if composed.problems:
        raise ConfigError(composed.problems)
    return composed.config


@contextmanager
def search(config_dir: Path | None = None) -> Iterator[Hydra]:
    """Hydra with our configuration files, those of installed packages, and those of a folder, until the block ends."""
    extend()
    path = create_config_search_path(str(yaml_files.CONF_DIR))
    if config_dir is not None:
        path.prepend("command-line", f"file://{config_dir.absolute()}", SearchPathQuery(provider="schema"))
    try:
        yield Hydra.create_main_hydra2("rankbench", path)
    finally:
        GlobalHydra.instance().clear()


def _parse(arguments: Sequence[str], sweep: bool, loader: ConfigLoader) -> tuple[list[Override], list[str]]:
    """The overrides that can be read and are ours (hydra.* is left to Hydra), and what cannot be read."""
    parser, typed, problems = OverridesParser.create(loader), [], []
    for argument in arguments:
        try:
            override = parser.parse_overrides([argument])[0]
        except HydraException:
            problems.append(schema.unreadable(argument))
            continue
        if override.is_sweep_override() and not sweep:
            problems.append(f"{argument}: several values; add -m to run a job for each, or write [a,b] for a list")
        elif override.is_sweep_override() and not override.is_discrete_sweep():
            key = override.get_key_element()
            problems.append(f"{argument}: names no values, and a sweep is a grid here; write {key}=a,b,c")
        elif not override.is_hydra_override():
            typed.append(override)
    return typed, problems


def _values(override: Override) -> list[Override]:
    """One override per value of a sweep."""
    if not override.is_sweep_override():
        return [override]
    key = override.get_key_element()
    parser = OverridesParser.create(override.config_loader)
    return parser.parse_overrides([f"{key}={value}" for value in override.sweep_string_iterator()])


def _options(loader: ConfigLoader, group: str) -> list[str]:
    return [option for option in loader.get_group_options(group) if not option.startswith("_")]


def _is_whole_seed(override: Override) -> bool:
    """Whether it gives the seed a whole number, which any run may have."""
    return override.input_line == f"seed={override.value()}" and type(override.value()) is int


class Composed(NamedTuple):
    """What Hydra makes of some choices: the configuration and the logging of a run, or why there is neither.

    Attributes:
        config: the configuration.
        blank: the same, pickled: what is read from it takes an eighth of the time of a deep copy.
    """

    config: DictConfig
    blank: bytes
    job_logging: DictConfig
    problems: list[str]


def _compose(hydra: Hydra, config_name: str, choices: tuple[str, ...]) -> Composed:
    """The configuration with these choices and no other override."""
    try:
        composed = hydra.compose_config(config_name, list(choices), RunMode.RUN, with_log_configuration=False)
    except (HydraException, OmegaConfBaseException) as error:
        return Composed(DictConfig({}), b"", DictConfig({}), [str(error)])
    job_logging = composed.hydra.job_logging
    with open_dict(composed):
        del composed["hydra"]
    config = yaml_files.strip_display(composed)
    return Composed(config, pickle.dumps(config), job_logging, [])


def _examine(composed: DictConfig, rest: Sequence[Override], skip: frozenset[str]) -> tuple[Config, list[str]]:
    """A job with the other overrides applied as well, and what is wrong with it."""
    problems = []
    for override in rest:
        if override.key_or_group.partition(".")[0] not in skip:
            problems += _apply(composed, override)
    config, wrong = validation.examine(composed, skip)
    return config, problems + wrong


def _apply(composed: DictConfig, override: Override) -> list[str]:
    """Set a value in place, as Hydra would, but also where no such key exists: examine() then names it."""
    key = override.key_or_group
    parent = OmegaConf.select(composed, key.rpartition(".")[0]) if "." in key else composed
    if override.is_add() and isinstance(parent, DictConfig) and key.rpartition(".")[2] in parent:
        return [f"{override.input_line}: the key is there already; write it without +"]
    value = schema.MISSING if override.is_delete() else override.value()
    try:
        OmegaConf.update(composed, key, value, merge=True, force_add=True)
    except (OmegaConfBaseException, ValueError) as error:
        return [f"{override.input_line}: {str(error).splitlines()[0]}"]
    return []


# Hydra 1.3 finds launchers only in modules named hydra_plugins.*; it looks for them once, when it is first used.
sys.path.append(str(Path(__file__).resolve().parents[1] / "launching" / "search_path"))


class Packages(SearchPathPlugin):
    """Adds the conf/ folders of installed packages and budgets of any rank behind our own, whose files they leave."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra whenever it makes a search path."""
        for folder, package in registry.conf_folders().items():
            search_path.append(package, f"file://{folder}")
        search_path.append("rankbench", f"{SCHEME}://")


def extend() -> None:
    """Make Hydra ask `Packages`, and know budgets of any rank, from now on in this process."""
    Plugins.instance().register(Packages)
    Plugins.instance().register(NumberedBudgets)
