"""Turns what was typed into the runs of a sweep; each is composed and checked before any is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from rankbench.analysis.metrics import METRICS, VALIDATION, higher_is_better
from rankbench.config import matched_runs
from rankbench.config.overrides import Examiner, examiner
from rankbench.config.schema import ConfigError, near, unreadable
from rankbench.sweeps import cells as experiment_cells
from rankbench.sweeps import experiment as experiments
from rankbench.sweeps import experiment_files, manifest, selection
from rankbench.sweeps.experiment import FULL, Experiment, Tune
from rankbench.sweeps.grid import GridCell, cells_of, product_of
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
        tune: field of rankbench.sweeps.experiment.Tune -> value.
        settings: overrides of the runs, several values with commas.
        hydra: overrides of Hydra's own keys (hydra.launcher.slots=2).
        cells: names of the cells to run; None: all.
        ladder: field of rankbench.sweeps.experiment.Ladder -> value.
        futile: "allow" starts a design that can show nothing; "refuse" does not.
    """

    experiment: str | None = None
    scale: str = FULL
    arms: list[str] | None = None
    retry: str = "none"
    tune: dict[str, Any] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    hydra: list[str] = field(default_factory=list)
    cells: list[str] | None = None
    ladder: dict[str, Any] = field(default_factory=dict)
    futile: str = "refuse"


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
        experiment: the experiment at its scale, with the arms and cells chosen; None without one.
        tune: how learning rates are chosen, where a cell of the experiment says nothing else; None: given.
        cells: the runs to be reported.
    """

    experiment: Experiment | None
    tune: Tune | None
    cells: list[FrozenCell]

    @property
    def tunes(self) -> dict[str | None, Tune | None]:
        """How learning rates are chosen in each cell of the experiment; without cells, under None."""
        if self.experiment is None:
            return {None: self.tune}
        return {name: part.tune for name, part in experiment_cells.parts(self.experiment).items()}


def words(arguments: Sequence[str]) -> SweepArguments:
    """Sort the arguments of a sweep.

    Raises:
        ConfigError: one that a sweep reads and cannot understand.
    """
    named: dict[str, str] = {}
    chosen: dict[str, list[str]] = {}
    sections: dict[str, dict[str, Any]] = {"tune": {}, "ladder": {}}
    settings: list[str] = []
    hydra: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        section, _, leaf = key.partition(".")
        if key in ("experiment", "scale", "retry", "futile"):
            named[key] = value
        elif key in ("arms", "cells"):
            chosen[key] = [str(name) for name in _listed(_typed_value(argument))]
        elif leaf and section in sections:
            sections[section][leaf] = _typed_value(argument)
        else:
            (hydra if key.startswith(("hydra.", "hydra/", "+hydra")) else settings).append(argument)
    retry, futile = (named.get(key, values[0]) for key, values in CHOICES.items())
    problems = [
        f"{key}={named[key]}: unknown; {near(named[key], values)}"
        for key, values in CHOICES.items()
        if named.get(key, values[0]) not in values
    ]
    if "experiment" not in named and (chosen or "scale" in named or sections["ladder"]):
        problems.append("scale, arms, cells and ladder belong to an experiment: add experiment=NAME")
    if problems:
        raise ConfigError(problems)
    scale, arms, cells = named.get("scale", FULL), chosen.get("arms"), chosen.get("cells")
    tune, ladder = sections.values()
    return SweepArguments(
        named.get("experiment"), scale, arms, retry, tune, settings, hydra, cells, ladder=ladder, futile=futile
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
        raise ConfigError([unreadable(argument)]) from error


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
    experiment = None if typed.experiment is None else _experiment(typed, typed.experiment, config_dir)
    parts = experiment_cells.parts(experiment) if experiment else {}
    tune = experiment.tune if experiment else experiment_files.tune(typed.tune, None)
    tunes = [part.tune for part in parts.values()] or [tune]
    with examiner(config_dir, config_name) as examine:
        typed_values, problems = examine.values(typed.settings, sweep=True)
        values = {key: overrides for key, overrides in typed_values.items() if overrides}
        problems += _contradictions(values, experiment, [tune for tune in tunes if tune is not None])
        problems += [problem for part in parts.values() if part.tune for problem in _without_trials(part)]
        axes = [[*part.axes, *values] for part in parts.values()] or [list(values)]
        problems += [problem for tune, keys in zip(tunes, axes, strict=True) for problem in _unpooled(tune, keys)]
        problems += [problem for part in parts.values() if part.ladder for problem in _without_rungs(part)]
        cells = [cell for name, part in parts.items() for cell in cells_of(part, values, name)]
        frozen, wrong = _freeze(cells if experiment else list(product_of(values)), examine)
    if problems + wrong:
        raise ConfigError(list(dict.fromkeys(problems + wrong)))
    return Layout(experiment, tune, frozen)


def _experiment(typed: SweepArguments, name: str, config_dir: Path | None) -> Experiment:
    """The experiment that is named, with the scale, arms, cells and tuning that are typed."""
    experiment = selection.at_scale(experiment_files.load(name, config_dir), typed.scale)
    experiment = experiment if typed.cells is None else experiment_cells.with_cells(experiment, typed.cells)
    experiment = experiment if typed.arms is None else selection.with_arms(experiment, typed.arms)
    experiment = experiment.replace(ladder=experiment_files.ladder(typed.ladder, experiment))
    return experiment_cells.with_tuning(experiment, typed.tune)


def _contradictions(values: Mapping[str, Any], experiment: Experiment | None, tunes: Sequence[Tune]) -> Iterator[str]:
    """Mistakes of the sweep that are none of any run."""
    if tunes and "train.learning_rate" in values:
        yield "train.learning_rate: is chosen by tune.learning_rate; give one of the two"
    if experiment is not None and "method" in values:
        some = ",".join(list(experiment.arms)[:2])
        yield f"method: the arms of experiment={experiment.name} name it; choose some of them: arms=[{some}]"
    for key in ("trial", "tuned"):
        if key in values:
            yield f"{key}: is filled in by a sweep with tune.learning_rate"
    for tune in tunes:
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


def _unpooled(tune: Tune | None, axes: Sequence[str]) -> Iterator[str]:
    """Axes that are to share a rate, and are none."""
    known = [axis for axis in axes if axis != "seed"]
    for axis in tune.pooled if tune else []:
        if axis not in known:
            yield f"tune.pooled: no axis {axis!r}; {near(axis, known)}"


def _without_trials(experiment: Experiment) -> Iterator[str]:
    """Arms whose trials need the ranks of another arm's trials, where that one has none."""
    rates = experiments.rates_of(experiment)
    for arm, settings in experiments.arms(experiment).items():
        source = next(iter(matched_runs.arms_in(settings).values()), None)
        if source in rates and arm not in rates:
            yield (
                f"arm {arm}: is tuned at what it takes from {source}, which has no trials: it takes the learning rate "
                f"of {rates[source]}; let {arm} take one, too, under shares"
            )


