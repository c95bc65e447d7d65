"""A user's own data: what is read, what a model sees, and what is said about mistakes."""

import csv
import json
import re

import datasets
import pytest
from support.texts import byte_tokenizer, decoder, encoder, evaluate, loaded, settings, task, word_tokenizer, write

from rankbench.config import registry
from rankbench.core.seeding import Streams
from rankbench.records.record import run_id
from rankbench.tasks.base import DataError
from rankbench.tasks.own.prompt_template import PromptTemplate

TEXTS = ["the cat sat", "a dog ran", "the mat is good", "a log was bad"]
REVIEWS = [{"text": f"{TEXTS[i % 4]} on the mat", "label": ["bad", "good"][i % 2]} for i in range(20)]
QUESTIONS = [{"question": f"who is {i}?", "choices": ["cat", "dog", "log"], "right": i % 3} for i in range(20)]
SUMS = [{"a": i, "b": 2 * i, "sum": 3 * i} for i in range(20)]
CLASSES = {"form": "classification", "template": "{text}\nThis is", "answer": "label"}
OPTIONS = {"form": "options", "template": "{question}", "answer": "right", "choices": ["choices"]}
TEXT = {"form": "generation", "template": "{a} + {b} =", "answer": "sum"}


def own(file, form=CLASSES, **overrides):
    """The settings that read a file."""
    return {"data_dir": str(file), **form, **overrides}


def problems(file, form=CLASSES, /, **overrides):
    """What is said about settings and data, which a run refuses to start with."""
    data = {**own(file, form), **overrides}
    found = registry.get("task", "text").check(settings("text", **data))
    if found:
        with pytest.raises(DataError, match=re.escape(found[0])):
            task("text", **data)
    return found


@pytest.fixture
def reviews(tmp_path):
    return write(tmp_path / "reviews.jsonl", REVIEWS)


def texts(made, split="train"):
    """Prompt and target of each example of a decoder's split."""
    tokenizer = byte_tokenizer()
    return [
        tuple(map(tokenizer.decode, (e.input_ids[: e.prompt_length], e.input_ids[e.prompt_length :])))
        for e in made.splits[split]
    ]


def test_a_decoder_reads_the_template_and_answers_with_a_class(reviews):
    made = loaded("text", **own(reviews))
    assert {split: len(examples) for split, examples in made.splits.items()} == {
        "train": 14,
        "validation": 2,
        "test": 4,
    }
    assert ("the cat sat on the mat\nThis is", " bad") in texts(made)
    result = evaluate(made, decoder())
    assert set(result.metrics) == {"loss", "accuracy"}
    assert {item["prediction"] for item in result.items} <= {"bad", "good"}
    assert made.loss(decoder(), made.collate(made.splits["train"])) > 0


def test_an_encoder_reads_one_column_a_pair_or_the_filled_template(tmp_path):
    rows = [{**row, "other": "who is the dog", "third": "yes"} for row in REVIEWS]
    file, tokenizer = write(tmp_path / "rows.csv.jsonl", rows), word_tokenizer()
    read = {}
    for template in ("{text}", "{text} {other}", "{text} {other} {third}"):
        made = loaded("text", "encoder", **own(file, template=template))
        assert made.num_labels() == 2
        example = min(made.splits["train"], key=lambda e: int(e.item["id"].split("/")[1]))
        read[template] = tokenizer.decode(example.input_ids), max(example.segments)
        assert set(evaluate(made, encoder(2)).metrics) == {"loss", "accuracy"}
    first = next(iter(read.values()))[0].removesuffix(" [SEP]")
    assert read["{text} {other}"] == (f"{first} [SEP] who is the dog [SEP]", 1)
    assert read["{text} {other} {third}"] == (f"{first} who is the dog yes [SEP]", 0)


