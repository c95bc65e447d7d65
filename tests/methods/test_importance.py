"""Importance formulas against slow references, PEFT's regulariser and exact expectations."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from reference import scores as reference
from torch import nn

from rankbench.core.parameter_stacks import Stack
from rankbench.methods.importance import (
    MeanDeviation,
    combine,
    orthogonality,
    quadrature,
    sensitivity,
    triplet,
    triplets,
)

SHAPES = [(2, 3, 4), (2, 5, 3), (2, 3)]  # A, B, gate of one stack: two sites, rank 3


def signals(count: int, seed: int = 0) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [[rng.gamma(2.0, size=shape) for shape in SHAPES] for _ in range(count)]


def tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(array).float() for array in arrays]


def statistics(rows: list[list[np.ndarray]], beta1: float = 0.85, beta2: float = 0.7) -> MeanDeviation:
    found = MeanDeviation(beta1, beta2)
    for row in rows:
        found.update(tensors(row))
    return found


def test_sensitivity_is_the_absolute_product() -> None:
    w, g = torch.tensor([1.0, -2.0, 3.0, 0.0]), torch.tensor([0.5, 0.5, -1.0, 9.0])
    assert sensitivity(w, g).tolist() == [0.5, 1.0, 3.0, 0.0]
    assert w.tolist() == [1.0, -2.0, 3.0, 0.0]


def test_moving_statistics_equal_the_elementwise_reference() -> None:
    rows = signals(6)
    found = statistics(rows)
    for index in range(len(SHAPES)):
        mean, deviation = reference.moving([row[index] for row in rows], 0.85, 0.7)
        np.testing.assert_allclose(found.mean[index], mean, rtol=1e-5)
        np.testing.assert_allclose(found.deviation[index], deviation, rtol=1e-5)
    assert found.updates == 6


def test_moving_statistics_go_on_after_a_restart_and_forget_when_cleared() -> None:
    rows = signals(6)
    whole, first, second = statistics(rows), statistics(rows[:3]), MeanDeviation(0.85, 0.7)
    second.load_state_dict(first.state_dict())
    for row in rows[3:]:
        second.update(tensors(row))
    assert all(map(torch.equal, whole.mean + whole.deviation, second.mean + second.deviation))
    second.clear()
    assert (second.mean, second.deviation, second.updates) == ([], [], 0)


@pytest.mark.parametrize("kind", ["ratio", "product", "sensitivity"])
@pytest.mark.parametrize(("epsilon", "relative"), [(0.0, True), (1e-1, True), (1e-1, False)])
def test_combinations_equal_the_reference(kind: str, epsilon: float, relative: bool) -> None:
    means, deviations = signals(2, seed=3)
    found = combine(kind, tensors(means), tensors(deviations), epsilon, relative)
    for tensor, expected in zip(found, reference.combined(kind, means, deviations, epsilon, relative), strict=True):
        np.testing.assert_allclose(tensor, expected, rtol=1e-5)


def test_the_ratio_of_nothing_by_nothing_is_zero_with_a_relative_epsilon() -> None:
    zero = [torch.zeros(3)]
    assert next(combine("ratio", zero, zero, 1e-3, relative=True)).tolist() == [0.0, 0.0, 0.0]


def test_an_absolute_epsilon_lets_magnitude_into_the_ratio() -> None:
    """specs: |w g| near epsilon collapses to a score of 1."""
    mean, deviation = [torch.tensor([4e-8, 4.0])], [torch.tensor([2e-8, 2.0])]
    small, large = next(combine("ratio", mean, deviation, 1e-6, relative=False)).tolist()
    assert small == pytest.approx(1.02, abs=1e-2)
    assert large == pytest.approx(2.0, abs=1e-5)
    assert next(combine("ratio", mean, deviation, 0.0)).tolist() == pytest.approx([2.0, 2.0])


def test_triplets_equal_the_reference_for_every_site() -> None:
    A, B, gate = signals(1, seed=5)[0]
    found = triplet(*tensors([A, B, gate]))
    for site in range(2):
        np.testing.assert_allclose(found[site], reference.triplet(A[site], B[site], gate[site]), rtol=1e-5)


def test_triplets_of_several_stacks_stay_apart() -> None:
    first, second = tensors(signals(1, seed=1)[0]), tensors(signals(1, seed=2)[0])
    found = triplets([*first, *second])
    assert len(found) == 2
    assert torch.equal(found[0], triplet(*first))
    assert torch.equal(found[1], triplet(*second))


# -- penalty --


def factors(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two sites of one shape, then one of another."""
    rng = np.random.default_rng(seed)
    shapes = [(3, 6, 5), (3, 6, 5), (2, 4, 4)]
    return [(rng.normal(size=(r, d_in)), rng.normal(size=(d_out, r))) for r, d_in, d_out in shapes]


