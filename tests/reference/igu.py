"""IGU-LoRA re-implemented: dense toy weights, factor gradients by formula, one site and one node at a time.

Nothing here knows of PEFT, slots, stacks or resizing: pruned triplets stay where they are and are looked past.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from reference.budget import decayed, select
from torch import Tensor

ROLES = ("A", "B", "g")


def forward(weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """toys.Toy, from its weights by name."""
    x = weights["embed"][ids]
    for layer in range(sum(name.endswith(".mix") for name in weights)):
        mix, up, down = (weights[f"layers.{layer}.{kind}"] for kind in ("mix", "up", "down"))
        x = x + torch.tanh(x @ mix.T)
        x = x + torch.tanh(x @ up.T) @ down.T
    return x @ weights["score"].T + weights["score.bias"]


@dataclass
class Dense:
    """Base weights by name, and A (r, d_in), B (d_out, r), g (r,) by site."""

    base: dict[str, Tensor]
    factors: dict[str, dict[str, Tensor]]
    scale: float
    target: Any

    def weights(self, u: float) -> dict[str, Tensor]:
        """W0 + u * s * B diag(g) A."""
        found = dict(self.base)
        for site, f in self.factors.items():
            found[site] = found[site] + u * self.scale * f["B"] @ torch.diag(f["g"]) @ f["A"]
        return found

    def loss(self, ids: Tensor, u: float = 1.0) -> Tensor:
        return 0.5 * (forward(self.weights(u), ids) - self.target(ids)).square().sum() / ids.numel()

    def gradients(self, ids: Tensor, u: float, coefficient: float = 1.0) -> dict[str, dict[str, Tensor]]:
        """Of the loss at u, with respect to the factors of coefficient * dW: from G, the gradient of the weights."""
        weights = {name: weight.detach().clone() for name, weight in self.weights(u).items()}
        for site in self.factors:
            weights[site].requires_grad_()
        loss = 0.5 * (forward(weights, ids) - self.target(ids)).square().sum() / ids.numel()
        found = {}
        for site, f in self.factors.items():
            (G,) = torch.autograd.grad(loss, weights[site], retain_graph=True)
            G = coefficient * self.scale * G
            found[site] = {
                "A": torch.diag(f["g"]) @ f["B"].T @ G,
                "B": G @ f["A"].T @ torch.diag(f["g"]),
                "g": torch.diagonal(f["B"].T @ G @ f["A"].T).clone(),
            }
        return found


def integrated(dense: Dense, ids: Tensor, nodes: Sequence[tuple[float, float]]) -> dict[str, dict[str, Tensor]]:
    """Sum over (u, weight) of weight * gradient on the delta path: without the factor w."""
    total: dict[str, dict[str, Tensor]] = {}
    for u, weight in nodes:
        found = dense.gradients(ids, u)
        for site in found:
            for role in ROLES:
                before = total.setdefault(site, {}).get(role, torch.zeros(()))
                total[site][role] = before + weight * found[site][role]
    return total


def penalty_gradients(
    dense: Dense, alive: Mapping[str, Tensor], kind: str, weight: float
) -> dict[str, dict[str, Tensor]]:
    """Of weight * mean Frobenius norm of the live rows of A and columns of B against orthonormality."""
    leaves = {site: {role: f[role].clone().requires_grad_() for role in "AB"} for site, f in dense.factors.items()}
    norms = []
    for site, f in leaves.items():
        if alive[site].any():
            for rows in (f["A"][alive[site]], f["B"][:, alive[site]].T):
                if kind == "offdiag" and len(rows) == 1:
                    norms.append(torch.zeros(()))  # nothing off the diagonal
                    continue
                covariance = rows @ rows.T
                wanted = torch.eye(len(rows)) if kind == "full" else torch.diag(torch.diagonal(covariance))
                norms.append((covariance - wanted).square().sum().sqrt())
    (weight * sum(norms) / len(norms)).backward()
    return {
        site: {role: torch.zeros_like(f[role]) if f[role].grad is None else f[role].grad for role in "AB"}
        for site, f in leaves.items()
    }


@dataclass
class Plan:
    """What of a run is not IGU's: batches, rates, costs and the random numbers, all by step (from 1)."""

    batches: Sequence[Tensor]
    scoring: Sequence[Tensor]
    rates: Sequence[float]
    rngs: Sequence[np.random.Generator]
    start: int
    target: int
    costs: Mapping[str, float]
    last_costs: Mapping[str, float]
    last_target: int
    begin: int
    end: int
    stage: int
    max_grad_norm: float
    fresh: Any