@pytest.mark.parametrize("right", [lambda i: i, lambda i: "ABC"[i], lambda i: ["cat", "dog", "log"][i], str])
def test_options_are_named_by_number_letter_or_text(tmp_path, right):
    file = write(tmp_path / "rows.jsonl", [{**row, "right": right(row["right"])} for row in QUESTIONS])
    made = loaded("text", **own(file, OPTIONS))
    assert {example.item["id"]: example.right for split in made.splits.values() for example in split} == {
        f"train/{i}": i % 3 for i in range(20)
    }
    result = evaluate(made, decoder())
    assert set(result.metrics) == {"loss", "accuracy", "accuracy_norm"}
    assert {item["gold"] for item in result.items} <= {"A", "B", "C"}


def test_options_in_columns_are_those_of_a_list(tmp_path):
    columns = [
        {"question": row["question"], **dict(zip("xyz", row["choices"], strict=True)), "right": row["right"]}
        for row in QUESTIONS
    ]
    expected = loaded("text", **own(write(tmp_path / "list.jsonl", QUESTIONS), OPTIONS))
    made = loaded("text", **own(write(tmp_path / "columns.jsonl", columns), OPTIONS, choices=["x", "y", "z"]))
    assert made.splits == expected.splits
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(
            [
                ["question", "choices", "right"],
                *([r["question"], json.dumps(r["choices"]), r["right"]] for r in QUESTIONS),
            ]
        )
    assert loaded("text", **own(tmp_path / "list.csv", OPTIONS)).splits == expected.splits


def test_labels_say_what_the_answers_call_the_choices(tmp_path):
    file = write(tmp_path / "rows.jsonl", [{**row, "right": row["right"] + 1} for row in QUESTIONS])
    assert "no number from 0" not in problems(file, OPTIONS)[0]
    made = loaded("text", **own(file, OPTIONS, labels=[1, 2, 3]))
    assert {e.item["id"]: e.right for e in made.splits["test"]} == {
        e.item["id"]: int(e.item["id"][6:]) % 3 for e in made.splits["test"]
    }


def test_a_text_is_generated_and_compared(tmp_path):
    made = loaded("text", **own(write(tmp_path / "sums.jsonl", SUMS), TEXT, max_new_tokens=4))
    assert ("3 + 6 =", " 9<eos>") in [pair for split in made.splits for pair in texts(made, split)]
    result = evaluate(made, decoder())
    assert {"loss", "perplexity", "exact_match", "bleu4", "rougeL"} <= set(result.metrics)
    assert all(item["correct"] is (item["prediction"] == item["gold"]) for item in result.items)
    none = loaded("text", **own(tmp_path / "sums.jsonl", TEXT, generation_size=0))
    assert set(evaluate(none, decoder()).metrics) == {"loss", "perplexity"}


def test_an_answer_may_be_made_of_columns_and_the_blank_before_it_is_the_templates(tmp_path):
    file = write(tmp_path / "sums.jsonl", SUMS)
    made = loaded("text", **own(file, TEXT, template=r"{a} and {b}\n", answer=r"{sum}, {{so}}\n#### {sum}"))
    assert ("3 and 6", "\n9, {so}\n#### 9<eos>") in [pair for split in made.splits for pair in texts(made, split)]


def test_what_is_too_long_loses_the_beginning_of_its_longest_column(tmp_path):
    rows = [{"text": f"{'x' * 80} end {i}", "head": "h", "label": i % 2} for i in range(20)]
    file = write(tmp_path / "rows.jsonl", rows)
    made = loaded("text", **own(file, template="{head}: {text} is", max_length=40))
    assert all(re.fullmatch(r"h: x+ end \d+ is", prompt) for prompt, _ in texts(made))
    assert {len(prompt) + 2 for prompt, _ in texts(made)} == {40}
    assert made.revision["truncated"] == "train 14, validation 2, test 4"


def test_classes_read_from_the_data_are_numbers_by_value_and_names_by_the_alphabet(tmp_path):
    rows = [{"text": "a", "label": value} for value in (10, 9, 2) * 4]
    made = loaded("text", "encoder", **own(write(tmp_path / "numbers.jsonl", rows)))
    assert made.num_labels() == 3
    assert {e.item["gold"]: e.labels for e in made.splits["train"]} == {"2": 0, "9": 1, "10": 2}
    names = [{"text": "a", "label": value} for value in ("true ", False) * 6]  # blanks are no part of a name
    made = loaded("text", "encoder", **own(write(tmp_path / "names.jsonl", names)))
    assert {e.item["gold"]: e.labels for e in made.splits["train"]} == {"false": 0, "true": 1}