def stacks(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[Stack]:
    groups = [pairs[:2], pairs[2:]]
    sites = [(0, 1), (2,)]
    stacked = [[torch.from_numpy(np.stack(parts)) for parts in zip(*group, strict=True)] for group in groups]
    return [Stack(where, A, B, None) for where, (A, B) in zip(sites, stacked, strict=True)]


@pytest.mark.parametrize("kind", ["full", "offdiag"])
def test_orthogonality_equals_the_reference(kind: str) -> None:
    assert float(orthogonality(stacks(factors()), kind)) == pytest.approx(reference.orthogonality(factors(), kind))


def test_orthogonality_equals_pefts_own_regulariser() -> None:
    pairs = factors()

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sites = nn.ModuleList(nn.Linear(A.shape[1], B.shape[0]) for A, B in pairs)

        def forward(self) -> SimpleNamespace:
            return SimpleNamespace(loss=torch.tensor(0.0, dtype=torch.float64))

    config = AdaLoraConfig(
        target_modules=["0", "1", "2"],
        init_r=3,
        target_r=1,
        total_step=9,
        tinit=1,
        tfinal=1,
        orth_reg_weight=0.25,
    )
    peft_model = get_peft_model(Three().double(), config)
    for site, (A, B) in zip(peft_model.base_model.model.sites, pairs, strict=True):
        site.lora_A["default"].data, site.lora_B["default"].data = torch.from_numpy(A), torch.from_numpy(B)
    penalty = float(peft_model.base_model().loss.detach()) / 0.25  # PeftModel without a task type passes its tuner by
    assert float(orthogonality(stacks(pairs), "full")) == pytest.approx(penalty, rel=1e-12)


@pytest.mark.parametrize("kind", ["full", "offdiag"])
def test_the_penaltys_gradient_is_that_of_the_norms(kind: str) -> None:
    found, expected = stacks(factors()), stacks(factors())
    for stack in (*found, *expected):
        stack.A.requires_grad_(), stack.B.requires_grad_()
    orthogonality(found, kind).backward()
    norms = []
    for stack in expected:
        for A, B in zip(stack.A, stack.B, strict=True):
            for covariance in (A @ A.T, B.T @ B):
                off = covariance - (torch.eye(len(A)) if kind == "full" else torch.diag(torch.diagonal(covariance)))
                norms.append(off.square().sum().sqrt())
    (sum(norms) / len(norms)).backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.A.grad, other.A.grad)
        torch.testing.assert_close(one.B.grad, other.B.grad)


def test_a_site_of_rank_one_has_nothing_off_the_diagonal_and_no_nan_in_its_gradient() -> None:
    stack = Stack((0,), torch.randn(1, 1, 4).requires_grad_(), torch.randn(1, 3, 1).requires_grad_(), None)
    penalty = orthogonality([stack], "offdiag")
    penalty.backward()
    assert float(penalty.detach()) == 0
    assert not stack.A.grad.any()
    assert not stack.B.grad.any()


def test_orthonormal_factors_are_free_and_offdiag_ignores_length() -> None:
    A, B = np.eye(3, 6), np.eye(5, 3)
    pairs = [(A, B), (A, B), (np.eye(2, 4), np.eye(4, 2))]
    assert float(orthogonality(stacks(pairs), "full")) == 0.0
    longer = [(3 * A, 3 * B) for A, B in pairs]
    assert float(orthogonality(stacks(longer), "offdiag")) == 0.0
    assert float(orthogonality(stacks(longer), "full")) == pytest.approx((4 * 3**0.5 + 2 * 2**0.5) / 6 * 8)


