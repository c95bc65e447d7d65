"""The adapter: one computation for all methods, PEFT's own where there are no gates, and ranks that change exactly."""

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import VARIANT_KWARG_KEYS, LoraLayer, LoraVariant
from peft.tuners.lora.layer import Linear as LoraLinear
from support.harness import SHAPES, Linears, attach, configure, prepared, scramble, sites_of
from transformers import BertConfig, BertModel

from rankbench.core import peft_injection
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Ledger
from rankbench.core.gated_lora import NAME, Scale
from rankbench.core.peft_export import to_plain_lora
from rankbench.core.peft_variant import SlotVariant
from rankbench.core.rank_log import RankChangeError
from rankbench.core.seeding import Streams
from rankbench.core.site_adapter import Gate, SiteAdapter, draw_factors
from rankbench.core.sites import Site
from rankbench.models import loading, random_model
from rankbench.training.trainer import examples_of_step, rate

SVD = Gate(start=0.5)
RANKS = [3, 4, 2]


def optimize(adapters: AdapterSet, weight_decay: float = 0.1) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(adapters.groups(weight_decay), lr=0.05, fused=True)
    adapters.bind(optimizer)
    return optimizer


def backward(adapters: AdapterSet, seed: int) -> torch.Tensor:
    x = torch.randn(7, adapters.sites[0].d_in, generator=torch.Generator().manual_seed(seed))
    loss = adapters.model(x).square().mean()
    loss.backward()
    return loss.detach()


def steps(adapters: AdapterSet, optimizer: torch.optim.Optimizer, seeds: range) -> list[float]:
    losses = []
    for seed in seeds:
        losses.append(float(backward(adapters, seed)))
        optimizer.step()
        adapters.hold()
        optimizer.zero_grad()
    return losses


def trained(gate: Gate | None = SVD, **settings) -> tuple[AdapterSet, torch.optim.Optimizer]:
    """Random factors, three steps behind it: no value and no moment is zero."""
    adapters = attach(RANKS, gate=gate, **settings)
    scramble(adapters)
    optimizer = optimize(adapters)
    steps(adapters, optimizer, range(3))
    return adapters, optimizer


def decide(adapters: AdapterSet, step: int = 3):
    return adapters.deciding("mine", "on_step_end", step)


def snapshot(adapters: AdapterSet) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in adapters.parameters()]


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------------------ PEFT's own path


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks transformers by an old name
@pytest.mark.parametrize(
    "overrides",
    [
        ["train.precision=fp32"],
        ["train.precision=bf16", "adapter.dropout=0.2", "train.weight_decay=0.1", "train.schedule=cosine"],
    ],
)
def test_the_uniform_arm_is_bare_peft_lora_bit_for_bit(tmp_path, overrides):
    config = configure(tmp_path, "budget=r4", "train.max_grad_norm=0.05", *overrides)
    run = prepared(config)
    run.assembly.complete()
    trainer = run.assembly.trainer
    start = {site.name: trainer.adapters.factors(site.name)[0].detach().clone() for site in trainer.adapters.sites}
    run.start()
    logged = []
    trainer.log = lambda row: logged.append(row["loss"])
    trainer.run()

    loaded = loading.load(config.model, None, None, Streams(0))
    task = run.assembly.task
    task.prepare(loaded.model, loaded.sites, Streams(0))
    names = [site.name for site in loaded.sites]
    bare = get_peft_model(
        loaded.model,
        LoraConfig(
            r=4, lora_alpha=16, lora_dropout=config.adapter.dropout, target_modules=names, task_type="CAUSAL_LM"
        ),
    )
    layers = {name: bare.get_submodule(f"base_model.model.{name}") for name in names}
    for name, layer in layers.items():
        layer.lora_A.default.weight.data.copy_(start[name])
    # all A, then all B: the gradient's norm is a sum over parameters, and its last bit follows their order
    trainable = [getattr(layer, factor).default.weight for factor in ("lora_A", "lora_B") for layer in layers.values()]
    assert {id(p) for p in trainable} == {id(p) for p in bare.parameters() if p.requires_grad}
    decay = config.train.weight_decay
    optimizer = torch.optim.AdamW(trainable, lr=config.train.learning_rate, weight_decay=decay, fused=True)
    bare.train()
    losses = []
    for step in range(1, 13):
        factor = rate(config.train.schedule, config.train.warmup_share, (12,), step)
        optimizer.param_groups[0]["lr"] = config.train.learning_rate * factor
        chosen = examples_of_step(64, 4, step, lambda epoch: Streams(0).numpy("data", epoch))
        batch = task.collate([task.splits["train"][index] for index in chosen])
        with Streams(0).ambient("dropout", step, 0):
            with torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16"):
                summed = task.loss(bare, batch)
            loss = summed / task.units(batch)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 0.05)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert logged == losses
    for name, layer in layers.items():
        A, B = trainer.adapters.factors(name)
        assert torch.equal(A, layer.lora_A.default.weight)
        assert torch.equal(B, layer.lora_B.default.weight)
        assert B.abs().max() > 0


