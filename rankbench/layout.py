"""From what was typed to the runs of a sweep: every one laid out, composed and examined before any is started."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from rankbench import declarations
from rankbench import experiment as experiments
from rankbench.cells import Cell, cells_of
from rankbench.config import control_sources
from rankbench.config.overrides import UNREADABLE, Examiner, examiner
from rankbench.config.schema import ConfigError, near
from rankbench.experiment import FULL, Experiment, Tune
from rankbench.rates import HIGHER_IS_BETTER, LOWER_IS_BETTER, VALIDATION, higher_is_better

RETRY = ("none", "failed")


@dataclass(frozen=True)
class Words:
    """The arguments of a sweep, sorted by who reads them.

    Attributes:
        experiment: its name; None without one.
        scale: of the experiment.
        arms: those to run; None: all.
        retry: "failed" does failed runs again; "none" leaves them.
        tune: key of rankbench.experiment.Tune -> value.
        settings: overrides of the runs, several values with commas.
        hydra: overrides of Hydra's own keys (hydra.launcher.slots=2).
    """

    experiment: str | None = None
    scale: str = FULL
    arms: list[str] | None = None
    retry: str = "none"
    tune: dict[str, Any] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    hydra: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    """A cell and its configuration, as plain values; nothing that is edited later changes it."""

    cell: Cell
    config: dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """What a sweep is made of.

    Attributes:
        experiment: at its scale, with the arms chosen; None without one.
        tune: how learning rates are chosen; None where they are given.
        cells: the runs to be reported.
    """

    experiment: Experiment | None
    tune: Tune | None
    cells: list[Frozen]


def words(arguments: Sequence[str]) -> Words:
    """Sort the arguments of a sweep.

    Raises:
        ConfigError: one that a sweep reads and cannot understand.
    """
    named: dict[str, str] = {}
    arms: list[str] | None = None
    tune: dict[str, Any] = {}
    settings: list[str] = []
    hydra: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("experiment", "scale", "retry"):
            named[key] = value
        elif key == "arms":
            arms = [str(label) for label in _listed(_value(argument))]
        elif key.startswith("tune."):
            tune[key.removeprefix("tune.")] = _value(argument)
        else:
            (hydra if key.startswith(("hydra.", "hydra/", "+hydra")) else settings).append(argument)
    retry = named.get("retry", "none")
    problems = [] if retry in RETRY else [f"retry={retry}: unknown; {near(retry, RETRY)}"]
    if "experiment" not in named and (arms is not None or "scale" in named):
        problems.append("scale and arms belong to an experiment: add experiment=NAME")
    if problems:
        raise ConfigError(problems)
    return Words(named.get("experiment"), named.get("scale", FULL), arms, retry, tune, settings, hydra)


def _value(argument: str) -> Any:
    """What follows the "="; "a,b" is the list "[a,b]".

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        override = OverridesParser.create().parse_overrides([argument])[0]
        return list(override.sweep_iterator()) if override.is_sweep_override() else override.value()
    except HydraException as error:
        raise ConfigError([f"{argument}: {UNREADABLE}"]) from error


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def lay_out(typed: Words, config_dir: Path | None = None, config_name: str = "config") -> Layout:
    """Every run of a sweep, composed and examined.

    Args:
        typed: of `words`.
        config_dir: a folder with more configuration files (--config-dir).
        config_name: of the primary configuration file.

    Raises:
        ConfigError: with every mistake of every run.
    """
    found = None
    if typed.experiment is not None:
        found = experiments.at(declarations.load(typed.experiment, config_dir), typed.scale)
        found = found if typed.arms is None else experiments.only(found, typed.arms)
    tune = declarations.tune(typed.tune, found.tune if found else None)
    with examiner(config_dir, config_name) as examine:
        typed_values, problems = examine.values(typed.settings, sweep=True)
        values = {key: overrides for key, overrides in typed_values.items() if overrides}
        problems += _contradictions(values, found, tune)
        problems += _without_trials(found) if found and tune else []
        cells = list(_product(values)) if found is None else cells_of(found, values)
        frozen, wrong = _freeze(cells, examine, found)
    if problems + wrong:
        raise ConfigError(list(dict.fromkeys(problems + wrong)))
    return Layout(found, tune, frozen)


def _product(values: Mapping[str, Sequence[str]]) -> Iterator[Cell]:
    """Every combination of what was typed."""
    for point in itertools.product(*values.values()):
        settings = dict(zip(values, point, strict=True))
        yield Cell(None, {key: settings[key] for key in values if len(values[key]) > 1}, settings)


def _contradictions(values: Mapping[str, Any], found: Experiment | None, tune: Tune | None) -> Iterator[str]:
    """What a sweep cannot do although each run could."""
    if tune is not None and "train.learning_rate" in values:
        yield "train.learning_rate: is chosen by tune.learning_rate; give one of the two"
    if found is not None and "method" in values:
        some = ",".join(list(found.arms)[:2])
        yield f"method: the arms of experiment={found.name} name it; choose some of them: arms=[{some}]"
    for key in ("trial", "tuned"):
        if key in values:
            yield f"{key}: is filled in by a sweep with tune.learning_rate"
    if tune is not None:
        yield from _mistuned(tune)


def _mistuned(tune: Tune) -> Iterator[str]:
    """What is wrong with the tuning of any sweep."""
    for key in ("learning_rate", "seeds"):
        if not getattr(tune, key):
            yield f"tune.{key}=[]: at least one must be tried"
    wrong = [rate for rate in tune.learning_rate if rate <= 0]
    yield from (f"tune.learning_rate: {rate:g} is no learning rate; expected numbers > 0" for rate in wrong)
    if not tune.metric.startswith(VALIDATION) or higher_is_better(tune.metric) is None:
        known = ", ".join(f"{VALIDATION}{metric}" for metric in (*LOWER_IS_BETTER, *HIGHER_IS_BETTER))
        yield f"tune.metric={tune.metric}: learning rates are chosen on validation alone, by one of {known}"


def _without_trials(found: Experiment) -> Iterator[str]:
    """Arms whose trials need the ranks of another arm's trials, where that one has none."""
    rates = experiments.rates_of(found)
    for arm, settings in experiments.arms(found).items():
        source = control_sources.source_arm({"source_run": settings.get("method.source_run")})
        if source in rates and arm not in rates:
            yield (
                f"arm {arm}: is tuned at the ranks of {source}, which has no trials: it takes the learning rate of "
                f"{rates[source]}; let {arm} take one, too, under shares"
            )


def _freeze(cells: Sequence[Cell], examine: Examiner, found: Experiment | None) -> tuple[list[Frozen], list[str]]:
    """Every cell composed, and what is wrong with them."""
    frozen, problems = [], []
    labels = list(experiments.arms(found)) if found else []
    for cell in cells:
        config, wrong = examine.job(cell.overrides)
        if not wrong:
            plain: Any = OmegaConf.to_container(config, resolve=True)
            arm = control_sources.source_arm(plain["method"])
            if arm is not None and arm not in labels:
                wrong = [f"method.source_run={{{arm}}}: not among the arms that are run; {near(arm, labels)}"]
            frozen.append(Frozen(cell, plain))
        problems += [f"arm {cell.arm}: {problem}" if cell.arm else problem for problem in wrong]
    return frozen, problems
