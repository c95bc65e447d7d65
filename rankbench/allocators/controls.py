"""Controls that keep part of what a method decided: the histogram of its ranks, their mean by type, or by depth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankbench.allocators.base import Allocator, Probe, Setting
from rankbench.allocators.derived import Found, Source, SourceConfig, check_source, source_ranks
from rankbench.config.registry import register
from rankbench.config.schema import choice
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.sites import Site

GROUPS: dict[str, Callable[[Site], Hashable]] = {
    "all": lambda site: None,
    "type": lambda site: site.kind,
    "layer": lambda site: site.layer,
}


AVERAGES = {"by_type": "type", "by_depth": "layer"}


@dataclass(kw_only=True)
class Config(SourceConfig):
    """Settings of the derived controls.

    Attributes:
        within: ranks stay inside this group: all sites, those of one type, or those of one layer.
    """

    within: str = choice(*GROUPS)


@register("method", "shuffled")
@register("method", "reversed")
@register("method", "by_type")
@register("method", "by_depth")
class Control(Allocator):
    """A method's ranks, dealt otherwise.

    shuffled: permuted at random. reversed: the largest rank to the site with the lowest score. by_type, by_depth:
    averaged over the sites of one type, or of one layer. Proportional apportionment brings the result to the exact
    budget; permuted ranks that cost the same and meet it stay what they are.
    """

    needs = frozenset({"source"})
    source = "control"
    deviations = (
        "Where sites cost unequally, the ranks dealt otherwise are shares of the budget, not the ranks themselves.",
        "Means are rounded to the exact budget, ties to the earlier site.",
        "Initial factors of the source (eva, gora) are not kept: compare with the source at use=ranks.",
    )
    summary = "another method's ranks: shuffled, reversed, averaged by type or by depth (control)"
    acts = "before training"
    signal = "another method's ranks"
    passes = "those of its source; none with source_run"
    Config = Config

    @staticmethod
    def check(config: Any) -> list[str]:
        """One origin; the averages have their group in their name."""
        wrong = check_source(config)
        group = AVERAGES.get(config.name, config.within)
        if config.within != group:
            wrong.append(f"method.within={config.within}: {config.name} averages within {group}")
        return wrong

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self._source = None if config.source_run is not None else Source(config, setting)
        self.static = self._source is None

    def initial_ranks(self) -> dict[str, int]:
        """Of the source, until it has looked; from a run, the final ones."""
        if self._source is not None:
            return self._source.initial_ranks()
        return self._derive(Found(source_ranks(self.config, self.setting.sites), None))

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Let the source decide, then deal its ranks otherwise."""
        if self._source is not None:
            found = self._source.calibrate(adapters, probe)
            self.scores = dict(found.scores) if found.scores else None
            adapters.restart(self._derive(found), self.config.name, draw="start")

    def _derive(self, found: Found) -> dict[str, int]:
        shares: dict[str, float] = {}
        for names in grouped(self.setting.sites, GROUPS[self.config.within]):
            ranks = [found.ranks[name] for name in names]
            if self.config.name == "shuffled":
                dealt = self.setting.rng.permutation(ranks).tolist()
            elif self.config.name == "reversed":
                dealt = reverse(ranks, [(found.scores or found.ranks)[name] for name in names])
            else:
                dealt = [float(np.mean(ranks))] * len(names)
            shares.update(zip(names, dealt, strict=True))
        return self.setting.budget.allocate(shares, least=min(found.ranks.values()))


def grouped(sites: Sequence[Site], group: Callable[[Site], Hashable]) -> list[list[str]]:
    """Names of the sites of each group."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for site in sites:
        groups[group(site)].append(site.name)
    return list(groups.values())


def reverse(ranks: Sequence[int], scores: Sequence[float]) -> list[int]:
    """The largest rank to the lowest score; of equal scores the earlier has the larger rank. Both (n,)."""
    dealt = [0] * len(ranks)
    for index, rank in zip(np.argsort(scores, kind="stable").tolist(), sorted(ranks, reverse=True), strict=True):
        dealt[index] = rank
    return dealt
