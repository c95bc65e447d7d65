"""Controls whose ranks come from another method's calibration or from a finished run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rankbench.config import registry
from rankbench.config.registry import register
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
        source_run: a finished run (folder, record.json, or run_id under results_dir), PEFT's adapter_config.json, or a
            JSON file with a rank_pattern.
        origin: filled in from source_run: the method of the run, "peft" or "pattern".
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
        cls: type[Allocator] = registry.get("method", config.source)
        self._allocator = cls(cls.Config(**config.settings), context)
        self._initial: dict[str, int] = self._allocator.initial_ranks()

    def initial_ranks(self) -> dict[str, int]:
        """Initial ranks of the source."""
        return self._initial

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> SourceDecision:
        """Let the source look and decide, from its own initial ranks."""
        if adapters.ranks() != self._initial:
            adapters.restart(self._initial, "source", draw="start")
        self._allocator.calibrate(adapters, probe)
        return SourceDecision(adapters.ranks(), self._allocator.scores)


GROUPS: dict[str, Callable[[Site], Hashable]] = {
    "all": lambda site: None,
    "type": lambda site: site.kind,
    "layer": lambda site: site.layer,
}


AVERAGES = {"by_type": "type", "by_depth": "layer"}


class RearrangedConfig(SourceConfig):
    """Settings of the derived controls.

    Attributes:
        within: ranks stay inside this group: all sites, those of one type, or those of one layer.
    """

    within: Literal["all", "type", "layer"]


@register("method", "shuffled")
@register("method", "reversed")
@register("method", "by_type")
@register("method", "by_depth")
class Control(Allocator[RearrangedConfig]):
    """A method's ranks, distributed over the sites in another way.

    shuffled: permuted at random. reversed: the largest rank to the site with the lowest score. by_type, by_depth:
    averaged over the sites of one type, or of one layer. Proportional apportionment brings the result to the exact
    budget; permuted ranks that cost the same and meet it stay what they are.
    """

    needs = frozenset({"source"})
    source = "control"
    deviations = (
        "Where sites cost unequally, the rearranged ranks are shares of the budget, not the ranks themselves.",
        "Means are rounded to the exact budget, ties to the earlier site.",
        "Initial factors of the source (eva, gora) are not kept: compare with the source at use=ranks.",
    )
    summary = "another method's ranks: shuffled, reversed, averaged by type or by depth (control)"
    decides = "before training"
    signal = "another method's ranks"
    passes = "those of its source; none with source_run"

    @staticmethod
    def check(config: RearrangedConfig) -> list[str]:
        """What is wrong: not exactly one origin, or an average within another group than its name says."""
        problems = check_source(config)
        group = AVERAGES.get(config.name, config.within)
        if config.within != group:
            problems.append(f"method.within={config.within}: {config.name} averages within {group}")
        return problems

    def __init__(self, config: RearrangedConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self._source = None if config.source_run is not None else Source(config, context)
        self.static = self._source is None

    def initial_ranks(self) -> dict[str, int]:
        """Those of the source until it has calibrated; from a finished run, its final ranks rearranged."""
        if self._source is not None:
            return self._source.initial_ranks()
        return self._rearranged(SourceDecision(source_ranks(self.config, self.context.sites), None))

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Let the source decide, then rearrange its ranks."""
        if self._source is not None:
            decision = self._source.calibrate(adapters, probe)
            self.scores = dict(decision.scores) if decision.scores else None
            adapters.restart(self._rearranged(decision), self.config.name, draw="start")

    def _rearranged(self, decision: SourceDecision) -> dict[str, int]:
        shares: dict[str, float] = {}
        for names in grouped(self.context.sites, GROUPS[self.config.within]):
            ranks = [decision.ranks[name] for name in names]
            if self.config.name == "shuffled":
                rearranged = self.context.rng.permutation(ranks).tolist()
            elif self.config.name == "reversed":
                rearranged = reverse(ranks, [(decision.scores or decision.ranks)[name] for name in names])
            else:
                rearranged = [float(np.mean(ranks))] * len(names)
            shares.update(zip(names, rearranged, strict=True))
        return self.context.budget.allocate(shares, least=min(decision.ranks.values()))


def grouped(sites: Sequence[Site], group: Callable[[Site], Hashable]) -> list[list[str]]:
    """Names of the sites of each group."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for site in sites:
        groups[group(site)].append(site.name)
    return list(groups.values())


def reverse(ranks: Sequence[int], scores: Sequence[float]) -> list[int]:
    """Ranks (n,) with the largest at the lowest score (n,); of equal scores the earlier one gets the larger rank."""
    rearranged = [0] * len(ranks)
    for index, rank in zip(np.argsort(scores, kind="stable").tolist(), sorted(ranks, reverse=True), strict=True):
        rearranged[index] = rank
    return rearranged


class ScaledConfig(SourceConfig):
    """Settings of the scaling control.

    Attributes:
        by: what the scale follows: the source's "ranks", or its "scores" (ranks where it has none).
    """

    by: Literal["ranks", "scores"]


@register("method", "scaled")
class Scaled(Allocator[ScaledConfig]):
    """Ranks stay uniform; the scale of site i is multiplied by x_i / mean(x), x the ranks or scores of the source."""

    needs = frozenset({"source"})
    static = True
    source = "control"
    deviations = (
        "A site to which its source gives rank 0 has scale 0.",
        "Initial factors of the source (eva, gora) are not kept: compare with the source at use=ranks.",
    )
    summary = "uniform ranks, scaled by another method's scores (control)"
    decides = "before training"
    signal = "another method's ranks or scores"
    passes = "those of its source; none with source_run"
    check = staticmethod(check_source)

    def __init__(self, config: ScaledConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self._source = None if config.source_run is not None else Source(config, context)

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks."""
        return self.context.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Let the source decide, go back to uniform ranks, and set the scales."""
        if self._source is None:
            shares = {name: float(rank) for name, rank in source_ranks(self.config, self.context.sites).items()}
        else:
            decision = self._source.calibrate(adapters, probe)
            self.scores = dict(decision.scores) if decision.scores else None
            by_score = self.config.by == "scores" and decision.scores is not None
            shares = dict(decision.scores if by_score and decision.scores else decision.ranks)
            adapters.restart(self.initial_ranks(), "scaled", draw="start")
        mean = float(np.mean(list(shares.values())))
        adapters.set_scale_factors({name: share / mean for name, share in shares.items()})


@register("method", "transplant")
class Transplant(Allocator[SourceConfig]):
    """Trains plain LoRA at a given rank map: the map apart from what its method did to the weights on the way."""

    needs = frozenset({"source"})
    static = True
    source = "control"
    deviations = ("The map is taken as it is: a run whose budget is another one ends over budget.",)
    summary = "final ranks of a finished run, trained as plain LoRA from scratch (control)"
    decides = "at the start"
    signal = "a given rank map"

    @staticmethod
    def check(config: SourceConfig) -> list[str]:
        """What is wrong unless a rank map is given."""
        if config.source_run is None or config.source is not None:
            return [
                "method.source_run: must be given (a finished run or PEFT's adapter_config.json), method.source not"
            ]
        return []

    def initial_ranks(self) -> dict[str, int]:
        """The map."""
        return source_ranks(self.config, self.context.sites)
