"""Which published numbers a study reproduces, tested on made-up studies with the real tables of the papers."""

from __future__ import annotations

import pytest
from support.harness import python
from support.records import record

from rankbench.cli import main, verify
from rankbench.published import numbers as published_numbers
from rankbench.published import verification
from rankbench.published.verification import measures
from rankbench.statistics.reproduction import REPRODUCTION_OUTCOMES
from rankbench.studies import study
from rankbench.studies.study import Study
from rankbench.sweeps.experiment_files import read
from rankbench.sweeps.manifest import Job, Sweep, SweepError

QWEN = {"budget": {"reference_rank": 16}, "task": {"train_size": None, "test_size": None}}
REASONING = {
    "file": "igu",
    "table": "reasoning",
    "model": "Qwen2.5-0.5B",
    "arms": {"lora": "LoRA", "adalora": "AdaLoRA", "igu": "IGU-LoRA"},
}
ADALORA = {
    "file": "adalora",
    "table": "Table 1",
    "arms": {"lora": "LoRA", "adalora": "AdaLoRA"},
    "budgets": {
        "r2": ["0.33M parameters, r=2", "0.32M parameters, mean rank 2"],
        "r8": ["1.33M parameters, r=8", "1.27M parameters, mean rank 8"],
    },
}


def run(arm, task, seed, metrics, model="qwen2.5-0.5b", params=8_800_000, budget="r16", config=QWEN, status="ok"):
    ledger = {"final": {"ranks": 1, "params": params}}
    return (
        arm,
        record(
            arm,
            seed,
            run_id=f"{arm}-{task}-{budget}-{seed}",
            model=model,
            task=task,
            budget=budget,
            config=config,
            ledger=ledger,
            status=status,
            metrics={"test": {"step": 9, **metrics}} if metrics else None,
        ),
    )


def studied(runs, tables=(REASONING,), words=("experiment=x",), **report):
    arms = {arm: {"method": arm} for arm in ("lora", "adalora", "igu", "svd_lora")}
    data = {"name": "x", "question": "?", "source": "s", "arms": arms, "axes": {}}
    found = read({**data, "report": {"reference": "lora", "published": list(tables), **report}}, "x")
    jobs = [Job(arm, made.run_id, False, ()) for arm, made in runs]
    return Study(Sweep("x-0", "x", 1, list(words), found, None, jobs), {made.run_id: made for _, made in runs}, {}, [])


def spread(arm, task, mean, metric="accuracy", by=0.001, **facts):
    """Five seeds around a mean."""
    return [run(arm, task, seed, {metric: mean + by * (seed - 2)}, **facts) for seed in range(5)]


def said(found):
    """(method, task, metric) -> finding."""
    return {(f.row["method"], f.row["task"], f.row["metric"]): f for f in verification.findings(found)}


def test_a_number_is_compared_with_the_runs_of_its_arm():
    found = said(studied([*spread("lora", "boolq", 0.7900), *spread("igu", "boolq", 0.7900)]))
    lora, igu = found["LoRA", "boolq", "accuracy"], found["IGU-LoRA", "boolq", "accuracy"]
    assert lora.outcome == "equivalent"  # printed 78.94
    assert lora.ours == "79.00 [78.72, 79.28], n = 5"  # s 0.158, t(4) 2.776, sqrt(2/5)
    assert lora.reason == "within the margin; second hand; median over seeds"
    assert (igu.outcome, igu.row["printed"]) == ("contradicted", "82.45")
    assert igu.reason == "outside of our interval; second hand; median over seeds"


def test_a_difference_is_paired_by_seed_and_stands_beside_the_numbers():
    """Both three points below the paper, and as far apart as there: 82.45 - 78.94 = +3.51."""
    runs = [*spread("lora", "boolq", 0.7600, by=0.01), *spread("igu", "boolq", 0.7951, by=0.0101)]
    found = said(studied(runs))["IGU-LoRA - LoRA", "boolq", "accuracy"]
    assert (found.row["printed"], found.outcome) == ("+3.51", "equivalent")
    assert found.ours == "3.51 [3.48, 3.54], n = 5"
    assert found.row["rounding"] == pytest.approx(0.01)
    other = said(studied(runs[:5] + spread("igu", "boolq", 0.7600, by=0.0101)))
    assert other["IGU-LoRA - LoRA", "boolq", "accuracy"].outcome == "contradicted"
    uneven = [run("igu", "boolq", seed, {"accuracy": 0.775 + 0.01 * seed + 0.002 * (seed % 2)}) for seed in range(5)]
    signed = said(studied(runs[:5] + uneven))["IGU-LoRA - LoRA", "boolq", "accuracy"]
    assert (signed.outcome, signed.ours) == ("equivalent", "3.58 [3.39, 3.77], n = 5")
    assert signed.reason.startswith("within the margin; sign confirmed")


