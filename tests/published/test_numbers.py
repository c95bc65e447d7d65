"""The papers' numbers: the committed files are valid, averages agree with the papers; mistakes are named."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from rankbench.cli import main
from rankbench.cli.verify import published_frame
from rankbench.config.registry import names
from rankbench.published import numbers as published
from rankbench.published.numbers import AVERAGE, COLUMNS, CONFIDENCE, SETS, PublishedError, averages, load

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["adalora", "fim", "igu", "l1ra", "rerun", "sensitivity"]
ROW = {
    "paper": "2303.10512",
    "table": "Table 1",
    "model": "DeBERTa-v3-base",
    "task": "glue-rte",
    "metric": "accuracy",
    "method": "AdaLoRA",
    "our_method": "adalora",
    "rank_or_budget": "0.32M parameters",
    "value": "87.30",
    "unit": "percent",
    "n_seeds": "5",
    "confidence": "read in full",
    "note": "",
}


@pytest.fixture(scope="module")
def numbers():
    return load(source=ROOT / "results" / "published")


def write(folder: Path, *rows: dict[str, str], name: str = "adalora") -> Path:
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_all_files_load_by_default(numbers):
    assert published.folder() == ROOT / "results" / "published"
    assert sorted(file.stem for file in published.folder().glob("*.csv")) == NAMES
    assert sum(len(load(name)) for name in NAMES) == len(numbers) > 900


def test_names_are_those_of_rankbench(numbers):
    assert set(numbers["our_method"]) - {""} <= set(names("method"))
    tasks = {file.stem for file in (ROOT / "conf" / "task").glob("*.yaml")}
    assert {task for task in numbers["task"] if task.startswith("glue-") and task != "glue-5"} <= tasks
    assert {"gsm8k", "boolq"} <= set(numbers["task"]) & tasks
    models = {file.stem for file in (ROOT / "conf" / "model").glob("*.yaml")}
    assert {"deberta-v3-base", "roberta-large", "qwen2.5-0.5b", "llama-3-8b"} <= set(
        numbers["model"].str.lower()
    ) & models


def test_every_confidence_is_used_and_second_hand_is_not_hidden(numbers):
    assert set(numbers["confidence"]) == set(CONFIDENCE)
    assert set(load("igu")["confidence"]) == {"second hand"}
    assert "read in full" not in set(load("fim")["confidence"]) | set(load("l1ra")["confidence"])


def test_printed_averages_are_those_of_their_rows_or_the_note_says_so(numbers):
    found = averages(numbers)
    assert len(found) == 46
    said = found["note"].str.extract(r"not that of the row, which is ([\d.]+)")[0]
    assert found.loc[~found["agrees"], "method"].tolist() == ["full fine-tuning", "HAdapter", "AdaLoRA", "GoRA"]
    assert (said.notna() == ~found["agrees"]).all()
    assert said.dropna().tolist() == [f"{value:.3f}" for value in found.loc[~found["agrees"], "recomputed"]]


def test_every_average_beside_its_tasks_is_checked(numbers):
    """A set whose tasks are not known would be passed over in silence; the one here has no rows of its tasks."""
    rows = list(published.ROW)
    sets = numbers[numbers["metric"] == AVERAGE].groupby("task")["value"].size()
    assert set(sets.index) - set(SETS) == {"glue-5"}
    full = numbers[numbers["task"].isin(SETS) & (numbers["confidence"] != "read off a figure")]
    alone = [row for row, members in numbers.groupby(rows) if set(members["metric"]) == {AVERAGE}]
    partial = {"AROMA"}  # two tasks of eight
    unchecked = [tuple(row) for row in full[rows].to_numpy() if tuple(row) not in alone and row[3] not in partial]
    assert len(unchecked) == len(averages(numbers))


def test_ranks_of_layers_sum_to_the_total():
    data = load("sensitivity")
    checked = 0
    for _, members in data[data["table"] == "Figure 3"].groupby(["model", "method"]):
        layers = members[members["metric"].str.startswith("rank, layer")]
        (total,) = members.loc[members["metric"] == "rank, sum over all layers", "value"]
        if len(layers):
            assert layers["value"].sum() == total
            checked += 1
    assert checked == 4


@pytest.mark.parametrize("model", ["Mistral-7B-v0.3", "Llama-3.1-8B"])
def test_l1ra_rank_maps_give_the_sum_and_the_parameters_of_their_runs(model):
    """32 blocks; a rank of q, o costs 8192, of k, v 5120, of gate, up, down 18432, and one for its gate."""
    data = load("l1ra")
    data = data[(data["model"] == model) & (data["our_method"] == "l1ra")].set_index("metric")["value"]
    cost = dict.fromkeys("qo", 8193) | dict.fromkeys("kv", 5121) | dict.fromkeys(("gate", "up", "down"), 18433)
    mean = {kind: data[f"mean rank, {kind}"] for kind in cost}
    assert 32 * sum(mean.values()) == pytest.approx(data["rank, sum over all layers"], abs=32 * 7 * 0.05)
    assert mean.keys() == cost.keys()
    params = 32 * sum(cost[kind] * mean[kind] for kind in cost)
    exact = data[data.index == "adapter parameters"].max()
    assert params == pytest.approx(exact, abs=32 * 0.05 * sum(cost.values()))
    shares = [data[f"share of all ranks, {kind}"] for kind in ("qkv", "o", "MLP")]
    assert sum(shares) == pytest.approx(100, abs=0.15)
    assert shares[1] == pytest.approx(100 * 32 * mean["o"] / 3584, abs=0.1)


def test_costs_in_parts_sum_to_the_whole():
    data = load("sensitivity")
    whole = data[(data["table"] == "Table 9") & (data["our_method"] == "sensitivity")].set_index("metric")["value"]
    assert whole["allocation time"] + whole["training time"] == whole["total time"] == 7075


def test_values_are_numbers_and_keep_their_digits(tmp_path):
    data = load(source=write(tmp_path, ROW, {**ROW, "task": "glue-cola", "n_seeds": ""}))
    assert data["value"].tolist() == [87.3, 87.3]
    assert data["printed"].tolist() == ["87.30", "87.30"]
    assert data["n_seeds"].isna().tolist() == [False, True]
    assert published_frame(data)[["value", "unit", "seeds"]].values.tolist()[0] == ["87.30", "percent", "5"]


def test_all_mistakes_are_named_at_once_with_their_place(tmp_path):
    rows = [
        ROW,
        {**ROW, "task": "", "value": "about 87"},
        {**ROW, "confidence": "sure", "n_seeds": "0", "method": "x"},
        ROW,
    ]
    with pytest.raises(PublishedError) as error:
        load("adalora", write(tmp_path, *rows))
    file = re.escape(str(tmp_path / "adalora.csv"))
    for text in (
        f"{file}:3: task is empty",
        f"{file}:3: value 'about 87' is not a number",
        f"{file}:4: n_seeds '0' is not a count",
        f"{file}:4: confidence 'sure' is none of read in full",
        f"{file}:5: the same number as {file}:2",
    ):
        assert re.search(text, str(error.value)), text


def test_two_files_may_not_hold_one_number(tmp_path):
    write(tmp_path, ROW)
    write(tmp_path, ROW, name="rerun")
    assert len(load("rerun", tmp_path)) == 1
    with pytest.raises(PublishedError, match=r"rerun\.csv:2: the same number as .*adalora\.csv:2"):
        load(source=tmp_path)


def test_other_columns_are_refused(tmp_path):
    write(tmp_path, {key: value for key, value in ROW.items() if key != "note"})
    with pytest.raises(PublishedError, match="they must be paper, table"):
        load(source=tmp_path)


def test_a_file_or_folder_that_is_not_there_is_named_with_what_is(tmp_path, monkeypatch):
    with pytest.raises(PublishedError, match="has no numbers of adalroa; there are adalora"):
        load("adalroa", write(tmp_path, ROW))


def test_the_files_are_found_in_a_checkout_then_in_a_wheel_then_in_the_current_directory(tmp_path, monkeypatch):
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("rankbench.published.numbers.__file__", str(site / "rankbench" / "published" / "numbers.py"))
    with pytest.raises(PublishedError, match=r"neither .*results/published nor .*data nor .*; name a folder with --f"):
        published.folder()
    for place in (here / "results" / "published", site / "rankbench" / "published" / "data"):
        place.mkdir(parents=True)
        write(place, ROW)
        assert published.folder() == place
    (site / "results" / "published").mkdir(parents=True)  # an empty one holds nothing
    assert published.folder() == site / "rankbench" / "published" / "data"
    write(site / "results" / "published", ROW)
    assert published.folder() == site / "results" / "published"


def test_an_average_is_over_metrics_first_and_to_its_own_digits(tmp_path):
    base = {**ROW, "table": "Table 4", "note": ""}
    values = (("boolq", "accuracy", "80"), ("boolq", "f1", "82"), ("gsm8k", "accuracy", "30"))
    rows = [{**base, "task": task, "metric": metric, "value": value} for task, metric, value in values]
    rows.append({**base, "task": "boolq+gsm8k", "metric": AVERAGE, "value": "55.5"})
    (row,) = averages(load(source=write(tmp_path, *rows))).to_dict("records")
    assert (row["recomputed"], row["agrees"]) == (55.5, True)
    rows[-1]["value"] = "55.6"
    assert averages(load(source=write(tmp_path, *rows)))["agrees"].tolist() == [False]
    assert averages(load(source=write(tmp_path, *rows[2:]))).empty


def run(*arguments: str) -> int:
    return main(["verify", "--published", *arguments])


def test_the_command_prints_what_was_asked_for(capsys):
    run("adalora", "--task", "glue-rte", "--method", "AdaLoRA")
    header, _, *rows = capsys.readouterr().out.splitlines()
    titles = header.strip("| ").split(" | ")
    renamed = {"rank_or_budget": "budget", "n_seeds": "seeds"}
    assert sorted(titles) == sorted(renamed.get(column, column) for column in COLUMNS)
    assert len(rows) == 5
    assert all(row.startswith("| AdaLoRA |") and "| glue-rte | accuracy |" in row for row in rows)
    run("adalora", "--method", "AdaLoRA, score |lambda|")
    assert "AdaLoRA, score \\|lambda\\|" in capsys.readouterr().out
    run("igu", "--averages")
    assert "| 56.04 | 56.046 | False |" in capsys.readouterr().out


def test_the_command_says_what_there_is_instead(capsys):
    assert run("fim", "--task", "glue-rte") == 2
    assert "no number of 'glue-rte'; task has calibration on 16 sentences" in capsys.readouterr().err