def test_a_method_without_gates_runs_stock_layers():
    stock, gated, path = attach(RANKS), attach(RANKS, gate=SVD), attach(RANKS, path=True)
    for adapters, filled in ((stock, False), (gated, True), (path, True)):
        layers = [adapters.model.get_submodule(f"base_model.model.{site.name}") for site in adapters.sites]
        assert all(bool(layer.lora_variant) is filled for layer in layers)
        assert all(type(layer) is LoraLinear for layer in layers)


def test_without_gates_the_variant_computes_what_the_stock_layer_computes():
    stock, path = attach(RANKS), attach(RANKS, path=True)
    scramble(stock)
    scramble(path)
    x = torch.randn(7, 4)
    assert torch.allclose(stock.model(x), path.model(x), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------- PEFT's variant slot


PARAMETERS = ["module", "active_adapter", "x", "result", "kwargs"]
MOVED = "peft moved what rankbench/core/peft_variant.py stands on: mend it, then peft's bound in pyproject.toml"


def test_the_variant_slot_is_where_it_is_expected():
    assert list(inspect.signature(LoraVariant.forward).parameters) == PARAMETERS, MOVED
    assert issubclass(SlotVariant, LoraVariant), MOVED
    layer = attach([2, 2, 2]).model.get_submodule("base_model.model.layers.0")
    assert isinstance(layer, LoraLayer), MOVED
    assert layer.lora_variant == {}, MOVED
    assert layer._disable_adapters is False, MOVED
    for slot in (layer.r, layer.scaling, layer.lora_alpha, layer.lora_A, layer.lora_B, layer.lora_dropout):
        assert NAME in slot, MOVED


def test_peft_calls_the_variant_with_the_keywords_that_it_reads(monkeypatch):
    calls = []
    forward = SlotVariant.forward

    def spy(*positional, **named):
        calls.append((positional, named))
        return forward(*positional, **named)

    monkeypatch.setattr(SlotVariant, "forward", staticmethod(spy))
    adapters = attach([2, 2, 2], gate=SVD)
    scramble(adapters)
    x = torch.randn(3, 4)
    adapters.model(x)
    assert len(calls) == 3, MOVED
    (positional, named) = calls[0]
    layer = adapters.model.get_submodule("base_model.model.layers.0")
    assert positional == (layer,), MOVED
    assert set(named) == {"active_adapter", "x", "result", *VARIANT_KWARG_KEYS}, MOVED
    assert named["active_adapter"] == NAME, MOVED
    assert torch.equal(named["x"], x), MOVED
    assert torch.equal(named["result"], layer.base_layer(x)), MOVED


def test_peft_is_bound_to_the_minor_version_that_was_looked_at():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (peft,) = (found for text in project["dependencies"] if (found := Requirement(text)).name == "peft")
    assert peft.specifier.contains(version("peft")), MOVED
    assert not peft.specifier.contains("0.22.0")
    assert not peft.specifier.contains("0.20.9")


# ----------------------------------------------------------------------------------------------- the computation


def dense(adapters: AdapterSet, value: float = 1.0) -> list[torch.Tensor]:
    """W0 + value * s B diag(g m) A of each site, one component at a time."""
    weights = []
    for site in adapters.sites:
        layer = adapters.model.get_submodule(f"base_model.model.{site.name}")
        weight = layer.base_layer.weight.detach().double().clone()
        A, B, gate = *adapters.factors(site.name), adapters.gates(site.name)
        mask = layer.rankbench_slot.mask
        for i in range(A.shape[0]):
            g = 1.0 if gate is None else float(gate.detach()[i])
            m = 1.0 if mask is None else float(mask[i])
            weight += value * adapters.scale(site.name) * g * m * torch.outer(B.detach()[:, i], A.detach()[i]).double()
        weights.append(weight)
    return weights


def chain(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for weight in weights:
        x = x @ weight.T
    return x


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one.double(), other.double(), rtol=1e-5, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("gate", [None, SVD])
@pytest.mark.parametrize("masked", [False, True])
def test_the_forward_pass_is_the_formula(gate, masked):
    adapters = attach(RANKS, gate=gate, path=True)
    scramble(adapters)
    if masked:
        with decide(adapters):
            adapters.set_mask("layers.1", torch.tensor([True, False, True, False]), "test")
    x = torch.randn(7, 4)
    assert close(adapters.model(x), chain(dense(adapters), x.double()))
    assert not close(adapters.model(x), chain(dense(attach(RANKS)), x.double()))
    for site, weight in zip(adapters.sites, dense(adapters), strict=True):
        base = adapters.model.get_submodule(f"base_model.model.{site.name}").base_layer.weight
        assert close(adapters.delta(site.name), weight - base.double())


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("kind", "jacobian"), [("delta", "raw"), ("delta", "exact"), ("factor", "raw"), ("factor", "exact")]
)
def test_values_and_gradients_along_the_path(a, kind, jacobian):
    """With G = dL/dW of the dense network there: dA = c s (B g)^T G, dB = c s G (g A)^T, dg = c s diag(B^T G A^T)."""
    adapters = attach(RANKS, gate=SVD)
    scramble(adapters)
    value = {"delta": a, "factor": a**3}[kind]
    c = {("delta", "raw"): a, ("delta", "exact"): 1.0, ("factor", "raw"): a**3, ("factor", "exact"): a**2}[
        kind, jacobian
    ]
    x, direction = torch.randn(7, 4), torch.randn(7, 4)
    weights = [weight.requires_grad_() for weight in dense(adapters, value)]
    inputs = x.double().requires_grad_()
    expected = chain(weights, inputs)
    (expected * direction).sum().backward()

    adapters.set_path_point(a, kind, jacobian)
    own_inputs = x.clone().requires_grad_()
    output = adapters.model(own_inputs)
    assert close(output, expected.detach())
    (output * direction).sum().backward()
    assert close(own_inputs.grad, inputs.grad)
    for site, weight in zip(adapters.sites, weights, strict=True):
        A, B, gate, s = *adapters.factors(site.name), adapters.gates(site.name), adapters.scale(site.name)
        a_, b_, g = A.detach().double(), B.detach().double(), gate.detach().double()
        assert close(A.grad, c * s * (b_ * g).T @ weight.grad)
        assert close(B.grad, c * s * weight.grad @ (g[:, None] * a_).T)
        assert close(gate.grad, c * s * (b_.T @ weight.grad @ a_.T).diag())
    if a == 0 and (kind, jacobian) == ("delta", "exact"):
        assert all(parameter.grad.abs().max() > 0 for parameter in adapters.parameters())


def test_gradients_along_the_path_in_bf16_are_near_those_in_fp32():
    adapters = attach(RANKS, gate=SVD)
    scramble(adapters)
    adapters.set_path_point(0.3, "delta", "exact")
    x, gradients = torch.randn(7, 4), []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = adapters.model(x)
        assert output.dtype == (torch.bfloat16 if enabled else torch.float32)
        gradients.append(torch.autograd.grad(output.float().square().sum(), adapters.parameters()))
    for exact, rounded in zip(*gradients, strict=True):
        assert rounded.dtype == torch.float32
        assert float((rounded - exact).norm()) < 0.05 * float(exact.norm())


def test_disabled_is_the_base_model_and_comes_back():
    adapters = attach([0, 4, 2], gate=SVD)
    scramble(adapters)
    x = torch.randn(7, 4)
    whole, base = adapters.model(x), Linears(SHAPES)(x)
    with adapters.disabled():
        assert torch.equal(adapters.model(x), base)
    assert torch.equal(adapters.model(x), whole)
    assert not torch.equal(whole, base)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("fixed", [4.0, 4.0, 4.0]), ("live", [8 / 3, 2.0, 4.0]), ("rslora", [8 / 3**0.5, 4.0, 8 / 2**0.5])],
)
def test_scale_rules(rule, expected):
    adapters = attach(RANKS, gate=SVD, rule=rule, alpha=8.0, reference=2)
    scramble(adapters)
    assert [adapters.scale(site.name) for site in adapters.sites] == pytest.approx(expected)
    x = torch.randn(7, 4)
    assert close(adapters.model(x), chain(dense(adapters), x.double()))
    with decide(adapters):
        adapters.zero({"layers.1": torch.tensor([True, False, False, False])}, "test")
    assert adapters.scale("layers.1") == {"fixed": 4.0, "live": 8.0, "rslora": 8.0}[rule]
    assert close(adapters.model(x), chain(dense(adapters), x.double()))
    assert Scale(rule, 8.0, 2).at(0) == 0.0


