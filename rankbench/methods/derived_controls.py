"""Controls whose ranks come from another method's calibration or from a finished run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import numpy as np

from rankbench.config.registry import register
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, Probe, RunContext
from rankbench.methods.rank_source import (
    Source,
    SourceConfig,
    SourceDecision,
    check_source,
    dropped_factors,
    source_passes,
    source_ranks,
)

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
    )
    summary = "another method's ranks: shuffled, reversed, averaged by type or by depth (control)"
    decides = "before training"
    signal = "another method's ranks"

    @classmethod
    def deviations_of(cls, config: RearrangedConfig) -> tuple[str, ...]:
        """What does not carry over from the source."""
        means = ("Means are rounded to the exact budget, ties to the earlier site.",) if config.name in AVERAGES else ()
        return (*cls.deviations, *means, *dropped_factors(config))

    @classmethod
    def passes_of(cls, config: RearrangedConfig) -> str:
        """Those of the source."""
        return source_passes(config)

    def extra_passes(self, batch_size: int) -> tuple[int, int] | None:
        """Those of the source."""
        return (0, 0) if self._source is None else self._source.extra_passes(batch_size)

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
    deviations = ("A site to which its source gives rank 0 has scale 0.",)
    summary = "uniform ranks, scaled by another method's scores (control)"
    decides = "before training"
    signal = "another method's ranks or scores"
    check = staticmethod(check_source)

    @classmethod
    def deviations_of(cls, config: ScaledConfig) -> tuple[str, ...]:
        """What does not carry over from the source."""
        return (*cls.deviations, *dropped_factors(config))

    @classmethod
    def passes_of(cls, config: ScaledConfig) -> str:
        """Those of the source."""
        return source_passes(config)

    def extra_passes(self, batch_size: int) -> tuple[int, int] | None:
        """Those of the source."""
        return (0, 0) if self._source is None else self._source.extra_passes(batch_size)

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
