"""What an experiment runs and what it reports: conf/experiment/NAME.yaml, read and laid out as cells.

What the small scales of all share stands in conf/scale/small.yaml, what is shown of a task in conf/report.yaml.

A cell is one run as a user would type it: settings by their dotted key. `experiment=NAME scale=small model=tiny` lays
out the same file on a smaller grid.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]  # omegaconf's own reader
from omegaconf import OmegaConf

from rankbench import schema
from rankbench.config import CONF_DIR, ConfigError
from rankbench.packages import conf_folders
from rankbench.registry import near
from rankbench.schema import number
from rankbench.verdict import CONTROLS

Settings = dict[str, Any]  # dotted key, as on the command line -> value
FULL = "full"  # the scale of the file itself
DEFAULT = "default"  # of report.metrics: tasks that are not named


@dataclass(kw_only=True)
class Tune:
    """How the learning rate of each arm is chosen: on validation, before the runs that are reported.

    Attributes:
        learning_rate: the grid; every arm tries all of it, for each combination of the axes but the seed. Arms that
            share another's rate try none.
        seeds: of the trials; apart from those that are reported, or their runs were chosen on.
        metric: of the validation split ("validation/loss").
        widen: how often the grid may grow by one rate, for all arms alike, where the best of one is at its edge.
    """

    learning_rate: list[float]
    seeds: list[int]
    metric: str
    widen: int = number(low=0)


@dataclass(kw_only=True)
class Published:
    """The paper's numbers that stand beside ours.

    Attributes:
        file: of results/published, without .csv.
        table: as that file has it.
        model: as that file has it; null: any.
        arms: our arm -> the paper's name of it.
        budgets: our budget -> the paper's words for it (rank_or_budget), where one table has several; {}: all.
    """

    file: str
    table: str
    model: str | None
    arms: dict[str, str]
    budgets: dict[str, list[str]]


@dataclass(kw_only=True)
class Report:
    """What the report shows.

    Attributes:
        reference: the arm that others are compared with.
        metrics: task -> column of the frame of runs ("test/accuracy"); DEFAULT for tasks that are not named.
        beats: the controls that an arm has to beat for the verdict that it works, of rankbench.verdict.CONTROLS.
        level: of the intervals that have to leave out 0 for it.
        margin: a difference below it does not matter, in the metric's unit (0.005: half a point).
        margins: task -> margin, where the metric has another unit.
        controls: arm -> its own controls: {shuffled: ARM, random: ARM}, for the verdict.
        curves: title -> the setting drawn on the x axis ("method.quadrature_steps"), over the arms that vary it alone.
        maps: title -> two settings whose grid is drawn as a heat map.
        published: the paper's numbers beside ours.
    """

    reference: str
    metrics: dict[str, str]
    beats: list[str]
    level: float = number(above=0, below=1)
    margin: float = number(above=0)
    margins: dict[str, float]
    controls: dict[str, dict[str, str]]
    curves: dict[str, str]
    maps: dict[str, list[str]]
    published: list[Published]

    def metric_of(self, task: str) -> str:
        """Column of the frame of runs that is shown for a task."""
        return self.metrics.get(task, self.metrics[DEFAULT])

    def margin_of(self, task: str) -> float:
        """Largest difference that does not matter on a task, in the unit of its metric."""
        return self.margins.get(task, self.margin)


@dataclass(kw_only=True)
class Part:
    """What a scale puts in place of the file's own; what it leaves out stays.

    Attributes:
        arms: those that are run; null: all.
        settings, when: in place of the file's, as a whole: its runs are another size; null: those.
        axes: key by key over those of the file; an axis without values is none.
        tune: in place of the file's; null: that one.
    """

    arms: list[str] | None
    settings: Settings | None
    axes: dict[str, list[Any]]
    when: dict[str, Settings] | None
    tune: Tune | None


@dataclass(kw_only=True)
class Experiment:
    """One file of conf/experiment.

    Attributes:
        name: of the file.
        question: what the experiment decides, one sentence.
        source: paper and table it redoes.
        arms: label -> its own settings; a value "{ARM}" of method.source_run is that arm's run at the same axes.
        vary: arm -> setting -> values: an arm more for each value, which differs from it in that setting alone.
        grid: arm -> setting -> values: an arm more for each combination.
        axes: setting -> values; every arm is run at each combination.
        settings: of every run.
        when: "key=value", or several with blanks between, -> settings of the runs that have these values.
        scales: name -> what it puts in place of the above; "full" is the file itself.
        shares: arm -> the arm whose tuned learning rate it takes. Arms of vary and grid take that of the arm they vary:
            all else is to be equal.
        tune: null takes the learning rates of the settings.
        report: what is shown.
    """

    name: str
    question: str
    source: str
    arms: dict[str, Settings]
    vary: dict[str, dict[str, list[Any]]]
    grid: dict[str, dict[str, list[Any]]]
    axes: dict[str, list[Any]]
    settings: Settings
    when: dict[str, Settings]
    scales: dict[str, Part]
    shares: dict[str, str]
    tune: Tune | None
    report: Report


# What a file may leave out.
LEFT_OUT: dict[str, Any] = {
    **{key: {} for key in ("vary", "grid", "settings", "when", "scales", "shares")},
    "tune": None,
}
LEFT_OUT_OF_PART: dict[str, Any] = {"arms": None, "settings": None, "axes": {}, "when": None, "tune": None}
LEFT_OUT_OF_REPORT: dict[str, Any] = {**{key: {} for key in ("controls", "curves", "maps")}, "published": []}
LEFT_OUT_OF_PUBLISHED: dict[str, Any] = {"model": None, "budgets": {}}
LEFT_OUT_OF_TUNE: dict[str, Any] = {"seeds": [100], "metric": "validation/loss", "widen": 2}


@dataclass(frozen=True)
class Cell:
    """One run as a user would type it.

    Attributes:
        arm: its label; None where nobody named one.
        point: where it stands on the axes: key -> override.
        settings: dotted key -> the override that sets it ("train.steps=60", "+method.settings.batches=4").
    """

    arm: str | None
    point: dict[str, str]
    settings: dict[str, str]

    @property
    def overrides(self) -> list[str]:
        """As on the command line."""
        return list(self.settings.values())


def names(extra: Path | None = None, group: str = "experiment") -> dict[str, Path]:
    """The experiments there are (or scales), and their files; those of `extra` (--config-dir) win, ours come last."""
    folders = [CONF_DIR, *conf_folders(), *([extra] if extra else [])]
    return {file.stem: file for folder in folders for file in sorted((folder / group).glob("*.yaml"))}


def load(name: str, extra: Path | None = None) -> Experiment:
    """Read a file of conf/experiment, its scales over those of conf/scale.

    Raises:
        ConfigError: no such file, or every mistake in it.
    """
    files = names(extra)
    if name not in files:
        raise ConfigError([f"experiment={name}: unknown experiment; {near(name, list(files))}"])
    data = _content(files[name])
    shared = {scale: _content(file) for scale, file in names(extra, "scale").items()}
    if data.get("tune") is None:  # what is not tuned at full size is not tuned at another
        shared = {scale: {**part, "tune": None} for scale, part in shared.items()}
    scales = {
        scale: _over(part or {}, shared.get(scale, {}), ("settings", "axes", "when"))
        for scale, part in data.get("scales", {}).items()
    }
    return read({"name": name, **data, "scales": scales}, str(files[name]))


def _content(file: Path) -> dict[str, Any]:
    """What a YAML file says, read as Hydra reads it.

    Raises:
        ConfigError: it is none.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))
    except yaml.YAMLError as error:
        raise ConfigError(
            [f"{file}: not YAML ({' '.join(str(error).split())}); quote a text with ': ' in it"]
        ) from error