def test_numbers_stand_for_the_labels_that_are_given(tmp_path):
    file = write(tmp_path / "rows.jsonl", [{"text": "a", "label": i % 2} for i in range(12)])
    made = loaded("text", **own(file, labels=["negative", "positive"]))
    assert {(e.item["gold"], e.right) for e in made.splits["train"]} == {("negative", 0), ("positive", 1)}


def save_csv(folder):
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8-sig") as stream:  # as spreadsheets write it
        csv.writer(stream).writerows([["text", "label"], *(row.values() for row in ODD)])
    return folder / "rows.csv"


def save_windows(folder):
    (folder / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + "".join(json.dumps(row) + "\r\n" for row in ODD).encode())
    return folder / "rows.jsonl"


def save_json(folder):
    (folder / "rows.json").write_text(json.dumps(ODD, indent=1))
    return folder / "rows.json"


def save_parquet(folder):
    datasets.Dataset.from_list(ODD).to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


def save_arrow(folder):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ODD)}).save_to_disk(folder / "saved")
    return folder / "saved"


ODD = [{"text": f'"{i}", he said;\nand\tleft é', "label": ["no", "yes"][i % 2]} for i in range(20)]


@pytest.mark.parametrize("save", [save_csv, save_windows, save_json, save_parquet, save_arrow])
def test_every_format_gives_the_same_examples(tmp_path, save):
    expected = loaded("text", **own(write(tmp_path / "expected.jsonl", ODD))).splits
    folder = tmp_path / "other"
    folder.mkdir()
    assert loaded("text", **own(save(folder))).splits == expected


def test_columns_of_nested_objects_have_dotted_names(tmp_path):
    rows = [
        {"q": {"stem": "who", "choices": {"text": ["cat", "dog"], "label": ["A", "B"]}}, "key": "AB"[i % 2]}
        for i in range(12)
    ]
    form = {**OPTIONS, "template": "{q.stem}?", "answer": "key", "choices": ["q.choices.text"]}
    assert texts(loaded("text", **own(write(tmp_path / "rows.jsonl", rows), form)))[0][0] == "who?"


def test_files_of_a_folder_are_the_splits(tmp_path):
    write(tmp_path / "train.jsonl", REVIEWS)
    write(tmp_path / "dev.jsonl", REVIEWS[:6])
    made = loaded("text", **own(tmp_path))
    assert {split: len(examples) for split, examples in made.splits.items()} == {
        "train": 16,
        "validation": 6,
        "test": 4,
    }
    write(tmp_path / "test.jsonl", REVIEWS[:5])
    made = loaded("text", **own(tmp_path, test_size=3))
    assert {split: len(examples) for split, examples in made.splits.items()} == {
        "train": 20,
        "validation": 6,
        "test": 3,
    }
    assert {example.item["id"].split("/")[0] for example in made.splits["test"]} == {"test"}


def test_seeds_share_the_splits_and_settings_name_the_run(reviews):
    def ids(seed):
        made = task("text", **own(reviews))
        made.load(byte_tokenizer(), "decoder", Streams(seed))
        return {split: [example.item["id"] for example in examples] for split, examples in made.splits.items()}

    assert ids(0) == ids(7)
    forms = [own(reviews, form, name="text") for form in (CLASSES, {**CLASSES, "form": "generation"})]
    base = {"method": {"name": "lora"}, "model": {"name": "tiny"}, "seed": 0, "budget": {}, "train": {}}
    assert len({run_id({**base, "task": form}) for form in forms}) == 2