@pytest.mark.parametrize(("rule", "power"), [("fixed", 1.0), ("live", 0.0), ("rslora", 0.5)])
def test_under_adam_a_rank_is_a_learning_rate_unless_the_scale_is_live(rule, power):
    """The gain of the first step, to first order, is proportional to scale x rank."""
    gains = {}
    for rank in (2, 32):
        adapters = attach([rank], shapes=[(64, 64)], rule=rule, alpha=8.0)
        adapters.model(torch.randn(64, 64, generator=torch.Generator().manual_seed(1))).square().mean().backward()
        _, B = adapters.factors("layers.0")
        torch.optim.Adam([B], lr=1e-3).step()  # from B = 0, so that B is now the step
        gains[rank] = -(B.grad * B.detach()).sum().item()
    assert gains[32] / gains[2] == pytest.approx(16**power, rel=0.2)


def test_the_adapter_is_fp32_on_a_bf16_base():
    adapters = attach(RANKS, gate=SVD, dtype=torch.bfloat16)
    scramble(adapters)
    optimizer = optimize(adapters)
    output = adapters.model(torch.randn(7, 4).bfloat16())
    assert output.dtype == torch.bfloat16
    output.float().square().mean().backward()
    with decide(adapters):
        adapters.resize("layers.0", [0, 2], grow=1)
    optimizer.step()
    state = [value for parameter in adapters.parameters() for value in optimizer.state[parameter].values()]
    for tensor in (
        *adapters.parameters(),
        *(p.grad for p in adapters.parameters()),
        *state,
        adapters.delta("layers.0"),
    ):
        assert tensor.dtype == torch.float32
    assert all(tensor.dtype == torch.float32 for tensor in adapters.stacked(lambda p: p.grad))


