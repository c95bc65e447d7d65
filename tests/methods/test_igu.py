"""IGU-LoRA: the acceptance tests T1 to T10 of its specification, and whole runs against a slow reference."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from reference import igu as reference
from support.toys import Rig, method_config, rig, toy_model
from torch import Tensor

from rankbench.config import registry
from rankbench.config.yaml_files import defaults
from rankbench.core.site_adapter import draw_factors
from rankbench.methods import igu
from rankbench.methods.importance import combine, quadrature
from rankbench.training.trainer import examples_of_step, rate

WHOLE = {"batch_size": 64}  # every batch is the whole train split: the loss is a function of the weights alone


def curved(method: str = "igu", **changes: Any) -> Rig:
    """A rig in float64 whose adapter is large, every lambda non-zero, so that the path bends."""
    run = rig(method, dtype=torch.float64, train=WHOLE, **changes)
    generator = run.streams.torch("eval", "curved")
    with torch.no_grad():
        for parameter in run.adapters.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return run


def dense(run: Rig) -> reference.Dense:
    """The same model and adapter as plain matrices."""
    model = toy_model().to(run.factors()[0].dtype)
    names = {"embed.weight": "embed", "score.weight": "score"}
    base = {
        names.get(k, k.removesuffix(".weight") if "layers" in k else k): v.detach() for k, v in model.named_parameters()
    }
    factors = {}
    for site in run.adapters.sites:
        A, B = (parameter.detach().clone() for parameter in run.adapters.factors(site.name))
        factors[site.name] = {"A": A, "B": B, "g": run.adapters.gates(site.name).detach().clone()}
    scale = run.adapters.scale(run.adapters.sites[0].name)
    return reference.Dense(base, factors, scale, run.engine.task.target)


def ids(run: Rig) -> Tensor:
    return torch.tensor([example.input_ids for example in run.trainer.train])


def gradients(run: Rig, a: float, kind: str = "delta", jacobian: str = "exact") -> list[Tensor]:
    """Of every parameter at one point of the path, as `adapters.parameters()` lists them."""
    probe = run.moment(1).probe
    run.adapters.set_path_point(a, kind, jacobian)
    found = probe.gradients(probe.batches(1)[0], run.adapters.parameters())
    run.adapters.reset_path()
    return found


class Path:
    """A curved path and its gradients at the nodes k / FINE, for as many coarser rules as divide it."""

    FINE = 256

    def __init__(self) -> None:
        self.run = curved()
        self.delta, self.factor = (
            [gradients(self.run, k / self.FINE, kind) for k in range(self.FINE + 1)] for kind in ("delta", "factor")
        )

    def integral(self, steps: int, kind: str = "delta") -> list[Tensor]:
        """Trapezoidal integral of the exact gradient, one tensor per parameter."""
        total = [torch.zeros_like(parameter) for parameter in self.run.adapters.parameters()]
        for a, weight in quadrature("trapezoid", "none", steps, None):
            torch._foreach_add_(total, getattr(self, kind)[round(a * self.FINE)], alpha=weight)
        return total

    def fine(self, kind: str = "delta") -> list[Tensor]:
        """The integral, with the leading error of the trapezoid taken out (Richardson)."""
        fine, coarse = self.integral(self.FINE, kind), self.integral(self.FINE // 2, kind)
        return [(4 * one - other) / 3 for one, other in zip(fine, coarse, strict=True)]


@pytest.fixture(scope="module")
def path() -> Path:
    return Path()


def by_role(run: Rig, tensors: list[Tensor]) -> dict[str, list[Tensor]]:
    count = len(run.adapters.sites)
    return {"A": tensors[:count], "B": tensors[count : 2 * count], "gate": tensors[2 * count :]}


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def loss_at(run: Rig, a: float) -> float:
    probe = run.moment(1).probe
    run.adapters.set_path_point(a)
    found = probe.loss(probe.batches(1)[0])
    run.adapters.reset_path()
    return found


def slope(sizes: list[int], errors: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


# -- the acceptance tests --


@pytest.mark.parametrize("role", ["A", "B", "gate"])
def test_t1_completeness(path: Path, role: str) -> None:
    """Each factor group alone sums to the whole change of the loss."""
    change = loss_at(path.run, 1.0) - loss_at(path.run, 0.0)
    weights, found = (by_role(path.run, tensors)[role] for tensors in (path.run.factors(), path.fine()))
    total = sum(float((w * g).sum()) for w, g in zip(weights, found, strict=True))
    assert abs(change) > 0.1
    assert total == pytest.approx(change, rel=1e-7)


def test_t1_the_integrand_is_the_formulas_at_every_point() -> None:
    """The slot's gradients against G(u) Q^T Lambda and its like, from dense weights."""
    run = curved()
    plain = dense(run)
    for kind, jacobian, a, u, coefficient in [
        ("delta", "exact", 0.3, 0.3, 1.0),
        ("delta", "raw", 0.3, 0.3, 0.3),
        ("factor", "exact", 0.3, 0.027, 0.09),
        ("factor", "raw", 0.3, 0.027, 0.027),
        ("delta", "exact", 1.0, 1.0, 1.0),
        ("delta", "exact", 0.0, 0.0, 1.0),
    ]:
        expected = plain.gradients(ids(run), u, coefficient)
        found = by_role(run, gradients(run, a, kind, jacobian))
        for index, site in enumerate(run.adapters.sites):
            for role in ("A", "B", "gate"):
                want = expected[site.name]["g" if role == "gate" else role]
                torch.testing.assert_close(found[role][index], want, rtol=1e-9, atol=1e-12)


