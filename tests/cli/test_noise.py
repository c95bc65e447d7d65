"""`rankbench noise`: its report against values worked by hand, and a whole study of four short runs."""

from __future__ import annotations

import json

import pytest
from support.harness import QUICK, python
from support.records import record

from rankbench.cli import main, noise
from rankbench.cli.noise import frozen, frozen_runs, reruns, seeds_of, value
from rankbench.config.schema import ConfigError
from rankbench.records.record import run_id
from rankbench.reporting.noise_report import Runs, needed_seeds, spread_sentences

# Accuracies 0.50, 0.51, 0.52: one point of deviation.
SEEDS = {0: 0.50, 1: 0.51, 2: 0.52}


def table(runs, metric):
    """effect -> cells of the table of seeds."""
    frame = needed_seeds(runs, metric)
    return {row[0]: row[1:] for row in [list(frame), *frame.values.tolist()]}


def test_seeds_that_an_effect_needs():
    """Of one deviation: 17 a group (G*Power, d = 1), and 18, 10, 4 pairs for dz = 1 / sqrt(2 (1 - r))."""
    found = table(Runs(0, SEEDS, [], {}), "test/accuracy")
    assert found["effect"] == ["unpaired", "paired, r = 0", "paired, r = 0.5", "paired, r = 0.9"]
    assert found["1 points"] == ["17", "18", "10", "4"]
    assert found["0.1 points"][0] == "1,571"
    assert list(found)[1:] == ["0.1 points", "0.2 points", "0.5 points", "1 points", "2 points"]


def test_a_loss_has_effects_in_shares_of_its_deviation():
    runs = Runs(0, {0: 2.0, 1: 2.1, 2: 2.2}, [], {})
    assert table(runs, "test/loss")["0.1 (1 deviations)"] == ["17", "18", "10", "4"]
    assert "3 seeds: mean 2.1, deviation 0.1 [0.0521, 0.628]." in spread_sentences(runs, "test/loss")


def test_a_measured_correlation_takes_the_place_of_assumed_ones():
    against = {0: 0.49, 1: 0.52, 2: 0.50, 9: 0.1}  # differences 1, -1, 2 points: deviation 1.5275; r = 0.327
    found = table(Runs(0, SEEDS, [], against), "test/accuracy")
    assert found["effect"] == ["unpaired", "paired, r = 0.33 (measured)"]
    assert found["1 points"] == ["17", "21"]  # dz = 0.6547: G*Power asks 21


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (Runs(0, {0: 0.5}, [0.5, 0.5], {}), "Seed 0, 3 runs: bit for bit the same (50 points)."),
        (
            Runs(0, {0: 0.5}, [0.51, 0.52], {}),
            "Seed 0, 3 runs: deviation 1 [0.521, 6.28] points, from smallest to largest 2 points.",
        ),
        (Runs(7, {8: 0.5}, [0.51, 0.51], {}), "Seed 7, 2 runs: bit for bit the same (51 points)."),  # its run failed
        (Runs(0, {0: 0.5}, [], {}), "Seed 0: not run twice."),
        (Runs(0, {0: 0.5}, [], {}), "1 seed: no deviation."),
        (Runs(0, {}, [], {}), "0 seed: no deviation."),
        (Runs(0, {0: 0.5, 1: 0.5}, [], {}), "2 seeds: mean 50 points, deviation 0 points."),
    ],
)
def test_what_is_said_of_the_spread(runs, sentence):
    assert sentence in spread_sentences(runs, "test/accuracy")


def test_without_spread_there_is_no_table():
    assert needed_seeds(Runs(0, {0: 0.5, 1: 0.5}, [], {}), "test/accuracy") is None


@pytest.mark.parametrize(("text", "seeds"), [("0-3,7", [0, 1, 2, 3, 7]), ("5", [5]), ("2,1", [2, 1])])
def test_seeds_as_typed(text, seeds):
    assert seeds_of(text) == seeds


def test_a_value_is_that_of_a_run_that_is_ok():
    assert value(record("lora", 0), "test/kl") == 0.25
    assert value(record("lora", 0), "test/loss") is None
    assert value(record("lora", 0, metrics=None), "test/kl") is None
    assert value(record("lora", 0, status="nan"), "test/kl") is None
    assert value(None, "test/kl") is None


def test_a_seeds_run_is_the_one_a_sweep_would_do_and_a_rerun_has_its_name_and_another_folder(tmp_path):
    config = frozen(["method=lora", "train.steps=5", *QUICK, "train.steps=3", f"results_dir={tmp_path}"])
    assert config["train"]["steps"] == 3
    first, second = frozen_runs(config, [4, 5])
    assert (first.run_id, second.run_id) == (run_id({**config, "seed": 4}), run_id({**config, "seed": 5}))
    assert first.config["results_dir"] == str(tmp_path)
    one, two = reruns(first, 2)
    assert (one.run_id, two.run_id) == (first.run_id, first.run_id)
    assert one.config["results_dir"] == f"{tmp_path}/noise/{first.run_id}/rerun-1"
    assert two.config == {**first.config, "results_dir": f"{tmp_path}/noise/{first.run_id}/rerun-2"}


def test_mistakes_are_said_before_anything_runs(capsys):
    with pytest.raises(ConfigError, match=r"method=lra: unknown method; did you mean lora"):
        frozen(["method=lra"])
    assert main(["noise", "method=lora", "train.step=3"]) == 2
    assert "train.step=3: unknown key; did you mean steps" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_study_reruns_bit_for_bit_and_is_not_done_twice(tmp_path, capsys):
    words = ["method=lora", *QUICK, f"results_dir={tmp_path}", "--seeds", "0-1", "--reruns", "1", "--slots", "2"]
    done = python("-m", "rankbench", "noise", *words, "--against", "method=random")
    assert done.returncode == 0, done.stderr
    runs = {file.parent.name for file in (tmp_path / "runs").glob("*/record.json")}
    assert len(runs) == 4  # two seeds of two methods
    (again,) = (tmp_path / "noise").glob("*/rerun-1/runs/*/record.json")
    assert again.parent.name in runs
    first = json.loads((tmp_path / "runs" / again.parent.name / "record.json").read_text())
    assert json.loads(again.read_text())["metrics"] == first["metrics"]
    assert "# Noise of test/kl: lora, tiny, planted, budget true_ranks" in done.stdout
    assert "Seed 0, 2 runs: bit for bit the same" in done.stdout
    assert noise.main([*words, "--against", "method=random"]) == 0
    assert capsys.readouterr().out.count("done already") == 5


def test_a_failed_run_is_counted_and_told_by_the_exit_code(tmp_path, capsys, monkeypatch):
    ended = [record("lora", 0, status="nan", metrics=None), record("lora", 1), None]
    monkeypatch.setattr(noise, "perform", lambda wanted, place, slots: ended)
    words = ["method=lora", *QUICK, f"results_dir={tmp_path}", "--seeds", "0,1", "--reruns", "1"]
    assert noise.main(words) == 1
    said = capsys.readouterr().out
    assert "2 of 3 runs failed and are not counted." in said
    assert "Seed 0: not run twice." in said
