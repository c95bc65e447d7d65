"""Tasks with worked solutions: the tokens learned, the text generated, the answers that count as correct."""

import hashlib
import math
import sys

import pytest
import torch
from support.texts import (
    byte_tokenizer,
    decoder,
    evaluate,
    loaded,
    settings,
    write,
    write_gsm8k,
)

from rankbench.config import registry
from rankbench.tasks.arithmetic import available, leading_number
from rankbench.tasks.base import IGNORE, DataError
from rankbench.tasks.worked_problems import final_number, gold_number


@pytest.fixture(scope="module")
def model():
    return decoder()


@pytest.fixture
def gsm8k(tmp_path):
    return write_gsm8k(tmp_path)


def test_gsm8k_prompt_target_and_item(gsm8k):
    made = loaded("gsm8k", **gsm8k)
    example = next(e for e in made.splits["test"] if e.item["id"] == "test/3")
    text = byte_tokenizer().decode(example.input_ids)
    assert text == "Question: What is 3 times 40?\nAnswer: 3*40=<<3*40=120>>\n#### 120\n"
    assert example.item == {"id": "test/3", "gold": "120"}
    assert byte_tokenizer().decode(example.input_ids[: example.prompt_length]).endswith("Answer:")
    assert example.labels == (IGNORE,) * example.prompt_length + example.input_ids[example.prompt_length :]
    wording = "Question: {question}\nAnswer:\0\n"
    assert made.revision["prompt"] == hashlib.sha256(wording.encode()).hexdigest()


def test_evaluation_is_the_same_for_every_batch_size_and_keeps_the_order(gsm8k, model):
    made = loaded("gsm8k", **gsm8k)
    one, many = evaluate(made, model, batch_size=1), evaluate(made, model, batch_size=5)
    assert [item["id"] for item in many.items] == [example.item["id"] for example in made.splits["test"]]
    for left, right in zip(one.items, many.items, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-4)
        assert left["prediction"] == right["prediction"]
    total = sum(item["loss"] * item["units"] for item in many.items)
    assert many.metrics["loss"] == pytest.approx(total / sum(item["units"] for item in many.items))


def test_items_that_are_not_generated_have_no_prediction(gsm8k, model):
    made = loaded("gsm8k", **gsm8k, generation_size=3)
    result = evaluate(made, model)
    assert [item["prediction"] is None for item in result.items] == [False] * 3 + [True] * 4
    assert [item["correct"] for item in result.items[3:]] == [None] * 4
    assert all(math.isfinite(item["loss"]) for item in result.items)
    none = evaluate(loaded("gsm8k", **gsm8k, generation_size=0), model)
    assert set(none.metrics) == {"loss"}


class Parrot:
    """A language model that says, after any prompt it knows, a fixed continuation; then "\\0" for ever."""

    def __init__(self, script):
        self.script = script

    def collate(self, examples):
        return {"losses": torch.zeros(len(examples))}

    def losses(self, model, batch):
        return batch["losses"]

    def generate(self, model, prompts, max_new_tokens, ends, stop, batch_size):
        answers = []
        for prompt in prompts:
            rest = self.script.get(byte_tokenizer().decode(prompt), "").ljust(max_new_tokens, "\0")
            answer = []
            for token in byte_tokenizer()(rest)["input_ids"][:max_new_tokens]:
                answer.append(token)
                if stop(answer):
                    break
            answers.append(answer)
        return answers


def test_exact_match_reads_the_number_after_the_mark(gsm8k):
    made = loaded("gsm8k", **{**gsm8k, "max_new_tokens": 30})
    said = {
        0: " #### 0\nmore",
        1: " it is\n####  $40.00\n",
        2: " 80",
        3: " #### 121\n",
        4: " #### 1,60\n",
        5: "#### 200",
        6: "\n\n",
    }
    script = {f"Question: What is {i} times 40?\nAnswer:": answer for i, answer in said.items()}
    asked = [e.input_ids[: e.prompt_length] for e in made.splits["test"]]
    made._language_model = Parrot(script)
    _, texts = made._read(torch.nn.Linear(1, 1), made.splits["test"], 3)
    ids = [example.item["id"] for example in made.splits["test"]]
    judged = {i: made._judge(t, e.item["gold"]) for i, t, e in zip(ids, texts, made.splits["test"], strict=True)}
    assert len(asked) == 7
    predictions = {name: row["prediction"] for name, row in judged.items()}
    assert predictions == {
        "test/0": "0", "test/1": "40", "test/2": "", "test/3": "121", "test/4": "160", "test/5": "200", "test/6": ""
    }  # fmt: skip
    assert sorted(name for name, row in judged.items() if row["correct"]) == ["test/0", "test/1", "test/4", "test/5"]
    assert texts[ids.index("test/0")] == " #### 0\n"  # stopped at the end of the line


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 72", "72"),
        ("so\n#### 1,250.0\n#### 9", "1250"),
        ("#### -3.50", "-3.5"),
        ("#### $ 100.", "100"),
        ("####.5", "0.5"),
        ("#### -0.0", "0"),
        ("#### 123456789012345678901234567890123", "123456789012345678901234567890123"),
        ("72", None),
        ("#### none", None),
    ],
)
def test_final_number(text, number):
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 72", "72"),
        ("so\n#### $1,250.50 \nmore", "1250.5"),
        ("#### -3.", "-3"),
        ("#### .5", "0.5"),
        ("#### 40 %", "40"),
        ("#### 12 km/h", "12"),
        *((f"#### {text}", None) for text in ("1/2", "1e3", "1.250,00", "1,25", "12 or 13", "3:2", "2^5", "x = 4", "")),
        *((f"#### {text}", None) for text in ("1½", "10²", "3 Million", "5k", "2 and a half", "100 thousands")),
        ("#### 1\nno\n#### 2", None),
        ("72", None),
    ],
)
def test_a_gold_is_a_number_as_a_whole(text, number):
    assert gold_number(text) == number