def _over(own: Mapping[str, Any], shared: Mapping[str, Any], open_keys: Sequence[str]) -> dict[str, Any]:
    """What one experiment says over what all share: entry by entry under the open keys, the rest as a whole."""
    entries = {key: {**shared.get(key, {}), **own.get(key, {})} for key in open_keys if key in own or key in shared}
    return {**shared, **own, **entries}


def read(data: Mapping[str, Any], source: str) -> Experiment:
    """An experiment from plain data, such as a sweep keeps of it; its report over conf/report.yaml.

    Args:
        source: named in errors.

    Raises:
        ConfigError: every mistake.
    """
    report = {**LEFT_OUT_OF_REPORT, **_over(data.get("report", {}), _usual_report(), ("metrics", "margins"))}
    report["published"] = [{**LEFT_OUT_OF_PUBLISHED, **table} for table in report["published"]]
    whole = {**LEFT_OUT, **data, "report": report}
    whole["tune"] = _tune(whole["tune"])
    whole["scales"] = {scale: {**LEFT_OUT_OF_PART, **(part or {})} for scale, part in whole["scales"].items()}
    for part in whole["scales"].values():
        part["tune"] = _tune(part["tune"])
    values, mistakes = schema.conform(Experiment, whole)
    problems = [f"{source}: {mistake.sentence}" for mistake in mistakes]
    if problems:
        raise ConfigError(problems)
    found: Experiment = _build(Experiment, values)
    problems = [f"{source}: {problem}" for problem in _unknown_names(found)]
    if problems:
        raise ConfigError(problems)
    return found