def test_t2_three_times_the_factor_path_is_the_delta_path(path: Path) -> None:
    delta, factor = (flat(path.fine(kind)) for kind in ("delta", "factor"))
    assert float((3 * factor - delta).abs().max()) < 1e-7 * float(delta.abs().max())


def test_t3_the_trapezoids_error_falls_with_the_square_of_its_steps(path: Path) -> None:
    truth, sizes = flat(path.fine()), [4, 8, 16, 32]
    errors = [float((flat(path.integral(steps)) - truth).norm()) for steps in sizes]
    assert slope(sizes, errors) == pytest.approx(-2, abs=0.05)


class Estimates:
    """Estimates of the integral over 16 steps of one path."""

    STEPS = 16

    def __init__(self, path: Path) -> None:
        stride = Path.FINE // self.STEPS
        self.at = torch.stack([flat(path.delta[k * stride]) for k in range(self.STEPS + 1)])
        self.trapezoid = flat(path.integral(self.STEPS))

    def errors(self, endpoints: str, draws: int, repeats: int) -> Tensor:
        """Error of the mean of `draws` estimates, `repeats` times: (repeats, elements)."""
        rng, weights = np.random.default_rng(0), torch.zeros(repeats, self.STEPS + 1, dtype=torch.float64)
        for row in weights:
            for _ in range(draws):
                for a, weight in quadrature("stochastic", endpoints, self.STEPS, rng):
                    row[round(a * self.STEPS)] += weight / draws
        return weights @ self.at - self.trapezoid


@pytest.fixture(scope="module")
def estimates(path: Path) -> Estimates:
    return Estimates(path)


@pytest.mark.parametrize("endpoints", ["sampled", "unbiased"])
def test_t4_the_sampling_error_falls_with_the_root_of_the_samples(estimates: Estimates, endpoints: str) -> None:
    sizes = [1, 4, 16, 64]
    errors = [float(estimates.errors(endpoints, draws, 100).square().mean().sqrt()) for draws in sizes]
    assert slope(sizes, errors) == pytest.approx(-0.5, abs=0.07)


@pytest.mark.parametrize("endpoints", ["sampled", "unbiased"])
def test_t4_the_sampling_error_has_mean_zero(estimates: Estimates, endpoints: str) -> None:
    errors = estimates.errors(endpoints, 1, 5000)
    standard = float((errors.var(0).sum() / 5000).sqrt())
    assert float(errors.mean(0).norm()) < 2.5 * standard
    assert standard < 0.02 * float(estimates.trapezoid.norm())


def test_t4_the_printed_form_has_the_mean_it_was_said_to_have(estimates: Estimates) -> None:
    """And that is not the integral, however many samples there are."""
    at, errors = estimates.at, estimates.errors("printed", 1, 5000)
    expected = (at[0] + 2 * at[1:-1].mean(0) + at[-1]) / (2 * estimates.STEPS)
    standard = float((errors.var(0).sum() / 5000).sqrt())
    assert float((errors.mean(0) + estimates.trapezoid - expected).norm()) < 2.5 * standard
    assert float(errors.mean(0).norm()) > 0.8 * float(estimates.trapezoid.norm())


