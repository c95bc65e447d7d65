"""Errors of integrated gradients: the theory's slopes, the bias of eq. 6 as printed, completeness, written files."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from support.toys import Rig, rig

from rankbench import RankbenchError, cli
from rankbench.cli.quadrature import configured, parse
from rankbench.quadrature.errors import ABOVE, ErrorStudy, Point, fits
from rankbench.quadrature.integrand import Integrand, float64, grids, measure, simpson
from rankbench.quadrature.path_run import relative_update

pytestmark = pytest.mark.slow

M, REFERENCE, NODES = 20, 64, [1, 2, 4, 8, 16]
TINY = ["model=tiny", "task=planted", "task.train_size=16", "task.validation_size=8", "task.test_size=8"]
TINY += ["task.length=8", "train.batch_size=4", "train.threads=1"]
FEW = ["--train-steps", "2", "--reference", "8", "--nodes", "1,2,4", "--samples", "1,4", "--repeats", "20"]


def walked(dtype: torch.dtype = torch.float64) -> Rig:
    """A toy run whose adapter is large, so that the path bends."""
    run = rig("igu", dtype=dtype, train={"batch_size": 8})
    generator = run.streams.torch("eval", "walked")
    with torch.no_grad():
        for parameter in run.adapters.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return run


def integrand(run: Rig) -> Integrand:
    probe = run.moment(1).probe
    return measure(run.adapters, probe, run.trainer.train[:8], grids([*NODES, M, REFERENCE]), M)


@pytest.fixture(scope="module")
def run() -> Rig:
    return walked()


@pytest.fixture(scope="module")
def study(run: Rig) -> ErrorStudy:
    return ErrorStudy(integrand(run), M, REFERENCE)


@pytest.fixture(scope="module")
def points(study: ErrorStudy) -> list[Point]:
    return list(study.samples([1, 4, 16, 64], 400, np.random.default_rng(0)))


def vectors(run: Rig, nodes) -> np.ndarray:
    """w * g at each node, all elements in one row: what the Gram matrix stands for."""
    rows, parameters, probe = [], run.adapters.parameters(), run.moment(1).probe
    for a in nodes:
        run.adapters.set_path_point(a, "delta", "exact")
        found = probe.gradients(run.trainer.train[:8], parameters)
        rows.append(torch.cat([(p.detach() * g).flatten() for p, g in zip(parameters, found, strict=True)]).numpy())
    run.adapters.reset_path()
    return np.array(rows)


def slope(found, estimator: str, reference: str) -> float:
    (fit,) = [fit for fit in fits(found) if (fit.estimator, fit.reference) == (estimator, reference)]
    return fit.slope


def test_norms_from_the_gram_matrix_are_those_of_the_vectors(run, study):
    f = study.integrand
    rows = vectors(run, f.nodes)
    weights = np.random.default_rng(0).standard_normal((5, len(f.nodes)))
    np.testing.assert_allclose(f.norm(weights), np.linalg.norm(weights @ rows, axis=1), rtol=1e-10)
    error = study.trapezoid(16) - study.integral  # 1e-5 of the norm: a plain Gram matrix has lost half the digits here
    np.testing.assert_allclose(f.norm(error), np.linalg.norm(error @ rows), rtol=1e-8)
    np.testing.assert_allclose(sum(f.sums.values()), rows.sum(axis=1), rtol=1e-10)
    assert f.size == rows.shape[1]


def test_the_constants_of_the_theorem_are_those_of_the_elements(run, study):
    grid = vectors(run, [k / M for k in range(M + 1)])
    second = np.abs(np.diff(grid, n=2, axis=0)).max(axis=0) * M**2
    assert study.integrand.curvature == pytest.approx(np.linalg.norm(second))
    assert study.integrand.range == pytest.approx(np.linalg.norm(np.ptp(grid, axis=0)))
    assert study.integrand.inner_range == pytest.approx(np.linalg.norm(np.ptp(grid[1:-1], axis=0)))


def test_simpsons_rule_is_exact_for_cubics_and_not_for_more():
    for power, exact in ((0, True), (3, True), (4, False)):
        total = sum(weight * a**power for a, weight in simpson(4))
        assert (abs(total - 1 / (power + 1)) < 1e-14) == exact


def test_the_trapezoid_falls_with_slope_two_below_its_bound(study):
    found = list(study.trapezoids(NODES))
    assert slope(found[2:], "trapezoid", "integral") == pytest.approx(-2, abs=0.05)
    assert all(p.floor * ABOVE < p.error < p.bound for p in found)


def test_the_end_alone_misses_by_its_distance_from_the_integral(run, study):
    end, *_ = vectors(run, [1.0])
    integral = study.integral @ vectors(run, study.integrand.nodes)
    assert study.end_error() == pytest.approx(np.linalg.norm(end - integral) / np.linalg.norm(integral))


@pytest.mark.parametrize("estimator", ["unbiased", "sampled"])
@pytest.mark.parametrize("reference", ["integral", "trapezoid"])
def test_unbiased_estimators_fall_with_slope_one_half_below_the_bound(points, estimator, reference):
    assert slope(points, estimator, reference) == pytest.approx(-0.5, abs=0.05)
    line = [p for p in points if (p.estimator, p.reference) == (estimator, reference)]
    assert [p.N for p in line] == [1, 4, 16, 64]
    assert all(p.error < p.bound for p in line)


def test_the_sampling_error_is_the_standard_deviation_of_one_node(run, points):
    """Of `sampled`: the node's variance under the trapezoid's weights, over N."""
    rows = vectors(run, [k / M for k in range(M + 1)])
    weights = np.full(M + 1, 1 / M)
    weights[[0, -1]] /= 2
    mean = weights @ rows
    deviation = math.sqrt(weights @ ((rows - mean) ** 2).sum(axis=1))
    for point in points:
        if (point.estimator, point.reference) == ("sampled", "trapezoid"):
            expected = deviation / math.sqrt(point.N) / np.linalg.norm(mean)
            assert point.error == pytest.approx(expected, rel=0.12)


def test_the_printed_estimator_ends_on_the_bias_of_its_formula(run, points):
    """Its mean is (g(0) + 2 mean of the inner nodes + g(1)) / 2M (spec 2.4)."""
    rows = vectors(run, [k / M for k in range(M + 1)])
    fine = vectors(run, [k / REFERENCE for k in range(REFERENCE + 1)])
    integral = (fine[0] / 2 + fine[1:-1].sum(axis=0) + fine[-1] / 2) / REFERENCE
    printed = (rows[0] + 2 * rows[1:-1].mean(axis=0) + rows[-1]) / (2 * M)
    for scale, estimator in ((1, "printed"), (M / 2, "printed_rescaled")):
        bias = np.linalg.norm(scale * printed - integral) / np.linalg.norm(integral)
        (last,) = [p for p in points if (p.estimator, p.N, p.reference) == (estimator, 64, "integral")]
        assert last.error >= 0.98 * bias
        assert last.bound is None
    assert bias < 0.5  # most of what is wrong with eq. 6 is its scale
    (last,) = [p for p in points if (p.estimator, p.N, p.reference) == ("printed", 64, "integral")]
    assert last.error == pytest.approx(np.linalg.norm(printed - integral) / np.linalg.norm(integral), rel=0.01)
    assert slope(points, "printed", "integral") == pytest.approx(0, abs=0.01)


def test_attributions_of_each_role_sum_to_the_loss_difference(run, study):
    gaps = {(row["rule"], row["role"]): abs(row["gap"]) for row in study.completeness()}
    with run.adapters.disabled():
        start = run.moment(1).probe.loss(run.trainer.train[:8])
    assert study.integrand.losses[0] == pytest.approx(start, rel=1e-6)
    for role in ("A", "B", "gate"):
        assert gaps["reference", role] < 1e-6
        assert gaps["reference", role] < gaps[f"M={M}", role] < gaps["M=1", role]


def test_rounding_is_told_from_curvature():
    """In single precision the floor is about 1e-7 of a node, and slopes are fitted above it alone."""
    f = integrand(walked(torch.float32))
    size = float(f.norm(f.weights([(0.5, 1.0)])))
    assert 1e-9 < f.noise(REFERENCE) / size < 1e-5
    line = [Point("trapezoid", "trapezoid", m, None, max(m**-2, 1e-2), 4e-3, None, "integral") for m in (1, 2, 4, 16)]
    (fit,) = fits(line)
    assert (fit.slope, fit.first, fit.last) == (pytest.approx(-2), 1, 4)
    (fit,) = fits(line[-1:])
    assert (fit.slope, fit.first, fit.last) == (None, None, None)


def test_a_model_in_float64_stays_there_where_its_code_asks_for_less():
    class Careful(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.to(torch.float32)).float().softmax(-1, dtype=torch.float32)

    model = Careful(2, 3)
    with float64([model]):
        inside = model(torch.ones(1, 2))
    assert inside.dtype == torch.float64
    assert torch.get_default_dtype() == torch.float32


def test_without_an_update_there_is_no_path():
    with pytest.raises(RankbenchError, match="raise --train-steps"):
        relative_update(rig("igu").adapters)


def test_the_command_writes_table_figure_and_provenance(tmp_path, capsys):
    assert (
        cli.main(
            ["quadrature", *TINY, f"results_dir={tmp_path}/deep", *FEW, "--double", "--out", str(tmp_path / "out")]
        )
        == 0
    )
    with (tmp_path / "out" / "quadrature.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["kind", "estimator", "M", "N", "error", "floor", "bound", "reference"]
    assert [row["M"] for row in rows if row["kind"] == "trapezoid"] == ["1", "2", "4"]
    assert len(rows) == 3 + 5 * 2 * 2
    facts = json.loads((tmp_path / "out" / "quadrature.json").read_text())
    assert facts["settings"] == {
        "double": True,
        "nodes": [1, 2, 4],
        "reference": 8,
        "repeats": 20,
        "samples": [1, 4],
        "train_steps": 2,
    }
    assert facts["relative_update"] > 0
    assert 0 < facts["instantaneous_error"] < 1
    assert str(tmp_path) not in json.dumps(facts)
    assert {row["role"] for row in facts["completeness"]} == {"A", "B", "gate"}
    assert max(abs(row["gap"]) for row in facts["completeness"] if row["rule"] == "reference") < 1e-6
    assert (tmp_path / "out" / "quadrature.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "quadrature.pdf").read_bytes().startswith(b"%PDF")
    assert "loss difference" in capsys.readouterr().out


def test_a_method_without_gates_has_attributions_of_two_roles(tmp_path):
    assert cli.main(["quadrature", "method=lora", *TINY, *FEW, "--out", str(tmp_path)]) == 0
    gaps = json.loads((tmp_path / "quadrature.json").read_text())["completeness"]
    assert {row["role"] for row in gaps} == {"A", "B"}
    assert max(abs(row["gap"]) for row in gaps if row["rule"] == "reference") < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=iggu"], "method=iggu: unknown method"),
        (
            ["--reference", "16"],
            "--reference 16: must be even, > 6 and larger than all of --nodes (their largest is 32)",
        ),
        (["--reference", "65"], "--reference 65: must be even"),
        (["--train-steps", "80"], "--train-steps 80: the run has train.steps=60"),
        (["method.quadrature_steps=1"], "method.quadrature_steps=1: the sampling study needs inner nodes, so >= 2"),
        (["method=full"], "method=full: the path is that of an adapter alone"),
        (["--double", "train.precision=bf16"], "--double: needs train.precision=fp32, not bf16"),
    ],
)
def test_a_mistake_is_told_before_any_work(arguments, message, capsys):
    assert cli.main(["quadrature", *arguments]) == 2
    told = capsys.readouterr().err
    assert "nothing was run" in told
    assert message in told


def test_mistakes_of_overrides_and_flags_come_together(capsys):
    assert cli.main(["quadrature", "method=iggu", "--reference", "7"]) == 2
    assert "2 mistakes" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--nodes", "--samples", "--repeats", "--train-steps"])
@pytest.mark.parametrize("value", ["0", "two", "1,,2", "-3"])
def test_counts_are_whole_numbers(flag, value, capsys):
    with pytest.raises(SystemExit):
        parse([f"{flag}={value}"])
    assert f"argument {flag}" in capsys.readouterr().err


def test_flags_and_overrides_mix_and_the_method_is_igu():
    options = parse(["model=tiny", "--nodes", "4,1,4", "seed=3"])
    assert options.nodes == [1, 4]
    config = configured(options)
    assert (config.method.name, config.model.name, config.seed) == ("igu", "tiny", 3)
