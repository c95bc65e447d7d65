"""What controls share: ranks that come from another method's calibration or from a finished run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from rankbench.allocators.base import Allocator, Probe, Setting
from rankbench.config import registry
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.sites import Site


@dataclass(kw_only=True)
class SourceConfig:
    """Where a control's ranks come from: exactly one of `source` and `source_run`.

    Attributes:
        source: method that decides before training; its calibration is made, and charged, in this run.
        settings: of that method where they differ from its YAML (+method.settings.batches=4); filled in from there.
        source_run: a finished run (folder, record.json, or run_id under results_dir), PEFT's adapter_config.json, or a
            JSON file with a rank_pattern.
        origin: filled in from source_run: the method of the run, "peft" or "pattern".
        ranks: filled in from source_run: site name, or PEFT's pattern -> rank.
        rank: filled in from source_run: of sites that no pattern names, where PEFT's config says so.
        targets: filled in from source_run: PEFT's target_modules.
    """

    name: str
    source: str | None
    settings: dict[str, Any]
    source_run: str | None
    origin: str | None
    ranks: dict[str, int] | None
    rank: int | None
    targets: list[str] | None


def check_source(config: Any) -> list[str]:
    """Exactly one origin."""
    if (config.source is None) == (config.source_run is None):
        return ["method.source, method.source_run: give one of them, the method or its finished run"]
    return []


def source_ranks(config: Any, sites: Sequence[Site]) -> dict[str, int]:
    """The rank map of `source_run` on the sites of this model.

    Raises:
        ValueError: no map, or a site that it says nothing of.
    """
    if config.ranks is None:
        raise ValueError(f"method.source_run={config.source_run}: an arm stands for its run in an experiment alone")
    ranks = {site.name: _rank(site.name, config) for site in sites}
    missing = [name for name, rank in ranks.items() if rank is None]
    if missing:
        raise ValueError(f"method.source_run={config.source_run}: no rank for {missing[0]} ({len(missing)} sites)")
    return {name: rank for name, rank in ranks.items() if rank is not None}


def _rank(site: str, config: Any) -> int | None:
    """Of one site: its own entry, the first pattern that matches, or what PEFT's config says of the rest."""
    patterns = [site, *config.ranks] if site in config.ranks else list(config.ranks)
    for pattern in patterns:
        if pattern == site or _matches(pattern, site):
            return int(config.ranks[pattern])
    if config.targets is None:
        return None
    targeted = "all-linear" in config.targets or any(_matches(target, site) for target in config.targets)
    return int(config.rank) if targeted else 0


def _matches(pattern: str, site: str) -> bool:
    """As PEFT matches: the whole name, or its end after a dot."""
    return re.fullmatch(rf"(.*\.)?({pattern})", site) is not None


@dataclass
class Found:
    """What a source decided.

    Attributes:
        ranks: site name -> rank.
        scores: site name -> score, if the source scores sites.
    """

    ranks: Mapping[str, int]
    scores: Mapping[str, float] | None


class Source:
    """The method of `source`, made and calibrated inside the control's run.

    Args:
        setting: of the control; the source draws from the same stream, before the control.
    """

    def __init__(self, config: Any, setting: Setting) -> None:
        settings = SimpleNamespace(**config.settings)
        self._allocator: Allocator = registry.get("method", config.source)(settings, setting)
        self._initial: dict[str, int] = self._allocator.initial_ranks()

    def initial_ranks(self) -> dict[str, int]:
        """Of the source."""
        return self._initial

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> Found:
        """Let the source look and decide, from its own initial ranks."""
        if adapters.ranks() != self._initial:
            adapters.restart(self._initial, "source", draw="start")
        self._allocator.calibrate(adapters, probe)
        return Found(adapters.ranks(), self._allocator.scores)