def plain(experiment: Experiment) -> dict[str, Any]:
    """As `read` takes it."""
    return dataclasses.asdict(experiment)


def at(experiment: Experiment, scale: str) -> Experiment:
    """The experiment on the grid of a scale.

    Raises:
        ConfigError: no such scale.
    """
    if scale == FULL:
        return experiment
    if scale not in experiment.scales:
        known = near(scale, [FULL, *experiment.scales])
        raise ConfigError([f"scale={scale}: experiment={experiment.name} has no such scale; {known}"])
    part = experiment.scales[scale]
    return dataclasses.replace(
        only(experiment, part.arms) if part.arms is not None else experiment,
        settings=experiment.settings if part.settings is None else part.settings,
        axes={key: values for key, values in (experiment.axes | part.axes).items() if values},
        when=experiment.when if part.when is None else part.when,
        tune=part.tune or experiment.tune,
    )


def only(experiment: Experiment, chosen: Sequence[str]) -> Experiment:
    """The experiment with some of its arms.

    Raises:
        ConfigError: an arm it does not have.
    """
    there = arms(experiment)
    wrong = [f"arms: experiment={experiment.name} has no arm {arm!r}; {near(arm, list(there))}" for arm in chosen]
    wrong = [problem for problem, arm in zip(wrong, chosen, strict=True) if arm not in there]
    if wrong:
        raise ConfigError(wrong)
    kept = {arm: settings for arm, settings in there.items() if arm in chosen}
    shared = {arm: base for arm, base in rates_of(experiment).items() if {arm, base} <= set(chosen)}
    scales = {
        name: dataclasses.replace(part, arms=[arm for arm in part.arms or there if arm in kept])
        for name, part in experiment.scales.items()
    }
    report = _report_on(kept, experiment.report)
    return dataclasses.replace(experiment, arms=kept, shares=shared, scales=scales, report=report, vary={}, grid={})


def _report_on(kept: Mapping[str, Settings], report: Report) -> Report:
    """What can be shown of some arms; without the reference, the first of them takes its place."""
    controls = {
        arm: {kind: control for kind, control in held.items() if control in kept}
        for arm, held in report.controls.items()
        if arm in kept
    }
    published = [
        dataclasses.replace(table, arms={arm: name for arm, name in table.arms.items() if arm in kept})
        for table in report.published
    ]
    reference = report.reference if report.reference in kept else next(iter(kept))
    return dataclasses.replace(report, reference=reference, controls=controls, published=published)


def arms(experiment: Experiment) -> dict[str, Settings]:
    """Every arm with its own settings: those named, then those that vary one, then those of the grids."""
    made = {name: {**experiment.arms[base], **changed} for name, base, changed in _made(experiment)}
    return {**experiment.arms, **made}


def rates_of(experiment: Experiment) -> dict[str, str]:
    """Arm -> the arm whose tuned learning rate it takes, for those that have none of their own."""
    return {**{name: base for name, base, _ in _made(experiment)}, **experiment.shares}


def _made(experiment: Experiment) -> Iterator[tuple[str, str, Settings]]:
    """Label, base and changed settings of the arms of vary and grid."""
    for base, settings in experiment.vary.items():
        for key, values in settings.items():
            yield from ((label(base, {key: value}), base, {key: value}) for value in values)
    for base, settings in experiment.grid.items():
        for point in itertools.product(*settings.values()):
            changed = dict(zip(settings, point, strict=True))
            yield label(base, changed), base, changed


def label(base: str, changed: Settings) -> str:
    """Of an arm that differs from another in some settings: "igu quadrature_steps=5"."""
    return " ".join([base, *(f"{key.rpartition('.')[2]}={schema.show(value)}" for key, value in changed.items())])


def cells(experiment: Experiment, typed: Mapping[str, Sequence[str]]) -> list[Cell]:
    """Every run of an experiment, arms varying fastest.

    Args:
        typed: what the user added on the command line: key -> overrides; several take the place of an axis or make one
            more. They win over the file.
    """
    fixed = {key: overrides[0] for key, overrides in typed.items() if len(overrides) == 1}
    axes = {key: [spell(key, value) for value in values] for key, values in experiment.axes.items() if key not in fixed}
    axes |= {key: list(overrides) for key, overrides in typed.items() if len(overrides) > 1}
    found = []
    for point in itertools.product(*axes.values()):
        at_point = dict(zip(axes, point, strict=True))
        for arm, settings in arms(experiment).items():
            base = {**_spelled(experiment.settings), **at_point}
            chosen = {**base, **_spelled(settings), **fixed}
            fitting = _spelled(_conditional(experiment.when, chosen))
            found.append(Cell(arm, at_point, {**base, **fitting, **at_point, **_spelled(settings), **fixed}))
    return found


