"""IGU-LoRA: triplets pruned by the signal-to-noise ratio of their integrated gradients from no adapter to the adapter.

    s(w) = |w * integral_0^1 dL(W0 + a dW)/dw da|      score = EMA(s) / EMA(|s - EMA(s)|)

`quadrature_steps` is M and `sample_count` is N here; the paper swaps the two letters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rankbench.config.registry import register
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.site_adapter import Gate
from rankbench.methods.base import Allocator, RunContext, Step, differing
from rankbench.methods.igu_sources import CODE, PAPER, PRINTED, RELEASED, used
from rankbench.methods.importance import MeanDeviation, combine, penalty, quadrature, triplets
from rankbench.methods.pruning import PruningConfig, decay, prune, start_ranks


class IGUConfig(PruningConfig):
    """Settings of IGU-LoRA.

    Attributes:
        parametrisation: "svd_form" trains P, lambda, Q (as released); "svd_refresh" also replaces them by the singular
            value decomposition of their product after every aggregated score (as printed), triplets matched by overlap.
        estimator: estimator of the integral: one random node ("stochastic"), all nodes ("trapezoid"), the end alone
            ("instantaneous": AdaLoRA's signal).
        quadrature_steps: number M of intervals of the path (the paper's N).
        endpoints: what the stochastic estimator does with the ends of the path (see importance.quadrature).
        sample_count: number N of mini-batches averaged into one aggregated score (the paper's M).
        ema_every: steps between aggregated scores, the clock of the moving statistics.
        path: "delta" scales the update, "factor" each of its three factors; the same line, other node density.
        jacobian: "exact" derivative along the path, or "raw" autograd through the coefficient (as released).
        alpha_in_training: score from the training passes, which then run at the random point of the path themselves (as
            released: no extra passes, but the objective changes); else from extra passes.
        score_gradient: gradient that scores from training passes: of the "task" loss, or "total" with the penalty,
            clipped (as released).
        sign: "outside" |w * sum of g|; "signed" |w| * sum of g (as printed), which can be negative.
        score: elementwise combination of the moving statistics.
        lambda_term: "snr" scores the gate like the factors (as released), "magnitude" is |lambda| (as printed).
        epsilon: guards the ratio.
        relative_epsilon: epsilon is relative to the mean deviation; else absolute, on both sides (as released).
        penalty: "full" as AdaLoRA's, "offdiag" (as released) or "none".
        stage2_orthogonality: its weight in the second stage, if stage2 is "scratch"; null: that of the first.
        cost: what the cuts before the last one count in: the budget's unit, or the "code" cost model (1 per rank of an
            attention matrix, (m + 1) / 2 of a feed-forward matrix, m = feed-forward width / hidden width).
        prune: "soft" zeroes (may regrow until the last cut), "hard" masks for good.
        stage2: "continue" with the pruned adapter after the first stage, or start from "scratch" at its ranks.
        stage1_share: share of the run's steps spent on the first stage, if stage2 is "scratch".
    """

    parametrisation: Literal["svd_form", "svd_refresh"]
    estimator: Literal["stochastic", "trapezoid", "instantaneous"]
    quadrature_steps: int = Field(ge=1)
    endpoints: Literal["sampled", "none", "printed", "unbiased"]
    sample_count: int = Field(ge=1)
    ema_every: int = Field(ge=1)
    path: Literal["delta", "factor"]
    jacobian: Literal["exact", "raw"]
    alpha_in_training: bool
    score_gradient: Literal["task", "total"]
    sign: Literal["outside", "signed"]
    score: Literal["ratio", "product", "sensitivity"]
    lambda_term: Literal["snr", "magnitude"]
    epsilon: float = Field(ge=0)
    relative_epsilon: bool
    penalty: Literal["full", "offdiag", "none"]
    stage2_orthogonality: float | None = Field(ge=0)
    cost: Literal["budget", "code"]
    prune: Literal["soft", "hard"]
    stage2: Literal["continue", "scratch"]
    stage1_share: float = Field(ge=0, le=1)


@register("method", "igu")
@register("method", "igu_code")
class IGU(Allocator[IGUConfig]):
    """One class, two presets: `igu` is the paper's method corrected, `igu_code` what the released code does."""

    needs = frozenset({"gates", "path", "resize", "probe_backward"})
    source = "IGU-LoRA, ICLR 2026 (arXiv 2603.13792); withyou12/igulora@3f5ba10"
    summary = "SVD form, pruned by integrated gradients over their noise"
    decides = "while training"
    signal = "integrated gradients over their deviation, smoothed"

    @classmethod
    def deviations_of(cls, config: IGUConfig) -> tuple[str, ...]:
        """Where the source of the preset is left: the released code of igu_code, the paper of any other."""
        general, source = (RELEASED, CODE) if config.name == "igu_code" else (PRINTED, PAPER)
        return (*general, *differing(config, used(source, config)))

    @classmethod
    def passes_of(cls, config: IGUConfig) -> str:
        """Nodes of the path, for each of the mini-batches that are averaged; none from training passes."""
        each = _passes_per_score(config)
        return f"{each} x (forward + backward) every {config.ema_every} steps until the last cut" if each else "none"

    def extra_passes(self, batch_size: int) -> tuple[int, int]:
        """A score at each multiple of ema_every before the last cut, one with it at the latest."""
        scores = max(1, (self.decay.end - 1) // self.config.ema_every)
        passes = scores * _passes_per_score(self.config)
        return passes, passes

    @staticmethod
    def check(config: IGUConfig) -> list[str]:
        """Return one sentence for each contradictory combination of settings."""
        mistakes = []
        if config.estimator == "stochastic" and config.endpoints in ("printed", "unbiased"):
            if config.quadrature_steps < 2:
                mistakes.append(f"method.quadrature_steps=1: endpoints={config.endpoints} needs inner nodes, so >= 2")
            if config.alpha_in_training:
                mistakes.append(
                    f"method.endpoints={config.endpoints}: alpha_in_training scores one point a pass; use none"
                )
        if config.alpha_in_training and config.estimator == "trapezoid":
            mistakes.append("method.estimator=trapezoid: alpha_in_training scores one point per pass; use stochastic")
        if config.alpha_in_training and config.jacobian == "exact" and config.estimator == "stochastic":
            mistakes.append(
                "method.jacobian=exact: with alpha_in_training the gradient is the raw one; use jacobian=raw"
            )
        if _shares_training_pass(config) and config.sample_count > config.ema_every:
            mistakes.append(
                f"method.sample_count={config.sample_count}: scores from training passes average at most "
                f"ema_every={config.ema_every} steps"
            )
        return mistakes

    def __init__(self, config: IGUConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self.starts_at_identity = config.gate_start == 0
        self.static = config.start_ratio == 1
        self.costs = code_costs(context) if config.cost == "code" else None
        self.decay = decay(config, context, self.stages()[0], self.costs)
        self.statistics = MeanDeviation(config.beta1, config.beta2)
        self._gradient: list[Tensor] = []  # stacked: of the task (this step), or summed over the steps of one score
        self._sampled = 0

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks above the target."""
        return start_ranks(self.config, self.context)

    def gate(self) -> Gate:
        """Lambda, trained like the factors."""
        return Gate(start=self.config.gate_start)

    def stages(self) -> tuple[int, ...]:
        """One stage, or the search for ranks and the training from scratch at them."""
        horizon = self.context.horizon
        if self.config.stage2 == "continue" or self.static:
            return (horizon,)
        first = min(max(1, round(self.config.stage1_share * horizon)), horizon - 1)
        return (first, horizon - first)

    def before_forward(self, adapters: AdapterSet, step: Step, micro: int) -> None:
        """Set one point of the path per micro-batch, for all layers, in the first stage (alpha_in_training alone)."""
        if self.config.alpha_in_training and step.index <= self.stages()[0] and not self.static:
            config = self.config
            ((a, _),) = quadrature(config.estimator, config.endpoints, config.quadrature_steps, step.rng)
            adapters.set_path_point(a, config.path, "raw")

    def penalty(self, adapters: AdapterSet, step: Step) -> Tensor | None:
        """Weighted orthogonality penalty."""
        if self.config.penalty == "none":
            return None
        weight, later = self.config.orthogonality, self.config.stage2_orthogonality
        if later is not None and step.index > self.stages()[0]:
            weight = later
        return penalty(adapters.stacks(), self.config.penalty, weight)

    def on_gradients(self, adapters: AdapterSet, step: Step) -> None:
        """Keep the gradient of the task alone, where that is what scores."""
        if self._scores_at(step.index) and _shares_training_pass(self.config) and self.config.score_gradient == "task":
            self._add(adapters.stacked(lambda p: p.grad))

    def on_step_end(self, adapters: AdapterSet, step: Step) -> None:
        """Aggregate scores on their clock, cut on the budget's, and begin the second stage where there is one."""
        if self.static:
            return
        if self._scores_at(step.index):
            self._score(adapters, step)
        if self.decay.cuts(step.index) and self.statistics.updates:  # no cut before the first score
            self._cut(adapters, step.index == self.decay.end, self.decay.total(step.index))
        if len(self.stages()) == 2 and step.index == self.stages()[0]:
            adapters.restart(adapters.ranks(), "scratch")

    def _scores_at(self, index: int) -> bool:
        """Whether step `index` contributes to an aggregated score."""
        if self.static or (index >= self.decay.end and self.statistics.updates) or index > self.decay.end:
            return False
        back = self.config.sample_count if _shares_training_pass(self.config) else 1
        return -index % self.config.ema_every < back or index == self.decay.end

    @torch.no_grad()
    def _score(self, adapters: AdapterSet, step: Step) -> None:
        if not _shares_training_pass(self.config):
            self._add(self._probe_gradients(adapters, step))
        elif self.config.score_gradient == "total":
            self._add(adapters.stacked(lambda p: p.grad))
        if step.index % self.config.ema_every and step.index != self.decay.end:
            return
        weights = adapters.stacked(lambda p: p.detach())
        if self.config.sign == "signed":
            torch._foreach_abs_(weights)
        torch._foreach_mul_(weights, self._gradient)
        if self.config.sign == "outside":
            torch._foreach_abs_(weights)
        torch._foreach_div_(weights, float(self._sampled))
        self._gradient, self._sampled = [], 0
        self.statistics.update(weights)
        if self.config.parametrisation == "svd_refresh":
            adapters.refactor()

    def _add(self, gradient: list[Tensor]) -> None:
        if self._gradient:
            torch._foreach_add_(self._gradient, gradient)
        else:
            self._gradient = gradient
        self._sampled += 1

    def _probe_gradients(self, adapters: AdapterSet, step: Step) -> list[Tensor]:
        """Estimate of the integrated gradient from `sample_count` extra mini-batches, stacked."""
        config, parameters = self.config, adapters.parameters()
        total: list[Tensor] = []
        for batch in step.probe.batches(config.sample_count):
            for a, weight in quadrature(config.estimator, config.endpoints, config.quadrature_steps, step.rng):
                adapters.set_path_point(a, config.path, config.jacobian)
                gradients = step.probe.gradients(batch, parameters)
                torch._foreach_mul_(gradients, weight / config.sample_count)
                if total:
                    torch._foreach_add_(total, gradients)
                else:
                    total = gradients
        adapters.reset_path()
        gradient_of = {id(parameter): gradient for parameter, gradient in zip(parameters, total, strict=True)}
        return adapters.stacked(lambda p: gradient_of[id(p)])

    def _cut(self, adapters: AdapterSet, final: bool, total: float) -> None:
        config, statistics = self.config, self.statistics
        guard = config.epsilon, config.relative_epsilon
        elements: Iterable[Tensor] = combine(config.score, statistics.mean, statistics.deviation, *guard)
        if config.lambda_term == "magnitude":
            elements = list(elements)
            elements[2::3] = [s.gate.detach().abs() for s in adapters.stacks() if s.gate is not None]
        budget, costs = self.context.budget, self.costs
        if final and costs is not None:
            costs = None
            total = budget.target if budget.match == "final" else budget.target / config.start_ratio
        refill, hard = config.cut == "refill", config.prune == "hard"
        prune(adapters, triplets(elements), costs or budget.costs, total, refill, hard)
        if final:
            self._gradient, self._sampled = [], 0
            statistics.clear()
            adapters.compact("compact")

    def state_dict(self) -> dict[str, Any]:
        """Moving statistics, and the sums of the unfinished score."""
        return {**self.statistics.state_dict(), "gradient": self._gradient, "sampled": self._sampled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.statistics.load_state_dict(state)
        self._gradient, self._sampled = state["gradient"], state["sampled"]

    def diagnostics(self) -> dict[str, float]:
        """Updates of the statistics so far."""
        return {"score_updates": float(self.statistics.updates)}


def _shares_training_pass(config: IGUConfig) -> bool:
    """Whether scores come from the training passes, without extra ones."""
    return config.alpha_in_training or config.estimator == "instantaneous"


def _passes_per_score(config: IGUConfig) -> int:
    """Extra passes, forward and backward, of one aggregated score."""
    if _shares_training_pass(config) or config.start_ratio == 1:
        return 0
    nodes = quadrature(config.estimator, config.endpoints, config.quadrature_steps, np.random.default_rng(0))
    return config.sample_count * len(nodes)


def code_costs(context: RunContext) -> dict[str, float]:
    """The released code's price of a rank: 1 for attention matrices, (m + 1) / 2 for feed-forward matrices.

    A feed-forward matrix is one whose larger side exceeds the hidden width, the most frequent input width.
    """
    widths = [site.d_in for site in context.sites]
    hidden = max(set(widths), key=widths.count)
    wide = {site.name: max(site.d_in, site.d_out) / hidden for site in context.sites}
    return {name: (m + 1) / 2 if m > 1 else 1.0 for name, m in wide.items()}
