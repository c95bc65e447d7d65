"""Records turned into a frame and into tables."""

from __future__ import annotations

from typing import Any

import pytest
from support.records import record, sweep

from rankbench.analysis import frame as frames
from rankbench.analysis.frame import SelectionError
from rankbench.analysis.learning_rates import best_rates, rate_curves
from rankbench.cli import main
from rankbench.records import run_folder
from rankbench.reporting.record_tables import print_frame, rates_frame, runs_frame


def test_a_frame_has_a_row_per_run_and_null_for_what_was_not_measured():
    failed = record("igu", 0, status="nan", metrics=None, ledger=None, cost=None)
    frame = frames.frame([record("lora", 0), failed])
    assert frame["test/kl"].tolist()[0] == 0.25
    assert frame["test/kl"].isna().tolist() == [False, True]
    assert frame["final/params"].isna().tolist() == [False, True]
    assert frame["status"].tolist() == ["ok", "nan"]


def test_saved_records_come_back_sorted(tmp_path):
    written = [record("lora", 1), record("igu", 0), record("lora", 0)]
    run_folder.save(written, tmp_path / "deep" / "records.jsonl")
    found, problems = run_folder.records(tmp_path / "deep" / "records.jsonl")
    assert problems == []
    assert [(r.method, r.seed) for r in found] == [("igu", 0), ("lora", 0), ("lora", 1)]
    assert found[2] == written[0]


def test_saved_records_name_no_folder_of_this_machine(tmp_path):
    config = {"results_dir": "/home/me/results", "task": {"data_dir": "/data/rte"}, "model": {"path": None}}
    run_folder.save([record("lora", 0, config=config)], tmp_path / "records.jsonl")
    (found,), _ = run_folder.records(tmp_path / "records.jsonl")
    assert found.config == {"results_dir": "results", "task": {"data_dir": "rte"}, "model": {"path": None}}


