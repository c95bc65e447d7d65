"""Some of an experiment: its grid at another scale, or some of its arms with what the report says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankbench.config.schema import ConfigError, near
from rankbench.sweeps.experiment import FULL, Experiment, arms, bases_of, rates_of
from rankbench.sweeps.report_settings import report_on


def at_scale(experiment: Experiment, scale: str) -> Experiment:
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
    chosen = with_arms(experiment, part.arms) if part.arms is not None else experiment
    return chosen.replace(
        settings=experiment.settings if part.settings is None else part.settings,
        axes={key: values for key, values in (experiment.axes | part.axes).items() if values},
        when=experiment.when if part.when is None else part.when,
        tune=part.tune or experiment.tune,
    )


def with_arms(experiment: Experiment, chosen: Sequence[str]) -> Experiment:
    """The experiment with some of its arms.

    Raises:
        ConfigError: an arm it does not have.
    """
    known = arms(experiment)
    unknown = [arm for arm in chosen if arm not in known]
    if unknown:
        raise ConfigError(
            [f"arms: experiment={experiment.name} has no arm {arm!r}; {near(arm, known)}" for arm in unknown]
        )
    kept = {arm: settings for arm, settings in known.items() if arm in chosen}
    shared = {arm: base for arm, base in rates_of(experiment).items() if {arm, base} <= set(chosen)}
    scales = {
        name: part.replace(arms=[arm for arm in part.arms or known if arm in kept])
        for name, part in experiment.scales.items()
    }
    cells = {
        name: part.replace(
            arms=None if part.arms is None else [arm for arm in part.arms if arm in kept],
            only=_of_variants(experiment, part.only, kept),
        )
        for name, part in experiment.cells.items()
        if part.arms is None or set(part.arms) & kept.keys()
    }
    return experiment.replace(
        arms=kept,
        shares=shared,
        only=_of_variants(experiment, experiment.only, kept),
        scales=scales,
        cells=cells,
        report=report_on(kept, experiment.report),
        vary={},
        grid={},
    )


def _of_variants(experiment: Experiment, only: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of some arms and of those that vary them, said of each."""
    bases = bases_of(experiment)
    return {arm: only[key] for arm in kept for key in (bases.get(arm, arm), arm) if key in only}
