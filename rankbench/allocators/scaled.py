"""Scaled: a method's scores as per-site alpha at uniform rank. If that gains as much, the gain is a learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rankbench.allocators.base import Allocator, Probe, Setting
from rankbench.allocators.derived import Source, SourceConfig, check_source, source_ranks
from rankbench.config.registry import register
from rankbench.config.schema import choice
from rankbench.core.adapter_set import AdapterSet


@dataclass(kw_only=True)
class Config(SourceConfig):
    """Settings of the scaling control.

    Attributes:
        by: what the scale follows: the source's "ranks", or its "scores" (ranks where it has none).
    """

    by: str = choice("ranks", "scores")


@register("method", "scaled")
class Scaled(Allocator):
    """Ranks stay uniform; the scale of site i is multiplied by x_i / mean(x), x the ranks or scores of the source."""

    needs = frozenset({"source"})
    static = True
    source = "control"
    deviations = (
        "A site to which its source gives rank 0 has scale 0.",
        "Initial factors of the source (eva, gora) are not kept: compare with the source at use=ranks.",
    )
    summary = "uniform ranks, scaled by another method's scores (control)"
    acts = "before training"
    signal = "another method's ranks or scores"
    passes = "those of its source; none with source_run"
    Config = Config
    check = staticmethod(check_source)

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self._source = None if config.source_run is not None else Source(config, setting)

    def initial_ranks(self) -> dict[str, int]:
        """Uniform."""
        return self.setting.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Let the source decide, go back to uniform ranks, and set the scales."""
        if self._source is None:
            shares = {name: float(rank) for name, rank in source_ranks(self.config, self.setting.sites).items()}
        else:
            found = self._source.calibrate(adapters, probe)
            self.scores = dict(found.scores) if found.scores else None
            by_score = self.config.by == "scores" and found.scores is not None
            shares = dict(found.scores if by_score and found.scores else found.ranks)
            adapters.restart(self.initial_ranks(), "scaled", draw="start")
        mean = float(np.mean(list(shares.values())))
        adapters.weigh({name: share / mean for name, share in shares.items()})
