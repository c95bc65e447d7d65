"""Methods compared with a reference: counts, pairs, intervals and costs in the cells of a table."""

from __future__ import annotations

import pytest
from support.records import record, runs

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import displays
from rankbench.cli import main
from rankbench.records import run_folder
from rankbench.reporting import record_tables
from rankbench.reporting.record_tables import LEGEND
from rankbench.reporting.table import markdown_table

LORA = {0: 0.10, 1: 0.20, 2: 0.30, 3: 0.40, 4: 0.50}
BETTER = {seed: value - 0.05 + 0.01 * (seed % 2) for seed, value in LORA.items()}  # -0.05 -0.04 -0.05 -0.04 -0.05
LIKE = {seed: value + 0.02 * (-1) ** seed for seed, value in LORA.items()}


LABELS = {shown.title: method for method, shown in displays().items()}


def comparison_table(*what, **named) -> str:
    """The table in Markdown, and its notes."""
    table = record_tables.comparison_table(*what, **named)
    return "\n\n".join([markdown_table(table), *table.notes])


def cells(text: str) -> dict[str, dict[str, str]]:
    """Row -> column -> cell of the Markdown table at the head of a text."""
    split = [[cell.strip() for cell in line[2:-2].split(" | ")] for line in text.split("\n\n")[0].splitlines()]
    return {LABELS.get(row[0], row[0]): dict(zip(split[0], row, strict=True)) for row in split[2:]}


def test_rows_are_the_reference_and_then_the_best_first():
    found = [*runs("igu", LIKE), *runs("random", BETTER), *runs("lora", LORA), *runs("zeta", {0: 0.0})]
    assert list(cells(comparison_table(found, ["test/kl"]))) == ["lora", "zeta", "random", "igu"]
    higher = [run for method in (("lora", LORA), ("fim", BETTER), ("igu", LIKE)) for run in runs(*method, "accuracy")]
    assert list(cells(comparison_table(higher, ["test/accuracy"]))) == ["lora", "igu", "fim"]


def test_fewer_seeds_that_happen_to_be_easy_do_not_rank_an_arm_above_a_better_one():
    easy = min(LORA, key=LORA.__getitem__)
    text = comparison_table([*runs("lora", LORA), *runs("igu", BETTER), *runs("fim", {easy: LORA[easy]})], ["test/kl"])
    assert list(cells(text)) == ["lora", "igu", "fim"]
    assert float(cells(text)["fim"]["KL ↓"].split()[0]) < float(cells(text)["igu"]["KL ↓"].split()[0])
    assert "Means are over different seeds where n differs" in text


def test_cells_by_hand():
    """BETTER: mean -0.046, deviation 0.005477, error 0.002449, t 2.776: -+ 0.0068."""
    row = cells(comparison_table([*runs("lora", LORA), *runs("igu", BETTER)], ["test/kl"]))
    assert row["lora"]["n"] == row["igu"]["n"] == "5"
    assert row["lora"]["KL ↓"] == "0.30 ± 0.16"
    assert row["lora"]["difference [95 % CI]"] == ""
    assert row["igu"]["difference [95 % CI]"] == "-0.0460 [-0.0528, -0.0392]"


def test_differences_are_paired():
    """The seeds explain far more than the method: unpaired, 0.046 would drown in deviations of 0.16."""
    row = cells(comparison_table([*runs("lora", LORA), *runs("igu", BETTER)], ["test/kl"]))
    assert "not resolved" not in row["igu"]["difference [95 % CI]"]


def test_what_is_not_resolved_says_what_could_have_been_seen():
    """LIKE: mean 0.004, deviation 0.0219, error 0.0098: t 2.776 gives -+ 0.0272, and 1.682 deviations are 0.0368."""
    row = cells(comparison_table([*runs("lora", LORA), *runs("igu", LIKE)], ["test/kl"]))
    assert row["igu"]["difference [95 % CI]"] == "+0.004 [-0.023, +0.031] not resolved (detectable: 0.037)"