def scores_of(loss_scale: float, **changes: Any) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Scores before the last cut and the whole history of a run whose parameters do not move."""
    run = rig("igu", steps=20, gate_start=0.1, loss_scale=loss_scale, **changes)
    run.trainer.settings = run.settings.replace(learning_rate=0.0)
    config, statistics, last = run.allocator.config, run.allocator.statistics, run.allocator.decay.end
    for step in range(1, 21):
        if step == last:
            guard = config.epsilon, config.relative_epsilon
            scores = list(combine(config.score, statistics.mean, statistics.deviation, *guard))
        run.step(step)
    return scores, run.adapters.history


@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_t5_the_ratio_does_not_see_the_scale_of_the_loss(epsilon: float) -> None:
    small, large = (scores_of(scale, score="ratio", epsilon=epsilon) for scale in (1.0, 1024.0))
    torch.testing.assert_close(flat(small[0]), flat(large[0]), rtol=1e-5, atol=0)
    assert small[1] == large[1] != []


def test_t5_the_product_and_an_absolute_epsilon_see_it() -> None:
    small, large = (scores_of(scale, score="product") for scale in (1.0, 1024.0))
    torch.testing.assert_close(flat(small[0]) * 1024**2, flat(large[0]), rtol=1e-5, atol=0)
    small, large = (scores_of(scale, epsilon=1e-6, relative_epsilon=False) for scale in (1.0, 1024.0))
    assert float((flat(small[0]) / flat(large[0]) - 1).abs().max()) > 0.1


AS_ADALORA = {
    "estimator": "stochastic",
    "quadrature_steps": 1,
    "endpoints": "none",
    "alpha_in_training": True,
    "jacobian": "raw",
    "score": "product",
    "score_gradient": "total",
    "ema_every": 1,
    "gate_start": 0.0,
    "penalty": "full",
    "stage2": "continue",
    "start_ratio": 1.5,
}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["delta", "factor"])
@pytest.mark.parametrize("unit", ["params", "ranks"])
def test_t6_one_node_product_and_one_stage_are_adalora_step_for_step(path: str, unit: str) -> None:
    ours, theirs = rig("igu", steps=40, unit=unit, path=path, **AS_ADALORA), rig("adalora", steps=40, unit=unit)
    for step in range(1, 41):
        mine, yours = ours.step(step), theirs.step(step)
        assert mine == yours
        assert ours.gates() == theirs.gates(), step
        assert all(torch.equal(ours.adapters.live(s.name), theirs.adapters.live(s.name)) for s in ours.adapters.sites)
    assert ours.adapters.history == theirs.adapters.history != []


def test_t6_instantaneous_is_the_same_signal() -> None:
    changes = {**AS_ADALORA, "estimator": "instantaneous", "alpha_in_training": False, "quadrature_steps": 20}
    assert rig("igu", steps=40, **changes).run().adapters.history == rig("adalora", steps=40).run().adapters.history


@pytest.mark.parametrize("method", ["igu", "igu_code"])
def test_t7_schedule(method: str) -> None:
    """Full until t_i, at the target from T - t_f on, never rising; the kept cost follows it."""
    run = rig(method, steps=60, warmup_share=0.2, cost="budget", stage2="continue")
    decay, budget = run.allocator.decay, run.budget
    assert (decay.begin, decay.end) == (12, 60 - round(60 * run.allocator.config.final_share))
    totals, spent = [], []
    for step in range(1, 61):
        run.step(step)
        totals.append(decay.total(step))
        spent.append(budget.spent(run.adapters.ranks()))
    start = budget.spent(budget.uniform(2.0))
    assert totals[:12] == spent[:12] == [start] * 12
    assert totals[12] < start
    assert set(totals[decay.end - 1 :]) == {budget.target}
    assert totals == sorted(totals, reverse=True)
    assert all(total - 24 < cost <= total for total, cost in zip(totals, spent, strict=True))
    assert len(set(spent[decay.end - 1 :])) == 1


@pytest.mark.parametrize(("cost", "prune"), [("budget", "soft"), ("code", "soft"), ("budget", "hard")])
def test_t8_kept_cost_is_at_most_the_target_and_less_than_one_ffn_rank_below(cost: str, prune: str) -> None:
    run = rig("igu", steps=40, cost=cost, prune=prune)
    costs: dict[str, float] = {site.name: site.d_in + site.d_out for site in run.adapters.sites}
    if cost == "code":  # feed-forward width is twice the hidden width: (2 + 1) / 2
        costs = {name: 1.0 if name.endswith("mix") else 1.5 for name in costs}
        assert igu.code_costs(run.allocator.context) == costs
    cuts = 0
    for step in range(1, run.allocator.decay.end):
        run.step(step)
        if run.allocator.decay.cuts(step):
            kept = sum(costs[name] * rank for name, rank in run.adapters.ranks().items())
            assert 0 <= run.allocator.decay.total(step) - kept < max(costs.values())
            cuts += 1
    assert cuts > 10
    run.step(run.allocator.decay.end)
    assert 0 <= run.budget.target - run.budget.spent(run.adapters.ranks()) < 24  # in the budget's unit either way


@pytest.mark.parametrize(("unit", "cost"), [("params", "budget"), ("params", "code"), ("ranks", "budget")])
def test_t9_the_ledger_has_exact_parameters_beside_the_nominal_budget(unit: str, cost: str) -> None:
    run = rig("igu", unit=unit, cost=cost)
    ledger, adapters = run.adapters.ledger, run.adapters

    def exact() -> int:
        return sum(p.numel() for site in adapters.sites for p in adapters.factors(site.name))

    for step in range(1, run.allocator.decay.end):  # zeroed, but still there: ranks fall and parameters do not
        run.step(step)
        assert ledger.final == {"ranks": sum(adapters.ranks().values()), "params": exact()}
    assert ledger.final["ranks"] < 4 * 6
    assert ledger.final["params"] == ledger.start["params"]
    for step in range(run.allocator.decay.end, 25):
        run.step(step)
    assert ledger.final == {"ranks": sum(adapters.ranks().values()), "params": exact()}
    assert ledger.start == ledger.peak == {"ranks": 4 * 6, "params": 4 * (16 + 24 + 24) * 2}
    assert ledger.target == {"params": 2 * (16 + 24 + 24) * 2, "ranks": 2 * 6}[unit]
    assert ledger.gate_params == 4 * 6
    assert 0 <= ledger.target - ledger.final[unit] < {"params": 24, "ranks": 1}[unit]
    assert ledger.budget_violation(run.budget, "exact") is None
    trained = sum(p.numel() for group in run.trainer.optimizer.param_groups for p in group["params"])
    assert trained == exact() + sum(adapters.ranks().values())  # and lambda, folded in on export


@pytest.mark.parametrize("method", ["igu", "igu_code"])
def test_t10_the_path_is_at_its_end_around_every_hook(method: str) -> None:
    """Before and after each hook but before_forward, the model's output is that of W0 + dW."""
    run, seen = rig(method, steps=10, gate_start=0.1), []

    def at_its_end() -> None:
        plain = dense(run)
        with torch.no_grad():
            expected = reference.forward(plain.weights(1.0), ids(run))
        torch.testing.assert_close(run.logits(), expected, rtol=1e-5, atol=1e-6)

    def around(hook: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            at_its_end()
            result = hook(*arguments)
            at_its_end()
            seen.append(name)
            return result

        return call

    for name in ("on_gradients", "penalty", "on_step_end", "finish"):
        setattr(run.allocator, name, around(getattr(run.allocator, name), name))
    run.run()
    assert seen == ["on_gradients", "penalty", "on_step_end"] * 10 + ["finish"]


@pytest.mark.parametrize("method", ["igu", "igu_code"])
def test_t10_evaluation_in_the_middle_is_that_of_an_adapter_that_never_saw_a_path(method: str) -> None:
    used, fresh = rig(method, gate_start=0.1), rig(method, gate_start=0.1)
    for step in range(1, 8):
        used.step(step)
    fresh.adapters.load_state_dict(used.adapters.state_dict())
    assert torch.equal(used.logits(), fresh.logits())
    scores = []
    for run in (used, fresh):
        with torch.no_grad(), run.engine.inert():
            scores.append(run.engine.task.evaluate(run.engine.model, run.trainer.train, 64).metrics["loss"])
    assert scores[0] == scores[1]


# -- whole runs against the reference --


def plan_of(run: Rig) -> reference.Plan:
    settings, config, budget = run.settings, run.allocator.config, run.budget
    train, steps, size = run.trainer.train, run.settings.steps, run.settings.batch_size
    stages = run.allocator.stages()

    def rows(chosen: Any) -> Tensor:
        return torch.tensor([train[index].input_ids for index in chosen])

    def draw(site: str, rank: int) -> dict[str, Tensor]:
        found = next(s for s in run.adapters.sites if s.name == site)
        A, B = draw_factors(found, rank, run.allocator.gate(), run.streams, "restart")
        return {"A": A, "B": B, "g": torch.full((rank,), config.gate_start)}

    exact = {site.name: site.d_in + site.d_out for site in run.adapters.sites}
    coded = {name: 1.0 if name.endswith("mix") else 1.5 for name in exact}
    costs, target = (coded, 2 * 2 * 4) if config.cost == "code" else (exact, budget.target)
    stage = stages[0]
    return reference.Plan(
        batches=[
            rows(examples_of_step(len(train), size, step, lambda epoch: run.streams.numpy("data", epoch)))
            for step in range(1, steps + 1)
        ],
        scoring=[
            rows(run.streams.numpy("calibration", step).choice(len(train), size, replace=False))
            for step in range(1, steps + 1)
        ],
        rates=[
            settings.learning_rate * rate(settings.schedule, settings.warmup_share, stages, step)
            for step in range(1, steps + 1)
        ],
        rngs=[run.streams.numpy("allocator", step) for step in range(1, steps + 1)],
        start=2 * target,
        target=target,
        costs=costs,
        last_costs=exact,
        last_target=budget.target,
        begin=round(config.warmup_share * stage),
        end=stage - round(config.final_share * stage),
        stage=stage,
        max_grad_norm=settings.max_grad_norm,
        fresh=draw,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("igu", {}),
        ("igu", {"path": "factor", "ema_every": 1, "penalty": "offdiag"}),
        ("igu", {"sign": "signed", "lambda_term": "magnitude"}),
        ("igu", {"score": "sensitivity", "schedule": "linear"}),
        ("igu_code", {}),
        ("igu_code", {"path": "delta", "endpoints": "sampled", "stage2": "continue", "cost": "budget"}),
    ],
)
def test_a_whole_run_is_the_references(method: str, changes: dict[str, Any]) -> None:
    run = rig(method, steps=30, train={"max_grad_norm": 0.02}, **changes)
    plain = dense(run)
    history = reference.train(plain, plan_of(run), run.allocator.config)
    run.run()
    found = [(row["step"], row["site"], row["before"], row["after"]) for row in run.adapters.history]
    assert found == history != []
    assert any(row["gradient_norm"] > 0.02 for row in run.logs)
    for site in run.adapters.sites:
        f = plain.factors[site.name]
        expected = plain.scale * f["B"] @ torch.diag(f["g"]) @ f["A"]
        torch.testing.assert_close(run.adapters.delta(site.name), expected, rtol=1e-4, atol=1e-6)


