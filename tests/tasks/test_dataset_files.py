"""Splits, files and the hub: what is read, what is refused, and the messages."""

import json
import socket
import time
from pathlib import Path

import datasets
import huggingface_hub.constants
import pandas as pd
import pytest
from support.texts import (
    byte_tokenizer,
    decoder,
    loaded,
    settings,
    task,
    write,
    write_classification,
    write_gsm8k,
)

from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.text import dataset_files


@pytest.fixture(scope="module")
def model():
    return decoder()


@pytest.fixture
def gsm8k(tmp_path):
    return write_gsm8k(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Settings that read the small files of a classification task."""
    return lambda name, extra=True: write_classification(tmp_path, name, extra)


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


@pytest.mark.parametrize("suffix", ["json", "parquet", "csv"])
def test_other_formats_give_the_same_examples(gsm8k, tmp_path, suffix):
    expected = loaded("gsm8k", **gsm8k).splits
    folder = tmp_path / "other"
    folder.mkdir()
    for split in ("train", "test"):
        frame = pd.read_json(tmp_path / f"{split}.jsonl", lines=True)
        file = folder / f"{split}.{suffix}"
        if suffix == "json":
            frame.to_json(file, orient="records")
        elif suffix == "parquet":
            frame.to_parquet(file)
        else:
            frame.to_csv(file, index=False)
    assert loaded("gsm8k", **{**gsm8k, "data_dir": str(folder)}).splits == expected


ODD = ["005", "1e5", "NA", "null", "None", "nan", "true", "2024-01-02", "12:30", "1,234", " 7 ", "0x1F", "-0"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_text_that_looks_like_something_else_stays_text(gsm8k, tmp_path, suffix):
    (tmp_path / "test.jsonl").unlink()
    rows = pd.DataFrame({"question": ODD, "answer": [f"#### {number}" for number in range(len(ODD))]})
    file = tmp_path / f"test.{suffix}"
    if suffix == "parquet":
        rows.to_parquet(file)
    elif suffix == "csv":
        rows.to_csv(file, index=False)
    else:
        rows.to_json(file, orient="records", lines=suffix == "jsonl")
    read, _ = dataset_files.read(settings("gsm8k", **gsm8k), ("question", "answer"), ("test",))
    assert [row["question"] for row in read["test"].rows] == ODD


@pytest.mark.parametrize("cells", [("0", "1"), ("negative", "positive"), ("False", "True"), ("false", "true")])
def test_labels_of_a_csv_file_are_numbers_names_or_truth_values(tmp_path, cells):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(f"sentence,label\n005,{cells[0]}\nNA,{cells[1]}\ncat,{cells[1]}\n")
    made = loaded("glue-sst2", "encoder", data_dir=str(tmp_path), validation_size=1)
    assert [example.labels for example in sorted(made.splits["test"], key=lambda e: e.item["id"])] == [0, 1, 1]


def test_classes_of_a_parquet_file_go_by_their_names(folder, tmp_path):
    data = folder("glue-rte")
    (tmp_path / "validation.jsonl").unlink()
    text = datasets.Value("string")
    classes = datasets.ClassLabel(names=["not_entailment", "entailment"])
    features = datasets.Features({"sentence1": text, "sentence2": text, "label": classes})
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "validation.parquet"))
    made = loaded("glue-rte", "encoder", **data)
    assert {e.item["id"]: e.labels for e in made.splits["test"]} == {"validation/0": 1, "validation/1": 0}


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("glue-rte", True, "label=True is no class"),  # true would be class 1: not_entailment
        ("glue-stsb", True, "label='True' is no number"),
        ("glue-stsb", 10**400, "label='1000.* is no number"),
    ],
)
def test_labels_that_would_be_read_as_others(folder, tmp_path, name, label, message):
    data = folder(name)
    write(tmp_path / "validation.jsonl", [{"sentence1": "a", "sentence2": "b", "label": label}])
    with pytest.raises(DataError, match=message):
        loaded(name, "encoder", **data)


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
        (GOOD + GOOD.replace("question", "answer"), r"test\.jsonl, line 2: not JSON \(the key 'answer' stands twice"),
        ('{"question": "a"}\n', r"test\.jsonl has no column answer; its columns are question"),
        (GOOD + "\n" + '{"question": "b"}\n', r"test\.jsonl, line 3: no value in column answer"),
    ],
)
def test_broken_lines(gsm8k, tmp_path, text, message):
    (tmp_path / "test.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        loaded("gsm8k", **gsm8k)


@pytest.mark.parametrize("value", ["5", "true", "1e5", '["a"]', '"\\ud83d"'])
def test_a_text_column_holds_text(gsm8k, tmp_path, value):
    (tmp_path / "test.jsonl").write_text(f'{GOOD}{{"question": {value}, "answer": "#### 1"}}\n')
    with pytest.raises(DataError, match=r"test\.jsonl, line 2: question=.* is no text; put it in quotation marks"):
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
        ("csv", 'question,answer\n"a\nb",#### 1\nc,none\n', r"test\.csv, line 4: answer has no number"),
        ("csv", "question,answer\n", r"test\.csv is empty"),
        ("csv", "", r"test\.csv is empty"),
        ("csv", "question,answer\na,#### 1\nb, c,#### 2\n", r"test\.csv, line 3: 3 values for 2 columns .*quotation"),
        ("csv", "question,question\na,b\n", r"test\.csv has two columns 'question'"),
        ("csv", 'question,answer\n"a,#### 1\n', r"test\.csv, line 2: not CSV \(unexpected end of data\)"),
        ("json", '[{"question": "a", "answer": NaN}]', r"test\.json: not JSON \(NaN is no number\)"),
        ("json", "[1]", r"test\.json, row 1: '1' is no JSON object"),
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
        ({"sentence": "a", "label": -1}, r"line 1: label=-1 is no class; classes are 0 \(negative\), 1 \(positive\)"),
        ({"sentence": "a", "label": "1"}, r"line 1: label='1' is no class"),
        ({"sentence": 3, "label": 1}, r"line 1: sentence=3 is no text"),
    ],
)
def test_values_that_do_not_fit(folder, tmp_path, row, message):
    data = folder("glue-sst2")
    write(tmp_path / "validation.jsonl", [row])
    with pytest.raises(DataError, match=message):
        loaded("glue-sst2", "encoder", **data)


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
    monkeypatch.setattr(dataset_files, "NETWORK_SECONDS", 0.1)
    monkeypatch.setattr(dataset_files, "_answers", lambda address: time.sleep(1))
    start = time.perf_counter()
    assert not dataset_files.reachable()
    assert time.perf_counter() - start < 0.9


def test_any_answer_of_the_hub_is_an_answer(monkeypatch):
    assert huggingface_hub.constants.ENDPOINT

    def refuse(request, timeout):
        raise dataset_files.urllib.error.HTTPError(request.full_url, 403, "no", {}, None)

    monkeypatch.setattr(dataset_files.urllib.request, "urlopen", refuse)
    assert dataset_files.reachable()


def test_the_local_cache_of_the_hub_is_enough(gsm8k, no_network, tmp_path):
    """The cache as `datasets` leaves it: <cache>/openai___gsm8k/main/0.0.0/<commit>/."""
    commit = settings("gsm8k").revision
    expected = loaded("gsm8k", **gsm8k)
    cached(tmp_path, commit)
    no_network.clear()
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
    for file in Path(builder.cache_dir).iterdir():
        (place / file.name.replace("json-", "gsm8k-")).write_bytes(file.read_bytes())
    info = json.loads((place / "dataset_info.json").read_text())
    info["config_name"] = "main"
    for split in info["splits"].values():
        split["dataset_name"] = "gsm8k"
    (place / "dataset_info.json").write_text(json.dumps(info))


def test_a_split_that_the_hub_lacks(gsm8k, no_network, tmp_path):
    cached(tmp_path, "abc")
    with pytest.raises(DataError, match=r"openai/gsm8k/main has no split 'validation'; its splits are train, test"):
        loaded("boolq", hub="openai/gsm8k", subset="main", revision="abc")


def test_datasets_is_left_as_it_was(gsm8k):
    level = datasets.logging.get_verbosity()
    loaded("gsm8k", **gsm8k)
    assert datasets.logging.get_verbosity() == level
    assert not datasets.are_progress_bars_disabled()
