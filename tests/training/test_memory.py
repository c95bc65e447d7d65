"""The peak that is predicted without weights is that of the passes which a run really makes."""

import pytest
import torch
from support.harness import configure, prepared
from torch.utils._pytree import tree_leaves

from rankbench.cli import main
from rankbench.cli.plan import Beginning
from rankbench.training.memory import Living, Shape, Tracer, heaviest_batch, predict

WORDS = ["task=arithmetic", "task.train_size=32", "task.validation_size=4", "task.test_size=4", "train.batch_size=8"]


def assembled(tmp_path, *words):
    assembly = prepared(configure(tmp_path, *WORDS, *words)).assembly
    assembly.complete()
    return assembly


def tracer(assembly):
    allocator = assembly.allocator
    return Tracer(assembly.config, assembly.sites, allocator.initial_ranks(), allocator.gate() is not None)


@pytest.mark.parametrize(
    "words",
    [["method=lora"], ["method=igu", "adapter.dropout=0.1"], ["train.gradient_checkpointing=true"], ["method=full"]],
)
def test_the_traced_pass_is_the_real_one(tmp_path, words):
    assembly = assembled(tmp_path, *words)
    engine = assembly.engine
    ((batch,), units) = engine.micro_batches(assembly.task.splits["train"][:8])
    rows, length = batch["input_ids"].shape
    engine.model.train()
    with Living(tree_leaves([list(engine.model.parameters()), batch])) as living:
        (engine.loss(batch) / units).backward()
    again = assembly.config.train.gradient_checkpointing
    traced = tracer(assembly).peak(Shape(rows, length, round(units / rows)), training=True, again=again)
    assert traced == pytest.approx(living.peak, rel=0.15)


def test_what_makes_a_pass_larger(tmp_path):
    traced = tracer(assembled(tmp_path))
    shape, longer = Shape(4, 64, 2), Shape(4, 128, 2)
    kept = traced.peak(longer, training=True)
    assert kept > 1.8 * traced.peak(shape, training=True)
    assert traced.peak(longer, training=True, again=True) < 0.8 * kept
    assert traced.peak(longer, training=False) < kept


def test_the_parts_of_a_run(tmp_path, monkeypatch):
    assembly = assembled(tmp_path)
    sites, ranks = assembly.sites, assembly.allocator.initial_ranks()
    memory = predict(assembly.config, sites, ranks, gates=False)
    base = sum(p.numel() * p.element_size() for n, p in assembly.loaded.model.named_parameters() if "lora_" not in n)
    assert memory.base == base
    assert memory.adapter == 12 * assembly.adapters.param_count()
    assert memory.peak == sum(vars(memory).values())
    assert heaviest_batch(assembly.config).examples == 8
    monkeypatch.setattr(Tracer, "peak", lambda *shape, **phase: 0)  # the passes have their own tests
    none = dict.fromkeys(ranks, 0)
    full = predict(configure(tmp_path, *WORDS, "method=full"), sites, none, gates=False)
    assert (full.base, full.adapter) == (0, 12 * base // 4)  # every weight is trained, in fp32
    quantized = predict(configure(tmp_path, *WORDS, "model.quantization=nf4"), sites, ranks, gates=False)
    matrices = sum(site.d_out * site.d_in for site in sites)
    assert base - quantized.base == pytest.approx(matrices * (32 - 4.127) / 8, rel=1e-3)
    assert predict(assembly.config, sites, ranks, gates=False).passes == 4 * matrices  # folded while evaluating
    bf16 = configure(tmp_path, *WORDS, "train.precision=bf16")
    assert predict(bf16, sites, ranks, gates=False).passes == 0


def test_the_plan_says_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--memory", "model=tiny", "method=lora", "seed=0", *WORDS]) == 0
    out = capsys.readouterr().out
    assert "peak memory" in out
    assert " MiB" in out


def test_the_plan_says_nothing_of_dora(tmp_path):
    config = configure(tmp_path, *WORDS, "method=dora")
    assert Beginning(config, [], 0, {}, 0, gates=False).memory() is None


def test_views_and_what_is_gone_do_not_count():
    earlier = torch.ones(100)
    with Living([earlier]) as living:
        earlier.view(10, 10)
        for _ in range(3):
            torch.ones(100)
    assert living.peak == 400