# --------------------------------------------------------------------------------------------------- the start


@pytest.mark.parametrize("gate", [None, SVD, Gate(start=0.0, factors="lora")])
def test_methods_of_different_rank_share_their_first_rows(gate):
    low, high = attach([2, 1, 2], gate=gate), attach([4, 5, 4], gate=gate)
    for site in low.sites:
        (A, B), (more_A, more_B) = low.factors(site.name), high.factors(site.name)
        rank = A.shape[0]
        assert torch.equal(A, more_A[:rank])
        assert torch.equal(B, more_B[:, :rank])
    other = attach([2, 1, 2], gate=gate, seed=1)
    assert not torch.equal(other.factors("layers.0")[0], low.factors("layers.0")[0])


def test_the_start_of_each_kind_of_factor():
    site = Site("x", None, "x", 200, 300)
    A, B = draw_factors(site, 50, None, Streams(0), "start")
    assert A.shape == (50, 300)
    assert torch.equal(B, torch.zeros(200, 50))
    assert A.abs().max() <= 300**-0.5  # kaiming_uniform_(a=sqrt(5)), as in PEFT
    assert float(A.std()) == pytest.approx((300 * 3) ** -0.5, rel=0.02)
    A, B = draw_factors(site, 50, SVD, Streams(0), "start")
    assert B.shape == (200, 50)
    assert float(A.std()) == pytest.approx(0.02, rel=0.02)
    assert float(B.std()) == pytest.approx(0.02, rel=0.02)
    adapters = attach(RANKS, gate=SVD)
    assert all((adapters.gates(site.name) == 0.5).all() for site in adapters.sites)


def test_rank_zero_and_full_rank():
    adapters = attach([0, 5, 4])
    x = torch.randn(7, 4)
    assert torch.equal(adapters.model(x), Linears(SHAPES)(x))  # B = 0
    scramble(adapters)
    assert adapters.factors("layers.0")[0].shape == (0, 4)
    assert adapters.delta("layers.0").abs().max() == 0
    assert torch.linalg.matrix_rank(adapters.delta("layers.1")) == 5
    assert close(adapters.model(x), chain(dense(adapters), x.double()))
    optimizer = optimize(adapters)
    before = snapshot(adapters)
    steps(adapters, optimizer, range(2))
    assert all(not torch.equal(a, b) for a, b in zip(before, snapshot(adapters), strict=True) if a.numel())
    assert adapters.param_count() == 5 * (5 + 6) + 4 * (4 + 5)


@pytest.mark.parametrize("rank", [-1, 5])
def test_an_impossible_rank_is_refused(rank):
    with pytest.raises(ValueError, match=rf"rank {rank} of layers.0 is not in \[0, 4\]"):
        attach([rank, 2, 2])


# ---------------------------------------------------------------------------------------------------- resizing


def fresh(
    adapters: AdapterSet, optimizer: torch.optim.Optimizer, moments: bool
) -> tuple[AdapterSet, torch.optim.Optimizer]:
    """Another adapter and optimizer, built from scratch with the tensors (and moments) of these."""
    twin = attach(list(adapters.sizes().values()), gate=adapters._gate_spec)
    other = optimize(twin)
    for old, new in zip(adapters.parameters(), twin.parameters(), strict=True):
        new.data = old.detach().clone()
        if moments:
            other.state[new] = {key: value.clone() for key, value in optimizer.state[old].items()}
    return twin, other


@pytest.mark.parametrize("gate", [None, SVD])
@pytest.mark.parametrize("keep", [[0, 2], [2, 0], torch.tensor([True, False, True]), []])
@pytest.mark.parametrize("grow", [0, 2])
def test_resize_slices_parameters_gradients_and_moments_alike(gate, keep, grow):
    adapters, optimizer = trained(gate)
    backward(adapters, 99)  # the gradients are still there at the end of a step
    roles = [(adapters.factors("layers.0")[0], 0), (adapters.factors("layers.0")[1], 1)]
    roles += [(adapters.gates("layers.0"), 0)] if gate else []
    before = [
        [p.detach().clone(), p.grad.clone(), *(optimizer.state[p][key].clone() for key in ("exp_avg", "exp_avg_sq"))]
        for p, _ in roles
    ]
    others = [p.detach().clone() for p in adapters.parameters() if all(p is not q for q, _ in roles)]
    with decide(adapters):
        adapters.resize("layers.0", keep, grow=grow)
    index = torch.tensor([0, 2]) if isinstance(keep, torch.Tensor) else torch.tensor(keep, dtype=torch.long)
    for (parameter, axis), old in zip(roles, before, strict=True):
        state = optimizer.state[parameter]
        new = [parameter.detach(), parameter.grad, state["exp_avg"], state["exp_avg_sq"]]
        assert float(state["step"]) == 3
        for position, (was, now) in enumerate(zip(old, new, strict=True)):
            kept, grown = now.split([len(index), grow], dim=axis)
            assert torch.equal(kept, was.index_select(axis, index))
            if position > 0:  # gradients and moments of what is new
                assert torch.equal(grown, torch.zeros_like(grown))
    assert equal(others, [p for p in adapters.parameters() if all(p is not q for q, _ in roles)])
    assert adapters.ranks()["layers.0"] == adapters.sizes()["layers.0"] == len(index) + grow


