"""The panel of each run: panels by axes, missing runs as rows, labels without an experiment, what must not be mixed."""

from __future__ import annotations

import pytest
from support.records import runs
from support.studies import PROVENANCE, declared, study

from rankbench.analysis.frame import SelectionError
from rankbench.studies import panels
from rankbench.studies.study import Study
from rankbench.sweeps.manifest import Job, Sweep


def typed(found, words: list[str], lost: int = 0) -> Study:
    """A sweep without an experiment; `lost`: so many of the last records are missing."""
    jobs = [
        Job(None, run.run_id, False, (f"method={run.method}", f"task={run.task}", f"seed={run.seed}")) for run in found
    ]
    kept = found[: len(found) - lost]
    return Study(Sweep("s", "sweep", 1, words, None, None, jobs), {run.run_id: run for run in kept}, {}, [])


def test_a_panel_for_each_point_of_the_axes_and_all_seeds_in_it():
    made = panels.panels(study(declared(tasks=("glue-rte", "planted"), budgets=("r4", "r8"), seeds=range(3))))
    assert [panel.title for panel in made] == [
        f"minilm-l6, {task}, budget {budget}" for task in ("glue-rte", "planted") for budget in ("r4", "r8")
    ]
    assert [panel.short for panel in made][:2] == ["glue-rte, budget r4", "glue-rte, budget r8"]
    assert made[0].name == "minilm-l6-glue-rte-r4"
    assert {len(panel.runs) for panel in made} == {23 * 3}
    assert {run.seed for run in made[0].runs} == {0, 1, 2}
    assert [panel.metric for panel in made] == ["test/accuracy"] * 2 + ["test/kl"] * 2
    assert made[0].arms[:3] == ["lora", "igu", "adalora"]
    assert all(run.job.trial for run in made[0].trials)
    assert len(made[0].trials) == 7 * 4


def test_a_single_panel_keeps_its_whole_title():
    (panel,) = panels.panels(study(declared(seeds=range(2))))
    assert panel.short == panel.title == "minilm-l6, glue-rte, budget r8"


def test_missing_runs_are_rows():
    (panel,) = panels.panels(study(declared(seeds=range(6)), lost=0.3, failed=0.0))
    lost = panel.data[panel.data["status"] == "missing"]
    assert len(panel.data) == len(panel.runs) == 23 * 6
    assert 0 < len(lost) == sum(run.record is None for run in panel.runs)
    assert lost["test/accuracy"].isna().all()
    assert set(lost["seed"]) <= set(range(6))


def test_a_panel_without_any_record_is_known_by_its_words():
    (panel,) = panels.panels(study(declared(seeds=range(2)), lost=1.0))
    assert panel.facts == {"model": "minilm-l6", "task": "glue-rte", "budget": "r8"}
    assert set(panel.data["status"]) == {"missing"}


def test_without_an_experiment_arms_are_methods_and_their_settings():
    found = [
        *runs("lora", {0: 0.1, 1: 0.2}),
        *runs("permuted", {0: 0.1, 1: 0.3}, settings={"source": "fim"}),
        *runs("eva", {0: 0.1, 1: 0.3}),
    ]
    (panel,) = panels.panels(typed(found, ["method=lora,permuted,eva", "seed=0,1"], lost=1))
    assert panel.arms == ["lora", "eva", "permuted"]
    missing = [run for run in panel.runs if run.record is None]
    assert [(run.arm, run.seed) for run in missing] == [("eva", 1)]
    assert panels.report_of(typed(found, [])).reference == "lora"
    assert panels.report_of(typed(found[2:], [])).reference == "eva"


def test_a_typed_axis_splits_and_the_seed_and_the_method_do_not():
    found = [*runs("lora", {0: 0.1, 1: 0.2}), *runs("igu", {0: 0.1})]
    for run in found[1:]:
        run.task, run.run_id = "boolq", f"{run.run_id}-boolq"
    made = panels.panels(typed(found, ["method=lora,igu", "task=planted,boolq", "seed=0,1"]))
    assert [panel.facts["task"] for panel in made] == ["planted", "boolq"]
    assert [panel.arms for panel in made] == [["lora"], ["lora", "igu"]]


def mixed(**changes) -> Study:
    made = study(declared(seeds=range(2)), lost=0.0, failed=0.0)
    first = next(job.run_id for job in made.sweep.jobs if not job.trial)
    made.records[first].provenance = {**PROVENANCE, **changes}
    return made


def test_mixed_code_is_refused_by_name_and_said_where_allowed():
    made = mixed(git_commit="d" * 40, packages={**PROVENANCE["packages"], "torch": "2.14.0"})
    found = panels.panels(made)
    with pytest.raises(SelectionError, match=r"code: ccccccc, ddddddd; torch: .* --allow-mixed code,torch$"):
        panels.refuse_mixed(made, found, [])
    with pytest.raises(SelectionError, match=r"differ within a table: all tables: torch: 2.13.0, 2.14.0\. "):
        panels.refuse_mixed(made, found, ["code"])
    assert panels.refuse_mixed(made, found, ["code", "torch"]) == [
        "code: ccccccc, ddddddd",
        "torch: 2.13.0, 2.14.0",
    ]


def test_code_is_one_over_all_panels_and_settings_within_each():
    """A table over tasks would mix what no table of one task does."""
    made = study(declared(tasks=("glue-rte", "glue-cola"), seeds=range(2)), lost=0.0, failed=0.0)
    for record in made.records.values():
        if record.task == "glue-cola":
            record.provenance = {**PROVENANCE, "git_commit": "d" * 40}
            record.config["task"] = {**record.config.get("task", {}), "train_size": 9}
    found = panels.panels(made)
    with pytest.raises(SelectionError, match=r"a table: all tables: code: ccccccc, ddddddd\. .*--allow-mixed code$"):
        panels.refuse_mixed(made, found, [])
    assert panels.refuse_mixed(made, found, ["code"]) == ["code: ccccccc, ddddddd"]


def test_what_an_arm_declares_may_differ():
    made = study(declared(seeds=range(2)), lost=0.0, failed=0.0)
    for record in made.records.values():
        if record.method == "igu":
            record.config["adapter"] = {"alpha": 7}
    assert panels.panels(made)
    with pytest.raises(SelectionError, match=r"adapter.alpha: 7, null"):
        panels.refuse_mixed(made, panels.panels(made), [])
    made.sweep.experiment.arms["igu"]["adapter.alpha"] = 7
    assert panels.refuse_mixed(made, panels.panels(made), []) == []


def test_families_are_the_budgets_of_one_task():
    made = panels.panels(study(declared(tasks=("glue-rte", "planted"), budgets=("r4", "r8"), seeds=range(1))))
    assert {title: len(held) for title, held in panels.families(made).items()} == {
        "minilm-l6, glue-rte": 2,
        "minilm-l6, planted": 2,
    }