def test_offdiag_in_closed_form() -> None:
    """Rows (1, 0) and (c, s) have one dot product c, twice off the diagonal: norm sqrt(2) c, whatever the lengths."""
    A, B = np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    stack = Stack((0,), torch.from_numpy(A)[None], torch.from_numpy(B)[None], None)
    assert float(orthogonality([stack], "offdiag")) == pytest.approx(2**0.5 * 0.6 / 2)
    assert float(orthogonality([stack], "full")) == pytest.approx(2**0.5 * 0.6 / 2)


def test_gaussian_factors_cost_what_theory_says_at_the_start() -> None:
    """specs/igu 5.6: N(0, 0.02^2) factors of rank r and width d have offdiag 0.02^2 sqrt(r (r - 1) d), up to noise."""
    rng = np.random.default_rng(0)
    A, B = 0.02 * rng.normal(size=(32, 896)), 0.02 * rng.normal(size=(896, 32))
    stack = Stack((0,), torch.from_numpy(A)[None], torch.from_numpy(B)[None], None)
    assert float(orthogonality([stack], "offdiag")) == pytest.approx(0.02**2 * (32 * 31 * 896) ** 0.5, rel=0.05)


# -- quadrature --


class Outcomes:
    """A generator of which the k-th equally likely outcome is asked for."""

    def __init__(self, outcome: int) -> None:
        self.outcome, self.count = outcome, 1

    def integers(self, low: int, high: int) -> int:
        self.count = high - low
        return low + self.outcome


def all_outcomes(endpoints: str, steps: int) -> Iterator[list[tuple[float, float]]]:
    first = Outcomes(0)
    yield quadrature("stochastic", endpoints, steps, first)
    for outcome in range(1, first.count):
        yield quadrature("stochastic", endpoints, steps, Outcomes(outcome))


def expected_weights(endpoints: str, steps: int) -> dict[float, float]:
    outcomes = list(all_outcomes(endpoints, steps))
    found = dict.fromkeys((k / steps for k in range(steps + 1)), 0.0)
    for nodes in outcomes:
        for a, weight in nodes:
            found[a] += weight / len(outcomes)
    return found


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_the_trapezoid_has_the_trapezoids_weights(steps: int) -> None:
    assert dict(quadrature("trapezoid", "none", steps, Outcomes(0))) == pytest.approx(reference.trapezoid(steps))


@pytest.mark.parametrize(("endpoints", "steps"), [("sampled", 1), ("sampled", 7), ("unbiased", 2), ("unbiased", 20)])
def test_the_sound_estimators_expect_the_trapezoid_exactly(endpoints: str, steps: int) -> None:
    assert expected_weights(endpoints, steps) == pytest.approx(reference.trapezoid(steps), abs=1e-15)


@pytest.mark.parametrize("steps", [2, 4, 20])
def test_the_printed_estimator_expects_half_of_the_ends_and_one_mean_node(steps: int) -> None:
    """(g(0) + 2 mean of the inner nodes + g(1)) / (2 M): not the integral."""
    found = expected_weights("printed", steps)
    assert found[0.0] == found[1.0] == pytest.approx(1 / (2 * steps))
    inner = [weight for a, weight in found.items() if 0 < a < 1]
    assert inner == pytest.approx([1 / steps / (steps - 1)] * (steps - 1))
    assert sum(found.values()) == pytest.approx(2 / steps)


def test_the_released_estimator_draws_every_node_but_the_first_alike() -> None:
    assert expected_weights("none", 20) == pytest.approx({k / 20: 0.0 if k == 0 else 0.05 for k in range(21)})


def test_one_step_of_the_released_estimator_is_the_end_of_the_path() -> None:
    assert quadrature("stochastic", "none", 1, np.random.default_rng(0)) == [(1.0, 1.0)]


def test_the_instantaneous_estimator_is_the_end_of_the_path() -> None:
    assert quadrature("instantaneous", "sampled", 20, np.random.default_rng(0)) == [(1.0, 1.0)]


@pytest.mark.parametrize("endpoints", ["sampled", "none", "printed", "unbiased"])
def test_a_real_generator_reaches_every_node_and_no_other(endpoints: str) -> None:
    rng = np.random.default_rng(0)
    seen = {a for _ in range(500) for a, _ in quadrature("stochastic", endpoints, 6, rng)}
    expected = {a for nodes in all_outcomes(endpoints, 6) for a, _ in nodes}
    assert seen == expected
