"""A run on a device of its own, as on a GPU: nothing is computed across devices, and the numbers are the CPU's."""

import io

import pytest
import torch
from safetensors.torch import load_file
from support.harness import prepared
from support.stand_in import DEVICE, MixedDevicesError, OnDevice, stand_in
from support.toys import ToyTask, rig, toy_model

from rankbench.config import overrides, validation
from rankbench.contract.short_runs import write_encoder
from rankbench.models.targets import find_sites
from rankbench.training import checkpoint

# One method for each way in which methods compute, with settings under which it changes a rank in four steps.
METHODS = {
    "adalora": {"warmup_share": 0.1, "final_share": 0.2, "every": 1},
    "igu": {"warmup_share": 0.1, "final_share": 0.2, "every": 2, "ema_every": 1, "parametrisation": "svd_refresh"},
    "igu_code": {"warmup_share": 0.1, "final_share": 0.2, "every": 1, "prune": "hard"},
    "increlora": {"warmup_share": 0.1, "final_share": 0.2, "every": 2},
    "l1ra": {"l1": 1.0, "gate_rate": 1.0, "checks": 0.5, "threshold": 0.99},
    "sora": {"strength": 2.0},
    "fim": {"tensor": "weight"},
    "gora": {},
    "eva": {},
}


def toy_run(method, settings, device):
    model = toy_model()
    task = ToyTask(model, find_sites(model, ["all-linear"], ("score", "lm_head")))
    task._teacher[0].to(device)
    return rig(method, steps=4, model=model.to(device), task=task, **settings).run()


@pytest.mark.parametrize("method", METHODS)
def test_no_method_computes_across_devices(method):
    expected = toy_run(method, METHODS[method], torch.device("cpu"))
    with stand_in():
        run = toy_run(method, METHODS[method], DEVICE)
    assert {type(parameter) for parameter in run.adapters.parameters()} == {OnDevice}
    assert run.adapters.history == expected.adapters.history
    assert bool(expected.adapters.history) or method == "eva", "EVA's ranks on the toy are uniform"
    assert [row["loss"] for row in run.logs] == pytest.approx([row["loss"] for row in expected.logs], rel=1e-4)


SMALL = ["model=tiny", "task=arithmetic", "task.train_size=16", "task.validation_size=2", "task.test_size=2"]
DECODER = [*SMALL, "task.max_new_tokens=3", "model.shape.num_hidden_layers=1", "train.gradient_checkpointing=true"]
CUTS = ["method=adalora", "method.warmup_share=0.1", "method.final_share=0.1", "method.every=1"]


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_a_whole_run_computes_on_its_device(tmp_path, architecture):
    """From loading to export, stopped and resumed on the way: checks, steps, evaluation and checkpoint."""
    words = DECODER if architecture == "decoder" else [*write_encoder(tmp_path / "model"), "train.micro_batch_size=2"]
    words = [*words, *CUTS, "budget=r2", "train.steps=4", "train.batch_size=4", "train.threads=1"]
    expected, stopped, resumed = (
        prepared(validation.build(overrides.compose([*words, f"results_dir={tmp_path / place}"])))
        for place in ("cpu", "device", "device")
    )
    assert expected.attempt(lambda row: None) == ("ok", None)
    with stand_in(), torch.serialization.safe_globals([OnDevice]):
        stopped.assembly.complete()
        stopped.start()
        for index in (1, 2):
            stopped.assembly.trainer.step(index, 4)
        checkpoint.save(stopped.assembly, stopped.folder, 2, stopped.metrics)
        assert resumed.attempt(lambda row: None) == ("ok", None)
    assert {type(parameter) for parameter in resumed.assembly.adapters.model.parameters()} == {OnDevice}
    assert resumed.metrics["test"]["loss"] == pytest.approx(expected.metrics["test"]["loss"], rel=0.01)
    stored = load_file(resumed.folder.path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}


@pytest.mark.parametrize(("refused", "operation"), [
    (MixedDevicesError, lambda x: x + torch.ones(2, 3)),
    (MixedDevicesError, lambda x: torch.ones(2, 3)[x[:, 0].long()]),
    (MixedDevicesError, lambda x: x.index_select(0, torch.tensor([0]))),
    (MixedDevicesError, lambda x: torch._foreach_mul_([x], [torch.ones(2, 3)])),
    (MixedDevicesError, lambda x: x.normal_(generator=torch.Generator())),
    (TypeError, lambda x: x.numpy()),
])  # fmt: skip
def test_the_stand_in_refuses_what_a_gpu_refuses(refused, operation):
    with stand_in(), pytest.raises(refused):
        operation(torch.ones(2, 3, device=DEVICE))


def test_a_checkpoint_puts_each_tensor_where_its_method_keeps_it(monkeypatch):
    file = io.BytesIO()
    state = {"cpu": torch.ones(2), "device": torch.zeros(2)}
    tags = iter(["cpu", "cuda:3"])
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: next(tags))
    torch.save(state, file)
    file.seek(0)
    placed = torch.load(file, map_location=checkpoint.placed_on(torch.device("meta")), weights_only=True)
    assert {name: tensor.device.type for name, tensor in placed.items()} == {"cpu": "cpu", "device": "meta"}


@pytest.mark.parametrize(("kind", "pinned"), [("cuda", True), ("cpu", False)])
def test_a_batch_goes_to_a_gpu_from_pinned_memory_and_nobody_waits(monkeypatch, kind, pinned):
    calls = []

    class Tokens:
        def pin_memory(self):
            calls.append("pin")
            return self

        def to(self, device, non_blocking):
            calls.append((device.type, non_blocking))
            return self

    engine = rig("lora", steps=1).engine
    monkeypatch.setattr(type(engine.accelerator), "device", torch.device(kind))
    engine.to_device({"input_ids": Tokens()})
    assert calls == ["pin"] * pinned + [(kind, True)]
