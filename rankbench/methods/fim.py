"""FIM-LoRA: ranks proportional to the mean squared gradient of B at B = 0, from a few calibration batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, stack

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import Allocator, Probe, differing
from rankbench.methods.importance import SecondMoment


class FIMConfig(Settings):
    """Settings of FIM-LoRA.

    Attributes:
        batches: number T of calibration mini-batches.
        score: second moment of the mini-batch gradient (as released), its unbiased variance over the mini-batches, or
            the second moment of the gradients of single examples (the empirical Fisher diagonal).
        tensor: gradient of B, or of the frozen weight (the same without the random sketch A).
        aggregate: how the entries of one site become its score.
        dropout: calibrate in training mode (as released).
        floor: least score; `relative_floor`: as a share of the largest score, else absolute (as released).
        least_rank: r_min.
        cap: r_max as a multiple of the budget's reference rank.
        allocation: "exact" keeps the budget and the bounds; "code" is the released allocator, which counts ranks and
            overspends where least_rank binds.
    """

    batches: int = Field(ge=1)
    score: Literal["second_moment", "variance", "per_example"]
    tensor: Literal["B", "weight"]
    aggregate: Literal["mean", "sum", "max"]
    dropout: bool
    floor: float = Field(ge=0)
    relative_floor: bool
    least_rank: int = Field(ge=0)
    cap: float = Field(ge=1)
    allocation: Literal["exact", "code"]


@register("method", "fim")
@register("method", "fim_code")
class FIM(Allocator[FIMConfig]):
    """One class, two presets: `fim` meets the budget, `fim_code` does what the released code does.

    s_i = mean over entries of (1/T) sum_t (dL_t / dB_i)^2        r_i proportional to s_i, within bounds
    """

    needs = frozenset({"probe_backward"})
    source = "FIM-LoRA (arXiv 2605.16800); Kernel-ML/fim-lora-experiments@9811817"
    deviations = (
        "Scale: the run's scale rule; the released code trains at alpha / r_i (scale_rule=live).",
        "Added rows of A are the next draws of the site's own stream, as for every method.",
    )
    summary = "ranks from the squared gradient of B before training"
    decides = "before training"
    signal = "mean squared gradient of B (empirical Fisher diagonal)"

    @classmethod
    def deviations_of(cls, config: FIMConfig) -> tuple[str, ...]:
        """Where paper and released code are left: at any settings, and at these."""
        exact = (
            "Budget counts parameters unless budget.unit=ranks; the released code counts ranks.",
            "Budget and bounds are met exactly; the released allocator overspends where r_min binds.",
        )
        counted = (
            "Ranks are counted whatever the budget's unit, so sites of unequal shape miss a parameter budget.",
            "A site gets its full rank at the most; the released allocator has no bound but r_max.",
        )
        source = {
            "score": ("second_moment", "the released code takes the second moment of the mini-batch gradient"),
            "tensor": ("B", "the released code takes the gradient of B"),
            "aggregate": ("mean", "the released code takes the mean of the entries"),
            "dropout": (True, "the released code calibrates in training mode"),
            "relative_floor": (False, "the released floor is absolute, and depends on the scale of the loss"),
        }
        if config.name != "fim_code":
            source["score"] = ("variance", "the paper writes of a variance, the released code takes the second moment")
        allocation = exact if config.allocation == "exact" else counted
        return (*cls.deviations, *allocation, *differing(config, source))

    @classmethod
    def passes_of(cls, config: FIMConfig) -> str:
        """One for each calibration mini-batch, or for each of its examples."""
        examples = "train.batch_size x " if config.score == "per_example" else ""
        return f"{config.batches} x {examples}(forward + backward)"

    def extra_passes(self, batch_size: int) -> tuple[int, int]:
        """One for each calibration mini-batch, or for each of its examples."""
        passes = self.config.batches * (batch_size if self.config.score == "per_example" else 1)
        return passes, passes

    @staticmethod
    def check(config: FIMConfig) -> list[str]:
        """What is wrong: a variance of fewer than two samples."""
        if config.score == "variance" and config.batches < 2:
            return ["method.batches=1: score=variance needs >= 2"]
        return []

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks until the calibration is done, at least 1: a site without a B has no score."""
        return {name: max(1, rank) for name, rank in self.context.budget.uniform().items()}

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Score the sites, then begin at the ranks that the scores give."""
        self.scores = self.score(adapters, probe)
        budget, config = self.context.budget, self.config
        cap = max(int(config.cap * budget.uniform_rank), config.least_rank)
        if config.allocation == "exact":
            ranks = budget.allocate(self.scores, least=config.least_rank, most=cap)
        else:
            cap = int(config.cap * budget.uniform_rank)
            total = len(budget.costs) * budget.target // sum(budget.costs.values())
            released = released_ranks(list(self.scores.values()), total, config.least_rank, cap)
            ranks = {n: min(r, budget.full_ranks[n]) for n, r in zip(self.scores, released, strict=True)}
        adapters.restart(ranks, "fisher", draw="start")

    def score(self, adapters: AdapterSet, probe: Probe) -> dict[str, float]:
        """Score of each site, > 0 unless the floor is 0."""
        config = self.config
        moments = SecondMoment(centred=config.score == "variance")
        for batch in probe.batches(config.batches):
            for sample in [[example] for example in batch] if config.score == "per_example" else [batch]:
                moments.add(self._gradients(adapters, probe, sample))
        raw = stack([getattr(entries, config.aggregate)() for entries in moments.value()]).tolist()
        floor = config.floor * (max(raw) if config.relative_floor else 1.0)
        return {site.name: max(score, floor) for site, score in zip(adapters.sites, raw, strict=True)}

    def _gradients(self, adapters: AdapterSet, probe: Probe, batch: Any) -> Sequence[Tensor]:
        if self.config.tensor == "weight":
            gradients: Mapping[str, Tensor] = probe.weight_gradients(batch, self.config.dropout)
            return [gradients[site.name] for site in adapters.sites]
        return probe.gradients(batch, [adapters.factors(site.name)[1] for site in adapters.sites], self.config.dropout)


def released_ranks(scores: Sequence[float], total: int, least: int, most: int) -> list[int]:
    """The released allocator: largest remainders below a cap, then a floor that is paid by the lowest scores.

    The sum is the total unless all are capped, or sites raised to `least` cannot be paid for: capped sites never pay.

    Args:
        scores: (n,) > 0.
        total: ranks to give out, all sites together.
        least: r_min.
        most: r_max.
    """
    free, left = list(range(len(scores))), total
    ranks = [0] * len(scores)
    while free:
        mass = sum(scores[i] for i in free)
        quota = {i: scores[i] / mass * left for i in free}
        capped = [i for i in free if int(quota[i]) >= most]
        if not capped:
            break
        for i in capped:
            ranks[i] = most
        free, left = [i for i in free if i not in capped], left - most * len(capped)
    for i in free:
        ranks[i] = int(quota[i])
    spare = int(left) - sum(ranks[i] for i in free)
    for i in sorted(free, key=lambda i: quota[i] - int(quota[i]), reverse=True)[: max(0, spare)]:
        ranks[i] += 1
    debt = sum(max(0, least - ranks[i]) for i in free)
    for i in free:
        ranks[i] = max(ranks[i], least)
    for i in sorted(free, key=lambda i: scores[i]):
        paid = min(debt, ranks[i] - least)
        ranks[i], debt = ranks[i] - paid, debt - paid
    return ranks
