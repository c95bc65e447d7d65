"""Which records one table or figure may combine, and which are refused."""

from __future__ import annotations

import argparse

import pytest
from support.records import record, runs, sweep

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.mixed_records import differences, differing_code
from rankbench.analysis.selection import select
from rankbench.cli.records import add_arguments, selections
from rankbench.records import run_folder
from rankbench.records.record import RunRecord

PROVENANCE = {
    "git_commit": "a" * 40,
    "git_dirty": False,
    "packages": {"torch": "2.13.0", "scipy": "1.17.1"},
    "model": {"model": "4567"},
    "task": {"data": "d", "prompt": "p", "truncated": "train 1"},
}


def made_by(**changes) -> list:
    return [record("lora", 0, provenance=PROVENANCE), record("igu", 0, provenance={**PROVENANCE, **changes})]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"git_commit": "b" * 40}, "code: aaaaaaa, bbbbbbb"),
        ({"git_dirty": True}, "code: aaaaaaa, aaaaaaa changed"),
        ({"packages": {"torch": "2.14.0", "scipy": "1.17.1"}}, "torch: 2.13.0, 2.14.0"),
        ({"packages": {"torch": "2.13.0"}}, "scipy: 1.17.1, null"),
        ({"model": {"model": "0123"}}, "weights: 0123, 4567"),
        ({"task": {"data": "d", "prompt": "q"}}, "prompt: p, q"),
        ({"task": {"data": "e", "prompt": "p"}}, "data: d, e"),
    ],
)
def test_mixed_code_and_versions_are_refused_and_said_where_allowed(changes, said):
    name = said.split(":")[0]
    refused = rf"^not one comparison, these differ within a table: T: {said}\. .* by name what may differ: "
    with pytest.raises(SelectionError, match=rf"{refused}--allow-mixed {name}$"):
        select("T", made_by(**changes))
    assert select("T", made_by(**changes), allow_mixed=[name]).notes[0] == f"mixed: {said}"


def test_what_was_not_allowed_by_its_name_is_still_refused():
    mixed = made_by(git_commit="b" * 40, packages={"torch": "2.14.0", "scipy": "1.17.1"})
    with pytest.raises(
        SelectionError, match=r"these differ within a table: T: torch: 2.13.0, 2.14.0\. .* --allow-mixed torch$"
    ):
        select("T", mixed, allow_mixed=["code"])
    assert select("T", mixed, allow_mixed=["code", "torch"]).notes[0] == (
        "mixed: code: aaaaaaa, bbbbbbb; torch: 2.13.0, 2.14.0"
    )


def test_the_command_line_takes_names():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["results", "--allow-mixed", "code, torch"]).allow_mixed == ["code", "torch"]
    assert parser.parse_args(["results"]).allow_mixed == []


def coded(method: str, seed: int, numbers_code: str, commit: str = "a", shared: str = "0" * 12) -> RunRecord:
    codes = {"git_commit": commit * 40, "numbers_code": numbers_code, "shared_code": shared}
    return record(method, seed, provenance={**PROVENANCE, **codes})


def test_a_commit_that_changes_no_number_parts_no_table():
    """Such as one to a page: lora and igu have a code each, whatever was committed between their seeds."""
    records = [coded("lora", 0, "1" * 12), coded("lora", 1, "1" * 12, "b"), coded("igu", 0, "2" * 12, "c")]
    assert differences(records) == differing_code(records) == []
    assert select("T", records).records == records


def test_a_change_to_a_method_parts_its_own_runs_alone():
    records = [coded("lora", seed, "1" * 12, "ab"[seed]) for seed in (0, 1)]
    records += [coded("igu", seed, "23"[seed] * 12, "ab"[seed]) for seed in (0, 1)]
    assert differences(records) == ["code: igu on planted (222222222222, 333333333333)"]
    assert differences(records[:2]) == []
    with pytest.raises(SelectionError, match=r"T: code: igu on planted \(2+, 3+\)\. .* --allow-mixed code$"):
        select("T", records)
    assert select("T", records, allow_mixed=["code"]).notes[0].startswith("mixed: code: igu on planted")


def test_methods_are_not_compared_across_a_change_to_what_all_of_them_go_through():
    """Such as the trainer: each method has one code, and yet they did not run the same loop."""
    records = [coded("lora", 0, "1" * 12), coded("igu", 0, "2" * 12, "b", shared="9" * 12)]
    assert differences(records) == ["code: all methods on planted (000000000000, 999999999999)"]


def test_records_with_and_without_the_code_of_their_numbers_are_of_different_code():
    mixed = [coded("lora", 0, "1" * 12), *made_by()]
    assert differences(mixed) == [
        "code: 1 records with numbers_code, 2 made before there was one (aaaaaaa)",
    ]


def test_versions_are_compared_whatever_the_code():
    other = coded("lora", 1, "1" * 12)
    other.provenance["packages"] = {"torch": "2.14.0", "scipy": "1.17.1"}
    assert differences([coded("lora", 0, "1" * 12), other]) == ["torch: 2.13.0, 2.14.0"]


def test_settings_named_free_may_differ():
    mixed = [*runs("lora", {0: 1.0}, budget={"match": "peak"}), *runs("igu", {0: 1.0}, budget={"match": "final"})]
    assert differences(mixed) == ["budget.match: final, peak"]
    assert differences(mixed, free=["budget.match"]) == []


def test_the_device_and_the_machine_may_differ():
    assert differences(made_by(device="another", platform="another")) == []


def test_what_a_run_failed_too_early_to_read_is_no_difference():
    assert differences(made_by(model={}, task={})) == []
    assert differences(made_by(task={"data": "d", "prompt": "p", "truncated": "train 2"})) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"git_dirty": True}, ["2 of 2 runs are of code with uncommitted changes"]),
        ({"git_commit": None}, ["2 of 2 runs are of unknown code, without commit or version"]),
        ({"git_commit": None, "packages": {"rankbench": "0.1.0"}}, []),
        ({}, []),
    ],
)
def test_code_that_cannot_be_had_again_is_a_note(changes, said):
    found = [record(method, 0, provenance={**PROVENANCE, **changes}) for method in ("lora", "igu")]
    assert select("T", found).notes == said


def test_settings_outside_the_method_have_to_agree():
    mixed = [*runs("lora", {0: 1.0}, task={"map": "few"}), *runs("igu", {0: 1.0}, task={"map": "many"})]
    with pytest.raises(
        SelectionError, match=r"these differ within a table: T: task.map: few, many\. Split by a setting with --by KEY"
    ):
        select("T", mixed)


@pytest.mark.parametrize("section", ["tracking", "method"])
def test_what_cannot_change_a_number_and_what_is_compared_may_differ(section):
    mixed = [
        record("lora", seed, config={section: {"mode": seed}, "seed": seed, "results_dir": seed}) for seed in (0, 1)
    ]
    assert differences(mixed) == []


def test_several_learning_rates_are_refused():
    with pytest.raises(
        SelectionError,
        match=r"T: lora has learning rates 0.001, 0.01; pick one with --rates RATE, .* best:validation/loss",
    ):
        select("T", sweep({0.001: [0.5], 0.01: [0.4]}))


def test_a_learning_rate_can_be_named():
    found = select("T", sweep({0.001: [0.5], 0.01: [0.4]}), rates="1e-3")
    assert [run.config["train"]["learning_rate"] for run in found.records] == [0.001]
    assert found.notes == ["learning rate 1e-3"]
    with pytest.raises(SelectionError, match=r"--rates 0.1: no run has this learning rate; there are 0.001, 0.01"):
        select("T", sweep({0.001: [0.5], 0.01: [0.4]}), rates="0.1")
    with pytest.raises(SelectionError, match=r"--rates best is neither a number nor best:METRIC"):
        select("T", sweep({0.001: [0.5]}), rates="best")


def test_learning_rates_that_were_not_chosen_here_are_a_note():
    other = runs("igu", {0: 0.1, 1: 0.2})
    for run in other:
        run.config["train"]["learning_rate"] = 0.001
    assert select("T", [*other, *runs("lora", {0: 0.1})]).notes == [
        "learning rates, not tuned here: lora 0.01, igu 0.001"
    ]


def test_labels_without_a_run_at_the_chosen_rate_are_named():
    """As they were called among all: the one that is left keeps the setting that tells it from the one that is not."""
    mixed = [
        *sweep({0.01: [0.5]}),
        *sweep({0.01: [0.5]}, method="permuted", settings={"source": "fim"}),
        *sweep({0.1: [0.4]}, method="permuted", settings={"source": "eva"}),
        *sweep({0.1: [0.4]}, method="igu"),
    ]
    found = select("T", mixed, rates="0.01")
    assert found.labels == ["lora", "permuted (source=fim)"]
    assert found.notes == ["learning rate 0.01", "not run at the chosen rate: igu, permuted (source=eva)"]


def test_labels_not_run_at_other_seeds_are_named():
    mixed = [*sweep({0.01: [0.5, 0.5]}), *sweep({0.01: [0.5]}, method="igu")]
    found = select("T", mixed, rates="best:validation/loss", tuning_seeds=[0])
    assert found.labels == ["lora"]
    assert found.notes[-1] == "not run at the chosen rate: igu"


@pytest.mark.parametrize("tuning", [[], [0, 1]])
def test_a_label_that_cannot_choose_keeps_its_records(tuning):
    failing = sweep({0.001: [0.1, 0.1], 0.01: [0.2, 0.2]}, method="igu")
    for run in failing[:3]:
        run.status = "inert"
    mixed = [*sweep({0.001: [0.5, 0.5, 0.5], 0.01: [0.4, 0.4, 0.4]}), *failing]
    found = select("T", mixed, rates="best:validation/loss", tuning_seeds=tuning)
    kept = [(run.seed, run.config["train"]["learning_rate"]) for run in found.records if run.method == "igu"]
    assert kept == [(0, 0.01), (1, 0.01)]
    assert found.notes[-1] == (
        "igu: no learning rate has validation/loss at every tuning seed (0, 1); shown at 0.01, 1 of 2 missing"
    )


def test_seeds_and_rates_are_said_by_label_where_they_differ():
    mixed = [*sweep({0.001: [0.5, 0.5], 0.01: [0.4, 0.5], 0.1: [0.5, 0.5]}), *sweep({0.01: [0.5]}, method="igu")]
    assert select("T", mixed, rates="best:validation/loss").notes == [
        "learning rates with the best validation/loss of the seeds named, which are shown as well: "
        "lora 0.01 of 3 (seeds 0, 1), igu 0.01 of 1 (seeds 0) (edge of its grid)"
    ]


def test_each_method_is_shown_at_the_rate_its_validation_chose():
    """The test metric is the opposite of the validation metric here: choosing on it would take the other rates."""
    mixed = [*sweep({0.001: [0.5], 0.01: [0.4]}), *sweep({0.001: [0.1], 0.01: [0.2]}, method="igu")]
    found = select("T", mixed, rates="best:validation/loss")
    assert {run.method: run.config["train"]["learning_rate"] for run in found.records} == {"lora": 0.01, "igu": 0.001}
    assert found.notes == [
        "learning rates with the best validation/loss of seeds 0, which are shown as well: "
        "lora 0.01 (edge of its grid), igu 0.001 (edge of its grid)"
    ]


def test_tuning_seeds_choose_and_are_not_shown():
    mixed = sweep({0.001: [0.5, 0.5], 0.01: [0.4, 0.4, 9.0, 9.0], 0.1: [0.6, 0.6]})
    found = select("T", mixed, rates="best:validation/loss", tuning_seeds=[0, 1])
    assert [(run.config["train"]["learning_rate"], run.seed) for run in found.records] == [(0.01, 2), (0.01, 3)]
    assert found.notes == ["learning rates with the best validation/loss of seeds 0, 1, which are not shown: lora 0.01"]
    with pytest.raises(SelectionError, match=r"every record is of a tuning seed; run the chosen rates at other seeds"):
        select("T", sweep({0.001: [0.5]}), rates="best:validation/loss", tuning_seeds=[0])


def test_tuning_seeds_without_a_choice_are_refused():
    with pytest.raises(SelectionError, match=r"--tuning-seeds needs --rates best:METRIC"):
        select("T", sweep({0.001: [0.5]}), tuning_seeds=[0])


def test_two_records_of_one_pair_are_refused():
    with pytest.raises(SelectionError, match=r"igu has several records of seed 1: igu1, igu1; split them by"):
        select("T", [*runs("igu", {0: 0.1, 1: 0.2}), *runs("igu", {1: 0.3})])


def test_nothing_to_read_is_an_error(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SelectionError, match=r"holds no records; give a results folder, or a file made with --save"):
        selections(parser.parse_args([str(tmp_path)]))


def test_what_could_not_be_read_is_a_note(tmp_path):
    run_folder.save(runs("lora", {0: 0.1}), tmp_path / "records.jsonl")
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write("{\n")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    (found,) = selections(parser.parse_args([str(tmp_path / "records.jsonl")]))
    assert found.notes[0].startswith("not counted: ")
    assert "records.jsonl:2: not JSON" in found.notes[0]