def test_a_score_averages_its_mini_batches_and_nodes() -> None:
    run = curved(sample_count=3, endpoints="unbiased", quadrature_steps=5)
    plain, rng = dense(run), run.streams.numpy("allocator", 1)
    drawn = [node for _ in range(3) for node in quadrature("stochastic", "unbiased", 5, rng)]
    expected = reference.integrated(plain, ids(run), [(a, weight / 3) for a, weight in drawn])
    run.allocator._scores_at = lambda index: True
    run.allocator.decay = dataclasses.replace(run.allocator.decay, end=1, begin=9, start=999, target=999)
    signal: list[list[Tensor]] = []
    run.allocator.statistics.update = lambda values: signal.append(list(values))
    run.allocator.statistics.clear = lambda: None
    run.allocator._cut = lambda *arguments: None
    run.allocator.on_step_end(run.adapters, run.moment(1))
    for indices, start in zip(run.adapters.alike(), range(0, 99, 3), strict=False):
        for row, index in enumerate(indices):
            site = run.adapters.sites[index].name
            for offset, role in enumerate(("A", "B", "g")):
                want = (plain.factors[site][role] * expected[site][role]).abs()
                torch.testing.assert_close(signal[0][start + offset][row], want, rtol=1e-9, atol=1e-12)