def test_a_foreign_file_is_named_and_not_counted(tmp_path, capsys):
    for name, text in (("lora0", record("lora", 0).to_json()), ("torn", '{"run_id": '), ("foreign", '{"a": 1}')):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "record.json").write_text(text)
    assert main(["records", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("not counted: ") == 2
    assert "torn/record.json: not JSON" in printed
    assert "foreign/record.json: not a run record" in printed
    assert "Tiny (random weights), Planted ranks, budget r1: 1 runs" in printed
    assert "| LoRA (uniform) | 0 | ok | 0.2500 | 0.5000 | 64 | 64 | 64 | 2 | 2.0 | 2 | 1 | lora0 |" in printed


def test_a_run_without_a_record_is_named(tmp_path):
    for name in ("lora0", "gone", ".hydra"):  # a sweep's own folder is no run
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "lora0" / "record.json").write_text(record("lora", 0).to_json())
    found, problems = run_folder.records(tmp_path)
    assert len(found) == 1
    assert problems == [f"{tmp_path / 'runs' / 'gone'}: no record: killed or still running"]


@pytest.mark.parametrize("status", ["error", "nan"])
def test_a_run_that_failed_early_has_a_row_too(status, capsys):
    failed = record("igu", 0, status=status, metrics=None, ledger=None, cost=None)
    print_frame(runs_frame([record("lora", 0), failed], ["test/kl"]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| LoRA (uniform) | 0 | ok | 0.2500 | 64 | 64 | 64 | 2 |")
    assert lines[3] == f"| IGU-LoRA | 0 | {status} |" + "  |" * 8 + " igu0 |"


def test_a_group_of_early_failures_is_a_table(capsys):
    failed = [record("igu", seed, status="nan", metrics=None, ledger=None, cost=None) for seed in (0, 1)]
    print_frame(runs_frame(failed, []))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [f"| IGU-LoRA | {seed} | nan |" + "  |" * 7 + f" igu{seed} |" for seed in (0, 1)]


@pytest.mark.parametrize(("column", "head"), [("before/kl", "initial KL ↓"), ("test/kl", "KL ↓")])
def test_metrics_are_columns(column, head):
    assert head in runs_frame([record("lora", 0)], [column])


def test_a_frame_carries_the_learning_rate_and_settings_asked_for():
    runs = [record("lora", 0, config={"train": {"learning_rate": 0.01}, "task": {"map": "few"}}), record("lora", 1)]
    data = frames.frame(runs, ["task.map"])
    assert data["learning_rate"].tolist()[0] == 0.01
    assert data["learning_rate"].isna().tolist() == [False, True]
    assert data["task.map"].tolist()[0] == "few"
    assert data["task.map"].isna().tolist() == [False, True]


def test_records_are_split_by_settings():
    runs = [record("lora", seed, config={"task": {"map": name}}) for name in ("many", "few") for seed in (0, 1)]
    split = frames.split(runs, ["task.map"])
    assert [(title, len(rows)) for title, rows in split] == [
        ("tiny, planted, budget r1, task.map=few", 2),
        ("tiny, planted, budget r1, task.map=many", 2),
    ]
    with pytest.raises(SelectionError, match=r"no record has a setting 'map'; a key is written as on the command line"):
        frames.split(runs, ["map"])


def best(runs, metric: str = "validation/loss", **arguments) -> dict[str, Any]:
    (chosen,) = best_rates(frames.frame(runs), metric, **arguments).to_dict("records")
    return chosen


def test_the_best_mean_over_the_tuning_seeds_is_chosen():
    chosen = best(sweep({0.001: [0.5, 0.7], 0.01: [0.4, 0.5], 0.1: [0.1, 0.9]}))
    assert (chosen["learning_rate"], chosen["mean"], chosen["n"]) == (0.01, pytest.approx(0.45), 2)
    assert chosen["edge"] is False
    assert (chosen["model"], chosen["task"], chosen["budget"], chosen["label"]) == ("tiny", "planted", "r1", "lora")


@pytest.mark.parametrize(("values", "rate"), [((0.1, 0.2, 0.3), 0.001), ((0.3, 0.2, 0.1), 0.1)])
def test_a_best_rate_at_the_edge_of_its_grid_is_said_to_be(values, rate):
    chosen = best(sweep({at: [value] for at, value in zip((0.001, 0.01, 0.1), values, strict=True)}))
    assert (chosen["learning_rate"], chosen["edge"]) == (rate, True)


def test_the_best_is_the_highest_but_for_losses():
    assert best(sweep({0.001: [0.5], 0.01: [0.6]}, metric="accuracy"), "validation/accuracy")["learning_rate"] == 0.01
    assert best(sweep({0.001: [0.5], 0.01: [0.6]}, metric="kl"), "validation/kl")["learning_rate"] == 0.001


def test_a_metric_of_unknown_direction_chooses_nothing():
    with pytest.raises(
        SelectionError,
        match=r"by validation/regret: its direction is not known \(higher .* accuracy, .* lower of kl, l",
    ):
        best(sweep({0.001: [0.5]}, metric="regret"), "validation/regret")


def test_a_label_that_cannot_choose_does_not_keep_the_others_from_it():
    """igu fails at one tuning seed of each rate, at both of the lowest."""
    failing = sweep({0.001: [0.1, 0.1], 0.01: [0.2, 0.2], 0.1: [0.3, 0.3]}, method="igu")
    for at in (0, 1, 2, 5):
        failing[at].status = "inert"
    data = frames.frame([*sweep({0.001: [0.5, 0.5], 0.01: [0.4, 0.4]}), *failing])
    chosen = best_rates(data, "validation/loss").set_index("label")
    assert chosen["learning_rate"].to_dict() == {"igu": 0.01, "lora": 0.01}
    assert chosen["missing"].to_dict() == {"igu": 1, "lora": 0}
    row = rates_frame(data, "validation/loss").set_index("method").loc["IGU-LoRA"].tolist()
    curve = "0.001: no run (0, 2 missing); 0.01: 0.2000 (1, 1 missing); 0.1: 0.3000 (1, 1 missing)"
    assert row[:2] == [curve, "none: seeds missing"]


def test_of_equal_means_the_lower_rate_is_chosen():
    assert best(sweep({0.1: [0.5], 0.001: [0.6], 0.01: [0.5]}))["learning_rate"] == 0.01


def test_test_columns_cannot_change_the_choice():
    data = frames.frame(sweep({0.001: [0.5, 0.7], 0.01: [0.4, 0.5], 0.1: [0.1, 0.9]}))
    assert {"test/loss", "test/step"} <= set(data.columns)
    chosen = best_rates(data, "validation/loss")
    without = data.drop(columns=[column for column in data if column.startswith("test/")])
    assert best_rates(without, "validation/loss").equals(chosen)
    data["test/loss"] = -100 * data["learning_rate"]
    assert best_rates(data, "validation/loss").equals(chosen)


@pytest.mark.parametrize("metric", ["test/loss", "before/loss", "loss", "validation/step", "validation/none"])
def test_rates_are_chosen_on_validation_alone(metric):
    with pytest.raises(SelectionError, match=rf"on validation alone, and '{metric}' is not one .*: validation/loss$"):
        best(sweep({0.001: [0.5]}), metric)


def test_a_rate_where_a_run_failed_is_not_chosen_but_is_part_of_the_grid():
    runs = sweep({0.001: [0.9, 0.9], 0.01: [0.5, 0.6], 0.1: [0.1, 0.2]})
    runs[-1] = record("lora", 1, status="nan", metrics=None, config=runs[-1].config)
    chosen = best(runs)
    assert (chosen["learning_rate"], chosen["edge"]) == (0.01, False)
    curve = rate_curves(frames.frame(runs), "validation/loss")
    assert curve["missing"].tolist() == [0, 0, 1]
    assert curve["n"].tolist() == [2, 2, 1]


def test_without_tuning_seeds_those_run_at_every_rate_choose():
    """Rate 0.01 was run on at three seeds more, where it is bad: they do not count against it."""
    runs = sweep({0.001: [0.5, 0.5], 0.01: [0.4, 0.4, 9.0, 9.0, 9.0]})
    assert best(runs)["learning_rate"] == 0.01
    assert best(runs)["seeds"] == (0, 1)
    assert best(runs, seeds=[1])["seeds"] == (1,)


def test_choices_that_cannot_be_made_are_refused():
    with pytest.raises(
        SelectionError, match=r"lora: no seed was run at all of its learning rates 0.001, 0.01; run one"
    ):
        best([*sweep({0.001: [0.5]}), record("lora", 7, config={"train": {"learning_rate": 0.01}})])
    with pytest.raises(
        SelectionError, match=r"lora: no learning rate has validation/loss at every tuning seed \(0, 7\)"
    ):
        best(sweep({0.001: [0.5]}), seeds=[0, 7])
    with pytest.raises(SelectionError, match=r"lora has several records of seed 0: lora0, lora0; split them by"):
        best(sweep({0.001: [0.5]}) * 2)


def test_each_label_has_its_own_rate():
    runs = [
        *sweep({0.001: [0.5], 0.01: [0.4]}, method="permuted", settings={"source": "fim"}),
        *sweep({0.001: [0.3], 0.01: [0.4]}, method="permuted", settings={"source": "eva"}),
    ]
    chosen = best_rates(frames.frame(runs), "validation/loss").set_index("label")["learning_rate"].to_dict()
    assert chosen == {"permuted (source=fim)": 0.01, "permuted (source=eva)": 0.001}


def test_the_command_line_prints_curves_and_choices(tmp_path, capsys):
    runs = sweep({0.001: [0.5, 0.7], 0.01: [0.4, 0.5], 0.1: [0.1, 0.9]}) + sweep({0.01: [0.25]}, method="igu")
    runs[5] = record("lora", 1, status="nan", metrics=None, config=runs[5].config)
    run_folder.save(runs, tmp_path / "records.jsonl")
    assert main(["records", str(tmp_path / "records.jsonl"), "--best", "validation/loss"]) == 0
    printed = capsys.readouterr().out
    assert "| LoRA (uniform) | 0.001: 0.6000 (2); 0.01: 0.4500 (2); 0.1: 0.1000 (1, 1 missing) | 0.01 | no |" in printed
    assert "| IGU-LoRA | 0.01: 0.2500 (1) | 0.01 | one rate only |" in printed
    assert main(["records", "rates", "--results", str(tmp_path / "records.jsonl"), "--metric", "test/loss"]) == 2
    assert "rates are chosen on validation alone, and 'test/loss'" in capsys.readouterr().err
