"""Comparison of two runs whose folders are made up here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.records import record

from rankbench.analysis import run_pair
from rankbench.cli import compare, main
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder

RIGHT = {"A": [1, 1, 1, 0, 0, 0, 0, 0], "B": [1, 0, 1, 1, 1, 1, 1, 0]}
LOSSES = {"A": [0.2, 0.4, 0.6, 0.8, 0.2, 0.4, 0.6, 0.8], "B": [0.1, 0.3, 0.5, 0.7, 0.1, 0.3, 0.5, 0.7]}


def rows(name: str, **changes: Any) -> list[dict[str, Any]]:
    """Eight items; those of `changes` are lists, a value per item."""
    told = {"correct": [bool(right) for right in RIGHT[name]], "loss": LOSSES[name], **changes}
    made = [{"id": f"validation/{i}", "gold": "yes", "prediction": "yes", "units": 1} for i in range(8)]
    return [{**row, **{key: values[i] for key, values in told.items()}} for i, row in enumerate(made)]


def run(name: str, **changes: Any) -> RunRecord:
    method = {"A": "lora", "B": "igu"}[name]
    content = {
        "run_id": f"{name.lower()}00000000000",
        "task": "glue-rte",
        "config": {"method": {"name": method}, "train": {"steps": 60}, "task": {"test_size": 8}, "seed": 0},
        "ranks": {f"layers.{layer}.{kind}": 4 for layer in range(2) for kind in ("q", "v")},
        "metrics": {"before": {"step": 0, "loss": 1.0}, "test": {"step": 60, "accuracy": 0.5, "loss": 0.5}},
    }
    return record(method, 0, **{**content, **changes})


def write(results: Path, found: RunRecord, items: list[dict[str, Any]] | None) -> Path:
    folder = RunFolder(results, found.run_id)
    folder.path.mkdir(parents=True)
    folder.write_record(found)
    if items is not None:
        folder.write_lines("items.jsonl", items)
    return folder.path


@pytest.fixture
def printed(tmp_path, capsys):
    """Exit code and output for two records and their items."""

    def call(a: RunRecord, b: RunRecord, items_a: Any = (), items_b: Any = (), *arguments: str) -> tuple[int, str]:
        for found, items, name in ((a, items_a, "A"), (b, items_b, "B")):
            write(tmp_path, found, rows(name) if items == () else items)
        code = main(["compare", a.run_id, b.run_id, "--results", str(tmp_path), *arguments])
        out, err = capsys.readouterr()
        return code, out + err

    return call


def line(text: str, start: str) -> list[str]:
    """Words of the only line that begins so."""
    (found,) = [row for row in text.splitlines() if row.startswith(start)]
    return found.split()


def test_settings_metrics_items_and_ranks_are_shown(printed):
    """Items 3 4 5 6 turn right and 1 wrong: 3 to 6 of 8. McNemar 4 against 1: 2 (1 + 5) / 32. Each loss is 0.1 less."""
    ranks = {"layers.0.q": 4, "layers.1.q": 6, "layers.0.v": 2, "layers.1.v": 4}
    metrics = {"test": {"step": 60, "accuracy": 0.75, "loss": 0.4}}
    code, text = printed(run("A"), run("B", ranks=ranks, metrics=metrics))
    assert code == 0
    assert line(text, "method.name") == ["method.name", "lora", "igu"]
    assert "train.steps" not in text
    assert line(text, "accuracy") == ["accuracy", "↑", "0.5", "0.75", "+0.25"]
    correct = line(text, "correct")
    assert correct[:3] == ["correct", "8", "0.375"]
    assert correct[5] == "0.75"
    assert correct[8] == "+0.375"
    assert correct[-1] == "0.375"
    assert text.count("-0.1 [-0.1, -0.1]") == 1
    assert "A wrong, B right: 4 (validation/3, validation/4, validation/5, validation/6)" in text
    assert "A right, B wrong: 1 (validation/1)" in text
    assert "2 of 4 sites differ" in text
    assert line(text, "A, layer") == ["A,", "layer", "0", "1", "B,", "layer", "0", "1"]
    assert line(text, "q ") == ["q", "4", "4*", "q", "4", "6*"]
    assert line(text, "v ") == ["v", "4*", "4", "v", "2*", "4"]
    assert "do not say what other seeds would give" in text


def test_scores_of_items_are_paired_where_both_runs_have_them(printed):
    """B gains 0.1 on each of the six items that both have generated; nothing of them is right or wrong."""
    ours = [0.5] * 6 + [None] * 2
    theirs = [0.6] * 7 + [None]
    texts = [rows(name, correct=[None] * 8, rougeL=scores) for name, scores in (("A", ours), ("B", theirs))]
    _, text = printed(run("A"), run("B"), *texts)
    assert line(text, "rougeL") == ["rougeL", "6", "0.5", "0.6", "+0.1", "[+0.1,", "+0.1]"]
    assert "correct " not in text


def test_a_run_is_named_by_its_folder_too(tmp_path, capsys):
    folders = [write(tmp_path / name, run(name), rows(name)) for name in "AB"]
    copy = tmp_path / "copy"
    folders[1].rename(copy)
    assert main(["compare", str(folders[0]), str(copy)]) == 0
    assert "b00000000000  igu on tiny" in capsys.readouterr().out


def test_a_missing_run_is_an_error_with_both_places(tmp_path, capsys):
    write(tmp_path, run("A"), rows("A"))
    assert main(["compare", run("A").run_id, "nowhere", "--results-dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"B: no run 'nowhere': neither nowhere nor {tmp_path / 'runs' / 'nowhere'} has a record.json" in err


@pytest.mark.parametrize(
    ("name", "text"), [("record.json", "{"), ("items.jsonl", "{\n"), ("items.jsonl", '{"gold": 1}\n')]
)
def test_a_broken_file_is_an_error_that_names_the_folder(tmp_path, name, text):
    folder = write(tmp_path, run("A"), rows("A"))
    (folder / name).write_text(text)
    with pytest.raises(run_pair.CompareError, match=f"A: {folder} cannot be read: "):
        run_pair.load("A", str(folder), tmp_path)


def test_an_id_used_twice_makes_no_pairs(tmp_path):
    folder = write(tmp_path, run("A"), [*rows("A"), rows("A")[0]])
    with pytest.raises(run_pair.CompareError, match="names 9 items by 8 ids"):
        run_pair.load("A", str(folder), tmp_path)


def test_a_run_that_is_not_ok_is_compared_with_a_warning(printed):
    failed = run("B", status="nan", reason="loss is nan", ranks=None, metrics=None, config={})
    code, text = printed(run("A"), failed, (), None)
    assert code == 0
    assert "warning: B is nan (loss is nan): what it did measure is shown" in text
    assert line(text, "accuracy") == ["accuracy", "↑", "0.5"]  # not measured is empty, never 0
    assert "items: none to pair, B left no items.jsonl" in text
    assert "B has no rank map" in text


def test_other_code_and_other_data_are_said(printed):
    a = run("A", provenance={"git_commit": "a" * 40, "git_dirty": True, "task": {"data": "c" * 64}})
    b = run("B", provenance={"git_commit": "b" * 40, "git_dirty": False, "task": {"data": "d" * 64}})
    _, text = printed(a, b)
    assert "git_commit differs: aaaaaaaaaaaa and bbbbbbbbbbbb" in text
    assert "task differs: data cccccccccccc and data dddddddddddd" in text
    assert "A: its code had changes that were not committed" in text
    assert "B: its code" not in text


def refusal(a: RunRecord, b: RunRecord, items_a: list[dict[str, Any]], items_b: list[dict[str, Any]]) -> str:
    sides = [
        run_pair.PairedRun(name, found, {item["id"]: item for item in items})
        for name, found, items in (("A", a, items_a), ("B", b, items_b))
    ]
    with pytest.raises(run_pair.CompareError) as caught:
        run_pair.refuse_unlike(*sides)
    return str(caught.value)


def test_runs_of_two_tasks_are_refused(printed):
    code, text = printed(run("A"), run("B", task="boolq"))
    assert code == 2
    assert "A is a run of glue-rte, B of boolq: give two of one task" in text
    assert "accuracy" not in text


def test_other_items_are_refused_by_name():
    said = refusal(run("A"), run("B"), rows("A"), rows("B")[:2])
    assert said.startswith("A has items that B has not: validation/2, validation/3, ")
    assert "validation/6 and 1 more; give runs scored on the same items" in said
    assert "B has items that A has not: validation/7;" in refusal(run("A"), run("B"), rows("A")[:7], rows("B"))


def test_other_gold_answers_under_the_same_ids_are_refused():
    said = refusal(run("A"), run("B"), rows("A"), rows("B", gold=["yes"] * 7 + ["no"]))
    assert said.startswith("gold answers differ: validation/7; give runs scored on the same items")


@pytest.mark.parametrize("change", [{"seed": 1}, {"task": {"test_size": 9}}])
def test_items_without_gold_are_paired_only_where_they_were_drawn_alike(change):
    bare = {"gold": [None] * 8, "correct": [None] * 8}
    other = run("B", config={**run("B").config, **change})
    said = refusal(run("A"), other, rows("A", **bare), rows("B", **bare))
    assert "the items have no gold answer to be known by" in said
    assert next(iter(change)) in said


def test_items_without_a_verdict_have_a_loss_only(printed):
    bare = {"gold": [None] * 8, "correct": [None] * 8}
    code, text = printed(run("A"), run("B"), rows("A", **bare), rows("B", **bare))
    assert code == 0
    assert "-0.1 [-0.1, -0.1]" in text
    assert "correct" not in text
    assert "A wrong" not in text


def test_what_either_run_did_not_measure_is_left_out_of_both():
    a, b = rows("A", correct=[None, True, *[False] * 6]), rows("B", loss=[None, *LOSSES["B"][1:]])
    cells = list(compare.item_rows(list(zip(a, b, strict=True)), ""))
    assert [row[:2] for row in cells] == [("correct", "7"), ("loss", "7")]
    assert compare.flips(list(zip(a, b, strict=True))).to_wrong == ["validation/1"]


def test_a_loss_is_the_mean_over_units_as_the_metric_is():
    """A: (0 * 3 + 1 * 1) / 4; B: (2 * 3 + 1 * 1) / 4. In other units there are means and no pairs."""
    a, b = (
        [{"correct": None, "loss": loss, "units": u} for loss, u in side]
        for side in (((0.0, 3), (1.0, 1)), ((2.0, 3), (1.0, 1)))
    )
    ((what, n, *means, _),) = compare.item_rows(list(zip(a, b, strict=True)), "")
    assert (what, n, *means) == ("loss", "2", "0.25", "1.75", "+1.5 [+0, +2]")
    b[0]["units"] = 1
    ((*_, difference, _),) = compare.item_rows(list(zip(a, b, strict=True)), "")
    assert difference == "units differ: no pairs"


def test_parts_of_the_test_stand_apart(printed):
    part = ["", "", "", "", "mm", "mm", "mm", "mm"]
    _, text = printed(run("A"), run("B"), rows("A", part=part), rows("B", part=part))
    assert line(text, "correct ")[1:3] == ["4", "0.75"]
    assert line(text, "correct_mm")[1:3] == ["4", "0"]


def test_another_split_has_its_metrics_and_no_items(printed):
    _, text = printed(run("A"), run("B"), (), (), "--split", "before")
    assert line(text, "loss") == ["loss", "↓", "1", "1", "+0"]
    assert "accuracy" not in text
    assert "items: runs keep those of test, not of before" in text


def test_a_given_map_is_shown_as_ranks_and_not_as_a_setting():
    config = {"method": {"name": "transplant", "ranks": {"layers.0.q": 4}}}
    given = replace(run("A"), config=config)
    other = replace(given, config={"method": {"name": "transplant", "ranks": {"layers.0.q": 5}}, "seed": 1})
    assert run_pair.config_differences(given, other) == [("seed", "", "1")]


def test_many_layers_are_shown_in_blocks(printed):
    ranks = {f"layers.{layer}.self_attn.q_proj": layer for layer in range(40)}
    _, text = printed(run("A", ranks=ranks), run("B", ranks={**ranks, "layers.39.self_attn.q_proj": 7}))
    assert max(map(len, text.splitlines())) <= 100
    assert sum(row.startswith("A, layer") for row in text.splitlines()) == 2
    assert "39*" in text
    assert " 7*" in text


def test_sites_of_one_run_alone_are_marked(printed):
    _, text = printed(run("A", ranks={"layers.0.q": 4, "head": 2}), run("B", ranks={"layers.0.q": 4}))
    assert "1 of 2 sites differ" in text
    assert "2*" in line(text, "head")


def test_brackets_in_a_setting_are_no_markup(printed):
    _, text = printed(run("A", config={"note": "[red]x[/red]"}), run("B", config={}))
    assert line(text, "note") == ["note", "[red]x[/red]"]


def test_a_torn_last_line_is_an_item_less(tmp_path):
    folder = write(tmp_path, run("A"), rows("A"))
    with (folder / "items.jsonl").open("a") as file:
        file.write(json.dumps(rows("A")[0])[:9])
    assert len(run_pair.load("A", str(folder), tmp_path).items) == 8


def test_a_site_outside_the_layers_has_a_column_of_its_own(printed):
    ranks = {"layers.0.q": 4, "layers.1.q": 6, "head": 3}
    _, text = printed(run("A", ranks=ranks), run("B", ranks={**ranks, "head": 5}))
    assert line(text, "A, layer")[:5] == ["A,", "layer", "0", "1", "other"]
    assert line(text, "head") == ["head", "3*", "head", "5*"]


@pytest.mark.parametrize(
    ("codes", "differ"),
    [(("1" * 12, "1" * 12), None), (("1" * 12, "2" * 12), "numbers_code"), (("1" * 12, None), "git_commit")],
)
def test_the_code_behind_the_numbers_counts_where_both_runs_of_a_method_say_it(printed, codes, differ):
    commits = ({"git_commit": letter * 40} | ({"numbers_code": code} if code else {})
               for letter, code in zip("ab", codes, strict=True))  # fmt: skip
    a, b = (replace(run("A"), run_id=name, provenance=facts) for name, facts in zip("ab", commits, strict=True))
    _, text = printed(a, b)
    assert [fact for fact in ("numbers_code", "git_commit") if f"{fact} differs" in text] == (
        [differ] if differ else []
    )


def test_how_a_learning_rate_was_chosen_is_one_row_in_words():
    curve = [[0.003, 0.023328374433428205, 0], [0.01, 0.0173, 0], [0.03, 0.0114, 0]]
    tuned = {"chosen": 0.01, "curve": curve, "edge": False, "metric": "validation/loss", "missing": 0, "seeds": [1]}
    plain, chosen = run("A"), run("B", config={**run("A").config, "tuned": tuned})
    other = run("B", config={**run("A").config, "tuned": {**tuned, "chosen": 0.03, "edge": True}})
    assert compare.setting_rows(plain, chosen) == [("tuned", "no", "0.01, the best of 3 by validation/loss")]
    assert compare.setting_rows(chosen, other)[-1][2] == "0.03, the best of 3 by validation/loss (edge of its grid)"
    assert compare.setting_rows(chosen, chosen) == []
