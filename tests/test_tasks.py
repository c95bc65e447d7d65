"""Tasks on small files and tiny models: what is learned, how it is scored, which data is refused and with what words."""

import hashlib
import math
import socket
import time

import datasets
import huggingface_hub.constants
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from texts import (
    CONF,
    WORDS,
    adapted,
    byte_tokenizer,
    decoder,
    encoder,
    evaluate,
    loaded,
    sentences,
    settings,
    task,
    write,
)

from rankbench import registry, schema
from rankbench.seeding import Streams
from rankbench.tasks import hub, language, metrics
from rankbench.tasks.arithmetic import available
from rankbench.tasks.base import IGNORE, DataError
from rankbench.tasks.problems import final_number

NAMES = sorted(file.stem for file in CONF.glob("*.yaml") if file.stem != "planted")
GLUE = [name for name in NAMES if name.startswith("glue-")]
DECODER_GLUE = [name for name in GLUE if name != "glue-stsb"]
SIZES = {"validation_size": 4, "train_size": None, "test_size": None}


@pytest.fixture(scope="module")
def model():
    return decoder()


@pytest.fixture
def gsm8k(tmp_path):
    def rows(count, factor):
        return [
            {
                "question": f"What is {i} times {factor}?",
                "answer": f"{i}*{factor}=<<{i}*{factor}={i * factor}>>\n#### {i * factor}",
            }
            for i in range(count)
        ]

    write(tmp_path / "train.jsonl", rows(12, 3))
    write(tmp_path / "test.jsonl", rows(7, 40))
    return {"data_dir": str(tmp_path), "validation_size": 4, "max_new_tokens": 5}


def glue_rows(name, count, seed):
    cls = registry.get("task", name)
    rng = Streams(seed).numpy("task", name)
    columns = [sentences(count, seed + place) for place in range(len(cls.texts))]
    rows = [dict(zip(cls.texts, texts, strict=True)) for texts in zip(*columns, strict=True)]
    for row in rows:
        row[cls.label] = int(rng.integers(len(cls.labels))) if cls.labels else float(rng.uniform(0, 5))
        if cls.label == "answer":
            row["answer"] = bool(row["answer"])
    return rows


@pytest.fixture
def folder(tmp_path):
    """Folder with a classification task's files."""

    def make(name, extra=True):
        cls = registry.get("task", name)
        write(tmp_path / "train.jsonl", glue_rows(name, 20, 1))
        write(tmp_path / f"{cls.test}.jsonl", glue_rows(name, 11, 2))
        for split in cls.extra_test.values() if extra else ():
            write(tmp_path / f"{split}.jsonl", glue_rows(name, 9, 3))
        return str(tmp_path)

    return make


# Settings


@pytest.mark.parametrize("name", NAMES)
def test_defaults_conform_to_the_schema(name):
    cls = registry.get("task", name)
    section = settings(name)
    values, mistakes = schema.conform(cls.Config, dict(section))
    assert not mistakes
    assert values["name"] == name
    assert cls.primary
    assert cls.source


def test_hub_revisions_are_commits():
    for name in NAMES:
        revision = settings(name).get("revision", "0" * 40)
        assert len(revision) == 40


# Losses of a decoder


def test_loss_sums_over_target_tokens_alone(gsm8k, model):
    made = loaded("gsm8k", **gsm8k)
    examples = made.splits["train"]
    batch = made.collate(examples)
    expected, count = 0.0, 0
    for example in examples:
        logits = model(torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
        for position in range(example.prompt_length, len(example.input_ids)):
            expected -= float(logits[position - 1, example.input_ids[position]])
            count += 1
    loss = made.loss(model, batch)
    assert loss.dtype == torch.float32
    assert made.units(batch) == count
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_only_target_positions_reach_the_output_layer(gsm8k, model):
    made = loaded("gsm8k", **gsm8k)
    batch = made.collate(made.splits["train"])
    for net in (model, adapted(decoder())):
        seen = []
        head = net.get_output_embeddings() if net is model else net.base_model.model.lm_head
        handle = head.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.shape))
        made.loss(net, batch)
        handle.remove()
        assert seen == [(made.units(batch), 258)]


