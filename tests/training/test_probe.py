"""Extra passes of a method: what they measure, and that they leave nothing behind."""

import pytest
import torch
from support.toys import Rig, ToyTask, rig, toy_model

from rankbench.models.targets import find_sites
from rankbench.tasks.base import IGNORE


def filled(method: str = "lora", **changes) -> Rig:
    """A rig whose adapter is not zero."""
    run = rig(method, steps=4, **changes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in run.adapters.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return run


def by_autograd(run: Rig, batch) -> dict[str, torch.Tensor]:
    """Gradient of the mean loss with respect to the frozen weights, made trainable for once."""
    modules = dict(run.adapters.model.named_modules())
    weights = {s.name: modules[f"base_model.model.{s.name}"].get_base_layer().weight for s in run.adapters.sites}
    for weight in weights.values():
        weight.requires_grad_(True)
    task = run.engine.task
    collated = task.collate(batch)
    loss = task.loss(run.adapters.model.eval(), collated) / task.units(collated)
    found = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    for weight in weights.values():
        weight.requires_grad_(False)
    return found


@pytest.mark.parametrize("micro", [None, 4])
def test_weight_gradients_equal_autograd_s(micro):
    """Whole batches and micro-batches; the adapter is in the way, and the first layers' weights have none upstream."""
    run = filled(train={"micro_batch_size": micro})
    probe = run.trainer.probe("start")
    (batch,) = probe.batches(1)
    found, expected = probe.weight_gradients(batch), by_autograd(run, batch)
    assert list(found) == [site.name for site in run.adapters.sites]
    for name, gradient in found.items():
        assert gradient.any()
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-7), name
    assert all(parameter.grad is None for parameter in run.adapters.model.parameters())


def test_activations_are_the_inputs_of_the_base_model():
    """The adapter plays no part: what a site sees is what it sees without any."""

    def inputs(run):
        seen = {}
        probe = run.trainer.probe("start")
        probe.activations(probe.batches(1)[0], lambda site, x: seen.update({site: x.clone()}))
        return seen

    plain, adapted = inputs(rig("lora", steps=4)), inputs(filled())
    assert list(plain) == [site.name for site in rig("lora", steps=4).adapters.sites]
    for name, x in plain.items():
        assert x.shape == (16 * 3, next(s.d_in for s in rig("lora", steps=4).adapters.sites if s.name == name))
        assert torch.equal(x, adapted[name])


def test_sites_that_read_one_tensor_get_one_object():
    """One after the other: what is computed of it need not be computed again."""
    model = toy_model()
    block = model.layers[0]

    def forward(x):
        mixed, wide = block.mix(x), block.up(x)
        return torch.tanh(mixed) + block.down(torch.tanh(wide))

    block.forward = forward
    run = rig("lora", steps=4, model=model, task=ToyTask(model, find_sites(model, ["all-linear"], ("score",))))
    seen = {}
    probe = run.trainer.probe("start")
    probe.activations(probe.batches(1)[0], lambda site, x: seen.update({site: x}))
    assert seen["layers.0.mix"] is seen["layers.0.up"]
    assert seen["layers.0.down"] is not seen["layers.0.up"]
    assert seen["layers.1.mix"] is not seen["layers.1.up"]


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_activations_leave_padding_out_where_the_model_flattens_the_tokens(flat, labelled):
    """And tokens without a label, on request."""
    model = toy_model()
    mix = model.layers[0].mix
    if flat:
        model.layers[0].forward = lambda x: x + mix(x.flatten(0, 1)).view(x.shape)
    task = ToyTask(model, find_sites(model, ["all-linear"], ("score",)))
    run = rig("lora", steps=4, model=model, task=task)
    collate, seen = task.collate, {}

    def padded(examples):
        batch = collate(examples)
        batch["attention_mask"][:, -1] = 0
        return {**batch, "labels": torch.tensor([[IGNORE, 0, 0]] * len(examples))}

    task.collate = padded
    probe = run.trainer.probe("start")
    (batch,) = probe.batches(1)
    probe.activations(batch, lambda site, x: seen.update({site: x.clone()}), labelled=labelled)
    expected = model.embed(task.collate(batch)["input_ids"])[:, int(labelled) : 2].flatten(0, 1)
    assert torch.equal(seen["layers.0.mix"], expected)


def test_gradients_with_dropout_use_a_stream_of_their_own():
    model = toy_model()
    model.layers[0].register_forward_hook(lambda m, x, y: torch.nn.functional.dropout(y, 0.5, m.training))
    run = rig("lora", steps=4, model=model)
    factors = [run.adapters.factors(site.name)[1] for site in run.adapters.sites]

    def passes(dropout):
        probe = run.trainer.probe("start")
        (batch,) = probe.batches(1)
        before = torch.random.get_rng_state()
        found = [probe.gradients(batch, factors, dropout) for _ in range(2)]
        assert torch.equal(torch.random.get_rng_state(), before)
        return found

    still, still_again = passes(False)
    first, second = passes(True)
    assert all(torch.equal(a, b) for a, b in zip(still, still_again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # two passes drop other units
    for one, two in zip(passes(True), (first, second), strict=True):  # and the same ones when it is done again
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert run.adapters.model.training


def test_passes_are_counted_where_they_are_made():
    run = filled()
    probe = run.trainer.probe("start")
    (batch,) = probe.batches(1)
    with run.engine.meter.phase("allocation"):
        probe.weight_gradients(batch)
        probe.gradients(batch, [run.adapters.factors(run.adapters.sites[0].name)[1]])
        probe.activations(batch, lambda site, x: None)
        probe.loss(batch)
    spent = run.engine.meter.spent["allocation"]
    assert (spent["forward_passes"], spent["backward_passes"]) == (4, 2)


def test_the_frozen_weight_can_be_read_whatever_its_dtype():
    run = rig("lora", steps=4, dtype=torch.bfloat16)
    for site in run.adapters.sites:
        weight = run.adapters.weight(site.name)
        assert (weight.shape, weight.dtype) == ((site.d_out, site.d_in), torch.float32)
        assert not weight.requires_grad


def test_forgotten_moments_are_those_of_the_adapter_alone():
    run = rig("lora", steps=4, head=("score",))
    run.step(1)
    run.adapters.forget_moments()
    states = run.trainer.optimizer.state
    assert not any(states[parameter] for parameter in run.adapters.parameters())
    assert all(states[parameter]["step"] == 1 for parameter in run.adapters.head)