def train(dense: Dense, plan: Plan, config: Any) -> list[tuple[int, str, int, int]]:
    """All steps; the history of ranks. `dense.factors` end as they are, dead triplets (g = 0) included.

    A stochastic estimator with endpoints sampled or none, and soft cuts; else the settings are followed.
    """
    alive = {site: torch.ones(len(f["g"]), dtype=torch.bool) for site, f in dense.factors.items()}
    decided = {site: len(f["g"]) for site, f in dense.factors.items()}
    mean, deviation = ({s: {k: torch.zeros_like(f[k]) for k in ROLES} for s, f in dense.factors.items()} for _ in "12")
    optimizer = optimizer_of(dense)
    history = []
    for step in range(1, len(plan.batches) + 1):
        rng, u, coefficient = plan.rngs[step - 1], 1.0, 1.0
        if config.alpha_in_training and step <= plan.stage:
            a = node(config, rng)
            u = coefficient = a**3 if config.path == "factor" else a
        total = dense.gradients(plan.batches[step - 1], u, coefficient)
        later = step > plan.stage and config.stage2_orthogonality is not None
        weight = config.stage2_orthogonality if later else config.orthogonality
        for site, found in penalty_gradients(dense, alive, config.penalty, weight).items():
            for role, gradient in found.items():
                total[site][role] = total[site][role] + gradient
        clip(total, alive, plan.max_grad_norm)
        optimizer.param_groups[0]["lr"] = plan.rates[step - 1]
        for site, f in dense.factors.items():
            for role in ROLES:
                f[role].grad = total[site][role]
        optimizer.step()
        for site, f in dense.factors.items():
            f["g"].mul_(alive[site])  # momentum moved the dead
        if step < plan.end and step % config.ema_every == 0:
            if config.alpha_in_training:
                signal_gradient = total
            else:
                a = node(config, rng)
                place = (a**3, a**2) if config.path == "factor" else (a, 1.0)
                signal_gradient = integrated(dense, plan.scoring[step - 1], [place])
            for site, f in dense.factors.items():
                for role in ROLES:
                    signal = f[role].abs() * signal_gradient[site][role]
                    signal = signal if config.sign == "signed" else signal.abs()
                    mean[site][role] = config.beta1 * mean[site][role] + (1 - config.beta1) * signal
                    off = (signal - mean[site][role]).abs()
                    deviation[site][role] = config.beta2 * deviation[site][role] + (1 - config.beta2) * off
        if plan.begin < step <= plan.end:
            last = step == plan.end
            budget = decayed(config.schedule, step, plan.start, plan.target, plan.begin, plan.end)
            kept = cut(
                scores(dense, mean, deviation, config),
                plan.last_costs if last else plan.costs,
                plan.last_target if last else budget,
                config.cut == "refill",
            )
            for site, f in dense.factors.items():
                f["g"].mul_(kept[site])
                rank = int(kept[site].sum())
                if rank != decided[site]:
                    history.append((step, site, decided[site], rank))
                decided[site] = rank
                if last:
                    alive[site] = kept[site]
        if config.stage2 == "scratch" and step == plan.stage:
            dense.factors = {site: plan.fresh(site, rank) for site, rank in decided.items()}
            alive = {site: torch.ones(rank, dtype=torch.bool) for site, rank in decided.items()}
            optimizer = optimizer_of(dense)
    return history


def optimizer_of(dense: Dense) -> torch.optim.Optimizer:
    tensors = [f[role] for f in dense.factors.values() for role in ROLES]
    return torch.optim.AdamW(tensors, lr=1.0, weight_decay=0.0, foreach=False, fused=False)


def node(config: Any, rng: np.random.Generator) -> float:
    """One point: of 1/M .. 1 alike, or of 0 .. 1 with the trapezoid's weights."""
    M = config.quadrature_steps
    if config.endpoints == "none":
        return int(rng.integers(1, M + 1)) / M
    half = int(rng.integers(0, 2 * M))
    edges = [k for k in range(M + 1) for _ in range(1 if k in (0, M) else 2)]
    return edges[half] / M


def clip(gradients: dict[str, dict[str, Tensor]], alive: Mapping[str, Tensor], limit: float) -> None:
    """Zero what belongs to dead triplets, then scale the whole to the limit, if above it."""
    for site, found in gradients.items():
        found["A"], found["B"], found["g"] = (
            found["A"] * alive[site][:, None],
            found["B"] * alive[site],
            found["g"] * alive[site],
        )
    norm = sum(float(g.square().sum()) for found in gradients.values() for g in found.values()) ** 0.5
    if norm > limit:
        for found in gradients.values():
            for role in ROLES:
                found[role] = found[role] * limit / norm


def scores(dense: Dense, mean: Any, deviation: Any, config: Any) -> dict[str, Tensor]:
    """Score of each triplet, by site."""
    values = torch.cat([deviation[site][role].flatten() for site in deviation for role in ROLES])
    floor = config.epsilon * float(values.mean()) if config.relative_epsilon else config.epsilon
    found = {}
    for site, f in dense.factors.items():
        parts = {}
        for role in ROLES:
            m, d = mean[site][role], deviation[site][role]
            ratio = m / (d + floor) if config.relative_epsilon else (m + floor) / (d + floor)
            parts[role] = {"ratio": ratio, "product": m * d, "sensitivity": m}[config.score]
        if config.lambda_term == "magnitude":
            parts["g"] = f["g"].abs()
        found[site] = parts["g"] + parts["A"].mean(1) + parts["B"].mean(0)
    return found


def cut(scores: Mapping[str, Tensor], costs: Mapping[str, float], total: float, refill: bool) -> dict[str, Tensor]:
    """The triplets to keep, by site."""
    flat = [(site, float(score)) for site, values in scores.items() for score in values]
    kept = select([score for _, score in flat], [costs[site] for site, _ in flat], total, refill)
    return {
        site: torch.tensor([keep for keep, (name, _) in zip(kept, flat, strict=True) if name == site])
        for site in scores
    }
