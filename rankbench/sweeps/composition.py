"""Turns what was typed into the runs of a sweep; each is composed and checked before any is started."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from rankbench.analysis.metrics import METRICS, VALIDATION, higher_is_better
from rankbench.config import control_sources, schema
from rankbench.config.overrides import UNREADABLE, Examiner, examiner
from rankbench.config.schema import ConfigError, near
from rankbench.config.yaml_files import CONF_DIR, content
from rankbench.sweeps import experiment as experiments
from rankbench.sweeps import experiment_files, manifest
from rankbench.sweeps.experiment import FULL, DottedSettings, Experiment, Tune, arms
from rankbench.sweeps.manifest import Sweep

CHOICES = {"retry": ("none", "failed"), "futile": ("refuse", "allow")}  # word -> its values, the usual one first


@dataclass(frozen=True)
class SweepArguments:
    """The arguments of a sweep, sorted by who reads them.

    Attributes:
        experiment: name of the experiment; None without one.
        scale: scale of the experiment.
        arms: labels of the arms to run; None: all.
        retry: "failed" does failed runs again; "none" leaves them.
        futile: "allow" starts a design that can show nothing; "refuse" does not.
        tune: field of rankbench.sweeps.experiment.Tune -> value.
        ladder: field of rankbench.sweeps.experiment.Ladder -> value.
        settings: overrides of the runs, several values with commas.
        hydra: overrides of Hydra's own keys (hydra.launcher.slots=2).
    """

    experiment: str | None = None
    scale: str = FULL
    arms: list[str] | None = None
    retry: str = "none"
    futile: str = "refuse"
    tune: dict[str, Any] = field(default_factory=dict)
    ladder: dict[str, Any] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    hydra: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GridCell:
    """One run as a user would type it.

    Attributes:
        arm: label of the arm; None where nobody named one.
        point: where the run stands on the axes: key -> override.
        settings: dotted key -> the override that sets it ("train.steps=60", "+method.settings.batches=4").
    """

    arm: str | None
    point: dict[str, str]
    settings: dict[str, str]

    @property
    def overrides(self) -> list[str]:
        """The settings as on the command line."""
        return list(self.settings.values())


@dataclass(frozen=True)
class FrozenCell(GridCell):
    """A cell whose configuration is composed and checked; nothing that is edited later changes it.

    Attributes:
        config: the configuration, as plain values.
    """

    config: dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """What a sweep is made of.

    Attributes:
        experiment: the experiment at its scale, with the arms chosen; None without one.
        tune: how learning rates are chosen; None where they are given.
        cells: the runs to be reported.
    """

    experiment: Experiment | None
    tune: Tune | None
    cells: list[FrozenCell]


def words(arguments: Sequence[str]) -> SweepArguments:
    """Sort the arguments of a sweep.

    Raises:
        ConfigError: one that a sweep reads and cannot understand.
    """
    named: dict[str, str] = {}
    arms: list[str] | None = None
    sections: dict[str, dict[str, Any]] = {"tune": {}, "ladder": {}}
    settings: list[str] = []
    hydra: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        section, _, leaf = key.partition(".")
        if key in ("experiment", "scale", "retry", "futile"):
            named[key] = value
        elif key == "arms":
            arms = [str(label) for label in _listed(_typed_value(argument))]
        elif leaf and section in sections:
            sections[section][leaf] = _typed_value(argument)
        else:
            (hydra if key.startswith(("hydra.", "hydra/", "+hydra")) else settings).append(argument)
    chosen = {key: named.get(key, values[0]) for key, values in CHOICES.items()}
    problems = [
        f"{key}={value}: unknown; {near(value, CHOICES[key])}"
        for key, value in chosen.items()
        if value not in CHOICES[key]
    ]
    if "experiment" not in named and (arms is not None or "scale" in named or sections["ladder"]):
        problems.append("scale, arms and ladder belong to an experiment: add experiment=NAME")
    if problems:
        raise ConfigError(problems)
    scale = named.get("scale", FULL)
    return SweepArguments(
        named.get("experiment"),
        scale,
        arms,
        chosen["retry"],
        chosen["futile"],
        **sections,
        settings=settings,
        hydra=hydra,
    )


def _typed_value(argument: str) -> Any:
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


def lay_out(typed: SweepArguments, config_dir: Path | None = None, config_name: str = "config") -> Layout:
    """Every run of a sweep, composed and checked.

    Args:
        typed: the arguments, as `words` sorts them.
        config_dir: a folder with more configuration files (--config-dir).
        config_name: name of the primary configuration file.

    Raises:
        ConfigError: with every mistake of every run.
    """
    experiment = None
    if typed.experiment is not None:
        experiment = experiments.at_scale(experiment_files.load(typed.experiment, config_dir), typed.scale)
        experiment = experiment if typed.arms is None else experiments.with_arms(experiment, typed.arms)
        experiment = experiment.replace(ladder=experiment_files.ladder(typed.ladder, experiment))
    tune = experiment_files.tune(typed.tune, experiment.tune if experiment else None)
    with examiner(config_dir, config_name) as examine:
        typed_values, problems = examine.values(typed.settings, sweep=True)
        values = {key: overrides for key, overrides in typed_values.items() if overrides}
        problems += _contradictions(values, experiment, tune)
        problems += _without_trials(experiment) if experiment and tune else []
        problems += experiments.missing_for_a_ladder(experiment, tune) if experiment else []
        cells = list(_product(values)) if experiment is None else cells_of(experiment, values)
        frozen, wrong = _freeze(cells, examine, experiment)
    if problems + wrong:
        raise ConfigError(list(dict.fromkeys(problems + wrong)))
    return Layout(experiment, tune, frozen)


def _product(values: Mapping[str, Sequence[str]]) -> Iterator[GridCell]:
    """Every combination of what was typed."""
    for point in itertools.product(*values.values()):
        settings = dict(zip(values, point, strict=True))
        yield GridCell(None, {key: settings[key] for key in values if len(values[key]) > 1}, settings)


def _contradictions(values: Mapping[str, Any], experiment: Experiment | None, tune: Tune | None) -> Iterator[str]:
    """Mistakes of the sweep that are none of any run."""
    if tune is not None and "train.learning_rate" in values:
        yield "train.learning_rate: is chosen by tune.learning_rate; give one of the two"
    if experiment is not None and "method" in values:
        some = ",".join(list(experiment.arms)[:2])
        yield f"method: the arms of experiment={experiment.name} name it; choose some of them: arms=[{some}]"
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
        known = ", ".join(f"{VALIDATION}{metric}" for metric in METRICS)
        yield f"tune.metric={tune.metric}: learning rates are chosen on validation alone, by one of {known}"


def _without_trials(experiment: Experiment) -> Iterator[str]:
    """Arms whose trials need the ranks of another arm's trials, where that one has none."""
    rates = experiments.rates_of(experiment)
    for arm, settings in experiments.arms(experiment).items():
        source = control_sources.source_arm({"source_run": settings.get("method.source_run")})
        if source in rates and arm not in rates:
            yield (
                f"arm {arm}: is tuned at the ranks of {source}, which has no trials: it takes the learning rate of "
                f"{rates[source]}; let {arm} take one, too, under shares"
            )