def test_an_architecture_without_logits_to_keep_gives_the_same(gsm8k, model):
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input_ids, attention_mask, use_cache):
            return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    made = loaded("gsm8k", **gsm8k)
    batch = made.collate(made.splits["train"])
    torch.testing.assert_close(made.loss(Whole(), batch), made.loss(model, batch))


def test_adapted_model_gets_gradients_from_the_loss(gsm8k):
    made = loaded("gsm8k", **gsm8k)
    net = adapted(decoder())
    made.loss(net, made.collate(made.splits["train"])).backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


# Problems


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


class Parrot(torch.nn.Module):
    """Says, after any prompt it knows, a fixed continuation; then "\\0" for ever."""

    def __init__(self, script):
        super().__init__()
        self.script, self.anchor = script, torch.nn.Parameter(torch.zeros(1))

    def forward(
        self, input_ids, attention_mask, position_ids=None, past_key_values=None, use_cache=False, logits_to_keep=0
    ):
        rows = input_ids if past_key_values is None else torch.cat([past_key_values.ids, input_ids], 1)
        tokenizer = byte_tokenizer()
        logits = torch.zeros(len(rows), 1, 258)
        for index, row in enumerate(rows.tolist()):
            text = tokenizer.decode([token for token in row if token != 256])
            known = [p for p in self.script if text.startswith(p)]
            rest = self.script[known[0]][len(text) - len(known[0]) :] if known else ""
            logits[index, 0, tokenizer(rest[:1] or "\0")["input_ids"][0]] = 1
        cache = past_key_values or Memory()
        cache.ids = rows
        return type("Output", (), {"logits": logits, "past_key_values": cache})


class Memory:
    def batch_select_indices(self, rows):
        self.ids = self.ids[rows]


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
    texts = made._generate(Parrot(script), made.splits["test"], 3)
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
        ("72", None),
        ("#### none", None),
    ],
)
def test_final_number(text, number):
    assert final_number(text) == number


