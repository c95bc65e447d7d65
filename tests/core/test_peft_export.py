"""An exported adapter is a stock PEFT LoRA adapter: it needs PEFT alone and gives the same logits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.harness import configure, folder_of, prepared, python
from support.texts import encoder, word_tokenizer, write_classification

from rankbench.core.seeding import Streams
from rankbench.models import loading

DECODERS = {
    "lora": ["method=lora"],
    "lora-rslora": ["method=lora", "adapter.scale_rule=rslora", "adapter.dropout=0.1"],
    "adalora": ["method=adalora"],
    "adalora-live": ["method=adalora", "method.compact=false", "adapter.scale_rule=live"],
    "igu": ["method=igu"],
    "igu-hard": ["method=igu", "method.prune=hard", "adapter.scale_rule=rslora"],
    "igu_code": ["method=igu_code"],
    "random": ["method=random", "method.concentration=0.2", "adapter.scale_rule=live"],  # with sites of rank 0
}
ENCODERS = {"bert-lora": ["method=lora"], "bert-igu": ["method=igu"]}
LOADER = """
import sys
from importlib.abc import MetaPathFinder


class Wall(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rankbench":
            raise ImportError(f"{name} is not installed here")


sys.meta_path.insert(0, Wall())
try:
    import rankbench
    sys.exit("rankbench can be imported: this proves nothing")
except ImportError:
    pass
import json
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

for job in json.load(open(sys.argv[1])):
    auto = AutoModelForSequenceClassification if job["labels"] else AutoModelForCausalLM
    settings = {"num_labels": job["labels"]} if job["labels"] else {}
    base = auto.from_pretrained(job["base"], **settings).eval()
    model = PeftModel.from_pretrained(base, job["adapter"]).eval()
    ids = torch.tensor(job["ids"])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        with model.disable_adapter():
            without = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        merged = model.merge_and_unload()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.save({"logits": logits, "without": without, "merged": merged}, job["out"])
assert not [name for name in sys.modules if name.startswith("rankbench")]
"""


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    """A decoder (scaled, as the planted task would, so that logits are not flat) and an encoder, as folders."""
    folder = tmp_path_factory.mktemp("bases")
    tiny = loading.load(configure(folder).model, None, None, Streams(0))
    with torch.no_grad():
        for parameter in tiny.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    tiny.model.save_pretrained(folder / "decoder")
    tiny.tokenizer.save_pretrained(folder / "decoder")
    encoder(2).base_model.save_pretrained(folder / "encoder")
    word_tokenizer().save_pretrained(folder / "encoder")
    (folder / "data").mkdir()
    write_classification(folder / "data", "glue-rte")
    return {name: folder / name for name in ("decoder", "encoder", "data")}


@pytest.fixture(scope="module")
def exported(bases, tmp_path_factory) -> dict[str, dict]:
    """Per run: its record, its adapter's folder, and the logits of this process and of one without rankbench."""
    folder = tmp_path_factory.mktemp("runs")
    decoder = [f"model.path={bases['decoder']}", "task.weight_scale=1"]
    bert = ["model=minilm-l6", f"model.path={bases['encoder']}", "task=glue-rte", f"task.data_dir={bases['data']}"]
    bert += ["task.validation_size=4", "budget=r2", "train.precision=fp32", "train.learning_rate=0.01"]
    runs = {name: [*decoder, *overrides] for name, overrides in DECODERS.items()}
    runs |= {name: [*bert, *overrides] for name, overrides in ENCODERS.items()}
    found, jobs = {}, []
    for name, overrides in runs.items():
        labels = 2 if name in ENCODERS else None
        config = configure(folder / name, *overrides)
        run = prepared(config)
        assert run.attempt(lambda row: None) == ("ok", None), name
        ids = torch.arange(4, 20).reshape(2, 8)
        with torch.no_grad():
            logits = run.assembly.adapters.model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        adapter, out = folder_of(config).path / "adapter", folder / f"{name}.pt"
        base = bases["encoder" if labels else "decoder"]
        jobs.append(
            {"base": str(base), "adapter": str(adapter), "labels": labels, "ids": ids.tolist(), "out": str(out)}
        )
        found[name] = {"ranks": run.assembly.adapters.ranks(), "adapter": adapter, "own": logits, "out": out}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = python("-c", LOADER, str(folder / "jobs.json"))
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: {**run, **torch.load(run["out"])} for name, run in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_plain_peft_gives_the_same_logits(exported, name):
    run = exported[name]
    assert torch.allclose(run["logits"], run["own"], atol=1e-5, rtol=1e-5)
    assert torch.allclose(run["merged"], run["own"], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(run["without"], run["own"], atol=1e-3)  # the adapter does something


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_the_files_hold_the_ranks_of_the_run_and_nothing_more(exported, name):
    run = exported[name]
    assert sorted(file.name for file in run["adapter"].iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((run["adapter"] / "adapter_config.json").read_text())
    present = {site: rank for site, rank in run["ranks"].items() if rank}
    assert config["peft_type"] == "LORA"
    assert config["rank_pattern"] == present
    assert set(config["alpha_pattern"]) == set(present)
    assert config["target_modules"] == sorted(present)
    assert config["task_type"] == ("SEQ_CLS" if name in ENCODERS else "CAUSAL_LM")
    assert config["inference_mode"] is True
    tensors = load_file(run["adapter"] / "adapter_model.safetensors")
    factors = {f"base_model.model.{site}.lora_{role}.weight" for site in present for role in "AB"}
    head = {"base_model.model.classifier.weight", "base_model.model.classifier.bias"} if name in ENCODERS else set()
    assert set(tensors) == factors | head
    for site, rank in present.items():
        assert tensors[f"base_model.model.{site}.lora_A.weight"].shape[0] == rank
        assert tensors[f"base_model.model.{site}.lora_B.weight"].shape[1] == rank
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


@pytest.mark.slow
def test_the_runs_cover_what_is_hard_to_export(exported):
    """Sites of rank 0, ranks that differ, gates, masks, soft zeros, a head."""
    ranks = {name: set(run["ranks"].values()) for name, run in exported.items()}
    assert 0 in ranks["random"]
    assert 0 in set().union(*(ranks[name] for name in ("adalora", "igu", "igu-hard", "igu_code")))
    assert all(len(ranks[name]) > 2 for name in ("adalora", "igu", "igu-hard", "igu_code", "bert-igu"))