WRONG_SETTINGS = [
    ({"template": "Review"}, "task.template='Review': names no column; write one as {column}"),
    ({"template": "{text"}, "task.template='{text': expected '}' before end of string"),
    ({"template": "{} is"}, "task.template='{} is': {} names no column"),
    ({"template": "{text!r}"}, "{text!r} is not the name of a column alone; write {text}"),
    ({"template": '{"a": {text}}'}, "or {{ and }} for braces"),
    ({"template": "{text} {label}"}, "task.template='{text} {label}': shows label, which is the answer; leave it out"),
    ({"choices": ["a"]}, "task.choices=['a']: only form=options has choices"),
    ({"form": "options"}, "task.choices=null: form=options needs the columns of the choices"),
    ({"form": "generation", "labels": ["a", "b"]}, "task.labels=['a', 'b']: form=generation has no classes"),
    ({"labels": ["bad"]}, "task.labels=['bad']: needs two names or more, none twice and none empty"),
    ({"labels": ["bad", "bad"]}, "none twice"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG_SETTINGS)
def test_settings_that_cannot_be_used(reviews, overrides, message):
    assert message in problems(reviews, **overrides)[0]


WRONG_DATA = [
    (
        {"template": "{txet} is", "answer": "labl"},
        ["'txet' (task.template); did you mean text?", "'labl' (task.answer)"],
    ),
    ({"labels": ["bad", "fine"]}, ["line 2, column label: 'good' is no class; task.labels has 0 (bad), 1 (fine)"]),
    (
        {"answer": "text", "template": "{label}", "labels": ["a", "b"]},
        ["column text: 'the cat sat on the mat' is no c"],
    ),
    (
        {"validation_size": 17},
        ["has 20 rows, too few for task.test_size=4, task.validation_size=17; make them smaller"],
    ),
]


@pytest.mark.parametrize(("overrides", "messages"), WRONG_DATA)
def test_settings_that_do_not_fit_the_data(reviews, overrides, messages):
    found = problems(reviews, **overrides)
    assert all(message in problem for message, problem in zip(messages, found, strict=False))
    assert len(found) >= len(messages)


WRONG_FILES = [
    (
        "r.csv",
        "text;label\na;b\n",
        "no column 'text' (task.template); its columns are separated by ';', save it with commas",
    ),
    ("r.csv", "text, label\na, b\n", "its columns are 'text', ' label'; remove the blanks around them"),
    ("r.CSV", "text,label\na,b\n", "r.CSV: .CSV is not read here; rename it to .csv"),
    ("r.csv", "text,label\na,b,c\n", "r.csv, line 2: 3 values for 2 columns (text, label)"),
    ("r.csv", 'text,label\n"a\nb",x\n,y\n', "r.csv, line 4, column text: is empty; fill it, or remove the row"),
    ("r.csv", "text,label\n", "r.csv has no rows"),
    ("r.csv", "text,label\na,x\nb,x\n", "r.csv, column label: is 'x' in every row; a classification needs two classes"),
    ("r.jsonl", '{"text": "a", "label": 0}\n{"text": ', "r.jsonl, line 2: not JSON"),
    ("r.jsonl", '{"text": "a", "label": 0}\n{"text": "b"}\n{"label": 1}\n', "r.jsonl, line 2, column label: is empty"),
    (
        "r.jsonl",
        '{"text": ["a"], "label": 0}\n{"text": "b", "label": 1}',
        "r.jsonl, line 1, column text: \"['a']\" is no text",
    ),
    ("r.json", '[{"text": "a", "label": 0}, {"text": null, "label": 1}]', "r.json, row 2, column text: is empty"),
    ("r.json", '[{"text": "a"\n "label": 0}]', "r.json, line 2: not JSON (Expecting ',' delimiter)"),
    ("r.tsv", "text\tlabel\n", "r.tsv: .tsv is not read here; save it as .csv, with commas between the columns"),
    ("r.jsonl.gz", "", "r.jsonl.gz: .gz is not read here; unpack it: gunzip"),
    ("r.doc", "", "r.doc: .doc is not read here; save it as .jsonl, .json, .parquet or .csv"),
    ("r.parquet", "no parquet", "r.parquet cannot be read as parquet"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG_FILES)
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    assert message in problems(tmp_path / name)[0]


def test_a_csv_file_without_names_of_columns(tmp_path):
    (tmp_path / "r.csv").write_text("a film,good\na book,bad\n")
    assert problems(tmp_path / "r.csv")[2].endswith("the first line of a CSV file has the names of its columns")


def test_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "r.csv").write_bytes("text,label\ncafé,x\n".encode("utf-16"))
    assert "r.csv is no UTF-8 text" in problems(tmp_path / "r.csv")[0]


def test_places_that_are_not_there(tmp_path, reviews):
    assert "no such file or folder; did you mean reviews.jsonl?" in problems(tmp_path / "review.jsonl")[0]
    assert f"{tmp_path / 'no'} does not exist either" in problems(tmp_path / "no" / "r.csv")[0]
    assert (
        "has no train file: expected train.jsonl (or .json, .parquet, .csv), found reviews.jsonl"
        in problems(tmp_path)[0]
    )
    write(tmp_path / "train.jsonl", REVIEWS)
    (tmp_path / "train.csv").write_text("text,label\n")
    assert "has train.csv and train.jsonl; keep one of them" in problems(tmp_path)[0]


def test_only_a_few_rows_of_one_kind_are_named(tmp_path):
    found = problems(write(tmp_path / "r.jsonl", [*REVIEWS, *({"text": "", "label": "bad"} for _ in range(9))]))
    assert [re.sub(".*line", "line", each) for each in found[:3]] == [
        f"line {line}, column text: is empty; fill it, or remove the row" for line in (21, 22, 23)
    ]
    assert found[3].endswith("6 more rows cannot be used")


def test_columns_of_numbers_or_of_texts_are_no_classes(tmp_path):
    rows = [{"text": "a", "label": f"free text {i}"} for i in range(101)]
    assert (
        "column label: has 101 different values in 101 rows; take another"
        in problems(write(tmp_path / "r.jsonl", rows))[0]
    )


def test_training_examples_of_one_class_alone(tmp_path):
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "bad"}] * 5)
    write(tmp_path / "validation.jsonl", REVIEWS)
    write(tmp_path / "test.jsonl", REVIEWS)
    assert "all 5 training examples are of one class" in problems(tmp_path, labels=["bad", "good"])[0]