def test_gsm8k_answer_without_number_is_refused(gsm8k, tmp_path):
    write(tmp_path / "test.jsonl", [{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": "it is 2"}])
    with pytest.raises(DataError, match=r"test\.jsonl, row 2: answer has no number after ####: \.\.\.'it is 2'"):
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
    with pytest.raises(DataError, match=f"task={name} is answered in words: use a decoder, not an encoder"):
        loaded(name, "encoder", **(gsm8k if name == "gsm8k" else {}))


def test_arithmetic_is_right_disjoint_and_fixed():
    made = loaded("arithmetic", train_size=300, validation_size=50, test_size=60)
    texts = {}
    for split, examples in made.splits.items():
        for example in examples:
            question, answer = byte_tokenizer().decode(example.input_ids).split(" =")
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
    texts = made._generate(Parrot({first: f" {golds[0]}\n5", second: "\n7"}), made.splits["test"], 2)
    assert texts == [f" {golds[0]}\n", "\n"]
    assert made._judge(texts[0], golds[0]) == {"prediction": golds[0], "correct": True}
    assert made._judge(texts[1], golds[1]) == {"prediction": "", "correct": False}


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
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    with pytest.raises(DataError, match="task=gsm-symbolic needs a package .*; run: pip install reasoning-gym"):
        loaded("gsm-symbolic")


# Classification


@pytest.mark.parametrize("name", [*DECODER_GLUE, "boolq"])
def test_decoder_answers_by_the_likelihood_of_its_options(name, folder, model):
    made = loaded(name, data_dir=folder(name), **SIZES, max_length=200)
    tokenizer = byte_tokenizer()
    examples = made.splits["test"]
    options = [tokenizer(option)["input_ids"] for option in made.options]
    result = evaluate(made, model, batch_size=4)
    for example, item in zip(examples, result.items, strict=True):
        prompt = example.input_ids[: example.prompt_length]
        scores = []
        for option in options:
            logs = model(torch.tensor([[*prompt, *option]])).logits[0].log_softmax(-1)
            scores.append(sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(option)))
        gold = made.labels.index(item["gold"])
        assert example.input_ids[example.prompt_length :] == tuple(options[gold])
        assert item["prediction"] == made.labels[int(np.argmax(scores))]
        assert item["correct"] == (item["prediction"] == item["gold"])
        assert item["loss"] == pytest.approx(-scores[gold] / len(options[gold]), rel=1e-4)
    batch = made.collate(examples)
    main = [item for item in result.items if "part" not in item]
    if len(main) == len(examples):
        assert float(made.loss(model, batch)) / made.units(batch) == pytest.approx(result.metrics["loss"], rel=1e-4)
    assert made.primary in result.metrics


@pytest.mark.parametrize("name", [*GLUE, "boolq"])
def test_encoder_answers_through_its_head(name, folder):
    made = loaded(name, "encoder", data_dir=folder(name), **SIZES, max_length=32)
    net = encoder(made.num_labels())
    result = evaluate(made, net, batch_size=3)
    losses = []
    for example, item in zip(made.splits["test"], result.items, strict=True):
        inputs = {"input_ids": torch.tensor([example.input_ids]), "token_type_ids": torch.tensor([example.segments])}
        logits = net(**inputs).logits[0]
        if made.labels:
            assert item["prediction"] == made.labels[int(logits.argmax())]
            losses.append(float(F.cross_entropy(logits, torch.tensor(example.labels))))
        else:
            assert item["prediction"] == pytest.approx(float(logits[0]), rel=1e-4)
            assert item["correct"] is None
            losses.append((float(logits[0]) - example.labels) ** 2)
        assert item["loss"] == pytest.approx(losses[-1], rel=1e-4, abs=1e-6)
    batch = made.collate(made.splits["test"])
    assert made.units(batch) == len(losses)
    assert float(made.loss(net, batch)) == pytest.approx(sum(losses), rel=1e-4)
    assert made.primary in result.metrics


def test_a_pair_is_two_segments_and_one_text_is_one(folder):
    made = loaded("glue-rte", "encoder", data_dir=folder("glue-rte"), **SIZES)
    assert {1} < set(made.splits["test"][0].segments) | {1}
    assert set(made.collate(made.splits["test"])) == {"input_ids", "attention_mask", "labels", "token_type_ids"}
    alone = loaded("glue-sst2", "encoder", data_dir=folder("glue-sst2"), **SIZES)
    assert set(alone.splits["test"][0].segments) == {0}


def test_options_of_one_token_cost_one_sequence_each(model):
    sizes = []
    handle = model.register_forward_hook(lambda m, a, k, o: sizes.append(k["input_ids"].shape), with_kwargs=True)
    prompts = [(1, 2, 3), (4,), (5, 6)]
    one = language.option_scores(model, prompts, [(7,), (8,)], 8, 256)
    shared = language.option_scores(model, prompts, [(7, 9), (7, 8), (7,)], 8, 256)
    apart = language.option_scores(model, prompts, [(7, 9), (10, 8)], 8, 256)
    handle.remove()
    assert [size[0] for size in sizes] == [3, 3, 6]
    assert shared[0][2] == pytest.approx(one[0][0], rel=1e-5)
    assert apart[1][0] == pytest.approx(shared[1][0], rel=1e-5)


def test_the_wording_of_every_decoder_task():
    """A change of these moves numbers: mark it [results] in the change log."""
    found = {name: (cls := registry.get("task", name)).template + "|" + "/".join(cls.options) for name in DECODER_GLUE}
    assert found["glue-rte"] == "{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:| True/ False"
    digest = hashlib.sha256("\n".join(found[name] for name in sorted(found)).encode()).hexdigest()
    assert digest[:12] == "DIGEST"


def test_mismatched_genres_get_metrics_of_their_own(folder, model):
    made = loaded("glue-mnli", data_dir=folder("glue-mnli"), **SIZES)
    result = evaluate(made, model)
    assert set(result.metrics) == {"loss", "accuracy", "loss_mismatched", "accuracy_mismatched"}
    parts = [item.get("part") for item in result.items]
    assert parts == [None] * 11 + ["mismatched"] * 9
    right = [item["correct"] for item in result.items]
    assert result.metrics["accuracy"] == pytest.approx(np.mean(right[:11]))
    assert result.metrics["accuracy_mismatched"] == pytest.approx(np.mean(right[11:]))


def test_mismatched_genres_may_be_missing(folder, model):
    made = loaded("glue-mnli", data_dir=folder("glue-mnli", extra=False), **SIZES)
    assert set(evaluate(made, model).metrics) == {"loss", "accuracy"}


def test_a_score_is_refused_from_a_decoder(folder):
    with pytest.raises(
        DataError, match="task=glue-stsb asks for a score, which a decoder does not give: use an encoder"
    ):
        loaded("glue-stsb", data_dir=folder("glue-stsb"), **SIZES)


def test_options_that_a_tokenizer_cannot_tell_apart_are_refused(folder):
    from texts import word_tokenizer

    made = task("glue-sst2", data_dir=folder("glue-sst2"), **SIZES)
    with pytest.raises(DataError, match="writes two of the options  negative,  positive alike"):
        made.load(word_tokenizer(), "decoder", Streams(0))


def test_long_passage_loses_its_beginning_and_a_long_pair_its_end(folder, tmp_path):
    data = folder("boolq")
    passage = " ".join(WORDS * 4)
    write(tmp_path / "validation.jsonl", [{"question": "who sat", "passage": passage, "answer": True}])
    made = loaded("boolq", data_dir=data, **SIZES, max_length=80)
    (example,) = made.splits["test"]
    text = byte_tokenizer().decode(example.input_ids)
    assert len(example.input_ids) == 80 - len(" yes") + len(" yes")
    assert passage.endswith(text.split("\n")[0])
    assert text.endswith("\nQuestion: who sat?\nAnswer: yes")
    assert made.revision["truncated"].endswith("test 1")
    pair = loaded("boolq", "encoder", data_dir=data, **SIZES, max_length=32)
    assert [len(example.input_ids) for example in pair.splits["test"]] == [32]
    assert pair.splits["test"][0].input_ids[:4] == (2, 4 + WORDS.index("who"), 4 + WORDS.index("sat"), 3)
    assert pair.revision["truncated"].endswith("test 1")


# Metrics


def test_metrics_by_hand():
    gold, said = [1, 1, 1, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 1, 0, 1]  # TP 3, FP 1, FN 1, TN 3
    assert metrics.accuracy_and_f1(gold, said) == {"accuracy": 0.75, "f1": 0.75}
    assert metrics.matthews(gold, said)["matthews"] == pytest.approx((9 - 1) / 16)
    assert metrics.matthews(gold, [1] * 8) == {"matthews": 0.0, "accuracy": 0.5}
    assert metrics.accuracy_and_f1([0, 0], [0, 0]) == {"accuracy": 1.0, "f1": 0.0}
    exact = metrics.correlations([1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.0, 16.0])
    assert exact["spearman"] == pytest.approx(1.0)
    assert exact["pearson"] == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 4, 9, 16])[0, 1])
    assert metrics.correlations([1.0, 2.0], [3.0, 3.0]) == {}


