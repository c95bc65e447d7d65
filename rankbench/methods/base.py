"""The contract of a rank allocation method.

An allocator decides; the adapter acts; the trainer times. It sees sites, never parameter names, and never the trainer,
the task or another method's settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol

import numpy as np
from torch import Tensor
from typing_extensions import TypeVar

from rankbench import RankbenchError
from rankbench.config.schema import Settings, settings_of, show
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Budget
from rankbench.core.site_adapter import Gate
from rankbench.core.sites import Site

NEEDS = frozenset(
    {
        "probe_forward",
        "probe_backward",
        "base_gradients",
        "weights",
        "gates",
        "path",
        "resize",
        "truth",  # the task's true ranks
        "source",  # another method, or a finished run
    }
)
BUDGET_KINDS = ("exact", "at_most", "implicit")
TRAINS = ("adapter", "adapter and magnitudes", "base", "biases")
INSTANTS = ("at the start", "before training", "while training", "after training")


class MethodError(RankbenchError, ValueError):
    """A method that cannot work with this model, this data or these settings; the message has the way out."""


class InertError(MethodError):
    """A run that would decide nothing, and train another method under its name."""


class Probe(Protocol):
    """Extra passes through the model for a method, metered and without side effects (mode, gradients, random state)."""

    def batches(self, count: int) -> Sequence[Any]:
        """The next `count` mini-batches of the calibration stream (train split, the run's batch size)."""

    def inputs(self, batch: Any) -> list[dict[str, Tensor]]:
        """The model's inputs, micro-batch by micro-batch: input_ids, attention_mask, labels, ...: (examples, ...)."""

    def loss(self, batch: Any) -> float:
        """Mean loss of a mini-batch: one forward pass, dropout off."""

    def gradients(self, batch: Any, parameters: Sequence[Tensor], dropout: bool = False) -> list[Tensor]:
        """Gradients of the mean loss of a mini-batch: one forward and one backward pass."""

    def weight_gradients(self, batch: Any, dropout: bool = False) -> dict[str, Tensor]:
        """Gradients of the same with respect to the frozen weights: site name -> (d_out, d_in), fp32, all at once."""

    def activations(self, batch: Any, see: Callable[[str, Tensor], None], labelled: bool = False) -> None:
        """One forward pass of the base model; `see(site, x)` gets each site's x (tokens, d_in), padding left out.

        With `labelled`, tokens without a label are left out, too, where labels are per token.
        """


@dataclass(frozen=True)
class RunContext:
    """What a method is told before it starts.

    Attributes:
        sites: adapted matrices, in model order.
        budget: what it may spend.
        horizon: optimizer steps of the run, all stages together.
        rng: the allocator's own random stream.
        true_ranks: site name -> true rank where the task plants one, else None; only methods that need "truth" read it.
    """

    sites: Sequence[Site]
    budget: Budget
    horizon: int
    rng: np.random.Generator
    true_ranks: dict[str, int] | None = None


@dataclass(frozen=True)
class Step:
    """One optimizer step, as a method sees it.

    Attributes:
        index: number of the step, from 1.
        total: number of steps of the run.
        learning_rate: learning rate of this step.
        rng: the allocator's own stream, fresh for each step (a resumed run draws the same).
        probe: extra passes through the model.
    """

    index: int
    total: int
    learning_rate: float
    rng: np.random.Generator
    probe: Probe


NEVER = object()  # the source has none of the values that a setting can take


def differing(config: Settings, source: Mapping[str, tuple[Any, str]]) -> tuple[str, ...]:
    """A sentence for each setting at which a source is not reproduced: "sign=outside: the paper ...".

    Args:
        config: settings of a run.
        source: setting -> its value in the source (or NEVER), and what the source does.
    """
    values = {key: getattr(config, key) for key in source}
    return tuple(f"{key}={show(values[key])}: {words}." for key, (own, words) in source.items() if values[key] != own)


ConfigT = TypeVar("ConfigT", bound=Settings, default=Any)


class Allocator(ABC, Generic[ConfigT]):
    """A rank allocation method. Subclasses are final; every hook but `initial_ranks` may be left out.

    A subclass names the type of its settings: `class IGU(Allocator[IGUConfig])`.

    Class facts:
        needs: what the run has to provide, out of NEEDS.
        budget_kind: how the final adapter relates to the budget, one of BUDGET_KINDS (see Ledger.budget_violation).
        trains: what the run trains beside a head, one of TRAINS: the adapter; the adapter with DoRA's magnitudes; for
            reference arms without an adapter (their ranks are 0) the whole base model, or its biases alone.
        static: decides nothing after `initial_ranks`. A method that is not static and changes no rank is inert.
        starts_at_identity: the adapted model equals the base model before the first step.
        source: paper and repository@commit, or "paper only", or "control".
        deviations: sentences on where this differs from the source, whatever the settings (see `deviations_of`).
        summary: one line for lists of methods.
        decides: when ranks are decided, one of INSTANTS.
        signal: quantity that the decision is read from, in the field's terms.
        passes: extra passes through the model, whatever the settings (see `passes_of`); "none".
        provoked_by: overrides under which a run of 20 steps changes a rank, for methods whose defaults need more; the
            contract is checked with them.

        Config: type of its settings, taken from the parameter of the base; without one it has none but its name.

    Attributes:
        config: settings of this run.
        context: sites, budget, horizon and random stream of this run.
        scores: site name -> score >= 0 of the last decision, for methods that score sites; else None.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    budget_kind: ClassVar[str] = "exact"
    trains: ClassVar[str] = "adapter"
    static: bool = False
    starts_at_identity: bool = True
    source: ClassVar[str]
    deviations: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]
    decides: ClassVar[str]
    signal: ClassVar[str]
    passes: ClassVar[str] = "none"
    provoked_by: ClassVar[tuple[str, ...]] = ()
    Config: ClassVar[type[Settings]] = Settings

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.Config = settings_of(cls) or cls.Config

    @staticmethod
    def check(config: Any) -> list[str]:
        """Return what is wrong with the settings beyond what their types say, one sentence per mistake."""
        return []

    @classmethod
    def deviations_of(cls, config: Any) -> tuple[str, ...]:
        """Return a sentence for each way in which a run with these settings differs from the source."""
        return cls.deviations

    @classmethod
    def passes_of(cls, config: Any) -> str:
        """Return the extra passes of a run with these settings, in words; "none"."""
        return cls.passes

    def extra_passes(self, batch_size: int) -> tuple[int, int] | None:
        """Return the number of extra forward and backward passes of this run; None where the data decide it.

        Args:
            batch_size: examples in a mini-batch, which is one pass where it is not cut into micro-batches.
        """
        return (0, 0) if self.passes_of(self.config) == "none" else None

    def __init__(self, config: ConfigT, context: RunContext) -> None:
        self.config = config
        self.context = context
        self.scores: dict[str, float] | None = None

    @classmethod
    def has_adapter(cls) -> bool:
        """Whether a run trains an adapter, which has ranks and can be exported."""
        return cls.trains.startswith("adapter")

    @abstractmethod
    def initial_ranks(self) -> dict[str, int]:
        """Return the ranks to inject, by site name."""

    def gate(self) -> Gate | None:
        """Return the gates of the adapter; None runs PEFT's stock layers."""
        return None

    def stages(self) -> tuple[int, ...]:
        """Return the steps of each stage; they sum to the horizon. The learning-rate schedule runs once per stage."""
        return (self.context.horizon,)

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Called before the optimizer exists; may read activations and gradients, and set ranks, factors and gates."""

    def before_forward(self, adapters: AdapterSet, step: Step, micro: int) -> None:
        """Called before each micro-batch; may move the adapter along its integration path (`set_path_point`)."""

    def penalty(self, adapters: AdapterSet, step: Step) -> Tensor | None:
        """Return a scalar whose gradient is added to the loss's, once per step; no reported loss contains it."""
        return None

    def on_gradients(self, adapters: AdapterSet, step: Step) -> None:
        """Called after the last micro-batch; may read gradients of the loss alone, before penalty and clipping.

        They are averaged over the processes, and may be infinite or NaN: the run then ends before its next update.
        """

    def on_step_end(self, adapters: AdapterSet, step: Step) -> None:
        """Called after optimizer and schedule; may change ranks and read the clipped gradients, penalty included."""

    def finish(self, adapters: AdapterSet) -> None:
        """Called after the last step; compacts the adapter for the last time."""
        adapters.compact("finish")

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state that `state_dict` returned."""

    def diagnostics(self) -> dict[str, float]:
        """Return numbers for the log of the step."""
        return {}