def test_a_score_from_training_passes_is_the_mean_over_its_steps() -> None:
    """sample_count = 2 of ema_every = 3: the second and third step, absolute value last."""
    run = rig("igu", estimator="instantaneous", ema_every=3, sample_count=2)
    seen: list[Tensor] = []
    hook = run.allocator.on_gradients

    def spy(adapters: Any, step: Any) -> None:
        seen.append(flat(adapters.stacked(lambda p: p.grad)))
        hook(adapters, step)

    run.allocator.on_gradients = spy
    for step in range(1, 4):
        run.step(step)
    weights = flat(run.adapters.stacked(lambda p: p.detach()))
    expected = (1 - 0.85) * (weights * (seen[1] + seen[2]) / 2).abs()
    assert run.allocator.statistics.updates == 1
    torch.testing.assert_close(flat(run.allocator.statistics.mean), expected)


# -- the jacobian --


def test_the_exact_jacobian_at_the_start_of_the_path_is_the_limit_and_not_zero() -> None:
    run = curved()
    at_zero = flat(gradients(run, 0.0, "delta", "exact"))
    near = flat(gradients(run, 1e-6, "delta", "raw")) / 1e-6
    assert float(at_zero.abs().max()) > 1e-2
    torch.testing.assert_close(at_zero, near, rtol=1e-3, atol=1e-5)
    assert not flat(gradients(run, 0.0, "delta", "raw")).any()
    assert not flat(gradients(run, 0.0, "factor", "exact")).any()


def test_at_the_start_of_the_path_the_model_is_the_base_model() -> None:
    run = curved()
    run.adapters.set_path_point(0.0, "delta", "exact")
    at_zero = run.logits()
    run.adapters.reset_path()
    with run.adapters.disabled():
        assert torch.equal(at_zero, run.logits())
    assert not torch.equal(at_zero, run.logits())


# -- alpha in training --