@pytest.mark.parametrize("gate", [None, SVD])
@pytest.mark.parametrize("grow", [0, 1])
def test_after_a_resize_training_goes_on_as_from_a_fresh_model_with_those_tensors(gate, grow):
    adapters, optimizer = trained(gate)
    with decide(adapters):
        adapters.resize("layers.0", [0, 2], grow=grow)
        adapters.resize("layers.1", torch.tensor([False, True, True, False]))
        adapters.resize("layers.2", [], grow=grow)
    twin, other = fresh(adapters, optimizer, moments=True)
    assert steps(adapters, optimizer, range(10, 16)) == steps(twin, other, range(10, 16))
    assert equal(snapshot(adapters), snapshot(twin))


@pytest.mark.parametrize("gate", [None, SVD])
def test_reset_moments_are_those_of_a_new_optimizer(gate):
    adapters, optimizer = trained(gate)
    keeping, keeping_optimizer = trained(gate)
    with decide(adapters), decide(keeping):
        for site, keep in (("layers.0", [0, 2]), ("layers.1", [1]), ("layers.2", [0, 1])):
            adapters.resize(site, keep, moments="reset")
            keeping.resize(site, keep)
    twin, other = fresh(adapters, optimizer, moments=False)
    assert steps(adapters, optimizer, range(10, 16)) == steps(twin, other, range(10, 16))
    assert equal(snapshot(adapters), snapshot(twin))
    steps(keeping, keeping_optimizer, range(10, 16))
    assert not equal(snapshot(adapters), snapshot(keeping))


def test_parameters_stay_the_same_objects_in_the_same_groups():
    adapters, optimizer = trained()
    before = [id(parameter) for parameter in adapters.parameters()]
    grouped = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    with decide(adapters):
        adapters.zero({"layers.1": torch.tensor([True, True, False, True])}, "a")
        adapters.compact("b")
        adapters.resize("layers.0", [1], grow=3)
        adapters.set_mask("layers.2", torch.tensor([False, True]), "c")
        adapters.restart({"layers.0": 2, "layers.1": 0, "layers.2": 1}, "d")
    assert [id(parameter) for parameter in adapters.parameters()] == before
    assert [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups] == grouped
    modules = [id(parameter) for parameter in adapters.model.parameters() if parameter.requires_grad]
    assert sorted(modules) == sorted(before)


@pytest.mark.parametrize("gate", [None, SVD, Gate(start=0.0)])
@pytest.mark.parametrize("ranks", [RANKS, [0, 4, 2]])
def test_grown_components_leave_the_output_as_it_was_and_then_learn(gate, ranks):
    adapters = attach(ranks, gate=gate)
    scramble(adapters)
    optimizer = optimize(adapters, weight_decay=0.0)
    steps(adapters, optimizer, range(2))
    x = torch.randn(7, 4)
    with torch.no_grad():
        before = adapters.model(x)
        with decide(adapters):
            adapters.resize("layers.0", range(ranks[0]), grow=1)
        after = adapters.model(x)
    assert torch.equal(before, after) if ranks[0] == 0 else close(before, after)
    backward(adapters, 5)
    B = adapters.factors("layers.0")[1]
    assert B.grad[:, -1].abs().max() > 0
    optimizer.step()
    assert B[:, -1].abs().max() > 0


def test_grown_rows_are_drawn_anew_at_each_step():
    def grown(step):
        adapters = attach(RANKS)
        with adapters.deciding("mine", "on_step_end", step):
            adapters.resize("layers.0", [0, 1, 2], grow=1)
        return adapters.factors("layers.0")[0].detach()[-1]

    assert torch.equal(grown(4), grown(4))
    assert not torch.equal(grown(4), grown(5))


def test_compact_removes_what_was_zeroed_and_nothing_else():
    adapters, _ = trained()
    x = torch.randn(7, 4)
    with decide(adapters):
        adapters.zero({"layers.0": torch.tensor([True, False, True])}, "a")
        adapters.set_mask("layers.1", torch.tensor([True, False, False, True]), "b")
        before, ranks = adapters.model(x), adapters.ranks()
        adapters.compact("c")
    assert torch.allclose(adapters.model(x), before, rtol=1e-5, atol=1e-5)
    assert adapters.ranks() == adapters.sizes() == ranks == {"layers.0": 2, "layers.1": 2, "layers.2": 2}
    assert [row["reason"] for row in adapters.history] == ["a", "b"]  # compaction decides nothing
    assert adapters.ledger.final == {"ranks": 6, "params": 2 * (10 + 11 + 9)}


