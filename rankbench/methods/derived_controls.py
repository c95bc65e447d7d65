"""Controls whose ranks come from another method's calibration or from a finished run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from rankbench.config.registry import register
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.seeding import Streams
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, InertError, Probe, RunContext
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
        map_number: of permuted: number of the permutation, which is then the same at every seed, so that maps and seeds
            can be crossed (a source that calibrates has a map of its own at each seed: give a source_run). null draws
            it from the run's seed.
    """

    within: Literal["all", "type", "layer"]
    map_number: int | None = Field(ge=0)


@register("method", "permuted")
@register("method", "reversed")
@register("method", "by_type")
@register("method", "by_depth")
class Control(Allocator[RearrangedConfig]):
    """A rank map, distributed over the sites in another way.

    permuted: at random. reversed: the largest rank to the site with the lowest score, of a map without scores to the
    one with the smallest rank. by_type, by_depth: averaged over the sites of one type, or of one layer.

    Proportional apportionment brings the result to the exact budget; permuted ranks that cost the same and meet it stay
    what they are. Where sites cost unequally, a permutation keeps the ratios of the ranks rather than the ranks: only
    few permutations keep ranks and cost, and of a map that favours a type of site they leave it where it is.
    """

    needs = frozenset({"source"})
    source = "control"
    deviations = (
        "Where sites cost unequally, the rearranged ranks are shares of the budget: their ratios are kept, not the "
        "ranks themselves.",
    )
    summary = "another method's ranks: permuted, reversed, averaged by type or by depth (control)"
    decides = "before training"
    signal = "another method's ranks"

    @classmethod
    def deviations_of(cls, config: RearrangedConfig) -> tuple[str, ...]:
        """What does not carry over from the source."""
        means = ("Means are rounded to the exact budget, ties to the earlier site.",) if config.name in AVERAGES else ()
        reflected = config.name == "reversed" and config.source_run is not None
        order = ("The order of the ranks is reversed, not that of scores; ties go to the earlier site.",)
        return (*cls.deviations, *means, *(order if reflected else ()), *dropped_factors(config))

    @classmethod
    def passes_of(cls, config: RearrangedConfig) -> str:
        """Those of the source."""
        return source_passes(config)

    def extra_passes(self, batch_size: int) -> tuple[int, int] | None:
        """Those of the source."""
        return (0, 0) if self._source is None else self._source.extra_passes(batch_size)

    @staticmethod
    def check(config: RearrangedConfig) -> list[str]:
        """What is wrong: not one origin, an average within another group than its name says, a number of no map."""
        problems = check_source(config)
        group = AVERAGES.get(config.name, config.within)
        if config.within != group:
            problems.append(f"method.within={config.within}: {config.name} averages within {group}")
        if config.map_number is not None and config.name != "permuted":
            problems.append(f"method.map_number={config.map_number}: {config.name} draws nothing; take null")
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
        groups = grouped(self.context.sites, GROUPS[self.config.within])
        refuse_alike(
            self.config,
            [decision.ranks]
            if self.config.name in AVERAGES
            else [{name: decision.ranks[name] for name in names} for names in groups],
        )
        number = self.config.map_number
        rng = self.context.rng if number is None else Streams(number).numpy("allocator", "map")
        shares: dict[str, float] = {}
        for names in groups:
            ranks = [decision.ranks[name] for name in names]
            if self.config.name == "permuted":
                rearranged = rng.permutation(ranks).tolist()
            elif self.config.name == "reversed":
                rearranged = reverse(ranks, [(decision.scores or decision.ranks)[name] for name in names])
            else:
                rearranged = [float(np.mean(ranks))] * len(names)
            shares.update(zip(names, rearranged, strict=True))
        return self.context.budget.allocate(shares, least=min(decision.ranks.values()))


def refuse_alike(config: SourceConfig, groups: Sequence[Mapping[str, float]]) -> None:
    """Refuse values that are all alike within each group: whatever is done with them, nothing changes.

    Raises:
        InertError: they are.
    """
    if all(len(set(group.values())) == 1 for group in groups):
        each = "all sites" if len(groups) == 1 else "the sites of each group"
        raise InertError(
            f"method={config.name}: its source ({config.source_run or config.source}) does not tell {each} apart, so "
            "there is nothing to rearrange or scale; take an uneven map"
        )


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
        refuse_alike(self.config, [shares])
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