def test_intervals_hold_together_over_the_methods_of_the_table():
    """Level 1 - 0.05 / 3, t 3.961: -+ 0.0097 where one method alone has 0.0068."""
    found = [*runs("lora", LORA), *runs("igu", BETTER), *runs("fim", LIKE), *runs("eva", BETTER)]
    text = comparison_table(found, ["test/kl"])
    assert cells(text)["igu"]["difference [95 % CI]"] == "-0.0460 [-0.0557, -0.0363]"
    assert text.endswith("Intervals: Student's, 98.33 % each, so that those of 3 comparisons hold together with 95 %.")


def test_seeds_that_one_side_lacks_are_left_out_and_said():
    row = cells(comparison_table([*runs("lora", LORA), *runs("igu", {**BETTER, 9: 7.0})], ["test/kl"]))
    assert row["igu"]["n"] == "6"
    assert row["igu"]["difference [95 % CI]"] == "-0.0460 [-0.0528, -0.0392] (5 pairs)"


def test_one_pair_has_no_interval_and_no_pair_no_difference():
    found = [*runs("lora", LORA), *runs("igu", {0: 0.2}), *runs("fim", {7: 0.2})]
    row = cells(comparison_table(found, ["test/kl"]))
    assert row["igu"]["KL ↓"] == "0.20"
    assert row["igu"]["difference [95 % CI]"] == "+0.1000 (1 pair: no interval)"
    assert row["fim"]["difference [95 % CI]"] == "no common seed"


def test_equal_differences_have_no_interval():
    found = [*runs("lora", {0: 0.50, 1: 0.56}), *runs("igu", {0: 0.53, 1: 0.59})]
    assert cells(comparison_table(found, ["test/kl"]))["igu"]["difference [95 % CI]"].endswith(
        " (all 2 pairs equal: no interval)"
    )


def test_runs_without_the_metric_are_said():
    found = [*runs("lora", LORA), *runs("igu", BETTER), *runs("fim", {0: 0.2})]
    for run in (found[9], found[10]):
        run.metrics["test"].pop("kl")
    row = cells(comparison_table(found, ["test/kl"]))
    assert row["lora"]["KL ↓"] == "0.30 ± 0.16"
    assert row["igu"]["KL ↓"] == "0.21 ± 0.13 (4 values)"
    assert row["fim"]["KL ↓"] == "(0 values)"


def spent(found: list, params: int, match: str = "final") -> list:
    for run in found:
        run.ledger = {**run.ledger, match: {"ranks": 9, "params": params}}
        run.config = {**run.config, "budget": {"match": match}}
    return found


def test_what_is_off_the_budget_is_said_and_not_judged():
    """72 of 64 parameters are 112.5 %."""
    found = [*runs("lora", LORA), *runs("igu", BETTER), *runs("fim", LIKE), *spent(runs("sora", BETTER), 72)]
    text = comparison_table(found, ["test/kl"])
    row = cells(text)
    assert [row[name]["final/target"] for name in ("lora", "igu", "sora")] == ["100 %", "100 %", "112.5 %"]
    assert text.endswith(
        "\n\nSoRA: 112.5 % of the target, so not at an equal budget: not judged, to be shown on a frontier."
    )


def test_nothing_is_judged_against_a_reference_off_the_budget():
    text = comparison_table([*runs("lora", LORA), *spent(runs("sora", BETTER), 72)], ["test/kl"], "sora")
    assert text.endswith("\n\nNo method is judged: the reference SoRA is off the target.")


def test_where_peaks_are_matched_the_peak_is_compared_with_the_target():
    found = [*runs("lora", LORA), *runs("igu", BETTER)]
    row = cells(comparison_table(spent(found, 80, match="peak"), ["test/kl"]))
    assert row["igu"]["peak/target"] == "125 %"


def test_a_metric_of_unknown_direction_sorts_nothing():
    found = [*runs("lora", LORA, "regret"), *runs("igu", LORA, "regret"), *runs("fim", BETTER, "regret")]
    assert list(cells(comparison_table(found, ["test/regret"]))) == ["lora", "igu", "fim"]


def test_failed_runs_are_counted_and_not_averaged():
    failed = record("igu", 4, status="nan", metrics=None, ledger=None, cost=None)
    over = record("igu", 3, status="over_budget", metrics={"test": {"step": 9, "kl": -9.0}})
    good = runs("igu", {seed: BETTER[seed] for seed in (0, 1, 2)})
    for run in (failed, over):
        run.config = good[0].config
    row = cells(comparison_table([*runs("lora", LORA), *good, failed, over], ["test/kl"]))
    assert (row["igu"]["n"], row["igu"]["ok/all"]) == ("3", "3/5")
    assert row["igu"]["status"] == "3 ok, 1 nan, 1 over_budget"
    assert row["igu"]["KL ↓"] == "0.15 ± 0.10"
    assert row["lora"]["ok/all"] == "5/5"


def test_a_status_of_nan_is_not_an_empty_cell():
    found = [*runs("lora", LORA), record("nan", 0, status="nan", metrics=None, ledger=None, cost=None)]
    row = cells(comparison_table(found, ["test/kl"]))["nan"]
    assert (row["status"], row["final/target"], row["final params"]) == ("1 nan", "", "")


def test_a_method_without_a_run_that_is_ok_is_a_row():
    found = [*runs("lora", LORA), record("igu", 0, status="oom", metrics=None, ledger=None, cost=None)]
    row = cells(comparison_table(found, ["test/kl"]))["igu"]
    assert (row["n"], row["status"], row["KL ↓"], row["difference [95 % CI]"]) == (
        "0",
        "1 oom",
        "",
        "no common seed",
    )
    assert (row["final params"], row["own s"], row["own passes"]) == ("", "", "")


def test_costs_are_those_of_calibration_and_allocation():
    row = cells(comparison_table(runs("lora", LORA), ["test/kl"]))["lora"]
    assert (row["final params"], row["peak params"]) == ("64", "64")
    assert (row["own s"], row["own passes"]) == ("4.0", "8")  # 2 + 2 seconds, 3 + 3 forward and 1 + 1 backward


def test_every_metric_has_its_difference():
    found = [*runs("lora", LORA), *runs("igu", BETTER)]
    for run in found:
        run.metrics["validation"] = {"step": 9, "accuracy": run.metrics["test"]["kl"] * 2}
    text = comparison_table(found, ["test/kl", "validation/accuracy"])
    assert cells(text)["igu"]["validation accuracy difference [95 % CI]"].startswith("-0.09")


def test_another_reference_turns_the_difference_round():
    row = cells(comparison_table([*runs("lora", LORA), *runs("igu", BETTER)], ["test/kl"], reference="igu"))
    assert next(iter(row)) == "igu"
    assert row["lora"]["difference [95 % CI]"].startswith("+0.0")


def test_a_reference_alone_is_a_table():
    text = comparison_table(runs("lora", LORA), ["test/kl"])
    assert text.endswith("No pair to compare.")


def test_settings_that_differ_make_rows_of_their_own():
    found = [
        *runs("lora", LORA),
        *runs("permuted", BETTER, settings={"source": "fim"}),
        *runs("permuted", LIKE, settings={"source": "eva"}),
    ]
    assert list(cells(comparison_table(found, ["test/kl"]))) == [
        "lora",
        "FIM-LoRA map, permuted",
        "EVA map, permuted",
    ]


def test_what_is_not_there_is_named():
    with pytest.raises(SelectionError, match=r"no run has the metric 'test/loss'; there are test/kl$"):
        comparison_table(runs("lora", LORA), ["test/loss"])
    with pytest.raises(SelectionError, match=r"no run of the reference 'lora'; name one of igu, eva with --reference"):
        comparison_table([*runs("eva", LORA), *runs("igu", LORA)], ["test/kl"])