def test_without_the_reference_in_the_table_differences_are_to_its_first_arm():
    table = {**REASONING, "table": "Table 4", "arms": {"igu": "IGU-LoRA", "lora": "IGU-LoRA without alpha"}}
    runs = [*spread("lora", "boolq", 0.8), *spread("igu", "boolq", 0.8)]
    assert ("IGU-LoRA without alpha - IGU-LoRA", "boolq", "accuracy") not in said(studied(runs, [table]))
    first = {**table, "arms": {"igu": "IGU-LoRA", "adalora": "IGU-LoRA without alpha"}}
    found = said(studied([*spread("adalora", "boolq", 0.8), *spread("igu", "boolq", 0.8)], [first]))
    assert found["IGU-LoRA without alpha - IGU-LoRA", "boolq", "accuracy"].row["printed"] == "-0.58"


def test_a_seed_that_one_side_lacks_is_left_out_of_a_difference():
    runs = [*spread("lora", "boolq", 0.76), *spread("igu", "boolq", 0.79)[1:]]
    assert said(studied(runs))["IGU-LoRA - LoRA", "boolq", "accuracy"].ours.endswith("n = 4")


def test_answers_in_words_are_the_papers_accuracy():
    found = said(studied(spread("lora", "gsm8k", 0.3142, "exact_match")))
    assert found["LoRA", "gsm8k", "accuracy"].outcome == "equivalent"


def test_an_average_needs_all_its_tasks_and_is_taken_seed_by_seed():
    table = {**REASONING, "table": "Table 4", "arms": {"igu": "IGU-LoRA"}}
    runs = [*spread("igu", "boolq", 0.8245), *spread("igu", "gsm8k", 0.3416, "exact_match")]
    found = said(studied(runs, [table]))["IGU-LoRA", "boolq+gsm8k", "average"]
    assert (found.outcome, found.row["printed"]) == ("equivalent", "58.31")
    assert found.ours.startswith("58.30") or found.ours.startswith("58.31")
    part = said(studied(runs[:5], [table]))["IGU-LoRA", "boolq+gsm8k", "average"]
    assert (part.outcome, part.reason) == ("not run", "no finished run of gsm8k")
    torn = said(studied([*runs[:1], *runs[6:]], [table]))["IGU-LoRA", "boolq+gsm8k", "average"]
    assert torn.reason == "no seed has all of its metrics"


def test_an_average_of_tasks_with_two_metrics_takes_the_mean_of_these_first():
    """AdaLoRA's rule; the paper's 88.34 of LoRA r=8 from its own row."""
    row = {
        "glue-mnli": {"accuracy": 0.9065, "accuracy_mismatched": 0.9069},
        "glue-sst2": {"accuracy": 0.9495},
        "glue-cola": {"matthews": 0.6982, "accuracy": 0.1},
        "glue-qqp": {"accuracy": 0.9199, "f1": 0.8938},
        "glue-qnli": {"accuracy": 0.9387},
        "glue-rte": {"accuracy": 0.8520},
        "glue-mrpc": {"accuracy": 0.8995, "f1": 0.1},
        "glue-stsb": {"pearson": 0.9160, "spearman": 0.1},
    }
    facts = {"model": "deberta-v3-base", "budget": "r8", "params": 1_330_000}
    runs = [
        run("lora", task, seed, {name: value + 0.0001 * (-1) ** seed for name, value in metrics.items()}, **facts)
        for task, metrics in row.items()
        for seed in (0, 1)
    ]
    findings = [f for f in verification.findings(studied(runs, [ADALORA])) if f.row["method"] == "LoRA"]
    averages = {f.row["rank_or_budget"]: f for f in findings if f.row["metric"] == "average"}
    whole = averages["1.33M parameters, r=8"]
    assert (whole.outcome, whole.ours, whole.row["printed"]) == ("equivalent", "88.34 [88.19, 88.49], n = 2", "88.34")
    other = averages["0.33M parameters, r=2"]
    assert (other.outcome, other.reason) == (
        "not comparable",
        "another budget: r8, the paper's is 0.33M parameters, r=2",
    )
    assert {f.outcome for f in findings if f.row["rank_or_budget"].endswith("r=8")} == {"equivalent"}