def _freeze(
    cells: Sequence[GridCell], examine: Examiner, experiment: Experiment | None
) -> tuple[list[FrozenCell], list[str]]:
    """Every cell composed, and what is wrong with them."""
    frozen, problems = [], []
    labels = list(experiments.arms(experiment)) if experiment else []
    for cell in cells:
        config, wrong = examine.job(cell.overrides)
        if not wrong:
            plain = config.plain()
            arm = control_sources.source_arm(plain["method"])
            if arm is not None and arm not in labels:
                wrong = [f"method.source_run={{{arm}}}: not among the arms that are run; {near(arm, labels)}"]
            frozen.append(FrozenCell(cell.arm, cell.point, cell.settings, plain))
        problems += [f"arm {cell.arm}: {problem}" if cell.arm else problem for problem in wrong]
    return frozen, problems


def cells_of(experiment: Experiment, typed: Mapping[str, Sequence[str]]) -> list[GridCell]:
    """Every run of an experiment, arms varying fastest.

    Args:
        typed: what the user added on the command line: key -> overrides; several take the place of an axis or make one
            more. They win over the file.
    """
    fixed = {key: overrides[0] for key, overrides in typed.items() if len(overrides) == 1}
    axes = {key: [spell(key, value) for value in values] for key, values in experiment.axes.items() if key not in fixed}
    axes |= {key: list(overrides) for key, overrides in typed.items() if len(overrides) > 1}
    cells = []
    for point in itertools.product(*axes.values()):
        at_point = dict(zip(axes, point, strict=True))
        for arm, settings in arms(experiment).items():
            base = {**_spelled(experiment.settings), **at_point}
            chosen = {**base, **_spelled(settings), **fixed}
            fitting = _spelled(_conditional(experiment.when, chosen))
            cells.append(GridCell(arm, at_point, {**base, **fitting, **at_point, **_spelled(settings), **fixed}))
    return cells


