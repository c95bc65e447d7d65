"""What a sweep prints when its last run has ended, on made-up records."""

from __future__ import annotations

import pytest
from support.harness import python, write_experiment
from support.schedules import Played

from rankbench.analysis.labels import arm_title
from rankbench.cli.sweep import show_results
from rankbench.records.run_folder import RunFolder
from rankbench.sweeps import manifest
from rankbench.sweeps.composition import lay_out, words


@pytest.fixture
def played(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = lay_out(words(["experiment=small", "arms=[lora,random]"]), write_experiment(tmp_path / "conf"))
    played = Played(layout, tmp_path / "results")
    for job in played.jobs("lora") + played.jobs("random"):
        folder = RunFolder(tmp_path / "results", job.run_id)
        record = folder.record()
        better = 0.01 * (record.method == "random")
        record.metrics["test"] = {"step": 3, "kl": 0.5 + 0.1 * record.seed - better * (1 + record.seed)}
        folder.write_record(record)
    manifest.save(played.sweep, tmp_path / "results")
    return played


def test_a_sweep_ends_with_its_numbers_the_answer_and_the_next_command(played, tmp_path, capsys):
    show_results(played.sweep, tmp_path / "results")
    out = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == [arm_title("lora"), arm_title("random")]
    assert any("±" in cell for cell in rows[-1])
    assert "Open" in out
    assert out.splitlines()[-1] == f"next: rankbench report experiment=sweep --results {tmp_path / 'results'}"


def test_the_numbers_at_the_end_are_a_look_at_the_data(played, tmp_path, capsys):
    show_results(played.sweep, tmp_path / "results")
    assert manifest.last(tmp_path / "results", None).looks.keys() == {played.sweep.sweep_id}


@pytest.mark.parametrize("part", ["missing", "waiting", "cells"])
def test_a_part_of_a_sweep_shows_no_numbers_and_is_no_look(played, tmp_path, capsys, part):
    sweep, runs = played.sweep, len(played.jobs("lora") + played.jobs("random"))
    done = runs - (part == "missing")
    if part == "missing":
        (tmp_path / "results" / "runs" / played.jobs("random")[0].run_id / "record.json").unlink()
    elif part == "waiting":
        sweep.waiting = ["igu waits"]
    else:
        sweep.words = ["experiment=small", "cells=[one]"]
    show_results(sweep, tmp_path / "results")
    out = capsys.readouterr().out
    assert f"{done} of {runs} runs are done; the report of the whole shows the numbers" in out
    assert "|" not in out
    assert "±" not in out
    assert sweep.looks == manifest.last(tmp_path / "results", None).looks == {}


def test_the_look_at_the_end_counts_beside_those_that_were_before(played, tmp_path, monkeypatch):
    """Of a sweep that adds seeds, whose first runs have been seen."""
    tables = []
    monkeypatch.setattr("rankbench.cli.sweep._print_tables", tables.append)
    played.sweep.looks = {"small-1": "2026-01-01"}
    show_results(played.sweep, tmp_path / "results")
    ((_, comparison),) = tables[0].compared()
    assert (len(played.sweep.looks), comparison.family) == (2, 2)  # of one arm


def test_runs_that_lie_offline_come_with_the_command_that_uploads_them(played, tmp_path, capsys):
    (tmp_path / "results" / "runs" / played.sweep.jobs[0].run_id / "wandb" / "offline-run-1").mkdir(parents=True)
    show_results(played.sweep, tmp_path / "results")
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == (f"W&B: 1 run lies offline; to upload: wandb sync {tmp_path / 'results'}/runs/*/wandb/offline-run-*")


def test_without_a_run_that_is_ok_there_is_no_table(played, tmp_path, capsys):
    for job in played.sweep.jobs:
        folder = RunFolder(tmp_path / "results", job.run_id)
        record = folder.record()
        record.status, record.metrics = "nan", None
        folder.write_record(record)
    show_results(played.sweep, tmp_path / "results")
    assert "|" not in capsys.readouterr().out


def test_the_launcher_does_without_pandas():
    code = (
        "import sys, rankbench.cli.sweep, rankbench.launching.driver, rankbench.launching.progress;"
        "print(sorted({'pandas', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr
