"""Tasks whose questions have lists of answers: AQuA, CommonsenseQA, HellaSwag, MMLU, and the commonsense mixture."""

import numpy as np
import pytest
import torch
from support.texts import byte_tokenizer, decoder, evaluate, loaded, settings, task, word_tokenizer, write

from rankbench.analysis.metrics import higher_is_better
from rankbench.config import registry
from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.mmlu import CATEGORY

ROWS = {
    "aqua": lambda n: {
        "question": f"What is {n} + 1? ",
        "options": [f"{letter}){n + k}" for k, letter in enumerate("ABCDE")],
        "rationale": "count",
        "correct": "B",
    },
    "commonsense-qa": lambda n: {
        "question": f"Where is thing {n}?",
        "choices": {"label": list("ABCDE"), "text": [f"place {n + k}" for k in range(5)]},
        "answerKey": "ABCDE"[n % 5],
    },
    "hellaswag": lambda n: {
        "activity_label": "Baking",
        "ctx_a": f"[header] How to bake {n} cakes [title] Mix.",
        "ctx_b": "the cook" if n % 2 else "",
        "endings": [f"eats {'very ' * k}fast. [step] Then {n}" for k in range(4)],
        "label": str(n % 4),
    },
    "mmlu": lambda n: {
        "question": f"What is {n}?",
        "subject": ["anatomy", "formal_logic", "us_foreign_policy"][n % 3],
        "choices": [f"it is {n + k}" for k in range(4)],
        "answer": n % 4,
    },
}
SPLITS = {
    "aqua": ("train", "test"),
    "commonsense-qa": ("train", "validation"),
    "hellaswag": ("train", "validation"),
    "mmlu": ("auxiliary_train", "validation", "test", "dev"),
}


def folder(place, name, count=18, **changes):
    """Settings that read small files of a task; `changes` are made to the third row of its test split."""
    for split in SPLITS[name]:
        rows = [ROWS[name](n) for n in range(count)]
        if split == registry.get("task", name).test:
            rows[2] |= changes
        write(place / f"{split}.jsonl", rows)
    return {
        "data_dir": str(place),
        "validation_size": 4,
        "max_length": 2048,
        **({"shots": 2} if name == "mmlu" else {}),
    }


@pytest.fixture(scope="module")
def model():
    return decoder().eval()


def text(example, start=0, end=None):
    return byte_tokenizer().decode(example.input_ids[start:end])


def example_of(made, ending):
    return next(example for example in made.splits["test"] if example.item["id"].endswith(f"/{ending}"))


TEXTS = {
    "aqua": "What is 5 + 1?\nA. 5\nB. 6\nC. 7\nD. 8\nE. 9\nAnswer: B",
    "commonsense-qa": "Please choose the correct answer to the question: Where is thing 5?\n\nAnswer1: place 5 "
    "Answer2: place 6 Answer3: place 7 Answer4: place 8 Answer5: place 9\n\nAnswer format: answer1/"
    "answer2/answer3/answer4/answer5\nthe correct answer is answer1",
    "hellaswag": "Baking: How to bake 5 cakes. Mix. The cook eats very fast. Then 5",
    "mmlu": "The following are multiple choice questions (with answers) about us foreign policy.\n\n"
    "What is 2?\nA. it is 2\nB. it is 3\nC. it is 4\nD. it is 5\nAnswer: C\n\n"
    "What is 5?\nA. it is 5\nB. it is 6\nC. it is 7\nD. it is 8\nAnswer: B\n\n"
    "What is 5?\nA. it is 5\nB. it is 6\nC. it is 7\nD. it is 8\nAnswer: B",
}


