"""The script for a GPU, on a CPU in small: each kind of row, and what is written when time is short or a row fails."""

import gpu
import pytest
import torch
from sides import Ours
from support.stand_in import stand_in

CPU = torch.device("cpu")
CHOSEN = [  # (row, model, precision, rank, method)
    *(("step", gpu.QWEN, "bf16", gpu.DRY.ranks[0], method) for method in gpu.METHODS),
    ("evaluation", gpu.SMOLLM2, "bf16", None, None),
    ("two_runs", gpu.SMOLLM2, "bf16", None, None),
]


def name(line):
    return tuple(line.get(key) for key in ("row", "model", "precision", "rank", "method"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield gpu.Bench(tmp_path_factory.mktemp("gpu"), gpu.DRY, CPU)


@pytest.fixture(scope="module")
def rows(bench):
    return {name(names): measure for _, names, measure in bench.rows()}


def test_every_cell_has_its_row_and_those_most_wanted_come_first(rows):
    steps = [key for key in rows if key[0] == "step"]
    assert len(steps) == 2 * (2 * 2 + 1) * 4  # models; bf16 and fp32 at two ranks, tf32 at one; methods
    assert {key[2:4] for key in list(rows)[:8]} == {("bf16", gpu.DRY.ranks[0])}
    assert set(CHOSEN) < set(rows)


@pytest.mark.parametrize("key", CHOSEN, ids=lambda key: " ".join(map(str, filter(None, key))))
def test_a_row_is_measured(rows, key):
    line = rows[key]()
    if key[0] == "step":
        assert line["ratio"] == pytest.approx(line["step_ms"] / line["step_ms_bare"], abs=1e-3)  # of one pair
        assert line["tokens_per_second"] == pytest.approx(16 / line["step_ms"] * 1e3, rel=0.01)
        assert line["peak_bytes"] is line["peak_bytes_bare"] is None
        assert line["mean_rank"] >= key[3] * 0.9
    elif key[0] == "evaluation":
        assert min(line["items_per_second"], line["new_tokens_per_second"]) > 0
        assert (line["items"], line["new_tokens"]) == (4, 2 * 4)
    else:
        assert len(line["step_ms_together"]) == 2
        assert line["throughput"] > 0


def test_a_row_computes_on_its_device(bench, monkeypatch):
    """Nothing of either side is left on the CPU."""
    monkeypatch.setattr(bench, "device", torch.device("meta"))
    with stand_in():
        assert bench.step(gpu.QWEN, "fp32", gpu.DRY.ranks[1], "igu")["ratio"] > 0


def test_a_side_keeps_its_precision_when_another_had_its_own_before(bench):
    """Accelerate's precision, and torch's for fp32, are those of the process."""
    arms = [Ours(bench.shape(gpu.QWEN, precision), "lora", "budget=r2") for precision in ("bf16", "fp32", "bf16")]
    with arms[-1].trainer.engine.accelerator.autocast():
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.bfloat16


def test_rows_for_which_no_time_is_left_are_named_and_a_failed_one_says_why(monkeypatch):
    class Rows:
        def __init__(self, *arguments):
            pass

        def rows(self):
            yield 1.0, {"row": "good"}, lambda: {"ratio": 1.0}
            yield 1.0, {"row": "bad"}, lambda: {}["key"]
            yield 99.0, {"row": "long"}, lambda: pytest.fail("no time is left for it")

    monkeypatch.setattr(gpu, "Bench", Rows)
    lines = []
    assert gpu.measure(9.0, gpu.DRY, CPU, gpu.machine(CPU), lines.append) == 1
    assert [line["row"] for line in lines] == ["good", "bad", "long"]
    assert lines[0]["ratio"] == 1.0
    assert lines[0]["device"] == "cpu"
    assert lines[0]["packages"]["torch"]
    assert lines[1]["error"] == "KeyError: 'key'"
    assert lines[2]["skipped"].startswith("it may take 99 s")


def test_a_machine_without_a_gpu_is_told_about_dry(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "add --dry" in capsys.readouterr().err