# Splits


def test_splits_are_carved_once_for_all_seeds_and_sizes_are_nested(gsm8k):
    def ids(split, seed=0, **sizes):
        made = task("gsm8k", **{**gsm8k, **sizes})
        made.load(byte_tokenizer(), "decoder", Streams(seed))
        return [example.item["id"] for example in made.splits[split]]

    assert ids("train") == ids("train", seed=5)
    assert len(ids("train")) == 8
    assert not set(ids("train")) & set(ids("validation"))
    assert ids("train", train_size=3) == ids("train")[:3]
    assert ids("test", test_size=3) == ids("test")[:3]
    assert sorted(ids("test")) == [f"test/{i}" for i in range(7)]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"validation_size": 12}, "has 12 rows, too few for task.validation_size=12 and task.train_size=all the rest"),
        ({"train_size": 9}, "has 12 rows, too few for task.validation_size=4 and task.train_size=9"),
        ({"test_size": 8}, "has 7 rows, fewer than task.test_size=8"),
    ],
)
def test_sizes_beyond_the_data_are_refused(gsm8k, sizes, message):
    with pytest.raises(DataError, match=message):
        loaded("gsm8k", **{**gsm8k, **sizes})


# Files


@pytest.mark.parametrize("suffix", ["json", "parquet", "csv"])
def test_other_formats_give_the_same_examples(gsm8k, tmp_path, suffix):
    expected = loaded("gsm8k", **gsm8k).splits
    folder = tmp_path / "other"
    folder.mkdir()
    for split in ("train", "test"):
        rows = datasets.Dataset.from_list(
            [__import__("json").loads(line) for line in (tmp_path / f"{split}.jsonl").open()]
        )
        frame = rows.to_pandas()
        file = folder / f"{split}.{suffix}"
        {
            "json": lambda frame=frame, file=file: frame.to_json(file, orient="records"),
            "parquet": lambda frame=frame, file=file: frame.to_parquet(file),
            "csv": lambda frame=frame, file=file: frame.to_csv(file, index=False),
        }[suffix]()
    assert loaded("gsm8k", **{**gsm8k, "data_dir": str(folder)}).splits == expected


def test_text_that_looks_like_nothing_stays_text(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("sentence,label\nNone,0\nNA,1\nnan,1\ncat,0\ndog,1\n")
    made = loaded("glue-sst2", "encoder", data_dir=str(tmp_path), validation_size=1)
    assert sum(len(made.splits[split]) for split in ("train", "validation")) == 5


def test_revision_is_the_content_of_the_files(gsm8k, tmp_path):
    before = loaded("gsm8k", **gsm8k).revision["data"]
    (tmp_path / "notes.txt").write_text("not data")
    assert loaded("gsm8k", **gsm8k).revision["data"] == before
    with (tmp_path / "test.jsonl").open("a") as stream:
        stream.write('{"question": "one more", "answer": "#### 1"}\n')
    assert loaded("gsm8k", **gsm8k).revision["data"] != before


GOOD = '{"question": "a", "answer": "#### 1"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD * 2 + '{"question": "b", "ans\n', r"test\.jsonl, line 3: not JSON .*mend or remove the line"),
        (GOOD + "\n" + '{"question": "b"', r"test\.jsonl, line 3: not JSON"),
        (GOOD + "[1, 2]\n", r"test\.jsonl, line 2: '\[1, 2\]\\n' is no JSON object"),
        ("", r"test\.jsonl is empty; every split needs rows"),
        ("\n\n", r"test\.jsonl is empty"),
        ('{"question": "a"}\n', r"test\.jsonl has no column answer; its columns are question"),
        (GOOD + '{"question": "b"}\n', r"test\.jsonl, row 2: no value in column answer"),
    ],
)
def test_broken_lines(gsm8k, tmp_path, text, message):
    (tmp_path / "test.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        loaded("gsm8k", **gsm8k)


def test_bytes_that_are_no_text(gsm8k, tmp_path):
    (tmp_path / "test.jsonl").write_bytes(GOOD.encode() + b'{"question": "\xff", "answer": "#### 1"}\n')
    with pytest.raises(DataError, match=r"test\.jsonl, line 2: not JSON"):
        loaded("gsm8k", **gsm8k)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("json", '[{"question": "a",\n "answer": }]', r"test\.json, line 2: not JSON"),
        ("json", "[]", r"test\.json is empty"),
        ("parquet", "not parquet", r"test\.parquet cannot be read as parquet: .*mend or replace the file"),
        ("csv", "question,answer\n", r"test\.csv is empty"),
        ("csv", "", r"test\.csv (is empty|cannot be read as csv)"),
    ],
)
def test_broken_files(gsm8k, tmp_path, name, text, message):
    (tmp_path / "test.jsonl").unlink()
    (tmp_path / f"test.{name}").write_text(text)
    with pytest.raises(DataError, match=message):
        loaded("gsm8k", **gsm8k)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sentence": "a", "label": -1}, r"row 1: label=-1 is no class; classes are 0 \(negative\), 1 \(positive\)"),
        ({"sentence": "a", "label": "1"}, r"row 1: label='1' is no class"),
        ({"sentence": 3, "label": 1}, r"row 1: sentence=3 is no text"),
    ],
)
def test_values_that_do_not_fit(folder, tmp_path, row, message):
    data = folder("glue-sst2")
    write(tmp_path / "validation.jsonl", [row])
    with pytest.raises(DataError, match=message):
        loaded("glue-sst2", "encoder", data_dir=data, **SIZES)


def test_missing_files_and_folders(gsm8k, tmp_path):
    (tmp_path / "test.jsonl").rename(tmp_path / "dev.jsonl")
    with pytest.raises(
        DataError, match=r"no data for split 'test': expected test\.jsonl .*, found dev\.jsonl, train\.jsonl"
    ):
        loaded("gsm8k", **gsm8k)
    (tmp_path / "test.jsonl").write_text(GOOD)
    (tmp_path / "test.csv").write_text("question,answer\n")
    with pytest.raises(DataError, match=r"has test\.jsonl and test\.csv; keep one"):
        loaded("gsm8k", **gsm8k)
    with pytest.raises(
        DataError, match=r"nowhere is not a folder; give one with train\.jsonl and test\.jsonl .* the hub"
    ):
        loaded("gsm8k", **{**gsm8k, "data_dir": "nowhere"})


# The hub


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tries = []

    def refuse(*arguments, **named):
        tries.append(arguments)
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tries


def test_no_network_and_no_local_data_is_one_error_at_once(no_network):
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        loaded("gsm8k")
    assert time.perf_counter() - start < 2
    assert len(no_network) == 1
    assert "task=gsm8k: the data set openai/gsm8k (subset main, revision 740312a" in str(caught.value)
    assert "task.data_dir=DIR" in str(caught.value)
    assert "with a network and without HF_HUB_OFFLINE" in str(caught.value)


def test_offline_mode_asks_nobody(no_network, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="not in the local cache"):
        loaded("gsm8k")
    assert no_network == []


def test_a_hub_that_never_answers_costs_seconds(monkeypatch):
    monkeypatch.setattr(hub, "NETWORK_SECONDS", 0.1)
    monkeypatch.setattr(hub, "_answers", lambda address: time.sleep(1))
    start = time.perf_counter()
    assert not hub.reachable()
    assert time.perf_counter() - start < 0.9


def test_any_answer_of_the_hub_is_an_answer(monkeypatch):
    assert huggingface_hub.constants.ENDPOINT

    def refuse(request, timeout):
        raise hub.urllib.error.HTTPError(request.full_url, 403, "no", {}, None)

    monkeypatch.setattr(hub.urllib.request, "urlopen", refuse)
    assert hub.reachable()


def test_the_local_cache_of_the_hub_is_enough(gsm8k, no_network, tmp_path):
    """The cache as `datasets` leaves it: <cache>/openai___gsm8k/main/0.0.0/<commit>/."""
    commit = settings("gsm8k").revision
    expected = loaded("gsm8k", **gsm8k)
    cached(tmp_path, commit)
    made = loaded("gsm8k", **{**gsm8k, "data_dir": None})
    assert made.splits == expected.splits
    assert made.revision["data"] == commit
    assert no_network == []
    with pytest.raises(DataError, match="revision other"):
        loaded("gsm8k", **{**gsm8k, "data_dir": None, "revision": "other"})
    assert loaded("gsm8k", **{**gsm8k, "data_dir": None, "revision": None}).revision["data"] == commit


def cached(folder, commit):
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}
    builder = datasets.load_dataset_builder("json", "main", data_files=files, cache_dir=str(folder / "made"))
    builder.download_and_prepare()
    place = folder / "cache" / "openai___gsm8k" / "main" / "0.0.0" / commit
    place.mkdir(parents=True)
    for file in __import__("pathlib").Path(builder.cache_dir).iterdir():
        (place / file.name.replace("json-", "gsm8k-")).write_bytes(file.read_bytes())
    info = __import__("json").loads((place / "dataset_info.json").read_text())
    info["config_name"] = "main"
    for split in info["splits"].values():
        split["dataset_name"] = "gsm8k"
    (place / "dataset_info.json").write_text(__import__("json").dumps(info))


def test_a_split_that_the_hub_lacks(gsm8k, no_network, tmp_path):
    cached(tmp_path, "abc")
    with pytest.raises(DataError, match=r"openai/gsm8k/main has no split 'validation'; its splits are train, test"):
        loaded("boolq", hub="openai/gsm8k", subset="main", revision="abc")


def test_datasets_is_left_as_it_was(gsm8k):
    level = datasets.logging.get_verbosity()
    loaded("gsm8k", **gsm8k)
    assert datasets.logging.get_verbosity() == level
    assert not datasets.are_progress_bars_disabled()
