"""EVA: ranks and A from the principal components of each site's inputs."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.methods import peft_search
from rankbench.methods.base import Allocator, MethodError, Probe, RunContext


class EVAConfig(Settings):
    """Settings of EVA.

    Attributes:
        use: the ranks, the initialisation of A, or both.
        search: "exact" the components of the inputs of all mini-batches together, one pass for each, with a covariance
            (d_in, d_in) in fp32 for each distinct input; "peft" PEFT's incremental search, which takes the mini-batches
            in turn until the vectors converge, and holds no covariance.
        batches: calibration mini-batches.
        rho: largest rank over the budget's reference rank; unused with use=init, where all sites have the same.
        tau: cosine similarity of successive vectors that counts as converged; search=peft alone.
        whiten: divide each vector by the root of its singular value.
        label_mask: leave out tokens without a label, where labels are per token.
        most_passes: forward passes after which the search for vectors is given up; search=peft alone.
    """

    use: Literal["both", "ranks", "init"]
    search: Literal["exact", "peft"]
    batches: int = Field(ge=1)
    rho: float = Field(ge=1)
    tau: float = Field(gt=0, lt=1)
    whiten: bool
    label_mask: bool
    most_passes: int = Field(ge=2)


@register("method", "eva")
class EVA(Allocator[EVAConfig]):
    """The budget goes to the directions of the inputs that explain most of their variance, all sites together."""

    needs = frozenset({"probe_forward"})
    source = "Paischer et al. 2025 (arXiv 2410.07170); peft 0.21"
    deviations = ("Scale: the run's scale rule; the fixed one is EVA's own (adjust_scaling_factors).",)
    summary = "ranks and initial A from the spectrum of the inputs"
    decides = "before training"
    signal = "explained variance of the site's inputs"

    @classmethod
    def deviations_of(cls, config: EVAConfig) -> tuple[str, ...]:
        """Where PEFT is left: at any settings, and at these."""
        ranks = "PEFT's ranks are shares of the budget where budget.unit=params and sites cost unequally."
        rows = "Rows of A beyond PEFT's (where the budget gives a site more ranks) are drawn as for every method."
        used = {"both": (ranks, rows), "ranks": (ranks,), "init": ()}[config.use]
        search = {
            "exact": f"{config.batches} mini-batches are decomposed together, so their order does not count; paper and "
            "PEFT update the vectors with one mini-batch after the other, until they converge.",
            "peft": f"{config.batches} mini-batches are taken in turn, each micro-batch is one update; the paper goes "
            "through the training set.",
        }[config.search]
        return (*cls.deviations, *used, search)

    @classmethod
    def passes_of(cls, config: EVAConfig) -> str:
        """One for each calibration mini-batch, or as many as the data ask for."""
        if config.search == "exact":
            return f"{config.batches} x forward"
        return f"forward until the vectors converge, {config.most_passes} at the most"

    def extra_passes(self, batch_size: int) -> tuple[int, int] | None:
        """One for each calibration mini-batch; PEFT's search makes as many as the data ask for."""
        return (self.config.batches, 0) if self.config.search == "exact" else None

    def __init__(self, config: EVAConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self.static = config.use == "init"

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks until the calibration is done."""
        return self.context.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Begin at the ranks that the components of the inputs give, with the components as first rows of A."""
        vectors = self.vectors(adapters, probe)
        if self.config.use != "init":
            shares = {name: float(len(rows)) for name, rows in vectors.items()}
            adapters.restart(self.context.budget.allocate(shares), "explained variance", draw="start")
        if self.config.use != "ranks":
            for name, rows in vectors.items():
                A, B = (factor.detach().clone() for factor in adapters.factors(name))
                count = min(len(A), len(rows))
                A[:count] = rows[:count]
                adapters.set_factors(name, A, B)

    def vectors(self, adapters: AdapterSet, probe: Probe) -> dict[str, Tensor]:
        """Components of the inputs of each site, best first: site name -> (rank, d_in), rank >= 0.

        Raises:
            MethodError: a site has no inputs, or fewer than it may get ranks; PEFT's search fails (see peft_search).
        """
        config, rank, sites = self.config, self.context.budget.uniform_rank, self.context.sites
        widest = min(site.d_in for site in sites) / rank
        rho = 1.0 if config.use == "init" else max(1.0, min(config.rho, widest))
        if config.search == "peft":
            return peft_search.search(adapters, probe, config, rank, rho)
        moments, leaders = self.moments(probe)
        spectra = {leader: inputs.spectrum(round(rho * rank)) for leader, inputs in moments.items()}
        spectrum_of = {site.name: spectra[leaders[site.name]] for site in sites}
        ranks = ranks_by_variance({name: shares for name, (shares, _, _) in spectrum_of.items()}, rank * len(sites))
        vectors = {}
        for name, (_, singular_values, components) in spectrum_of.items():
            rows = components[: ranks[name]]
            vectors[name] = rows / singular_values[: len(rows), None].sqrt() if config.whiten else rows
        return vectors

    def moments(self, probe: Probe) -> tuple[dict[str, Moments], dict[str, str]]:
        """Moments of the inputs, and the site under whose name each site's are: of those that read the same tensor."""
        moments: dict[str, Moments] = {}
        leaders: dict[str, str] = {}
        latest: tuple[Callable[[], Tensor | None], str] = (lambda: None, "")

        def see(site: str, x: Tensor) -> None:
            nonlocal latest
            if latest[0]() is not x:
                latest = weakref.ref(x), site
            leader = leaders.setdefault(site, latest[1])
            if leader == site:
                moments.setdefault(site, Moments()).add(x)

        for batch in probe.batches(self.config.batches):
            probe.activations(batch, see, labelled=self.config.label_mask)
        idle = [site.name for site in self.context.sites if site.name not in leaders]
        if idle:
            raise MethodError(
                f"method=eva reads the inputs of {idle[0]}, which no pass reaches: leave it out of model.targets"
            )
        return moments, leaders


class Moments:
    """Mean and scatter of the vectors seen so far.

    Attributes:
        count: number n of vectors.
        mean: (d,).
        scatter: sum over the vectors of (x - mean)(x - mean)^T: (d, d).
    """

    def __init__(self) -> None:
        self.count, self.mean, self.scatter = 0, torch.zeros(0), torch.zeros(0, 0)

    def add(self, x: Tensor) -> None:
        """Take in vectors x (n, d); none at all change nothing."""
        if not len(x):
            return
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if not self.count:
                self.mean, self.scatter = torch.zeros_like(x[0]), x.new_zeros(x.shape[1], x.shape[1])
            centre, count = x.mean(0), self.count + len(x)
            shift, x = centre - self.mean, x - centre
            self.scatter.addmm_(x.T, x).addr_(shift, shift, alpha=self.count * len(x) / count)
            self.mean += shift * (len(x) / count)
        self.count = count

    def spectrum(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """The first `most` principal components: shares of the variance, singular values (most,), vectors (most, d).

        The largest entry of each vector is positive, as PEFT has it.

        Raises:
            MethodError: there are not enough vectors.
        """
        if self.count <= most:
            raise MethodError(
                f"EVA looks for {most} components in {self.count} tokens: raise method.batches or train.batch_size, or "
                "lower method.rho"
            )
        values, vectors = torch.linalg.eigh(self.scatter)
        values, rows = values.flip(0)[:most].clamp(min=0), vectors.flip(1)[:, :most].T
        rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
        return values / self.scatter.trace(), values.sqrt(), rows


def ranks_by_variance(shares: Mapping[str, Tensor], total: int) -> dict[str, int]:
    """Give `total` ranks to the largest shares of variance, all sites together; of equal ones to the earlier site.

    Args:
        shares: site name -> (most,), the share that each component explains of the variance at its site.
        total: ranks to give out.
    """
    components = [(share, name) for name, values in shares.items() for share in values.tolist()]
    components.sort(key=lambda component: component[0], reverse=True)
    ranks = Counter(name for _, name in components[:total])
    return {name: ranks[name] for name in shares}
