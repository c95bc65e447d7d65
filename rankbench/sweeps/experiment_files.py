"""Reader of conf/experiment/NAME.yaml: an experiment as its file declares it, every mistake at once.

What the small scales of all experiments share stands in conf/scale/small.yaml, what is shown of a task in
conf/report.yaml.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankbench.config import schema
from rankbench.config.registry import conf_folders
from rankbench.config.schema import ConfigError, near
from rankbench.config.yaml_files import CONF_DIR, content
from rankbench.records.record import RENAMED
from rankbench.sweeps.experiment import Experiment, Ladder, Tune, arms, rates_of
from rankbench.sweeps.report_settings import DEFAULT, UNIFORM, DottedSettings, Report


def names(extra: Path | None = None, group: str = "experiment") -> dict[str, Path]:
    """Name -> file of each experiment (or scale); those of `extra` (--config-dir) win, ours come last."""
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
    data = content(files[name])
    shared = {scale: content(file) for scale, file in names(extra, "scale").items()}
    if data.get("tune") is None:  # what is not tuned at full size is not tuned at another
        shared = {scale: {**part, "tune": None} for scale, part in shared.items()}
    scales = {
        scale: _over(part or {}, shared.get(scale, {}), ("settings", "axes", "when"))
        for scale, part in data.get("scales", {}).items()
    }
    experiment = read({"name": name, **data, "scales": scales}, str(files[name]))
    positive = experiment.report.positive_control  # not in `read`: a sweep of some arms may lack it
    if positive and positive.arm not in arms(experiment):
        hint = near(positive.arm, list(arms(experiment)))
        raise ConfigError([f"{files[name]}: report.positive_control.arm: no arm {positive.arm!r}; {hint}"])
    return experiment


def read(data: Mapping[str, Any], source: str) -> Experiment:
    """An experiment from plain data, such as a sweep keeps; its report stands over conf/report.yaml.

    Args:
        data: content of the file, with the name of the experiment.
        source: name of the file, for errors.

    Raises:
        ConfigError: every mistake.
    """
    report = _over(data.get("report", {}), _usual_report(), ("metrics", "margins", "log"))
    experiment, mistakes = schema.conform(Experiment, {**data, "report": report})
    problems = [mistake.sentence for mistake in mistakes]
    problems += _unknown_names(experiment) if experiment is not None else []
    if experiment is None or problems:
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    return experiment


def read_kept(data: Mapping[str, Any], source: str) -> Experiment:
    """An experiment as a sweep of this or an older version kept it: its controls under the names of today.

    Args:
        data, source: as in `read`.

    Raises:
        ConfigError: every mistake.
    """
    report = dict(data.get("report", {}))
    if "beats" in report:
        report["beats"] = [RENAMED.get(role, role) for role in report["beats"]]
    controls = report.get("controls", {}).items()
    report["controls"] = {arm: {RENAMED.get(role, role): own[role] for role in own} for arm, own in controls}
    return read({**data, "report": report}, source)


def tune(typed: Mapping[str, Any], base: Tune | None) -> Tune | None:
    """The tuning of a sweep: what was typed (tune.learning_rate=[...]) over what the file says.

    Raises:
        ConfigError: every mistake.
    """
    if not typed:
        return base
    tuning, mistakes = schema.conform(Tune, {**(base.plain() if base else {}), **typed}, "tune")
    if mistakes:
        raise ConfigError([mistake.sentence for mistake in mistakes])
    return tuning


def ladder(typed: Mapping[str, Any], experiment: Experiment) -> Ladder | None:
    """The ladder of a sweep: what was typed (ladder.gate=false) over what the file says.

    Raises:
        ConfigError: every mistake; the file has no ladder.
    """
    if not typed:
        return experiment.ladder
    if experiment.ladder is None:
        raise ConfigError([f"ladder.{key}: experiment={experiment.name} has no ladder" for key in typed])
    changed, mistakes = schema.conform(Ladder, {**experiment.ladder.plain(), **typed}, "ladder")
    if mistakes:
        raise ConfigError([mistake.sentence for mistake in mistakes])
    return changed


def usual_metric(task: str) -> str:
    """Column of the frame of runs that is shown for a task, where no experiment says otherwise."""
    metrics = _usual_report()["metrics"]
    return str(metrics.get(task, metrics[DEFAULT]))


@functools.cache
def usual_report(reference: str) -> Report:
    """What is shown of a sweep that no experiment declares.

    Args:
        reference: label of the arm that others are compared with.
    """
    return Report(**_usual_report(), reference=reference)


def _usual_report() -> dict[str, Any]:
    return content(CONF_DIR / "report.yaml")


def _over(own: Mapping[str, Any], shared: Mapping[str, Any], open_keys: Sequence[str]) -> dict[str, Any]:
    """What one experiment says over what all share: entry by entry under the open keys, the rest as a whole."""
    entries = {key: {**shared.get(key, {}), **own.get(key, {})} for key in open_keys if key in own or key in shared}
    return {**shared, **own, **entries}


def _unknown_names(experiment: Experiment) -> Iterator[str]:
    """Labels that name no arm, and conditions that name no key."""
    positive = experiment.report.positive_control
    conditions = {"report.positive_control.where": positive.where if positive else []}
    for place, when in {"when": experiment.when, **_conditions(experiment), **conditions}.items():
        wrong = [word for condition in when for word in condition.split() if "=" not in word]
        yield from (f"{place}: {word!r} is no key=value; write model=tiny, or model=tiny seed=0" for word in wrong)
    for place in ("vary", "grid"):
        for base in getattr(experiment, place):
            if base not in experiment.arms:
                yield f"{place}.{base}: no such arm; {near(base, list(experiment.arms))}"
                return
    known = list(arms(experiment))
    named = {"report.reference": [experiment.report.reference]}
    for arm in experiment.report.controls:
        controls = experiment.report.controls_of(arm)
        named[f"report.controls.{arm}"] = [
            arm,
            *(one for role in controls if role != UNIFORM for one in controls[role]),
        ]
    for table in experiment.report.published:
        named[f"report.published ({table.table})"] = list(table.arms)
    for title, group in experiment.report.map_effect.items():
        named[f"report.map_effect ({title})"] = group
    named["shares"] = [*experiment.shares, *experiment.shares.values()]
    named["only"] = list(experiment.only)
    for name, cell in experiment.cells.items():
        named[f"cells.{name}.arms"] = cell.arms or []
        named[f"cells.{name}.only"] = list(cell.only)
    circle = [arm for arm, base in rates_of(experiment).items() if base in rates_of(experiment)]
    yield from (f"shares.{arm}: leads back to itself; let one of the arms be tuned" for arm in circle)
    from rankbench.statistics.decision import CONTROLS  # scipy takes a moment to import

    roles = {"report.beats": experiment.report.beats}
    roles |= {f"report.controls.{arm}": list(own) for arm, own in experiment.report.controls.items()}
    for place, used in roles.items():
        yield from (f"{place}: no control {role!r}; {near(role, CONTROLS)}" for role in used if role not in CONTROLS)
    for name, part in experiment.scales.items():
        named[f"scales.{name}.arms"] = part.arms or []
    for place, labels in named.items():
        yield from (f"{place}: no arm {arm!r}; {near(arm, known)}" for arm in labels if arm not in known)


def _conditions(experiment: Experiment) -> dict[str, Mapping[str, DottedSettings]]:
    return {
        **{f"scales.{name}.when": part.when or {} for name, part in experiment.scales.items()},
        **{f"cells.{name}.when": part.when for name, part in experiment.cells.items()},
    }