WRONG_OPTIONS = [
    (
        {"right": 3},
        "column right: '3' is none of the choices, ['cat', 'dog', 'log']; expected its text, one of A, B, C, or",
    ),
    ({"choices": "cat"}, "column choices: 'cat' is no list of 2 to 26 choices"),
    ({"choices": ["cat"]}, "is no list of 2 to 26 choices"),
    ({"choices": ["cat", ""]}, "column choices[1]: is empty"),
    ({"choices": ["1", "0"], "right": "0"}, "'0' may be several choices, ['1', '0']"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_OPTIONS)
def test_choices_that_cannot_be_used(tmp_path, change, message):
    found = problems(write(tmp_path / "r.jsonl", [*QUESTIONS, {**QUESTIONS[0], **change}]), OPTIONS)
    assert "line 21, " in found[0]
    assert message in found[0]


def test_an_encoder_is_refused_where_it_has_no_head_for_the_answer(tmp_path):
    file = write(tmp_path / "r.jsonl", QUESTIONS)
    assert task("text", **own(file, OPTIONS)).num_labels() is None
    with pytest.raises(DataError, match="each row has choices of its own: use a decoder"):
        loaded("text", "encoder", **own(file, OPTIONS))


def test_a_template_takes_columns_of_any_name():
    template = PromptTemplate.written(r"{my text} {a.b} {{x}}\n{0} \\n \text")
    assert template.columns == ("my text", "a.b", "0")
    assert template.format(**{"my text": "{1}", "a.b": 2, "0": "c"}) == "{1} 2 {x}\nc \\n \\text"
    assert PromptTemplate("{a} \n").split_end() == ("{a}", " \n")
    assert PromptTemplate("{a}").split_end() == ("{a}", " ")