def test_alpha_in_training_trains_at_one_node_per_micro_batch() -> None:
    run = rig("igu_code", train={"batch_size": 16, "micro_batch_size": 8})
    plain, plan = dense(run), plan_of(run)
    nodes = [int(plan.rngs[0].integers(1, 21)) / 20 for _ in range(1)]
    nodes.append(int(plan.rngs[0].integers(1, 21)) / 20)
    assert nodes[0] != nodes[1]
    halves = [plain.gradients(part, a**3, a**3) for part, a in zip(plan.batches[0].split(8), nodes, strict=True)]
    seen: dict[str, Tensor] = {}
    run.allocator.on_gradients = lambda adapters, step: seen.update(
        {site.name: adapters.gates(site.name).grad.clone() for site in adapters.sites}
    )
    run.step(1)
    for site, found in seen.items():
        expected = (halves[0][site]["g"] + halves[1][site]["g"]) / 2
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_scores_from_training_passes_cost_no_pass_and_own_passes_are_charged_to_allocation() -> None:
    shared, own = rig("igu_code").run(), rig("igu", ema_every=3, sample_count=2, endpoints="printed").run()
    assert shared.engine.meter.spent["allocation"]["backward_passes"] == 0
    scoring = [step for step in range(1, own.allocator.decay.end) if step % 3 == 0]
    assert own.engine.meter.spent["allocation"]["backward_passes"] == 3 * 2 * len(scoring)
    assert own.engine.meter.spent["training"]["backward_passes"] == 24


@pytest.mark.parametrize("gradient", ["task", "total"])
def test_the_score_takes_the_gradient_it_is_told_to(gradient: str) -> None:
    """With a huge penalty, the statistics of the factors are the penalty's unless the task's gradient is asked for."""
    sizes = []
    for weight in (1e-6, 100.0):
        run = rig("igu_code", score_gradient=gradient, orthogonality=weight, train={"max_grad_norm": 1e9})
        run.step(1)
        sizes.append(float(flat(run.allocator.statistics.mean).max()))
    assert (sizes[1] > 10 * sizes[0]) == (gradient == "total")


# -- pruning and stages --


def live(run: Rig) -> dict[str, list[bool]]:
    return {site.name: run.adapters.live(site.name).tolist() for site in run.adapters.sites}


@pytest.mark.parametrize("estimator", ["stochastic", "instantaneous"])
def test_no_cut_comes_before_the_first_score(estimator: str) -> None:
    run = rig("igu", ema_every=5, warmup_share=0.0, estimator=estimator).run()
    assert min(row["step"] for row in run.adapters.history) == 5
    alone = rig("igu", steps=4, ema_every=5).run()  # one score, at the last cut
    assert {row["step"] for row in alone.adapters.history} == {alone.allocator.decay.end}
    for done in (run, alone):
        assert done.adapters.ledger.budget_violation(done.budget, "exact") is None


@pytest.mark.parametrize("prune", ["hard", "soft"])
def test_hard_pruning_never_regrows_and_soft_pruning_does(prune: str) -> None:
    run = rig("igu", steps=40, prune=prune)
    before, returned = live(run), 0
    for step in range(1, run.allocator.decay.end):
        run.step(step)
        after = live(run)
        returned += sum(now and not then for s in after for now, then in zip(after[s], before[s], strict=True))
        before = after
    assert run.adapters.history
    assert (returned == 0) == (prune == "hard")


def test_masked_components_use_up_no_budget_however_high_their_score() -> None:
    run = rig("igu", unit="ranks", prune="hard")
    adapters, costs = run.adapters, run.budget.costs
    rising = [torch.arange(4.0).expand(len(indices), 4) for indices in adapters.alike()]
    with adapters.deciding("igu", "on_step_end", 1):
        igu.prune(
            adapters, [-scores for scores in rising], costs, 18, refill=True, hard=True
        )  # the last of each is masked
        igu.prune(adapters, rising, costs, 12, refill=True, hard=True)  # and would now be first
    assert set(adapters.ranks().values()) == {2}
    assert all(kept == [False, True, True, False] for kept in live(run).values())


def test_a_hard_mask_takes_the_component_out_of_the_model_and_holds_it_still() -> None:
    run = rig("igu", steps=40, prune="hard", train={"weight_decay": 0.1})
    step = 1
    while not run.adapters.history:
        run.step(step)
        step += 1
    site = run.adapters.history[0]["site"]
    dead = ~run.adapters.live(site)
    held = run.adapters.factors(site)[0].detach()[dead].clone(), run.adapters.gates(site).detach()[dead].clone()
    assert held[1].any()
    plain = dense(run)
    for f, name in ((plain.factors[s.name], s.name) for s in run.adapters.sites):
        f["g"] = f["g"] * run.adapters.live(name)
    torch.testing.assert_close(run.logits(), reference.forward(plain.weights(1.0), ids(run)).detach())
    run.step(step)
    assert torch.equal(run.adapters.factors(site)[0][dead], held[0])
    assert torch.equal(run.adapters.gates(site)[dead], held[1])