def test_a_method_or_task_that_is_not_here_says_so():
    finding = said(studied([], [ADALORA]))["HAdapter", "glue-rte", "accuracy"]
    assert (finding.outcome, finding.reason) == ("not run", "no such method here")
    table = {"file": "sensitivity", "table": "Table 10", "arms": {"adalora": "AdaLoRA"}}
    finding = said(studied([], [table]))["AdaLoRA", "gpqa", "accuracy"]
    assert (finding.outcome, finding.reason) == ("not run", "no such task here: gpqa")


@pytest.mark.parametrize(
    ("runs", "words", "key", "outcome", "reason"),
    [
        ([], [], ("full fine-tuning", "boolq", "accuracy"), "not run", "no arm of this experiment"),
        ([], [], ("GoRA", "boolq", "accuracy"), "not run", "no arm of this experiment"),
        ([], [], ("LoRA", "reasoning-5", "average"), "not run", "no finished run of arm lora"),
        ([], [], ("LoRA", "boolq", "accuracy"), "not run", "no finished run of arm lora"),
        (
            [run("lora", "boolq", 0, None, status="oom")],
            [],
            ("LoRA", "boolq", "accuracy"),
            "not run",
            "no finished run of arm lora",
        ),
        (
            [run("lora", "gsm8k", 0, {"exact_match": 0.3})],
            [],
            ("LoRA", "boolq", "accuracy"),
            "not run",
            "no finished run of boolq",
        ),
        (
            [run("lora", "planted", 0, {"kl": 0.1}, model="tiny")],
            ["scale=small", "model=tiny"],
            ("LoRA", "boolq", "accuracy"),
            "not comparable",
            "another model: tiny on planted; scale=small",
        ),
        (
            [run("lora", "boolq", 0, {"accuracy": 0.8})],
            ["scale=small"],
            ("LoRA", "boolq", "accuracy"),
            "not comparable",
            "scale=small",
        ),
        (
            [run("lora", "boolq", 0, {"accuracy": 0.8})],
            ["train.steps=9", "model.targets=[q_proj]", "seed=0", "task.data_dir=X", "hydra.launcher.slots=2"],
            ("LoRA", "boolq", "accuracy"),
            "not comparable",
            "train.steps=9 was typed; model.targets=[q_proj] was typed",
        ),
        (
            [run("lora", "boolq", 0, {"accuracy": 0.8}, params=4_400_000, budget="r8")],
            [],
            ("LoRA", "boolq", "accuracy"),
            "not comparable",
            "another budget: r8, the paper's is 8.8M parameters",
        ),
        (
            [run("lora", "boolq", 0, {"accuracy": 0.8}, config={**QWEN, "task": {"test_size": 500}})],
            [],
            ("LoRA", "boolq", "accuracy"),
            "not comparable",
            "part of the data (task.test_size)",
        ),
        (
            [run("lora", "boolq", 0, {"accuracy": 0.8}), run("lora", "boolq", 0, {"accuracy": 0.9}, budget="b")],
            [],
            ("LoRA", "boolq", "accuracy"),
            "not comparable",
            "several runs of one seed: they differ in another axis",
        ),
        ([run("lora", "boolq", 0, {"loss": 0.8})], [], ("LoRA", "boolq", "accuracy"), "not run", "no seed has all"),
    ],
)
def test_what_cannot_be_compared_says_why(runs, words, key, outcome, reason):
    found = said(studied(runs, words=["experiment=x", *words]))[key]
    assert (found.outcome, found.ours) == (outcome, "")
    assert found.reason.startswith(reason)