@pytest.mark.parametrize("name", ROWS)
def test_the_prompt_its_options_and_the_likeliest_one(name, tmp_path, model):
    made = loaded(name, **folder(tmp_path, name))
    assert text(example_of(made, 5)) == TEXTS[name]
    result = evaluate(made, model)
    for example, item in zip(made.splits["test"], result.items, strict=True):
        scores = []
        for option in example.options:
            ids = example.input_ids[: example.prompt_length] + option
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(float(logs[i - 1, ids[i]]) for i in range(example.prompt_length, len(ids))))
        assert item["prediction"] == made.labels[int(np.argmax(scores))]
        assert item["loss"] == pytest.approx(-scores[example.right] / len(example.options[example.right]), rel=1e-4)
        assert made.labels[example.right] == item["gold"]
    assert result.metrics["accuracy"] == np.mean([item["correct"] for item in result.items])
    assert all(higher_is_better(metric) is not None for metric in result.metrics)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("aqua", {"correct": "F"}, r"line 3: correct='F' is no class; classes are 0 \(A\)"),
        ("aqua", {"options": ["A)1", "B)2"]}, r"line 3: options=.* is no list of 5 texts"),
        ("aqua", {"options": ["A)1", "C)2", "B)3", "D)4", "E)5"]}, r"line 3: 'C\)2' in options does not begin with B"),
        ("commonsense-qa", {"choices": ["a"]}, r"line 3: choices.text=None is no list of 5 texts"),
        ("hellaswag", {"endings": ["a", "b", "c", 4]}, r"line 3: endings=.* is no list of 4 texts"),
        ("hellaswag", {"label": ""}, r"line 3: label='' is no class"),
        ("mmlu", {"subject": "cooking"}, r"line 3: subject='cooking' is none of MMLU's 57"),
        (
            "mmlu",
            {"subject": "virology"},
            r"line 3: the split dev has 0 questions of subject virology, fewer than task.sh",
        ),
    ],
)
def test_rows_that_cannot_be_asked_are_named(name, changes, message, tmp_path):
    with pytest.raises(DataError, match=rf"{registry.get('task', name).test}\.jsonl, {message}"):
        loaded(name, **folder(tmp_path, name, **changes))


@pytest.mark.parametrize("name", ROWS)
def test_an_encoder_is_refused(name, tmp_path):
    made = task(name, **folder(tmp_path, name))
    with pytest.raises(DataError, match=f"task={name} has a list of answers for each question: use a decoder"):
        made.load(word_tokenizer(), "encoder", Streams(0))


def test_hellaswag_has_the_accuracy_per_character_beside_the_plain_one(tmp_path, model):
    made = loaded("hellaswag", **folder(tmp_path, "hellaswag"))
    answers = made._scorer.answers(model, made.splits["test"], 3)
    right = []
    for example, answer in zip(made.splits["test"], answers, strict=True):
        lengths = [len(byte_tokenizer().decode(option).strip()) for option in example.options]
        right.append(int(np.argmax(np.array(answer.scores) / lengths)) == example.right)
    assert evaluate(made, model).metrics["accuracy_norm"] == np.mean(right)


def test_mmlu_has_an_accuracy_for_each_category_and_shots_that_can_be_cut(tmp_path, model):
    made = loaded("mmlu", **folder(tmp_path, "mmlu"))
    metrics = evaluate(made, model).metrics
    assert {name for name in metrics if name.startswith("accuracy_")} == {
        f"accuracy_{CATEGORY[subject]}" for subject in ("anatomy", "formal_logic", "us_foreign_policy")
    }
    assert metrics["accuracy"] == pytest.approx(np.mean([metrics[n] for n in metrics if n.startswith("accuracy_")]))
    assert text(made.splits["train"][0]).count("What is") == 3  # the auxiliary rows here have subjects
    cut = loaded("mmlu", **{**folder(tmp_path, "mmlu"), "max_length": 100})
    assert {len(example.input_ids) for example in cut.splits["test"]} == {100}
    assert cut.revision["truncated"].endswith("test 18")
    plain = loaded("mmlu", **{**folder(tmp_path, "mmlu"), "shots": 0})
    assert text(example_of(plain, 5)).count("What is") == 1