@pytest.mark.parametrize("answer", ["it is 2", "so\n#### 1/2"])
def test_gsm8k_answer_without_number_is_refused(gsm8k, tmp_path, answer):
    write(tmp_path / "test.jsonl", [{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": answer}])
    with pytest.raises(DataError, match=r"test\.jsonl, line 2: answer has no number after #### .*2'$"):
        loaded("gsm8k", **gsm8k)


def test_long_question_loses_its_beginning_and_the_solution_stays(gsm8k, tmp_path):
    text = "é" * 40 + " How many?"
    write(tmp_path / "test.jsonl", [{"question": text, "answer": "#### 5"}])
    made = loaded("gsm8k", **{**gsm8k, "max_length": 64})
    (example,) = made.splits["test"]
    said = byte_tokenizer().decode(example.input_ids)
    assert len(example.input_ids) <= 64
    assert said.startswith("Question: é")
    assert said.endswith("é How many?\nAnswer: #### 5\n")
    assert made.revision["truncated"] == "train 0, validation 0, test 1"


def test_solution_that_leaves_no_room_is_refused(gsm8k):
    with pytest.raises(
        DataError, match=r"train/\d+ is too long for task.max_length=30, make that larger: the prompt has"
    ):
        loaded("gsm8k", **{**gsm8k, "max_length": 30})


@pytest.mark.parametrize("name", ["arithmetic", "gsm8k"])
def test_encoders_are_refused_where_words_are_asked_for(name, gsm8k):
    with pytest.raises(DataError, match=f"task={name} is answered in words: use .*, not an encoder"):
        loaded(name, "encoder", **(gsm8k if name == "gsm8k" else {}))


def test_arithmetic_is_right_disjoint_and_fixed():
    made = loaded("arithmetic", train_size=300, validation_size=50, test_size=60)
    texts = {}
    for split, examples in made.splits.items():
        for example in examples:
            question, answer = byte_tokenizer().decode(example.input_ids).removeprefix("Calculate: ").split(" =")
            assert eval(question) == int(answer)
            assert answer == f" {example.item['gold']}\n"
            texts.setdefault(question, []).append(split)
    assert {split: len(examples) for split, examples in made.splits.items()} == {
        "train": 300,
        "validation": 50,
        "test": 60,
    }
    assert all(len(splits) == 1 for splits in texts.values())
    assert {question.count(" ") for question in texts} == {2, 4}
    larger = loaded("arithmetic", train_size=400, validation_size=50, test_size=60)
    assert larger.splits["test"] == made.splits["test"]
    assert larger.splits["train"][:300] == made.splits["train"]
    other = loaded("arithmetic", train_size=300, validation_size=50, test_size=60, data_seed=1)
    assert other.splits["test"] != made.splits["test"]
    assert other.revision["data"] != made.revision["data"]


def test_arithmetic_stops_at_the_end_of_the_line():
    made = loaded("arithmetic", train_size=3, validation_size=1, test_size=2, max_new_tokens=20)
    first, second = (byte_tokenizer().decode(e.input_ids[: e.prompt_length]) for e in made.splits["test"])
    golds = [example.item["gold"] for example in made.splits["test"]]
    made._language_model = Parrot({first: f" {golds[0]}\n5", second: "\n7"})
    _, texts = made._read(torch.nn.Linear(1, 1), made.splits["test"], 2)
    assert texts == [f" {golds[0]}\n", "\n"]
    assert made._judge(texts[0], golds[0]) == {"prediction": golds[0], "correct": True}
    assert made._judge(texts[1], golds[1]) == {"prediction": "", "correct": False}


@pytest.mark.parametrize(
    ("text", "number"),
    [(" 27\n", "27"), ("-5.", "-5"), (" 27 or so", "27"), ("27.5", None), ("about 27", None), ("", None)],
)
def test_leading_number(text, number):
    assert leading_number(text) == number


def test_arithmetic_asks_for_no_more_than_there_is():
    assert available([2, 3]) == 90**2 * 2 + 90**3 * 4
    check = registry.get("task", "arithmetic").check
    assert check(settings("arithmetic")) == []
    assert check(settings("arithmetic", terms=[2], train_size=16000)) == [
        "task.train_size=16000: 16400 expressions asked for in all, there are 16200"
    ]
    assert "needs one count or more" in check(settings("arithmetic", terms=[]))[0]
    with pytest.raises(DataError, match="there are 16200"):
        loaded("arithmetic", terms=[2], train_size=16000)


def test_gsm_symbolic_has_worked_solutions_that_end_in_the_answer():
    pytest.importorskip("reasoning_gym")
    sizes = {"train_size": 60, "validation_size": 5, "test_size": 20}
    made = loaded("gsm-symbolic", **sizes)
    assert {split: len(examples) for split, examples in made.splits.items()} == {
        "train": 60,
        "validation": 5,
        "test": 20,
    }
    texts = [byte_tokenizer().decode(example.input_ids) for split in made.splits.values() for example in split]
    assert len(set(texts)) == 85
    for example in made.splits["test"]:
        text = byte_tokenizer().decode(example.input_ids)
        assert text.endswith(f"#### {example.item['gold']}\n")
        assert text.count("####") == 1
        assert final_number(text) == example.item["gold"]
    assert loaded("gsm-symbolic", **{**sizes, "train_size": 10}).splits["test"] == made.splits["test"]


def test_gsm_symbolic_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError, match=r"task=gsm-symbolic needs a package .*; run: pip install reasoning-gym"):
        loaded("gsm-symbolic")
