"""What docs/own_data.md shows is typed in an empty folder, on a model with random weights, and does what it says."""

import json
import re
import shlex
from pathlib import Path

import pytest

from rankbench.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_data.md"
BLOCK = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```", re.M | re.S)
SHORT = ["model=tiny", "method=lora", "train.steps=1", "train.batch_size=2", "train.evaluate_before=false"]
METRICS = [{"accuracy"}, {"accuracy", "accuracy_norm"}, {"perplexity", "exact_match", "bleu4"}, {"accuracy"}]


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """The commands of the page, in a folder that has its files."""
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    for language, file, content in BLOCK.findall(text):
        if file:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(content)
        elif language == "python":
            exec(content, {})
    return [shlex.split(line) for line in re.findall(r"^rankbench (.*)$", text.replace("\\\n", ""), re.M)]


def test_the_examples_run(typed, tmp_path, capsys):
    jobs = [words for words in typed if words[0] != "plan"]
    assert len(jobs) == len(METRICS)
    for words, metrics in zip(jobs, METRICS, strict=True):
        before = set(tmp_path.glob("results/runs/*/record.json"))
        assert main([*words, *SHORT]) == 0
        (file,) = set(tmp_path.glob("results/runs/*/record.json")) - before
        record = json.loads(file.read_text())
        assert record["status"] == "ok"
        assert {"loss", *metrics} <= set(record["metrics"]["test"])
    prompts = [
        json.loads(file.read_text())["config"]["task"]["template"] for file in tmp_path.glob("results/runs/*/*.json")
    ]
    assert {"Review: {text}\nSentiment:", r"Review: {text}\nSentiment:"} <= set(prompts)  # of the file, and as typed
    (plan,) = (words for words in typed if words[0] == "plan")
    capsys.readouterr()
    assert main([*plan, "model=tiny"]) == 0
    assert "tiny, text, r8" in capsys.readouterr().out


def test_mistakes_are_said_together_before_anything_is_loaded(typed, capfd):
    words = [word.replace("=label", "=lable").replace("{text}", "{txt}") for word in typed[0]]
    assert main([*words, *SHORT]) == 2
    assert "loading transformers" not in (error := capfd.readouterr().err)
    assert "2 mistakes in the configuration, nothing was run:" in error
    assert "reviews.csv has no column 'txt' (task.template); did you mean text? known are label, text." in error
    assert "reviews.csv has no column 'lable' (task.answer); did you mean label?" in error


def test_a_template_without_quotes_is_shown_with_them(typed, capfd):
    words = ["task=text", "task.template=Review: {text}", *SHORT]
    assert main(words) == 2
    assert """: 'task.template="Review: {text}"'""" in capfd.readouterr().err


def test_what_has_no_default_is_asked_for(typed, capfd):
    assert main(["task=text", *SHORT]) == 2
    error = capfd.readouterr().err
    assert "task.form: missing; give task.form=<classification|options|generation>" in error
    assert "task.data_dir: missing" in error


def test_every_setting_of_the_page_exists():
    settings = (PAGE.parents[1] / "conf" / "task" / "text.yaml").read_text()
    named = set(re.findall(r"`task\.(\w+)", PAGE.read_text()))
    assert len(named) > 8
    assert named <= set(re.findall(r"^(\w+):", settings, re.M))
