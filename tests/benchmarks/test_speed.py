"""The benchmark runs and reports what it measured, one JSON line per row."""

import gc
import json

import pytest
import torch
from speed import QUICK, ROWS, Bench, PeakMemory, main, ratio
from support.harness import python

from rankbench.models.errors import ModelError

KEYS = {"row", "model", "ratio", "goal", "met", "pairs", "threads", "precision", "batch"}


@pytest.mark.slow
def test_a_quick_run_prints_one_line_per_row():
    done = python("benchmarks/speed.py", "--quick", "--pairs", "2", "--threads", "1")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["row"] for line in lines] == list(ROWS)
    for line in lines:
        assert set(line) >= KEYS, line["row"]
        assert (line["model"], line["threads"], line["met"]) == ("tiny", 1, line["ratio"] <= line["goal"])
        assert {"seconds_a", "seconds_b"} <= set(line) or line["row"] == "igu_memory"
    found = {line["row"]: line for line in lines}
    assert found["adalora_step"]["peft_ratio"] > 0
    assert (found["adalora_work"]["sites"], found["adalora_work"]["rank"]) == (14, 12)
    assert found["igu_memory"]["bytes_a"] > found["igu_memory"]["bytes_b"] > 0


def test_a_row_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["igu_stepp"])
    assert "row 'igu_stepp' is unknown; rows are uniform_step, adalora_work" in capsys.readouterr().err


def test_a_row_whose_model_is_not_there_says_so():
    def row(shape):
        raise ModelError("no such package; pip install it")

    (line,) = Bench(pairs=1, quick=True).attempt(QUICK, row)
    assert line == {"row": "row", "model": "tiny", "skipped": "no such package; pip install it"}


def test_the_ratio_is_the_median_of_the_pairs():
    line = ratio({"a": [1.0, 9.0, 3.0], "b": [1.0, 3.0, 2.0]}, goal=1.5, rank=4)
    assert (line["ratio"], line["met"], line["pairs"], line["rank"]) == (1.5, True, 3, 4)
    assert (line["seconds_a"], line["seconds_b"]) == (3.0, 2.0)


def test_peak_memory_counts_what_is_alive_at_once():
    with PeakMemory() as memory:
        kept = torch.zeros(1000)
        for _ in range(3):
            part = torch.ones(500)
            del part
            gc.collect()
        view = kept[:10].view(2, 5)
    assert memory.peak == pytest.approx(4 * 1500)
    assert view.numel() == 10