# ----------------------------------------------------------------------------------------------- zero and mask


@pytest.mark.parametrize("gate", [None, SVD])
def test_masked_components_do_not_move_under_decay_and_momentum(gate):
    adapters, optimizer = trained(gate, path=True)
    keep = torch.tensor([True, False, True, False])
    with decide(adapters):
        adapters.set_mask("layers.1", keep, "test")
    A, B = adapters.factors("layers.1")
    for parameter, axis in ((A, 0), (B, 1)):
        for moment in (optimizer.state[parameter][key] for key in ("exp_avg", "exp_avg_sq")):
            live = moment.abs().amax(1 - axis) > 0
            assert live.tolist() == keep.tolist()
    before = [
        A.detach().clone(),
        B.detach().clone().T,
        *([adapters.gates("layers.1").detach().clone()] if gate else []),
    ]
    x = torch.randn(7, 4)
    steps(adapters, optimizer, range(10, 15))
    after = [A.detach(), B.detach().T, *([adapters.gates("layers.1").detach()] if gate else [])]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[~keep], new[~keep])
        assert (old[keep] != new[keep]).any()
    output = adapters.model(x)
    A.data[1] += 1
    B.data[:, 3] += 1
    assert torch.equal(adapters.model(x), output)  # nor do they act
    assert adapters.ranks()["layers.1"] == 2
    assert adapters.sizes()["layers.1"] == 4
    with decide(adapters):
        adapters.set_mask("layers.1", torch.ones(4, dtype=torch.bool), "back")
    assert not torch.equal(adapters.model(x), output)
    assert adapters.ranks()["layers.1"] == 4


def test_a_mask_outlives_a_resize():
    adapters, optimizer = trained()
    with decide(adapters):
        adapters.set_mask("layers.1", torch.tensor([True, False, True, False]), "test")
        adapters.resize("layers.1", [0, 1, 2], grow=1)
    assert adapters.ranks()["layers.1"] == 3
    x = torch.randn(7, 4)
    held = [factor.detach().clone() for factor in adapters.factors("layers.1")]
    output = adapters.model(x).detach()
    assert close(output, chain(dense(adapters), x.double()))
    steps(adapters, optimizer, range(10, 13))
    A, B = adapters.factors("layers.1")
    moved = A.ne(held[0]).any(1) & B.ne(held[1]).any(0)
    assert moved.tolist() == [True, False, True, True]
    with decide(adapters):
        adapters.resize("layers.1", [0, 2])
    assert adapters.ranks()["layers.1"] == adapters.sizes()["layers.1"] == 2


def test_zero_is_soft_and_regrows():
    adapters, optimizer = trained()
    keep = torch.tensor([True, False, False, True])
    with decide(adapters, 7):
        adapters.zero({"layers.1": keep}, "prune")
    gate = adapters.gates("layers.1")
    assert (gate.detach() != 0).tolist() == keep.tolist()
    assert adapters.ranks()["layers.1"] == 2
    assert adapters.history == [{"step": 7, "site": "layers.1", "before": 4, "after": 2, "reason": "prune"}]
    steps(adapters, optimizer, range(10, 12))
    assert (gate != 0).all()
    assert adapters.ranks()["layers.1"] == 2  # the last decision, not the count of non-zeros
    with decide(adapters, 9):
        adapters.zero({"layers.1": torch.tensor([True, True, False, True])}, "prune")
    assert adapters.ranks()["layers.1"] == 3
    assert adapters.history[-1] == {"step": 9, "site": "layers.1", "before": 2, "after": 3, "reason": "prune"}


# ------------------------------------------------------------------------------------------------ who may do it

