"""Commonsense sets in LLM-Adapters' format: named options, files from a folder."""

import json

import numpy as np
import pytest
import torch
from support.texts import CONF, byte_tokenizer, decoder, evaluate, loaded, task, word_tokenizer, write

from rankbench.config import registry
from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError

SETS = sorted(file.stem for file in CONF.glob("commonsense-*.yaml") if file.stem != "commonsense-qa")


def question(name, number):
    """A row as LLM-Adapters has it; the gold option goes round."""
    labels = registry.get("task", name).labels
    options = " ".join(f"{label.capitalize()}: thing {number}{label[-1]}" for label in labels)
    text = f"Please choose: what is number {number}?\n\n{options}\n\nAnswer format: {'/'.join(labels)}"
    answer = labels[number % len(labels)]
    return {"instruction": text, "input": "", "output": f"the correct answer is {answer}", "answer": answer}


@pytest.fixture
def folder(tmp_path):
    """Settings that read small files of a set."""

    def made(name):
        for split, count in (("train", 20), ("test", 11)):
            write(tmp_path / f"{split}.jsonl", [question(name, number) for number in range(count)])
        return {"data_dir": str(tmp_path), "validation_size": 4}

    return made


def test_the_sets_are_the_eight_of_the_source():
    names = ("arc-challenge", "arc-easy", "boolq", "hellaswag", "openbookqa", "piqa", "siqa", "winogrande")
    assert [f"commonsense-{name}" for name in names] == SETS


@pytest.mark.parametrize("name", SETS)
def test_the_answer_is_the_likeliest_option_after_the_prompt(name, folder):
    made, model, tokenizer = loaded(name, **folder(name)), decoder(), byte_tokenizer()
    assert [len(made.splits[split]) for split in ("train", "validation", "test")] == [16, 4, 11]
    result = evaluate(made, model)
    for example, item in zip(made.splits["test"], result.items, strict=True):
        prompt, target = example.input_ids[: example.prompt_length], example.input_ids[example.prompt_length :]
        number = int(item["id"].split("/")[1])
        assert tokenizer.decode(prompt).endswith("\nthe correct answer is")
        assert tokenizer.decode(target) == f" {item['gold']}"
        assert item["gold"] == question(name, number)["answer"]
        options = [tokenizer(f" {label}")["input_ids"] for label in made.labels]
        logits = [model(torch.tensor([[*prompt, *option]])).logits[0].log_softmax(-1) for option in options]
        scores = [
            sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(option))
            for logs, option in zip(logits, options, strict=True)
        ]
        assert item["prediction"] == made.labels[int(np.argmax(scores))]
    assert result.metrics["accuracy"] == np.mean([item["correct"] for item in result.items])


def test_files_may_be_one_list_each_as_in_the_repository(tmp_path):
    for split in ("train", "test"):
        rows = [question("commonsense-piqa", number) for number in range(9)]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    made = loaded("commonsense-piqa", data_dir=str(tmp_path), validation_size=2)
    assert len(made.splits["train"]) == 7


def test_without_a_folder_the_message_says_which_files_and_where_from():
    made = task("commonsense-arc-easy")
    with pytest.raises(
        DataError, match=r"give task.data_dir=DIR.*train.json and test.json of dataset/ARC-Easy in github"
    ):
        made.load(byte_tokenizer(), "decoder", Streams(0))
    missing = task("commonsense-arc-easy", data_dir="nowhere")
    with pytest.raises(
        DataError, match=r"task.data_dir=nowhere is not a folder; give one with train.jsonl and test.jsonl .*csv.$"
    ):
        missing.load(byte_tokenizer(), "decoder", Streams(0))


def test_an_answer_that_is_no_option_is_named(tmp_path):
    rows = [question("commonsense-piqa", number) for number in range(9)]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", [{**rows[0], "answer": "solution3"}])
    made = task("commonsense-piqa", data_dir=str(tmp_path), validation_size=2)
    with pytest.raises(
        DataError, match=r"test.jsonl, line 1: answer='solution3' is no class; classes are 0 \(solution1\)"
    ):
        made.load(byte_tokenizer(), "decoder", Streams(0))


def test_an_encoder_reads_the_question_and_its_options(folder):
    made = task("commonsense-openbookqa", **folder("commonsense-openbookqa"))
    made.load(word_tokenizer(), "encoder", Streams(0))
    assert made.num_labels() == 4
    assert [example.labels for example in made.splits["test"]] == [
        int(example.item["id"].split("/")[1]) % 4 for example in made.splits["test"]
    ]