def test_one_run_is_judged_by_its_items():
    found = said(studied([run("lora", "boolq", 0, {"accuracy": 2581 / 3270})]))["LoRA", "boolq", "accuracy"]
    assert (found.outcome, found.ours) == ("consistent", "78.93 [77.50, 80.29], n = 1")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({**REASONING, "table": "cost"}, "measured on other hardware"),
        (
            {"file": "sensitivity", "table": "Tables 4-6", "arms": {"lora": "Sensitivity-LoRA"}},
            "no such task here: calibration",
        ),
        (
            {"file": "sensitivity", "table": "Table 12", "arms": {"lora": "LoRA"}},
            "measured on other hardware",
        ),
    ],
)
def test_costs_and_what_is_no_task_are_not_compared(table, reason):
    found = verification.findings(studied(spread("lora", "boolq", 0.8), [table]))
    assert any(f.reason == reason for f in found)


def test_a_rank_that_is_stated_has_to_be_the_budgets():
    table = {"file": "rerun", "table": "GLUE", "model": "RoBERTa-base", "arms": {"lora": "LoRA"}}
    runs = [
        run("lora", task, 0, {"accuracy": 0.8, "matthews": 0.8, "pearson": 0.8}, model="roberta-base", budget="r8",
            config={**QWEN, "budget": {"reference_rank": 8}})
        for task in published_numbers.GLUE
    ]  # fmt: skip
    found = {
        f.row["rank_or_budget"]: f for f in verification.findings(studied(runs, [table])) if f.row["method"] == "LoRA"
    }
    assert found["r=8"].ours == "80.00, n = 1"
    assert (
        found["r=8"].reason
        == "no spread, no interval: more seeds are needed; the paper's seeds are not known; PEFT's implementations"
    )
    assert found["r=16"].reason == "another budget: r8, the paper's is r=16"


def test_the_report_counts_and_shows_each_number(capsys):
    verify.show("x", verification.findings(studied(spread("lora", "boolq", 0.79))))
    shown = capsys.readouterr().out
    assert shown.startswith(
        "x: published numbers\n\n"
        "30 published numbers and differences: 1 equivalent, 0 consistent, 0 contradicted, "
        "0 not comparable, 29 not run."
    )
    line = next(line for line in shown.splitlines() if "| LoRA |" in line and "boolq" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("LoRA", "reasoning", "Qwen2.5-0.5B", "boolq", "accuracy", "8.8M parameters", "78.94"),
        *("79.00 [78.72, 79.28], n = 5", "equivalent", "within the margin; second hand; median over seeds"),
    ]
    assert all(line.count("|") == 11 for line in shown.splitlines()[4:])


def test_the_command_reads_a_reports_folder(tmp_path, capsys):
    study.save(studied(spread("lora", "boolq", 0.79)), tmp_path)
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("x: published numbers\n\n30 published numbers")
    study.save(studied([], []), tmp_path / "none")
    assert main(["verify", str(tmp_path / "none")]) == 0
    assert "the experiment names no published numbers." in capsys.readouterr().out


def test_what_is_not_there_is_said(tmp_path, capsys):
    assert main(["verify", f"results_dir={tmp_path}", "experiment=igu_glue"]) == 2
    assert "holds no sweep of" in capsys.readouterr().err
    with pytest.raises(SweepError, match=r"sweep s-1 has no experiment, so there is nothing published to hold it to"):
        verification.findings(Study(Sweep("s-1", "sweep", 1, [], None, None), {}, {}, []))


def test_help_names_the_outcomes():
    done = python("-m", "rankbench", "verify", "--help")
    assert done.returncode == 0
    assert all(outcome in " ".join(done.stdout.split()) for outcome in REPRODUCTION_OUTCOMES)


def test_runs_of_several_codes_are_refused_unless_allowed_by_name(tmp_path, capsys):
    found = studied(spread("lora", "boolq", 0.79))
    first = next(iter(found.records.values()))
    first.provenance = {**first.provenance, "git_commit": "d" * 40}
    study.save(found, tmp_path)
    assert main(["verify", str(tmp_path)]) == 2
    assert "--allow-mixed code" in capsys.readouterr().err
    assert main(["verify", str(tmp_path), "--allow-mixed", "code"]) == 0


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("exact_match", "accuracy", True),
        ("pearson", "correlation", True),
        ("accuracy", "accuracy", True),
        ("accuracy", "accuracy, mean of m and mm", False),
        ("loss", "accuracy", False),
    ],
)
def test_metrics_have_other_names_in_papers(ours, theirs, same):
    assert measures(ours, theirs) is same
