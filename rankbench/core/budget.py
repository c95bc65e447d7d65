"""Budgets: what a run may spend, what a rank costs, and the account of what was spent.

Nothing else knows what a rank costs. Scores become integer ranks in rankbench.core.apportionment, which `Budget` calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rankbench.core.apportionment import BudgetError, apportion
from rankbench.core.sites import spread


class Shaped(Protocol):
    """What the budget needs to know of an adapted matrix."""

    @property
    def name(self) -> str:
        """Name of the matrix."""

    @property
    def d_out(self) -> int:
        """Rows."""

    @property
    def d_in(self) -> int:
        """Columns."""


@dataclass(frozen=True)
class Budget:
    """What a method may spend on the sites of one model.

    Attributes:
        unit: "params" (d_in + d_out per rank: the parameters of the exported factors) or "ranks" (1 per rank).
        match: which figure meets the target: "final" (deployed) or "peak" (largest during training).
        target: `factor` times what uniform rank `reference_rank` costs on the same sites, or what the true ranks cost;
            in `unit`.
        reference_rank: uniform rank the scale rule refers to, whatever the factor: the fixed scale is the same on all
            rungs of a ladder of factors.
        tolerance: largest accepted |spent - target| / target.
        costs: price of one rank, by site name, in `unit`.
        params_per_rank: d_in + d_out, by site name.
        full_ranks: min(d_in, d_out), by site name.
        spread: whether `uniform` lays what whole ranks leave evenly over depth and types, at a target of its own.
    """

    unit: str
    match: str
    target: int
    reference_rank: int
    tolerance: float
    costs: Mapping[str, int]
    params_per_rank: Mapping[str, int]
    full_ranks: Mapping[str, int]
    spread: bool = False

    @classmethod
    def of(cls, config: Any, sites: Sequence[Shaped], true_ranks: Mapping[str, int] | None) -> Budget:
        """The budget section of a config on given sites.

        Raises:
            BudgetError: a reference rank below 1, a target that pays for no rank or for more than the full rank of a
                site, `source: true_ranks` on a task that plants no ranks, or a peak that is not known yet.
        """
        params = {site.name: site.d_in + site.d_out for site in sites}
        full = {site.name: min(site.d_in, site.d_out) for site in sites}
        costs = params if config.unit == "params" else dict.fromkeys(params, 1)
        if config.source == "true_ranks":
            if true_ranks is None:
                raise BudgetError(
                    "budget=true_ranks spends the task's true ranks, but this task plants none: use budget=r8"
                )
            target = sum(costs[name] * rank for name, rank in true_ranks.items())
            reference = max(1, round(target / sum(costs.values())))
        else:
            reference = int(config.reference_rank)
            _check_rank(reference, config.factor, full)
            target = reference * sum(costs.values())
        if config.peak_of is not None and config.target is None:
            raise BudgetError(f"budget.peak_of={config.peak_of}: an arm stands for its run in an experiment alone")
        own = config.factor != 1 or config.target is not None
        if own:
            target = round(config.factor * target) if config.target is None else config.target
            _check_target(target, costs, full)
        return cls(config.unit, config.match, target, reference, config.tolerance, costs, params, full, spread=own)

    @property
    def uniform_rank(self) -> int:
        """Whole rank next to what the target pays for at every site, at least 1; the reference rank at factor 1."""
        return max(1, round(self.target / sum(self.costs.values())))

    def spent(self, ranks: Mapping[str, int]) -> int:
        """Cost of a rank map, in `unit`."""
        return sum(self.costs[name] * rank for name, rank in ranks.items())

    def params(self, ranks: Mapping[str, int]) -> int:
        """Parameters of the factors of a rank map."""
        return sum(self.params_per_rank[name] * rank for name, rank in ranks.items())

    def allocate(
        self, scores: Mapping[str, float], total: int | None = None, least: int = 0, most: int | None = None
    ) -> dict[str, int]:
        """Ranks proportional to site scores at `total` (default: the target), between `least` and `most`, full rank."""
        return self._allocate(list(self.costs), scores, total, least, most)

    def uniform(self, factor: float = 1.0) -> dict[str, int]:
        """Equal ranks at `factor` times the target (methods that start above it); capped at full rank.

        What is left after the last whole rank buys one more at the first sites in model order; with a budget.factor
        or budget.peak_of at the first of `sites.spread`, so that half of rank 1 lies evenly over depth and types.
        """
        names = spread(self.costs) if self.spread else list(self.costs)
        ranks = self._allocate(names, dict.fromkeys(names, 1.0), round(self.target * factor))
        return {name: ranks[name] for name in self.costs}

    def _allocate(
        self,
        names: Sequence[str],
        scores: Mapping[str, float],
        total: int | None,
        least: int = 0,
        most: int | None = None,
    ) -> dict[str, int]:
        """`allocate`, ties to the earlier of `names`."""
        high = [min(self.full_ranks[name], self.full_ranks[name] if most is None else most) for name in names]
        low = [min(least, most) for most in high]
        costs = [self.costs[name] for name in names]
        spend = min(self.target if total is None else total, sum(c * h for c, h in zip(costs, high, strict=True)))
        ranks = apportion([float(scores[name]) for name in names], costs, spend, low, high)
        return dict(zip(names, ranks, strict=True))


def _check_rank(rank: int, factor: float, full: Mapping[str, int]) -> None:
    if rank < 1:
        raise BudgetError(f"budget.reference_rank={rank}: a budget below one rank per site adapts nothing; use >= 1")
    name = min(full, key=full.__getitem__)
    if rank * factor > full[name]:
        times = "" if factor == 1 else f" times budget.factor={factor:g}"
        raise BudgetError(
            f"budget.reference_rank={rank}{times} is above the full rank {full[name]} of site {name}: use "
            f"<= {full[name] / factor:g}, or leave that site out of model.targets"
        )


def _check_target(target: int, costs: Mapping[str, int], full: Mapping[str, int]) -> None:
    least, most = min(costs.values()), sum(costs[name] * rank for name, rank in full.items())
    if not least <= target <= most:
        raise BudgetError(
            f"budget.factor, budget.peak_of: their target of {target} is not between the {least} of one rank at one "
            f"site and the {most} of full rank at all; give others"
        )


@dataclass(frozen=True)
class Decay:
    """Budget over the steps of a method that starts above its target.

    Attributes:
        kind: "cubic" (Zhang et al. 2023, sec. 3.3, with the exponent's argument as in their code), "linear" or
            "oneshot" (everything at `end`).
        start: budget up to and including step `begin`.
        target: budget from step `end` on.
        begin: last step of the warm-up (t_i).
        end: step of the last cut (T - t_f).
        every: steps between cuts.
    """

    kind: str
    start: int
    target: int
    begin: int
    end: int
    every: int

    @classmethod
    def over(cls, horizon: int, kind: str, start: int, target: int, warmup: float, final: float, every: int) -> Decay:
        """A decay whose warm-up and final phase are shares of the horizon; both phases keep at least one step."""
        end = max(1, horizon - max(1, round(final * horizon)))
        return cls(kind, start, target, min(round(warmup * horizon), end - 1), end, every)

    def total(self, step: int) -> int:
        """Budget after step `step` (from 1), never below the target."""
        if step <= self.begin:
            return self.start
        if step >= self.end:
            return self.target
        remaining = 1 - (step - self.begin) / (self.end - self.begin)
        share = {"cubic": remaining**3, "linear": remaining, "oneshot": 1.0}[self.kind]
        return int((self.start - self.target) * share + self.target)

    def cuts(self, step: int) -> bool:
        """Whether step `step` is a pruning event."""
        return step == self.end or (self.begin < step < self.end and step % self.every == 0)


@dataclass
class Ledger:
    """The account of one run: ranks and factor parameters at the start, at the peak and at the end.

    Attributes:
        grain: cost of one rank at the most expensive site, the resolution of the budget; 0 if unknown.
        head_params: trained parameters outside the adapter (classification head), never part of the budget.
        gate_params: gate entries at the peak; folded into the factors on export, never part of the budget.
    """

    unit: str
    target: int
    grain: int = 0
    head_params: int = 0
    gate_params: int = 0
    start: dict[str, int] | None = None
    peak: dict[str, int] | None = None
    final: dict[str, int] | None = None

    def begin(self) -> None:
        """Forget what was observed before training."""
        self.start = self.peak = self.final = None
        self.gate_params = 0

    def observe(self, ranks: int, params: int, gates: int = 0) -> None:
        """Note the current rank sum, factor parameters and gate entries."""
        now = {"ranks": ranks, "params": params}
        self.start = self.start or now
        if self.peak is None or params > self.peak["params"]:
            self.peak = now
        self.final = now
        self.gate_params = max(self.gate_params, gates)

    def budget_violation(self, budget: Budget, kind: str) -> str | None:
        """Why the run did not keep its budget, or None if it did.

        Args:
            budget: what the run could spend.
            kind: the method's budget kind: "exact" (at most `tolerance` above, at most that or one rank below),
                "at_most" (only the upper bound) or "implicit" (never judged: the rank is an outcome).
        """
        figure = self.final if budget.match == "final" else self.peak
        assert figure is not None, "the ledger was never told anything"
        spent = figure["params" if budget.unit == "params" else "ranks"]
        excess = (spent - budget.target) / budget.target
        slack = max(budget.tolerance * budget.target, max(budget.costs.values()))  # integers cannot come closer
        low_enough = excess <= budget.tolerance
        high_enough = kind == "at_most" or budget.target - spent <= slack
        if kind == "implicit" or (low_enough and high_enough):
            return None
        return (
            f"{budget.match} {spent} {budget.unit} against a target of {budget.target} "
            f"({excess:+.2%}; tolerance {budget.tolerance:.2%})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Ledger as in the record."""
        return asdict(self)