def spell(key: str, value: Any) -> str:
    """A setting as one types it: method.beta1=0.85, task.terms=[2,3]."""
    return f"{key}={_value(value)}"


def _spelled(settings: Settings) -> dict[str, str]:
    return {key.lstrip("+"): spell(key, value) for key, value in settings.items()}


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_value(held)}' for key, held in value.items())}}}"
    text = value if isinstance(value, str) else schema.show(value)
    plain_text = not isinstance(value, str) or (
        text and all(letter.isalnum() or letter in "_-./${}" for letter in text)
    )
    return text if plain_text and not text.startswith("{") else "'" + text.replace("'", r"\'") + "'"


def _conditional(when: Mapping[str, Settings], chosen: Mapping[str, str]) -> Settings:
    """Settings of the conditions that hold, later ones over earlier ones; the defaults of conf/config.yaml count."""
    found: Settings = {}
    for condition, settings in when.items():
        keys = [word.partition("=")[0] for word in condition.split()]
        given = [chosen.get(key, spell(key, _defaults().get(key))) for key in keys]
        found |= settings if given == condition.split() else {}
    return found


@functools.cache
def _defaults() -> Settings:
    """Group -> option of conf/config.yaml."""
    root = _content(CONF_DIR / "config.yaml")
    return {key: value for entry in root["defaults"] if isinstance(entry, dict) for key, value in entry.items()}


def usual_metric(task: str) -> str:
    """Column of the frame of runs that is shown for a task, where no experiment says otherwise."""
    metrics = _usual_report()["metrics"]
    return str(metrics.get(task, metrics[DEFAULT]))


@functools.cache
def usual_report(reference: str) -> Report:
    """What is shown of a sweep that no experiment declares.

    Args:
        reference: the arm that others are compared with.
    """
    found: Report = _build(Report, {**LEFT_OUT_OF_REPORT, **_usual_report(), "reference": reference})
    return found


def _usual_report() -> dict[str, Any]:
    return _content(CONF_DIR / "report.yaml")


def _tune(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if data is None else {**LEFT_OUT_OF_TUNE, **data}


def tune(typed: Mapping[str, Any], base: Tune | None) -> Tune | None:
    """The tuning of a sweep: what the file says, with what was typed (tune.learning_rate=[...]) over it.

    Raises:
        ConfigError: every mistake.
    """
    if not typed:
        return base
    values, mistakes = schema.conform(Tune, {**LEFT_OUT_OF_TUNE, **(vars(base) if base else {}), **typed}, "tune")
    if mistakes:
        raise ConfigError([mistake.sentence for mistake in mistakes])
    return Tune(**values)


def _unknown_names(experiment: Experiment) -> Iterator[str]:
    """Labels that name no arm, and conditions that name no key."""
    for place, when in {"when": experiment.when, **_conditions(experiment)}.items():
        wrong = [word for condition in when for word in condition.split() if "=" not in word]
        yield from (f"{place}: {word!r} is no key=value; write model=tiny, or model=tiny seed=0" for word in wrong)
    for place in ("vary", "grid"):
        for base in getattr(experiment, place):
            if base not in experiment.arms:
                yield f"{place}.{base}: no such arm; {near(base, list(experiment.arms))}"
                return
    there = list(arms(experiment))
    named = {"report.reference": [experiment.report.reference]}
    for arm, controls in experiment.report.controls.items():
        named[f"report.controls.{arm}"] = [arm, *controls.values()]
    for table in experiment.report.published:
        named[f"report.published ({table.table})"] = list(table.arms)
    named["shares"] = [*experiment.shares, *experiment.shares.values()]
    roles = [role for role in experiment.report.beats if role not in CONTROLS]
    yield from (f"report.beats: no control {role!r}; {near(role, CONTROLS)}" for role in roles)
    for name, part in experiment.scales.items():
        named[f"scales.{name}.arms"] = part.arms or []
    for place, labels in named.items():
        yield from (f"{place}: no arm {arm!r}; {near(arm, there)}" for arm in labels if arm not in there)


def _conditions(experiment: Experiment) -> dict[str, Mapping[str, Settings]]:
    return {f"scales.{name}.when": part.when or {} for name, part in experiment.scales.items()}


def _build(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Dataclasses from the plain values of `schema.conform`."""
    nested: dict[str, Any] = {"tune": Tune, "report": Report, "scales": Part, "published": Published}
    made = {}
    for key, value in values.items():
        inner = nested.get(key)
        if inner is None or value is None:
            made[key] = value
        elif key == "scales":
            made[key] = {name: _build(inner, part) for name, part in value.items()}
        elif key == "published":
            made[key] = [_build(inner, part) for part in value]
        else:
            made[key] = _build(inner, value)
    return cls(**made)
