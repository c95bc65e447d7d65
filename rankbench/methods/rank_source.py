"""Where a control's ranks come from: another method, calibrated inside the control's run, or a finished run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankbench.config import registry
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, MethodError, Probe, RunContext


class SourceConfig(Settings):
    """Where a control's ranks come from: exactly one of `source` and `source_run`.

    Attributes:
        source: method that decides before training; its calibration is done, and charged, in this run.
        settings: settings of that method where they differ from its YAML (+method.settings.batches=4); the rest is
            filled in from there.
        source_run: a finished run (folder, record.json, or run_id under results_dir), PEFT's adapter_config.json (such
            as a map that `rankbench maps` wrote) or its folder, or a JSON file with a rank_pattern.
        origin: filled in from source_run: the method of the run, "consensus of" one, "peft" or "pattern".
        ranks: filled in from source_run: site name, or PEFT's pattern -> rank.
        rank: filled in from source_run: rank of the sites that no pattern names, where PEFT's config has one.
        targets: filled in from source_run: PEFT's target_modules.
    """

    source: str | None
    settings: dict[str, Any]
    source_run: str | None
    origin: str | None
    ranks: dict[str, int] | None
    rank: int | None
    targets: list[str] | None


def check_source(config: SourceConfig) -> list[str]:
    """What is wrong unless exactly one origin is given."""
    if (config.source is None) == (config.source_run is None):
        return ["method.source, method.source_run: give one of them, the method or its finished run"]
    return []


def source_ranks(config: SourceConfig, sites: Sequence[Site]) -> dict[str, int]:
    """The rank map of `source_run` on the sites of this model.

    Raises:
        MethodError: there is no map, or it has no rank for a site.
    """
    if config.ranks is None:
        raise MethodError(f"method.source_run={config.source_run}: an arm stands for its run in an experiment alone")
    ranks = {site.name: _rank(site.name, config.ranks, config) for site in sites}
    missing = [name for name, rank in ranks.items() if rank is None]
    if missing:
        raise MethodError(f"method.source_run={config.source_run}: no rank for {missing[0]} ({len(missing)} sites)")
    return {name: rank for name, rank in ranks.items() if rank is not None}


def _rank(site: str, ranks: Mapping[str, int], config: SourceConfig) -> int | None:
    """Rank of one site: its own entry, that of the first pattern that matches, or what PEFT's config says."""
    if site in ranks:
        return ranks[site]
    for pattern, rank in ranks.items():
        if _matches(pattern, site):
            return rank
    if config.targets is None:
        return None
    targeted = "all-linear" in config.targets or any(_matches(target, site) for target in config.targets)
    return config.rank if targeted else 0


def _matches(pattern: str, site: str) -> bool:
    """Whether a pattern is the whole name or its end after a dot, as PEFT matches."""
    return re.fullmatch(rf"(.*\.)?({pattern})", site) is not None


@dataclass
class SourceDecision:
    """What a source decided.

    Attributes:
        ranks: site name -> rank.
        scores: site name -> score, if the source scores sites.
    """

    ranks: Mapping[str, int]
    scores: Mapping[str, float] | None


class Source:
    """The method of `source`, constructed and calibrated inside the control's run.

    Args:
        config: settings of the control.
        context: what the control was told; the source draws from the same random stream, before the control.
    """

    def __init__(self, config: SourceConfig, context: RunContext) -> None:
        assert config.source is not None, "validated before the run"
        cls, settings = _of_source(config)
        self._allocator = cls(settings, context)
        self._initial: dict[str, int] = self._allocator.initial_ranks()

    def initial_ranks(self) -> dict[str, int]:
        """Initial ranks of the source."""
        return self._initial

    def extra_passes(self, batch_size: int) -> tuple[int, int] | None:
        """Extra passes of the source."""
        return self._allocator.extra_passes(batch_size)

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> SourceDecision:
        """Let the source look and decide, from its own initial ranks."""
        if adapters.ranks() != self._initial:
            adapters.restart(self._initial, "source", draw="start")
        self._allocator.calibrate(adapters, probe)
        return SourceDecision(adapters.ranks(), self._allocator.scores)


def _of_source(config: SourceConfig) -> tuple[type[Allocator], Settings]:
    cls: type[Allocator] = registry.get("method", str(config.source))
    return cls, cls.Config(**config.settings)


def source_passes(config: SourceConfig) -> str:
    """Extra passes of the source in words; those of a finished run are its own."""
    if config.source is None:
        return "none"
    cls, settings = _of_source(config)
    return f"{cls.passes_of(settings)}, by {config.source}"


def dropped_factors(config: SourceConfig) -> tuple[str, ...]:
    """What to say where the source also decides how the factors start."""
    if config.settings.get("use", "ranks") == "ranks":
        return ()
    return (f"Initial factors of {config.source} are not kept: compare with {config.source} at use=ranks.",)