def test_the_command_line_prints_a_table_for_each_value(tmp_path, capsys):
    found = [
        run
        for name, shift in (("few", 0.0), ("many", 1.0))
        for method, values in (("lora", LORA), ("igu", BETTER))
        for run in runs(method, {seed: value + shift for seed, value in values.items()}, task={"map": name})
    ]
    run_folder.save(found, tmp_path / "records.jsonl")
    command = ["records", "table", str(tmp_path / "records.jsonl"), "--metric", "test/kl"]
    assert main(command) == 2
    assert "these differ within a table: tiny, planted, budget r1: task.map: few, many" in capsys.readouterr().err
    assert main([*command, "--by", "task.map"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("few sites: 10 runs") < printed.index("true map many: 10 runs")
    assert printed.count("| method | n |") == 2
    assert printed.endswith(f"{LEGEND}\n")


def test_a_selection_without_a_table_does_not_keep_the_others_from_theirs(tmp_path, capsys):
    found = [
        *runs("igu", BETTER, task={"map": "few"}),
        *runs("lora", LORA, task={"map": "many"}),
        *runs("lora", LORA, "loss", task={"map": "none"}),
    ]
    run_folder.save(found, tmp_path / "records.jsonl")
    command = ["records", "table", str(tmp_path / "records.jsonl"), "--metric", "test/kl", "--by", "task.map"]
    assert main(command) == 2
    printed = capsys.readouterr()
    assert "few sites: 5 runs\n\nthere is no run of the reference 'lora'" in printed.out
    assert "true map many: 5 runs\n\n| method |" in printed.out
    assert "true map none: 5 runs\n\nno run has the metric 'test/kl'" in printed.out
    assert printed.err.startswith("rankbench: no table of tiny, planted, budget r1, task.map=few; tiny")


def test_tuning_trials_are_left_out_of_a_table_and_said(tmp_path, capsys):
    trials = [*runs("lora", {100: 0.3, 101: 0.3}), *runs("igu", {100: 0.1, 101: 0.1})]
    for trial in trials:
        trial.run_id += "-trial"
        trial.config = {**trial.config, "trial": True, "train": {"learning_rate": 0.5}}
        trial.metrics = {"validation": {"step": 9, "loss": 0.5}}
    run_folder.save([*runs("lora", LORA), *runs("igu", BETTER), *trials], tmp_path / "records.jsonl")
    command = ["records", "table", str(tmp_path / "records.jsonl"), "--metric", "test/kl"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| IGU-LoRA | 5 |" in printed
    assert "\n4 tuning trials are left out\n" in printed
    assert main(["records", "runs", str(tmp_path / "records.jsonl")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "ok, tuning trial | 0.5 |" in line]
    assert len(rows) == 4


def test_a_label_keeps_its_name_where_its_other_variant_was_not_run(tmp_path, capsys):
    found = [*runs("lora", LORA), *runs("permuted", BETTER, settings={"source": "fim"})]
    (other,) = runs("permuted", {0: 0.1}, settings={"source": "eva"})
    other.config["train"] = {"learning_rate": 0.1}
    run_folder.save([*found, other], tmp_path / "records.jsonl")
    command = ["records", "table", str(tmp_path / "records.jsonl"), "--metric", "test/kl", "--rates", "0.01"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| FIM-LoRA map, permuted | 5 |" in printed
    assert "not run at the chosen rate: permuted (source=eva)" in printed


def test_the_legend_says_what_holds_together():
    assert "the intervals of a column hold together with 95 % probability (Bonferroni)" in LEGEND


def test_a_paper_says_why_its_table_has_no_p_values():
    """Simultaneous intervals decide; a p value beside them would ask for another rule."""
    made = record_tables.comparison_table([*runs("lora", LORA), *runs("igu", BETTER)], ["test/kl"])
    legend = " ".join(made.legend)
    assert "paired by seed; its interval decides, so no p value is given." in legend
