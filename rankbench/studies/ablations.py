"""Arms that differ from another in one or two settings alone: what a report draws as curves and heat maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rankbench.analysis.labels import file_name, text_of
from rankbench.studies.panels import Panel
from rankbench.sweeps import experiment
from rankbench.sweeps.experiment import Experiment


@dataclass(frozen=True)
class Ablation:
    """Arms that agree in all settings but `keys`.

    Attributes:
        name: stem of its files' names.
        title: title that the experiment gives it.
        keys: settings that are varied: one for a curve, two for a heat map; () where nothing is drawn.
        base: the arm that leaves them at their defaults; None where each arm names them.
        arms: all of them, the base first.
        known: arm -> key -> value that the arm names.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    base: str | None
    arms: list[str]
    known: dict[str, dict[str, Any]]

    def values(self, panel: Panel, arm: str) -> tuple[str, ...] | None:
        """Values of the keys as text; those that the arm does not name are read from its records. None: no record."""
        texts = [self._value(panel, arm, key) for key in self.keys]
        return None if None in texts else tuple(str(value) for value in texts)

    def _value(self, panel: Panel, arm: str, key: str) -> str | None:
        if key in self.known[arm]:
            return text_of(self.known[arm][key])
        configs = [run.record.config for run in panel.runs if run.arm == arm and run.record is not None]
        for part in key.split("."):
            configs = [config[part] for config in configs if isinstance(config, dict) and part in config]
        return text_of(configs[0]) if configs else None


def ablations(declared: Experiment | None) -> list[Ablation]:
    """Ablations that `report.curves` and `report.maps` declare, and variants of arms.

    Where no arm leaves a setting at its default, each group of arms that agree in the rest is an ablation.
    """
    if declared is None:
        return []
    wanted: dict[str, tuple[str, ...]] = {title: (key,) for title, key in declared.report.curves.items()}
    wanted |= {title: tuple(keys) for title, keys in declared.report.maps.items()}
    groups = [ablation for title, keys in wanted.items() for ablation in _groups(declared, title, keys)]
    groups += _variants(declared, varied(groups))
    return [replace(ablation, name=f"{ablation.name}-{number}") for number, ablation in enumerate(groups, 1)]


def _variants(declared: Experiment, in_figures: set[str]) -> Iterator[Ablation]:
    """Arms that are called by another and change some of its settings, and stand in no curve or heat map."""
    arms, taken = experiment.arms(declared), set[str]()
    for base, settings in arms.items():
        if base in taken:
            continue
        changed = [
            arm
            for arm, own in arms.items()
            if arm.startswith(f"{base} ") and arm not in in_figures and settings.items() < own.items()
        ]
        taken.update(changed)
        if changed:
            yield Ablation(f"variants-{file_name(base)}", f"Variants of {base}", (), base, [base, *changed], {})


def varied(several: Sequence[Ablation]) -> set[str]:
    """Arms that exist for a curve or a heat map alone: all but the bases."""
    in_figures = [ablation for ablation in several if ablation.keys]
    return {arm for ablation in in_figures for arm in ablation.arms} - {
        ablation.base for ablation in several if ablation.base
    }


def _groups(declared: Experiment, title: str, keys: tuple[str, ...]) -> list[Ablation]:
    alike: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for arm, settings in experiment.arms(declared).items():
        plain = {key.lstrip("+"): value for key, value in settings.items()}
        rest = sorted((key, text_of(value)) for key, value in plain.items() if key not in keys)
        alike[str(rest)][arm] = {key: plain[key] for key in keys if key in plain}
    groups = [group for group in alike.values() if len({str(values) for values in group.values()}) > 1]
    with_base = [group for group in groups if any(not values for values in group.values())]
    return [_ablation(title, keys, group) for group in with_base or groups]


def _ablation(title: str, keys: tuple[str, ...], group: dict[str, dict[str, Any]]) -> Ablation:
    base = next((arm for arm, values in group.items() if not values), None)
    arms = [*([base] if base else []), *(arm for arm, values in group.items() if arm != base)]
    kind = "curve" if len(keys) == 1 else "map"
    return Ablation(f"{kind}-{file_name(title)}", title, keys, base, arms, group)