def spell(key: str, value: Any) -> str:
    """A setting as it is typed: method.beta1=0.85, task.terms=[2,3]."""
    return f"{key}={_spelled_value(value)}"


def _spelled(settings: DottedSettings) -> dict[str, str]:
    return {key.lstrip("+"): spell(key, value) for key, value in settings.items()}


def _spelled_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_spelled_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_spelled_value(inner)}' for key, inner in value.items())}}}"
    text = value if isinstance(value, str) else schema.show(value)
    plain_text = not isinstance(value, str) or (
        text and all(letter.isalnum() or letter in "_-./${}" for letter in text)
    )
    return text if plain_text and not text.startswith("{") else "'" + text.replace("'", r"\'") + "'"


def _conditional(when: Mapping[str, DottedSettings], chosen: Mapping[str, str]) -> DottedSettings:
    """Settings of the conditions that hold, later ones over earlier ones; the defaults of conf/config.yaml count."""
    conditional: DottedSettings = {}
    for condition, settings in when.items():
        keys = [word.partition("=")[0] for word in condition.split()]
        overrides = [chosen.get(key, spell(key, _defaults().get(key))) for key in keys]
        conditional |= settings if overrides == condition.split() else {}
    return conditional


@functools.cache
def _defaults() -> DottedSettings:
    """Group -> option of conf/config.yaml."""
    root = content(CONF_DIR / "config.yaml")
    return {key: value for entry in root["defaults"] if isinstance(entry, dict) for key, value in entry.items()}


def describe(typed: SweepArguments, layout: Layout, arguments: Sequence[str], results_dir: Path) -> Sweep:
    """The sweep of a layout, before its first run."""
    name = typed.experiment or "sweep"
    sweep_id = manifest.identity(name, (cell.config for cell in layout.cells), layout.tune)
    others, _ = manifest.all_of(results_dir)
    order = max((other.order for other in others), default=0) + 1
    sweep = Sweep(sweep_id, name, order, list(arguments), layout.experiment, layout.tune)
    for earlier in others:
        if earlier.sweep_id == sweep_id:
            sweep.declaration, sweep.changes, sweep.looks = earlier.declaration, earlier.changes, earlier.looks
    return sweep


def results_dir_of(layout: Layout) -> Path:
    """The results folder of all runs of a layout.

    Raises:
        ConfigError: there are several.
    """
    folders = {str(cell.config["results_dir"]) for cell in layout.cells}
    if len(folders) > 1:
        raise ConfigError([f"results_dir: one for all runs of a sweep, not {', '.join(sorted(folders))}"])
    return Path(folders.pop())
