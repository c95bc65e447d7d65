"""A test held out of the official train split: which rows, for whom, and the messages."""

import re

import pytest
from support.harness import configure
from support.texts import byte_tokenizer, loaded, settings, task, word_tokenizer, write_classification, write_gsm8k

from rankbench.core.seeding import Streams
from rankbench.records.record import run_id
from rankbench.tasks.base import DataError

SETTINGS = {"gsm8k": write_gsm8k, "glue-sst2": lambda folder: write_classification(folder, "glue-sst2")}


def ids(name, sizes, seed=0):
    """Split -> names of its items."""
    made, words = task(name, **sizes), name == "glue-sst2"
    made.load(word_tokenizer() if words else byte_tokenizer(), "encoder" if words else "decoder", Streams(seed))
    return {split: [example.item["id"] for example in examples] for split, examples in made.splits.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_it_shares_no_row_with_train_and_validation_and_is_the_same_for_every_seed(tmp_path, name):
    sizes = SETTINGS[name](tmp_path)
    official, ours = ids(name, sizes), ids(name, {**sizes, "test_from_train": 5})
    assert ours == ids(name, {**sizes, "test_from_train": 5}, seed=7)
    assert ours["validation"] == official["validation"]
    assert ours["train"] == official["train"][:-5]  # smaller, the same rows
    assert ours["test"] == official["train"][-5:]
    assert ids(name, {**sizes, "test_from_train": 5, "test_size": 2})["test"] == ours["test"][:2]


def test_the_official_test_split_need_not_be_there(tmp_path):
    sizes = {**write_gsm8k(tmp_path), "test_from_train": 2}
    (tmp_path / "test.jsonl").unlink()
    assert len(loaded("gsm8k", **sizes).splits["test"]) == 2


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"test_from_train": 8},
            "has 12 rows, too few for task.validation_size=4, task.test_from_train=8 and task.tra",
        ),
        ({"test_from_train": 3, "train_size": 6}, "task.test_from_train=3 and task.train_size=6; make them smaller"),
        ({"test_from_train": 3, "test_size": 4}, "the test carved out of "),
    ],
)
def test_sizes_beyond_the_data_are_refused(tmp_path, sizes, message):
    with pytest.raises(DataError, match=re.escape(message)):
        loaded("gsm8k", **{**write_gsm8k(tmp_path), **sizes})


@pytest.mark.parametrize("name", ["mmlu", "commonsense", "xsum"])
def test_a_task_with_a_large_official_test_refuses_it(name):
    (problem,) = task(name).check(settings(name, test_from_train=5))
    assert problem == f"task.test_from_train=5: task={name} cannot; choose its test by task.test_size"


def test_a_kind_of_planted_map_is_a_name_alone(tmp_path):
    config = configure(tmp_path).plain()
    assert run_id({**config, "task": {**config["task"], "kind": "few-4"}}) == run_id(config)


def test_null_leaves_runs_their_names(tmp_path):
    config = configure(tmp_path, "task=gsm8k", "budget=r1").plain()
    older = {**config, "task": {key: value for key, value in config["task"].items() if key != "test_from_train"}}
    assert run_id(older) == run_id(config)
    assert run_id({**config, "task": {**config["task"], "test_from_train": 5}}) != run_id(config)