def test_scratch_draws_anew_resets_the_head_clears_the_moments_and_restarts_the_rate() -> None:
    run = rig("igu_code", steps=24, stage1_share=0.5, head=("score",), train={"warmup_share": 0.25})
    assert run.allocator.stages() == (12, 12)
    initial = [parameter.detach().clone() for parameter in run.adapters.head]
    for step in range(1, 12):
        run.step(step)
    assert not torch.equal(run.adapters.head[0], initial[0])
    run.step(12)
    adapters, optimizer = run.adapters, run.trainer.optimizer
    assert len(adapters.history) > 0
    assert adapters.sizes() == adapters.ranks()
    assert len(set(adapters.ranks().values())) > 1
    for site in adapters.sites:
        A, B = draw_factors(site, adapters.ranks()[site.name], run.allocator.gate(), run.streams, "restart")
        assert torch.equal(adapters.factors(site.name)[0], A)
        assert torch.equal(adapters.factors(site.name)[1], B)
        assert adapters.gates(site.name).tolist() == pytest.approx([0.1] * adapters.ranks()[site.name])
    assert all(map(torch.equal, adapters.head, initial))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(parameters) == 3 * 6 + 2
    assert not any(optimizer.state[parameter] for parameter in parameters)
    ranks = adapters.ranks()
    for step in range(13, 25):
        run.step(step)
    rates = [row["learning_rate"] for row in run.logs]
    assert rates[12:] == rates[:12]
    assert rates[12] < rates[13] > rates[23]
    assert adapters.ranks() == ranks
    assert run.logs[-1]["score_updates"] == 0


def test_the_second_stage_trains_without_alpha() -> None:
    run = rig("igu_code", steps=24, stage1_share=0.5, orthogonality=1.0)
    for step in range(1, 13):
        run.step(step)
    plain, batch = dense(run), plan_of(run).batches[12]
    assert run.step(13)["loss"] == pytest.approx(float(plain.loss(batch, 1.0)), rel=1e-5)
    assert run.logs[12]["loss"] != pytest.approx(float(plain.loss(batch, 0.5)), rel=1e-5)


def test_continue_keeps_factors_and_moments() -> None:
    run = rig("igu", steps=24)
    for step in range(1, run.allocator.decay.end + 1):
        run.step(step)
    assert run.adapters.sizes() == run.adapters.ranks()
    gate = run.adapters.gates(run.adapters.sites[0].name)
    assert run.trainer.optimizer.state[gate]["exp_avg"].shape == gate.shape
    assert run.trainer.optimizer.state[gate]["exp_avg"].any()


@pytest.mark.parametrize("method", ["igu", "igu_code"])
def test_a_start_ratio_of_one_prunes_nothing_in_one_stage(method: str) -> None:
    run = rig(method, start_ratio=1).run()
    assert run.allocator.static
    assert run.allocator.stages() == (24,)
    assert run.adapters.history == []
    assert run.adapters.ranks() == run.budget.uniform()
    assert run.engine.meter.spent["allocation"]["backward_passes"] == 0


@pytest.mark.parametrize("method", ["igu", "igu_code"])
def test_one_seed_one_history_and_another_seed_another(method: str) -> None:
    first, again, other = (rig(method, seed=seed).run() for seed in (3, 3, 4))
    assert first.adapters.history == again.adapters.history != []
    assert all(map(torch.equal, first.factors(), again.factors()))
    assert first.adapters.history != other.adapters.history


def test_an_interrupted_score_goes_on_where_it_was() -> None:
    changes = {"estimator": "instantaneous", "ema_every": 4, "sample_count": 4, "score_gradient": "task"}
    whole, first, second = (rig("igu", **changes) for _ in range(3))
    whole.run()
    for step in range(1, 7):  # in the middle of a score
        first.step(step)
    assert first.allocator.state_dict()["sampled"] == 2
    second.adapters.load_state_dict(first.adapters.state_dict())
    second.trainer.build_optimizer()
    second.trainer.optimizer.load_state_dict(first.trainer.optimizer.state_dict())
    second.allocator.load_state_dict(first.allocator.state_dict())
    second.trainer.run(6)
    assert second.adapters.history == whole.adapters.history != []
    assert all(map(torch.equal, second.factors(), whole.factors()))


# -- settings --