def test_mmlu_validates_on_the_official_split(tmp_path):
    made = loaded("mmlu", **{**folder(tmp_path, "mmlu"), "train_size": 5})
    assert [len(made.splits[split]) for split in ("train", "validation", "test")] == [5, 4, 18]
    with pytest.raises(DataError, match=r"validation.jsonl has 18 rows, fewer than task.validation_size=19; make it"):
        loaded("mmlu", **{**folder(tmp_path, "mmlu"), "validation_size": 19})


def test_auxiliary_questions_have_no_subject_and_no_shots(tmp_path):
    settings = folder(tmp_path, "mmlu")
    write(tmp_path / "auxiliary_train.jsonl", [{**ROWS["mmlu"](n), "subject": ""} for n in range(6)])
    made = loaded("mmlu", **settings)
    assert len(made.splits["train"]) == 6
    start = "The following are multiple choice questions (with answers).\n\nWhat is"
    assert all(text(example).startswith(start) for example in made.splits["train"])


def test_the_mixture_trains_on_several_sets_and_tests_each_by_itself(tmp_path, model):
    for name, subset in (("boolq", "boolq"), ("piqa", "piqa"), ("arc-easy", "ARC-Easy")):
        labels = registry.get("task", f"commonsense-{name}").labels
        rows = [{"instruction": f"what is {n}?", "answer": labels[n % len(labels)]} for n in range(10)]
        (tmp_path / subset).mkdir()
        for split in ("train", "test"):
            write(tmp_path / subset / f"{split}.jsonl", rows)
    (tmp_path / "commonsense-qa").mkdir()
    write(tmp_path / "commonsense-qa" / "train.jsonl", [ROWS["commonsense-qa"](n) for n in range(10)])
    settings = {"data_dir": str(tmp_path), "validation_size": 5, "test_size": 7}
    made = loaded("commonsense", **settings, train_on=["boolq", "piqa"], test_on=["boolq", "piqa", "arc-easy"])
    assert [len(made.splits[split]) for split in ("train", "validation", "test")] == [15, 5, 21]
    assert {example.item["part"] for example in made.splits["train"]} == {"boolq", "piqa"}
    result = evaluate(made, model)
    each = [result.metrics[f"accuracy_{name}"] for name in ("boolq", "piqa", "arc-easy")]
    assert result.metrics["mean_accuracy"] == pytest.approx(np.mean(each))
    for item in result.items:
        assert item["prediction"] in registry.get("task", f"commonsense-{item['part']}").labels
    alone = loaded("commonsense-piqa", data_dir=str(tmp_path / "piqa"), validation_size=4)
    both = {text(example) for example in alone.splits["test"]}
    assert {text(e) for e in made.splits["test"] if e.item["part"] == "piqa"} <= both
    other = loaded("commonsense", **settings, train_on=["commonsense-qa"], test_on=["boolq"])
    assert text(other.splits["train"][0]).startswith("Please choose the correct answer to the question: Where is thing")


def test_the_mixture_says_what_it_lacks(tmp_path):
    check = registry.get("task", "commonsense").check
    assert check(settings("commonsense")) == []
    assert check(settings("commonsense", test_on=["piqa", "piqa"])) == [
        "task.test_on=['piqa', 'piqa']: a set is named twice; name each once"
    ]
    with pytest.raises(
        DataError, match=r"piqa is not a folder; give one with train.jsonl \(or .json, .parquet, .csv\)$"
    ):
        loaded("commonsense", data_dir=str(tmp_path), train_on=["piqa"], test_on=["boolq"])
    with pytest.raises(DataError, match=r"give task.data_dir=DIR, a folder with the folders boolq, .*ARC-Easy"):
        loaded("commonsense")
    with pytest.raises(DataError, match="task=commonsense has other answers in each set: use a decoder"):
        loaded("commonsense", "encoder", data_dir=str(tmp_path))
