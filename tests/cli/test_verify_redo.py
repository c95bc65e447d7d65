"""`rankbench verify X --redo N`: runs of a study done again, each by its own command line."""

import json

import pytest

from rankbench.cli import main

SETTINGS = ["model=tiny", "task=planted", "train.steps=2", "train.threads=1", "seed=0", "task.test_size=16"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    assert main(["-m", "method=lora,random", *SETTINGS, f"results_dir={place}"]) == 0
    return place


@pytest.mark.slow
def test_runs_done_again_have_the_same_numbers(results, capsys):
    assert main(["verify", "--results", str(results), "--redo", "5"]) == 0
    said = capsys.readouterr().out
    assert said.count(": the same") == 2
    assert "2 of 2 runs done again have the same numbers to the last bit" in said
    assert len(list((results / "runs").iterdir())) == 2  # they were done elsewhere


@pytest.mark.slow
def test_a_record_with_another_number_or_rank_is_found(results, capsys):
    loss, ranks = sorted(results.glob("runs/*/record.json"))
    kept = loss.read_text(), ranks.read_text()
    try:
        record = json.loads(kept[0])
        record["metrics"]["test"]["loss"] *= 1.01
        loss.write_text(json.dumps(record))
        record = json.loads(kept[1])
        record["ranks"] = {site: rank + 1 for site, rank in record["ranks"].items()}
        ranks.write_text(json.dumps(record))
        assert main(["verify", "--results", str(results), "--redo", "2", "--seed", "3"]) == 1
    finally:
        loss.write_text(kept[0])
        ranks.write_text(kept[1])
    said = capsys.readouterr().out
    assert "other numbers, by at most 9.9e-03 of them" in said
    assert "before," in said
    assert "0 of 2 runs done again have the same numbers" in said


def test_no_run_to_do_again_is_a_mistake(capsys):
    assert main(["verify", "mine", "--redo", "0"]) == 2
    assert "--redo 0: needs a number of runs, 1 or more" in capsys.readouterr().err


def test_the_name_of_a_study_stands_for_its_folder(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert main(["verify", "mine", "--results", str(tmp_path)]) == 2
    assert f"{tmp_path / 'mine'} holds no study" in capsys.readouterr().err
    assert main(["verify", "other", "--results", str(tmp_path)]) == 2
    assert "other holds no study" in capsys.readouterr().err
