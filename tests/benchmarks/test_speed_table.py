"""The rows of the page on speed: what a run's row says, what is appended, and what waits or is left out."""

import json
import subprocess
import sys

import pytest
import speed_table
from speed_table import Inputs, Row, main, measure, run, script, show, wait_until_quiet
from support.harness import rows


@pytest.fixture
def inputs(tmp_path):
    return Inputs(None, None, tmp_path)


PAUSE = "__import__('time').sleep(0.2)"
STAND_IN = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[-1].removeprefix("results_dir=")) / "runs" / "a"
folder.mkdir(parents=True)
(folder / "steps.jsonl").write_text("")
print("word", flush=True)
PAUSE
(folder / "steps.jsonl").write_text("{}")
PAUSE
cost = {"training": {"seconds": 2.0}, "peak_memory_bytes": 1}
config = {"results_dir": "/a/machine/results"}
record = {"status": "ok", "config": config, "cost": cost, "metrics": {"test": None}}
(folder / "record.json").write_text(json.dumps(record))
"""


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_says_when_it_first_spoke_stepped_and_ended(inputs, monkeypatch, whole):
    monkeypatch.setattr(speed_table, "PROGRAM", (sys.executable, "-S", "-c", STAND_IN.replace("PAUSE", PAUSE)))
    line = run(inputs, "method=lora", until_first_step=not whole)
    assert 0 < line["first_output"] + 0.1 < line["first_step"] < line["seconds"]
    if whole:
        assert (line["status"], line["phases"], line["metrics"]) == ("ok", {"training": 2.0}, {"test": None})
        (record,) = rows(inputs.out / "records.jsonl")
        assert (record["status"], record["config"]["results_dir"]) == ("ok", "results")
    else:
        assert "status" not in line  # it was ended before


def test_lines_are_appended_with_what_was_busy_and_rows_without_time_are_left_out(inputs, monkeypatch, capsys):
    monkeypatch.setattr(speed_table, "wait_until_quiet", lambda seconds: 0.05)
    monkeypatch.setattr(
        speed_table,
        "ROWS",
        {
            "short": Row(1, lambda _: iter([{"row": "short", "ratio": 2.0}])),
            "long": Row(9, lambda _: iter([{}])),
            "broken": Row(1, lambda _: iter([{}["key"]])),
        },
    )
    measure(["broken"], inputs, minutes=5, wait=0)
    (broken,) = rows(inputs.out / "rows.jsonl")
    assert (broken["row"], broken["error"]) == ("broken", "KeyError: 'key'")
    (inputs.out / "rows.jsonl").unlink()
    measure(["short", "long"], inputs, minutes=5, wait=0)
    measure(["short"], inputs, minutes=5, wait=0)
    lines = rows(inputs.out / "rows.jsonl")
    assert [(line["row"], line["ratio"], line["busy_cores_before"]) for line in lines] == [("short", 2.0, 0.05)] * 2
    assert {"row": "long", "skipped": "it may take 9 minutes"} in map(json.loads, capsys.readouterr().out.splitlines())


def test_the_lines_of_a_script_carry_its_command(monkeypatch):
    printed = 'a word\n{"row": "x", "ratio": 1.5}\n'
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, stdout=printed))
    (line,) = script("speed.py", "x", "--pairs", "2")
    assert line == {"command": "python benchmarks/speed.py x --pairs 2", "row": "x", "ratio": 1.5}


def test_it_waits_while_cores_are_busy_and_not_for_ever(monkeypatch):
    shares = iter([60.0, 40.0, 5.0])
    monkeypatch.setattr(speed_table.psutil, "cpu_percent", lambda interval: next(shares))
    monkeypatch.setattr(speed_table.os, "cpu_count", lambda: 2)
    assert wait_until_quiet(60.0) == pytest.approx(0.1)
    monkeypatch.setattr(speed_table.psutil, "cpu_percent", lambda interval: 90.0)
    assert wait_until_quiet(-1.0) == pytest.approx(1.8)


def test_the_table_has_medians_of_lines_and_quartiles_of_pairs():
    facts = {"busy_cores_before": 0.1}
    pairs = {"row": "step", "ratio": 0.9, "quartiles": [0.8, 1.0], "pairs": 20, **facts}
    runs = [{"row": "tiny_run", "seconds": seconds, **facts} for seconds in (3.0, 5.0, 4.0)]
    assert show([pairs, *runs]).splitlines()[2:] == [
        "| step | ratio | 20 | 0.900 | 0.800 to 1.000 | 0.10 |",
        "| tiny_run | seconds | 3 | 4.000 | 3.500 to 4.500 | 0.10 |",
    ]


def test_a_row_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["defualt"])
    assert "row 'defualt' is unknown; rows are default, options" in capsys.readouterr().err


def test_a_command_is_shown_without_folders_of_the_machine():
    words = ("rankbench", "method=igu", "model.path=/a/model", "--boolq", "/a/boolq", "task=gsm8k")
    assert speed_table.shown(*words) == "rankbench method=igu model.path=DIR --boolq DIR task=gsm8k"