def _without_rungs(experiment: Experiment) -> Iterator[str]:
    """What the ladder of an experiment needs and does not have."""
    if experiment.tune is None:
        yield "ladder: starts from a tuned learning rate; give tune.learning_rate"
    elif len(experiment.tune.seeds) < 2 and not experiment.tune.pooled:
        yield "ladder: needs two tuning seeds or more to tell a gain from noise: tune.seeds=[100,101,102]"
    if (reference := experiment.report.reference) in experiments.rates_of(experiment):
        yield f"ladder: the reference {reference} has no trials, as it takes the rate of another arm; tune it"


def _freeze(cells: Sequence[GridCell], examine: Examiner) -> tuple[list[FrozenCell], list[str]]:
    """Every cell composed, and what is wrong with them: each mistake once, with all arms that have it."""
    frozen: list[FrozenCell] = []
    arms_with: dict[str, dict[str, None]] = {}  # of a mistake, in the order of the runs
    arms_at: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        arms_at.setdefault(tuple(cell.point.values()), []).append(str(cell.arm))
    for cell in cells:
        config, wrong = examine.job(cell.overrides)
        if not wrong:
            plain = config.plain()
            awaited = matched_runs.awaited(plain)
            at = arms_at[tuple(cell.point.values())]
            wrong = [
                f"{key}={{{arm}}}: not among the arms that are run; {near(arm, at)}"
                for key, arm in awaited.items()
                if arm not in at
            ]
            if len(set(awaited.values())) > 1:
                wrong.append(f"{', '.join(awaited)}: wait for several arms; let them name one")
            frozen.append(FrozenCell(cell.arm, cell.point, cell.settings, plain))
        for problem in wrong:
            arms_with.setdefault(problem, {})[cell.arm or ""] = None
    return frozen, [_of_arms(list(arms)) + problem for problem, arms in arms_with.items()]


def _of_arms(arms: Sequence[str]) -> str:
    """How a sentence on arms begins, e.g. "arms igu, igu permuted: "; empty where the arms of a sweep have no names."""
    named = [arm for arm in arms if arm]
    return f"arm{'s' if len(named) > 1 else ''} {', '.join(named)}: " if named else ""


def describe(typed: SweepArguments, layout: Layout, arguments: Sequence[str], results_dir: Path) -> Sweep:
    """The sweep of a layout, before its first run."""
    name = typed.experiment or "sweep"
    sweep_id = manifest.identity(name, (cell.config for cell in layout.cells), list(layout.tunes.values()))
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
