"""Display names: everything in conf/ has one, and no override is left in the name of an arm."""

from __future__ import annotations

import re

import pytest

from rankbench.analysis.labels import (
    arm_title,
    displays,
    labels,
    metric_title,
    model_title,
    panel_title,
    setting_text,
    setting_title,
    task_title,
    with_titles,
)
from rankbench.analysis.metrics import METRICS
from rankbench.config.yaml_files import CONF_DIR, display_names
from rankbench.records import run_folder
from rankbench.sweeps import cells, experiment, experiment_files

OVERRIDE = re.compile(r"\w=|_")  # of a name as it is typed
RESULTS = CONF_DIR.parent / "results"


def stems(group: str) -> list[str]:
    return [file.stem for file in (CONF_DIR / group).glob("*.yaml")]


@pytest.mark.parametrize(("group", "names"), [("task", "tasks"), ("model", "models")])
def test_every_task_and_model_has_a_name_and_every_name_is_of_one(group, names):
    assert sorted(display_names()[names]) == sorted(stems(group))
    assert len(set(display_names()[names].values())) == len(stems(group))


def test_every_method_has_a_name_of_its_own():
    titles = [displays()[method].title for method in stems("method")]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_short_names_of_metrics_are_of_metrics():
    assert set(display_names()["metrics"]) <= set(METRICS)
    assert len({metric_title(f"test/{name}", short=True) for name in METRICS}) == len(METRICS)


@pytest.mark.parametrize("name", stems("experiment"))
def test_arms_and_axes_of_an_experiment_have_names_that_tell_them_apart(name):
    whole = experiment_files.load(name)
    for part in [whole, *cells.parts(whole).values()]:
        arms = experiment.arms(part)
        titles = [arm_title(arm) for arm in arms]
        assert len(set(titles)) == len(arms)
        assert [title for title in titles if OVERRIDE.search(title)] == []
        keys = {*part.axes, *(key for settings in whole.vary.values() for key in settings)}
        assert [key for key in keys if key not in display_names()["settings"]] == []


@pytest.mark.parametrize(
    "study", [folder.name for folder in sorted(RESULTS.iterdir()) if (folder / "records.jsonl").is_file()]
)
def test_labels_of_committed_records_have_names(study):
    records, _ = run_folder.records(RESULTS / study / "records.jsonl")
    assert [title for label in set(labels(records)) for title in [arm_title(label)] if OVERRIDE.search(title)] == []


@pytest.mark.parametrize(
    ("arm", "title"),
    [
        ("lora", "LoRA (uniform)"),
        ("igu map", "IGU-LoRA map"),
        ("adalora permuted map_number=1", "AdaLoRA map, permuted, no. 1"),
        ("fim permuted", "FIM-LoRA map, permuted"),
        ("peak of igu", "LoRA at the peak of IGU-LoRA"),
        ("igu estimator=instantaneous score=product", "IGU-LoRA, no path, product score"),
        ("permuted (source=fim, within=type)", "FIM-LoRA map, permuted, within types"),
        ("transplant (origin=igu)", "IGU-LoRA map"),
        ("permuted (source=null, origin=eva)", "EVA map, permuted"),
        ("mine beta=1", "mine, beta 1"),
    ],
)
def test_a_title_says_in_words_what_an_arm_is(arm, title):
    assert arm_title(arm) == title


def test_metrics_have_their_direction_and_a_short_name():
    assert metric_title("test/kl") == "test KL divergence, nats"
    assert metric_title("test/kl", arrow=True, short=True) == "KL ↓"
    assert metric_title("validation/accuracy_mismatched", arrow=True, short=True) == "validation accuracy mismatched ↑"
    assert metric_title("test/unknown", arrow=True) == "test/unknown"


def test_panels_are_named_part_by_part():
    assert panel_title("tiny, planted, budget r8, task.map=few") == (
        "Tiny (random weights), Planted ranks, budget r8, few sites"
    )
    assert panel_title("task=gsm8k") == task_title("gsm8k") == "GSM8K"
    assert panel_title("model=mine") == model_title("mine") == "mine"


def test_settings_without_a_name_are_shown_as_they_are():
    assert setting_title("method.quadrature_steps") == "path points"
    assert setting_text("method.quadrature_steps", "4") == "M = 4"
    assert setting_title("method.new_knob") == "new knob"
    assert setting_text("method.new_knob", "3") == "new knob 3"


def test_labels_in_a_sentence_become_names_and_those_in_paths_and_settings_stay():
    text = "lora beats random ranks, fim and fim (beta=1). Not read: runs/lora/fim.json of method=fim."
    assert with_titles(text, ["lora", "fim", "random"]) == (
        "LoRA (uniform) beats random ranks, FIM-LoRA and FIM-LoRA (beta=1). Not read: runs/lora/fim.json of method=fim."
    )
