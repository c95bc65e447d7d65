"""Transplant: the final ranks of a finished run, or of any PEFT adapter, trained as plain LoRA from scratch."""

from __future__ import annotations

from typing import Any

from rankbench.allocators.base import Allocator
from rankbench.allocators.derived import SourceConfig, source_ranks
from rankbench.config.registry import register


@register("method", "transplant")
class Transplant(Allocator):
    """Separates a rank map from what its method did to the weights on the way."""

    needs = frozenset({"source"})
    static = True
    source = "control"
    deviations = ("The map is taken as it is: a run whose budget is another one ends over budget.",)
    summary = "final ranks of a finished run, trained as plain LoRA from scratch (control)"
    acts = "at the start"
    signal = "a given rank map"
    Config = SourceConfig

    @staticmethod
    def check(config: Any) -> list[str]:
        """A map must be given."""
        if config.source_run is None or config.source is not None:
            return [
                "method.source_run: must be given (a finished run or PEFT's adapter_config.json), method.source not"
            ]
        return []

    def initial_ranks(self) -> dict[str, int]:
        """The map."""
        return source_ranks(self.config, self.setting.sites)
