"""The adapter of a finished run, written again: the same update with patterns and with one rank for all sites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.harness import begun, configure
from support.records import record
from transformers import AutoModelForCausalLM

from rankbench.cli import main
from rankbench.core.seeding import Streams
from rankbench.models import loading
from rankbench.records.run_folder import RunFolder

IDS = torch.arange(4, 20).reshape(2, 8)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny = loading.load(configure(folder).model, None, None, Streams(0))
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["fixed", "live", "rslora"])
def finished(base, tmp_path_factory, request):
    """A run with sites of rank 0 and of other ranks, and the logits of its model."""
    words = ["method=random", "method.concentration=0.2", f"model.path={base}", "task.weight_scale=1"]
    words += [f"adapter.scale_rule={request.param}", "train.steps=2", "train.learning_rate=0.05"]
    run = begun(configure(tmp_path_factory.mktemp("results"), *words))
    run.assembly.trainer.run()
    status, reason = run._conclude()
    run.folder.write_record(run.record(status, reason))
    return run.folder, run.assembly.adapters.ranks(), logits(run.assembly.adapters.model)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def loaded(base: Path, adapter: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft 0.21 asks transformers for it
def test_the_adapter_is_the_same_with_one_rank_for_all_sites(finished, base, tmp_path, capsys):
    folder, ranks, own = finished
    assert 0 in ranks.values()
    assert len(set(ranks.values())) > 3
    copy, uniform = tmp_path / "copy", tmp_path / "uniform"
    assert main(["export", str(folder.path), "--out", str(copy)]) == 0
    results = str(folder.path.parents[1])
    assert main(["export", folder.run_id, "--results", results, "--uniform-r", "--out", str(uniform)]) == 0
    sites, largest = sum(rank > 0 for rank in ranks.values()), max(ranks.values())
    assert f"written: {uniform}: rank {largest} at {sites} sites, " in capsys.readouterr().out
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (copy / name).read_bytes() == (folder.path / "adapter" / name).read_bytes()
    config = json.loads((uniform / "adapter_config.json").read_text())
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["r"] == config["lora_alpha"] == largest
    tensors = load_file(uniform / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name} == {largest}
    assert {tensor.shape[1] for name, tensor in tensors.items() if ".lora_B." in name} == {largest}
    assert torch.allclose(loaded(base, copy), own, atol=1e-5, rtol=1e-5)
    assert torch.allclose(loaded(base, uniform), own, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(base)), own, atol=1e-3)


def test_what_cannot_be_exported_is_said(tmp_path, capsys):
    assert main(["export", "abc", "--results", str(tmp_path)]) == 2
    assert "no run 'abc': neither abc nor" in capsys.readouterr().err
    failed = RunFolder(tmp_path, "lora0")
    failed.path.mkdir(parents=True)
    failed.write_record(record("lora", 0, status="nan", reason="loss is nan at step 3"))
    assert main(["export", "lora0", "--results", str(tmp_path)]) == 2
    assert "has no adapter: method lora, status nan (loss is nan at step 3); give" in capsys.readouterr().err


def test_a_folder_that_holds_files_is_left_alone(tmp_path, capsys):
    run = RunFolder(tmp_path, "lora0")
    (run.path / "adapter").mkdir(parents=True)
    run.write_record(record("lora", 0))
    (tmp_path / "mine").write_text("")
    for out in (tmp_path, tmp_path / "mine"):
        assert main(["export", str(run.path), "--out", str(out)]) == 2
        assert f"--out {out} holds something already; name a new folder" in capsys.readouterr().err