CHANGES: list[tuple[str, dict[str, Any], Any]] = [
    ("start_ratio", {}, 1.5),
    ("warmup_share", {}, 0.4),
    ("final_share", {}, 0.2),
    ("every", {}, 3),
    ("schedule", {}, "linear"),
    ("beta1", {}, 0.5),
    ("beta2", {}, 0.5),
    ("orthogonality", {}, 1.0),
    ("gate_start", {}, 0.1),
    ("parametrisation", {}, "svd_refresh"),
    ("estimator", {}, "trapezoid"),
    ("estimator", {}, "instantaneous"),
    ("quadrature_steps", {}, 3),
    ("endpoints", {"ema_every": 1}, "none"),
    ("endpoints", {}, "printed"),
    ("endpoints", {}, "unbiased"),
    ("endpoints", {"alpha_in_training": True, "jacobian": "raw"}, "none"),
    ("sample_count", {}, 2),
    ("sample_count", {"estimator": "instantaneous"}, 2),
    ("ema_every", {}, 1),
    ("path", {}, "factor"),
    ("path", {"alpha_in_training": True, "jacobian": "raw"}, "factor"),
    ("jacobian", {}, "raw"),
    ("alpha_in_training", {"jacobian": "raw", "endpoints": "none"}, True),
    ("score_gradient", {"estimator": "instantaneous"}, "total"),
    ("sign", {}, "signed"),
    ("score", {}, "product"),
    ("score", {}, "sensitivity"),
    ("lambda_term", {}, "magnitude"),
    ("epsilon", {}, 0.5),
    ("relative_epsilon", {}, False),
    ("penalty", {}, "offdiag"),
    ("penalty", {}, "none"),
    ("cut", {}, "stop"),
    ("cost", {}, "code"),
    ("prune", {}, "hard"),
    ("stage2", {"stage1_share": 0.5}, "scratch"),
    ("stage1_share", {"stage2": "scratch"}, 0.6),
]


@pytest.fixture(scope="module")
def trace() -> Iterator[Callable[..., Any]]:
    """The scores at every cut and the history of a short run; equal runs are done once."""
    done: dict[str, tuple[list[Any], list[dict[str, Any]]]] = {}
    original, scores = igu.prune, []

    def spy(adapters: Any, found: Any, *arguments: Any, **named: Any) -> None:
        scores.append([tensor.tolist() for tensor in found])
        original(adapters, found, *arguments, **named)

    def run(**changes: Any) -> tuple[list[Any], list[dict[str, Any]]]:
        key = repr(sorted(changes.items()))
        if key not in done:
            scores.clear()
            history = rig("igu", steps=14, **changes).run().adapters.history
            done[key] = list(scores), history
        return done[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(igu, "prune", spy)
        yield run


@pytest.mark.slow
@pytest.mark.parametrize(("name", "base", "value"), CHANGES)
def test_no_setting_is_inert(trace: Callable[..., Any], name: str, base: dict[str, Any], value: Any) -> None:
    assert trace(**base) != trace(**{**base, name: value})


def test_every_setting_is_among_those_tried() -> None:
    fields = set(registry.get("method", "igu").Config.model_fields)
    later = {"stage2_orthogonality"}  # no cut comes after it; in the whole runs of igu_code
    assert fields - {"name"} - later == {name for name, _, _ in CHANGES}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"endpoints": "printed", "quadrature_steps": 1},
            "method.quadrature_steps=1: endpoints=printed needs inner nodes, so >= 2",
        ),
        (
            {"endpoints": "unbiased", "alpha_in_training": True, "jacobian": "raw"},
            "method.endpoints=unbiased: alpha_in_training scores one point a pass; use none",
        ),
        (
            {"estimator": "trapezoid", "alpha_in_training": True},
            "method.estimator=trapezoid: alpha_in_training scores one point per pass; use stochastic",
        ),
        (
            {"alpha_in_training": True},
            "method.jacobian=exact: with alpha_in_training the gradient is the raw one; use jacobian=raw",
        ),
        (
            {"estimator": "instantaneous", "sample_count": 3},
            "method.sample_count=3: scores from training passes average at most ema_every=2 steps",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(changes: dict[str, Any], message: str) -> None:
    cls = registry.get("method", "igu")
    assert cls.check(cls.Config(**{**defaults("method", "igu"), **changes})) == [message]


def test_the_presets_contradict_nothing() -> None:
    for name in ("igu", "igu_code"):
        assert registry.get("method", name).check(method_config(name)) == []


def test_the_spread_of_a_ratio_of_pure_noise_is_what_the_specification_says() -> None:
    """specs/igu 6.1: half-normal noise at beta 0.85 scores 1.93 +- 0.44, whatever its size."""
    statistics = registry.get("method", "igu")(method_config("igu"), rig("igu").allocator.context).statistics
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        statistics.update([1e-7 * torch.randn(4000, generator=generator).abs()])
    (found,) = combine("ratio", statistics.mean, statistics.deviation)
    assert float(found.mean()) == pytest.approx(1.93, abs=0.05)
    assert float(found.std()) == pytest.approx(0.44, abs=0.05)
    assert math.isclose(float(statistics.mean[0].mean()), 1e-7 * math.sqrt(2 / math.pi), rel_tol=0.02)