WRITERS = {
    "zero": lambda adapters: adapters.zero({"layers.1": torch.tensor([True, False, True, True])}, "x"),
    "set_mask": lambda adapters: adapters.set_mask("layers.1", torch.tensor([True, False, True, True]), "x"),
    "resize": lambda adapters: adapters.resize("layers.1", [0, 1]),
    "restart": lambda adapters: adapters.restart(adapters.ranks(), "x"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("hook", ["initial_ranks", "before_forward", "penalty", "on_gradients"])
def test_ranks_change_nowhere_else(writer, hook):
    adapters, _ = trained()
    before, sizes = snapshot(adapters), adapters.sizes()
    with (
        pytest.raises(
            RankChangeError, match=rf"method mine changed the rank of layers.[01] in {hook}; ranks change only"
        ),
        adapters.deciding("mine", hook, 4),
    ):
        WRITERS[writer](adapters)
    assert adapters.sizes() == sizes
    assert equal(before, snapshot(adapters))
    assert adapters.history == []


@pytest.mark.parametrize("writer", WRITERS)
def test_ranks_do_not_change_outside_every_hook(writer):
    adapters, _ = trained()
    with pytest.raises(RankChangeError, match=r"changed the rank of layers.[01] in no hook"):
        WRITERS[writer](adapters)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("hook", ["calibrate", "on_step_end", "finish"])
def test_ranks_change_in_the_hooks_that_decide(writer, hook):
    adapters, _ = trained()
    with adapters.deciding("mine", hook, 4):
        WRITERS[writer](adapters)
        with adapters.deciding("mine", "on_gradients", 4), pytest.raises(RankChangeError):
            WRITERS[writer](adapters)
        WRITERS["resize"](adapters)  # the outer hook is the one again


# --------------------------------------------------------------------------------------------- optimizer groups


def test_bind_refuses_parameters_that_are_missing_or_doubled():
    adapters = attach(RANKS, gate=SVD)
    own = adapters.parameters()
    with pytest.raises(RuntimeError, match="optimizer groups: 1 trained parameters in no group, 0 in two"):
        adapters.bind(SimpleNamespace(param_groups=[{"params": own[1:]}]))
    with pytest.raises(RuntimeError, match="optimizer groups: 0 trained parameters in no group, 2 in two"):
        adapters.bind(SimpleNamespace(param_groups=[{"params": own}, {"params": own[:2]}]))
    adapters.bind(SimpleNamespace(param_groups=[{"params": own[:4]}, {"params": own[4:]}]))


def test_gates_have_their_own_rate_and_decay():
    factors, gates = attach(RANKS, gate=Gate(start=0.0, learning_rate=3.0, weight_decay=0.5)).groups(0.1)
    assert [(g["name"], g["rate"], g["weight_decay"], len(g["params"])) for g in (factors, gates)] == [
        ("factors", 1.0, 0.1, 6),
        ("gates", 3.0, 0.5, 3),
    ]
    assert attach(RANKS, gate=SVD).groups(0.1)[1]["weight_decay"] == 0.1


def encoder(tmp_path: Path) -> loading.LoadedModel:
    shape = {
        "vocab_size": 264,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(**shape)).save_pretrained(tmp_path)
    random_model.byte_tokenizer().save_pretrained(tmp_path)
    config = configure(tmp_path, "model=minilm-l6", f"model.path={tmp_path}")
    return loading.load(config.model, 3, "classification", Streams(0))


@pytest.mark.parametrize("gate", [None, SVD])
def test_an_encoder_trains_adapter_and_head_once_each_and_nothing_else(tmp_path, gate):
    loaded = encoder(tmp_path)
    ranks = {site.name: 1 + index % 3 for index, site in enumerate(loaded.sites)}
    start = loaded.model.classifier.weight.detach().clone()
    adapters = peft_injection.attach(
        loaded.model,
        loaded.sites,
        ranks,
        scale=Scale("fixed", 8, 2),
        streams=Streams(0),
        ledger=Ledger("params", 1),
        gate=gate,
        head=loaded.head,
        task_type="SEQ_CLS",
    )
    assert len(loaded.sites) == 12
    assert adapters.ranks() == ranks
    groups = adapters.groups(0.1, head_rate=0.5)
    assert [(group["name"], group.get("peak")) for group in groups][-1] == ("head", 0.5)
    assert [group["name"] for group in groups] == ["factors", *(["gates"] if gate else []), "head"]
    counts = [len(group["params"]) for group in groups]
    assert counts == [24, *([12] if gate else []), 2]
    optimizer = optimize(adapters)  # bind checks that nothing is missing or doubled
    named = {id(parameter): name for name, parameter in adapters.model.named_parameters()}
    assert [named[id(p)].split(".classifier.")[1] for p in adapters.head] == [
        "modules_to_save.default.weight",
        "modules_to_save.default.bias",
    ]
    scramble(adapters)
    frozen = {n: p.detach().clone() for n, p in adapters.model.named_parameters() if not p.requires_grad}
    ids = torch.arange(10).reshape(2, 5)
    for _ in range(2):
        adapters.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.square().mean().backward()
        optimizer.step()
    assert not torch.equal(adapters.head[0], start)
    assert all(torch.equal(frozen[n], p) for n, p in adapters.model.named_parameters() if n in frozen)
    with decide(adapters):
        adapters.restart(ranks, "again")
    assert torch.equal(adapters.head[0], start)
    assert all(not optimizer.state[parameter] for group in optimizer.param_groups for parameter in group["params"])


# -------------------------------------------------------------------------------------------------- in and out


def disturbed() -> tuple[AdapterSet, torch.optim.Optimizer]:
    """Every kind of change behind it: zeroed, masked, shrunk and grown components."""
    adapters, optimizer = trained()
    with decide(adapters, 3):
        adapters.resize("layers.0", [0, 2], grow=2)
        adapters.set_mask("layers.1", torch.tensor([True, False, True, True]), "mask")
        adapters.zero({"layers.2": torch.tensor([True, False])}, "zero")
    steps(adapters, optimizer, range(3, 5))
    return adapters, optimizer


def test_state_dict_round_trip(tmp_path):
    adapters, optimizer = disturbed()
    torch.save({"adapters": adapters.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    twin = attach(RANKS, gate=SVD)
    twin.load_state_dict(state["adapters"])
    other = optimize(twin)
    other.load_state_dict(state["optimizer"])
    assert twin.ranks() == adapters.ranks() == {"layers.0": 4, "layers.1": 3, "layers.2": 1}
    assert twin.history == adapters.history
    assert steps(twin, other, range(5, 9)) == steps(adapters, optimizer, range(5, 9))
    assert equal(snapshot(adapters), snapshot(twin))
    with decide(adapters, 9), decide(twin, 9):
        adapters.compact("c")
        twin.compact("c")
    assert steps(twin, other, range(9, 12)) == steps(adapters, optimizer, range(9, 12))
    assert equal(snapshot(adapters), snapshot(twin))


def test_a_state_is_a_copy():
    adapters, optimizer = disturbed()
    state = adapters.state_dict()
    before = [tensor.clone() for tensors in state["tensors"] for tensor in tensors]
    steps(adapters, optimizer, range(2))
    assert equal(before, [tensor for tensors in state["tensors"] for tensor in tensors])


def test_plain_lora_has_live_components_only_with_gates_folded_in():
    adapters, _ = disturbed()
    with decide(adapters):
        adapters.zero({"layers.2": torch.tensor([False, False])}, "zero")
    state, config = to_plain_lora(adapters)
    assert config.rank_pattern == {"layers.0": 4, "layers.1": 3}
    assert sorted(config.target_modules) == ["layers.0", "layers.1"]
    for name, rank in config.rank_pattern.items():
        A, B = (state[f"base_model.model.{name}.lora_{role}.weight"] for role in "AB")
        assert A.shape[0] == B.shape[1] == rank
        assert close(config.alpha_pattern[name] / rank * B @ A, adapters.delta(name))
    assert len(state) == 4


def test_there_is_nothing_to_export_without_a_rank():
    with pytest.raises(ValueError, match="no site has a rank left: there is no adapter to export"):
        to_plain_lora(attach([0, 0, 0]))


def test_set_factors_takes_values_of_the_present_rank_alone():
    adapters = attach(RANKS)
    A, B = torch.randn(3, 4), torch.randn(6, 3)
    adapters.set_factors("layers.0", A, B)
    assert [torch.equal(own, value) for own, value in zip(adapters.factors("layers.0"), (A, B), strict=True)] == [1, 1]
    with pytest.raises(ValueError, match=r"layers.0: factors \(2, 4\), \(6, 3\) do not fit rank 3"):
        adapters.set_factors("layers.0", A[:2], B)


def test_stacks_hold_sites_of_one_shape_in_site_order():
    shapes = [(6, 4), (4, 6), (6, 4), (6, 4)]
    adapters = attach([2, 3, 2, 0], shapes=[*shapes[:2], (6, 4), (4, 6)], gate=SVD)
    scramble(adapters)
    stacks = list(adapters.stacks())
    assert [stack.sites for stack in stacks] == [(0, 2), (1,)]  # rank 0 stands in none
    for stack in stacks:
        for position, index in enumerate(stack.sites):
            name = adapters.sites[index].name
            A, B = adapters.factors(name)
            assert torch.equal(stack.A[position], A)
            assert torch.equal(stack.B[position], B)
            assert torch.equal(stack.gate[position], adapters.gates(name))
    adapters.factors("layers.0")[0].grad = torch.ones(2, 4)
    A = adapters.stacked(lambda p: p.grad)[0]
    assert torch.equal(A, torch.stack([torch.ones(2, 4), torch.zeros(2, 4)]))
    assert next(attach([2, 3, 2]).stacks()).gate is None


def test_costs_and_the_ledger_follow_the_sizes():
    adapters = attach(RANKS, gate=SVD)
    assert [adapters.cost(site.name) for site in adapters.sites] == [10, 11, 9]
    assert adapters.param_count() == 30 + 44 + 18
    assert adapters.ledger.start == adapters.ledger.peak == {"ranks": 9, "params": 92}
    with decide(adapters):
        adapters.resize("layers.0", [0], grow=3)
        adapters.resize("layers.1", [0])
    assert adapters.ledger.start == {"ranks": 9, "params": 92}
    assert adapters.ledger.peak == {"ranks": 10, "params": 102}
    assert adapters.ledger.final == {"ranks": 7, "params": 40 + 11 + 18}
    assert adapters.ledger.gate_params == 10


def test_a_site_adapter_changes_one_site_only():
    adapters = attach(RANKS, gate=SVD)
    site: SiteAdapter = adapters._adapters["layers.1"]
    before = snapshot(adapters)
    site.draw(2, "another")
    after = snapshot(adapters)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True] * 3
    assert sites_of(SHAPES)[1] == site.site


@pytest.mark.parametrize("training", [True, False])
def test_every_module_has_the_mode_of_the_base_model(training):
    model = Linears(SHAPES).train(training)
    adapters = peft_injection.attach(
        model,
        sites_of(SHAPES),
        {site.name: 2 for site in sites_of(SHAPES)},
        scale=Scale("fixed", 8.0, 2),
        streams=Streams(0),
        ledger=Ledger("params", 1),
        dropout=0.1,
    )
    assert {module.training for module in adapters.model.modules()} == {training}
