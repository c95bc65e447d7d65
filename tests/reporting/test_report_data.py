"""The parts of a report on made-up studies: verdicts, missing runs, ablations, tasks, costs, published numbers."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.records import record as made_record
from support.studies import TUNING_SEED, declared, study

from rankbench.core.sites import UNEVEN
from rankbench.reporting.decisions import judged_arms
from rankbench.reporting.figures import budgets, mean_maps, rank_history, settings, tuning
from rankbench.reporting.figures.costs import draw_costs
from rankbench.reporting.report_data import ReportData, gather, links
from rankbench.reporting.sections import (
    costs,
    learning_rates,
    missing_runs,
    published,
    ranks,
    results,
    setup,
    verdict,
)
from rankbench.reporting.sections.setup import arms_table, deviations_table, facts
from rankbench.studies.ablations import ablations, varied
from rankbench.sweeps.experiment import CellChanges
from rankbench.sweeps.selection import with_arms


@functools.cache
def single() -> ReportData:
    return gather(study(declared(seeds=range(8)), lost=0.0, failed=0.0))


@functools.cache
def several() -> ReportData:
    made = declared(tasks=("glue-rte", "glue-cola"), budgets=("r4", "r8"), seeds=range(8))
    return gather(study(made, lost=0.05, failed=0.05))


def column(sheet, title: str) -> list[str]:
    """Texts of a column, of arms their labels."""
    place = list(sheet.columns).index(title)
    return [row[place].arm or row[place].text for row in sheet.rows]


def test_arms_that_are_there_for_a_curve_are_not_compared_with_the_reference():
    assert single().arms == ["lora", "igu", "adalora", "fim", "l1ra", "igu ranks permuted", "random"]
    (comparison,) = single().comparisons.values()
    assert set(comparison.rows) == set(single().arms)


def test_arms_that_a_papers_table_names_are_compared_whatever_they_vary():
    table = {"file": "igu", "table": "Table 4", "model": None, "arms": {"igu beta1=0.5": "IGU-LoRA"}}
    made = declared(seeds=range(2))
    made.report.published[0] = type(made.report.published[0])(**table, budgets={})
    assert "igu beta1=0.5" in gather(study(made)).arms


def test_an_ablation_is_the_base_and_the_arms_that_vary_one_setting_alone():
    found = {ablation.title: ablation for ablation in ablations(declared())}
    steps = found["quadrature steps M"]
    assert (steps.base, steps.keys) == ("igu", ("method.quadrature_steps",))
    assert steps.arms == ["igu", *(f"igu quadrature_steps={value}" for value in (2, 5, 10, 20))]
    assert found["batches x power"].base == "fim"
    assert len(found["batches x power"].arms) == 10
    assert "igu" not in varied(list(found.values()))


def test_arms_that_all_name_the_setting_are_an_ablation_without_a_base():
    arms = {f"igu {beta}": {"method": "igu", "method.beta1": beta} for beta in (0.5, 0.9)}
    made = declared().model_copy(update={"arms": arms, "vary": {}, "grid": {}})
    (found,) = [ablation for ablation in ablations(made) if ablation.keys == ("method.beta1",)]
    assert (found.base, found.arms) == (None, ["igu 0.5", "igu 0.9"])


def test_values_are_those_the_arm_names_or_its_records_have():
    (panel,), (steps, *_) = single().panels, single().ablations
    points = settings.ablation_points(panel, steps)
    assert points["method.quadrature_steps"].tolist() == ["10", "2", "5", "10", "20"]
    assert points["base"].tolist() == [True, False, False, False, False]
    igu = panel.measured("igu")
    assert points["mean"][0] == pytest.approx(igu.mean())
    assert points["low"][0] < igu.mean() < points["high"][0]
    assert points["n"].tolist() == [8] * 5


def test_the_arms_of_an_ablation_are_compared_with_their_base():
    (panel,), (steps, *_) = single().panels, single().ablations
    ((where, found),) = single().varied[steps.name]
    assert (where.name, found.reference) == (panel.name, "igu")
    assert set(found.findings) == set(steps.arms)
    assert len(found.judged) == found.family == 4


def test_cells_that_are_still_to_come_keep_their_shares_of_the_errors():
    made = study(declared(seeds=range(8)), lost=0.0, failed=0.0)
    cells = {"first": CellChanges(), "second": CellChanges()}
    made = replace(made, sweep=replace(made.sweep, experiment=made.sweep.experiment.replace(cells=cells)))
    made.sweep.jobs = [replace(job, cell="first") for job in made.sweep.jobs]
    (alone,), (comparison,) = single().comparisons.values(), gather(made).comparisons.values()
    assert (alone.family, comparison.family) == (4, 8)


def test_the_verdict_names_the_arms_with_controls_and_says_why():
    said = verdict.sentences(single())
    beaten = "lora, its own permuted ranks and random ranks, and than lora by more than the smallest effect of interest"
    assert said[0] == f"igu: worthwhile (better than {beaten})."
    assert said[1] == (
        "fim: open (not told from lora; 56 seeds would tell with 80 % probability; its own permuted ranks: not run)."
    )
    sheet = verdict.verdict_table(single(), judged_arms(single()))
    assert column(sheet, "verdict") == ["worthwhile", "open"]
    assert column(sheet, "difference to LoRA (uniform)")[0] == "+0.019 [+0.011, +0.027]"
    assert column(sheet, "difference to its own permuted ranks")[1] == "not run"
    assert column(sheet, "n") == ["8", "8"]


def test_what_is_resolved_is_counted_with_what_could_have_been_seen():
    said = verdict.sentences(single())
    (comparison,) = single().comparisons.values()
    kinds = [finding.kind for finding in comparison.findings.values()]
    assert said[2].startswith("3 comparisons with lora at an equal budget (accuracy ↑): ")
    assert said[2].endswith(
        f": {kinds.count('worthwhile gain')} better by more than the smallest effect of interest, "
        f"{kinds.count('open')} open."
    )
    assert "whose interval would leave out 0 with 80 % probability (n = 8 pairs)" in said[3]


def test_without_its_uniform_arm_nothing_is_said_to_work():
    """Another arm takes the place of the reference, not that of tuned uniform."""
    made = with_arms(declared(seeds=range(8)), ["adalora", "igu", "igu ranks permuted", "random"])
    said = verdict.sentences(gather(study(made, lost=0.0, failed=0.0)))
    assert made.report.reference == "igu"
    assert said[0] == "igu: no verdict: it stands in for the reference, tuned uniform was not run."


def test_a_control_that_was_run_in_vain_says_why():
    found = study(declared(seeds=range(8)), lost=0.0, failed=0.0)
    for record in found.records.values():
        if record.method == "permuted":
            record.status, record.metrics = "nan", None
        if record.method == "random" and record.ledger:
            record.ledger = {**record.ledger, "final": {"ranks": 1, "params": 1}}
    said = verdict.sentences(gather(found))
    lost = "its own permuted ranks: no run that is ok; random ranks: random spent less than the budget"
    assert f"igu: withheld ({lost})." in said


def test_trials_of_other_code_are_said():
    found = study(declared(seeds=range(2)), lost=0.0, failed=0.0)
    for record in found.records.values():
        if record.config.get("trial") or record.seed == TUNING_SEED:
            record.provenance = {**record.provenance, "git_commit": "e" * 40}
    said = missing_runs.sentences(gather(found))
    assert "Learning rates were chosen by trials of other code or versions: code: ccccccc, eeeeeee." in said


def test_over_several_panels_places_are_counted():
    said = verdict.sentences(several())
    assert "igu: withheld on 4 of 4." in said  # 5 % of the runs are lost, and as many failed
    whole = gather(study(declared(tasks=("glue-rte", "glue-cola"), seeds=range(10)), lost=0.0, failed=0.0))
    assert "igu: worthwhile on 2 of 2." in verdict.sentences(whole)
    assert column(verdict.findings_table(several()), "arm") == several().arms[1:]
    assert verdict.findings_table(single()) is None


def test_a_study_that_has_not_begun_says_that_nothing_can_be_compared():
    empty = gather(study(declared(seeds=range(2)), lost=1.0))
    assert verdict.sentences(empty) == [
        "Nothing can be compared yet: no arm shares a seed with the reference at an equal budget.",
        "Not declared before the runs: seeds and smallest effects are those of the experiment as it was started.",
    ]
    assert "0 of 46 runs are ok; 46 missing." in missing_runs.sentences(empty)
    assert (
        "No run that is ok has test accuracy on MiniLM-L6, RTE, budget r8: it has no table."
        in missing_runs.sentences(empty)
    )
    assert verdict.verdict_table(empty, judged_arms(empty)) is None
    assert costs.cost_table(empty) is None
    assert draw_costs(empty) is budgets.draw_frontier(empty) is rank_history.draw_rank_totals(empty) is None
    assert mean_maps.draw_rank_maps("x", empty.panels, empty) is None


def test_missing_runs_are_counted_and_named():
    found = several()
    runs = [run for panel in found.panels for run in panel.runs]
    lost = [run for run in runs if run.status != "ok"]
    assert missing_runs.sentences(found)[0].startswith(f"{len(runs) - len(lost)} of {len(runs)} runs are ok; ")
    sheet = missing_runs.missing_runs_table(found)
    assert sum(len(seeds.split(", ")) for seeds in column(sheet, "seeds")) == len(lost)
    failed = missing_runs.failures_table(found)
    assert sum(map(int, column(failed, "runs"))) == sum(run.record is not None for run in lost)
    assert set(column(failed, "reason")) == {
        f"{status}: made up to fail at step 3" for status in ("nan", "oom", "inert")
    }
    assert missing_runs.missing_runs_table(single()) is None
    assert missing_runs.failures_table(single()) is None
    assert "Not read: results/runs/ffff/record.json: not JSON (Expecting value)" in missing_runs.sentences(single())


def test_a_panel_without_the_reference_is_said_and_compared_with_nothing():
    made = study(declared(seeds=range(2)), lost=0.0, failed=0.0)
    made.sweep.jobs = [job for job in made.sweep.jobs if job.arm != "lora"]
    found = gather(made)
    assert "No lora on MiniLM-L6, RTE, budget r8: its arms are compared with nothing." in missing_runs.sentences(found)
    (comparison,) = found.comparisons.values()
    assert comparison.reference is None


def test_over_tasks_gains_are_taken_in_units_of_their_smallest_effect():
    """A share and a loss stand in one table; the gain is the mean of those of the tasks."""
    made = declared(tasks=("glue-rte", "planted"), seeds=range(10))
    made.report.log["planted"] = 0.02
    compared = gather(study(made, lost=0.0, failed=0.0))
    (sheet,) = results.task_tables(compared)
    assert sheet.title == "Over 2 tasks: MiniLM-L6, budget r8"
    assert "RTE 0.01 accuracy, Planted ranks 2 % KL" in sheet.notes[0]
    assert sheet.notes[1] == "Left out, not judged on a task: L1RA."
    assert column(sheet, "arm") == ["igu", "adalora", "fim"]
    first, second = (comparison for _, comparison in compared.compared())
    row = dict(zip(sheet.columns, sheet.rows[0], strict=True))
    gain = first.pairs("test/accuracy", "igu").mean() / 0.01 - second.pairs("test/kl", "igu").mean() / 0.02
    assert row["gain over these tasks"].value == pytest.approx(gain / 2)
    assert row["gain over these tasks"].low < gain / 2 < row["gain over these tasks"].high
    assert row["finding"].text.startswith("better")
    assert 0.5 < row["P(better than LoRA (uniform))"].value <= 1


def test_over_tasks_an_arm_with_lost_seeds_is_left_out():
    (first, _) = results.task_tables(several())
    assert "lora" not in column(first, "arm")
    assert "IGU-LoRA" in first.notes[1]


def test_one_task_has_no_statistics_over_tasks():
    assert results.task_tables(single()) == []
    assert results.means_table(single(), single().compared(), "all", "All results") is None
    assert len(results.means_table(several(), several().compared(), "all", "All results").columns) == 5


def test_cost_charges_calibration_and_allocation():
    sheet = costs.cost_table(single())
    rows = {row[0].arm: dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows}
    lora, igu = rows["lora"], rows["igu"]
    assert igu["own passes"].text == "80"
    assert igu["passes"].value == lora["passes"].value + 80
    assert igu["passes / LoRA (uniform)"].value == pytest.approx(igu["passes"].value / lora["passes"].value)
    data = single().panels[0].data
    seconds = data[(data["label"] == "igu") & (data["status"] == "ok")][costs.SECONDS].sum(axis=1)
    assert igu["seconds [min, max]"].value == pytest.approx(seconds.mean())
    assert igu["seconds [min, max]"].text.endswith(f"[{seconds.min():,.1f}, {seconds.max():,.1f}]")
    assert igu["peak params"].value > igu["final params"].value


def test_seconds_of_a_shared_machine_are_grey_and_have_no_ratio():
    quiet = costs.cost_table(with_seconds(single(), "igu", 1.2))
    shared = costs.cost_table(with_seconds(single(), "igu", 1.3))
    for sheet, grey in ((quiet, False), (shared, True)):
        rows = {row[0].arm: dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows}
        assert rows["igu"]["seconds [min, max]"].muted == grey
        assert (rows["igu"]["seconds / LoRA (uniform)"].value is None) == grey
        assert rows["fim"]["seconds / LoRA (uniform)"].value is not None
        assert (costs.SHARED in sheet.notes) == grey
    reference = costs.cost_table(with_seconds(single(), "lora", 1.3))
    assert "seconds / LoRA (uniform)" not in reference.columns  # a column that says nothing is left out


def with_seconds(report_data: ReportData, arm: str, factor: float) -> ReportData:
    """The report of one panel whose runs all take 10 s, but the last of an arm, which takes `factor` times as long."""
    (panel,) = report_data.panels
    data = panel.data.assign(**{"training/seconds": 10.0, "calibration/seconds": 0.0, "allocation/seconds": 0.0})
    data.loc[data.index[data["label"] == arm][-1], "training/seconds"] = 10.0 * factor
    return replace(report_data, panels=[replace(panel, data=data)])


def test_what_is_off_the_budget_stands_on_the_frontier():
    (panel,) = single().panels
    used = budgets.spent(panel, single().arms).set_index("arm")
    assert used["share"]["l1ra"] == pytest.approx(1.4, abs=0.01)
    assert used["share"]["lora"] == pytest.approx(1.0, abs=0.01)
    drawn = budgets.draw_frontier(single())
    assert drawn.numbers["arm"].tolist() == single().arms


def test_what_records_note_is_said_with_the_number_of_runs():
    made = study(declared(seeds=range(3), vary={}), lost=0.0, failed=0.0)
    for record in made.records.values():
        if record.method == "igu" and record.seed < 2 and not record.config.get("trial"):
            record.notes = [f"{UNEVEN}: one site holds all of seed {record.seed}", "layerdrop set to 0"]
    noted = gather(made)
    (sentence,) = ranks.sentences(noted)
    assert sentence.startswith(
        "Uneven allocations (one site holds 25 % of what is spent, or 90 % of the sites have at "
    )
    assert sentence.endswith("igu on MiniLM-L6, RTE, budget r8, 2 of 3 runs.")
    (general,) = setup.sentences(noted)
    runs = sum(len(panel.records) for panel in noted.panels)
    assert general == f"Noted in 2 of {runs} runs: layerdrop set to 0."
    assert ranks.sentences(gather(study(declared()))) == []


def test_an_arm_without_an_adapter_has_no_rank_total():
    made = study(declared(seeds=range(2), vary={}), lost=0.0, failed=0.0)
    for record in made.records.values():
        record.ranks = None if record.method == "fim" else record.ranks
    noted = gather(made)
    totals = rank_history.rank_totals(noted.panels, made.curves, noted.arms)
    assert set(totals["arm"]) == set(noted.arms) - {"fim"}


def test_rank_totals_are_means_over_seeds_of_what_is_held():
    (panel,) = single().panels
    two = {
        run.job.run_id: [(1, 10), (5, 20), (9, 20)] if run.seed else [(1, 10), (3, 30), (9, 30)] for run in panel.runs
    }
    found = rank_history.rank_totals([panel], two, ["igu"]).set_index("step")
    assert found["mean"].to_dict() == pytest.approx({1: 10, 3: (30 + 7 * 10) / 8, 5: 21.25, 9: 21.25})
    assert (found["low"][3], found["high"][3], found["n"][3]) == (10, 30, 8)


def test_learning_rates_are_those_of_the_choice_and_its_edge_is_said():
    (panel,) = single().panels
    assert single().choosing() == single().arms
    found = tuning.learning_rates(panel, single().choosing())
    igu = found[found["arm"] == "igu"]
    assert igu["rate"].tolist() == [0.0003, 0.001, 0.003, 0.01]
    assert igu["seeds"].unique().tolist() == [str(TUNING_SEED)]
    sheet = learning_rates.rates_table(single())
    rows = {row[0].arm: dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows}
    (chosen,) = igu["rate"][igu["chosen"]]
    assert rows["igu"]["chosen"].text == f"{chosen:g}"
    assert rows["igu"]["at the edge"].text.startswith("yes" if chosen in (0.0003, 0.01) else "no")


def test_trials_without_a_choice_are_shown_as_they_are():
    found = gather(study(declared(seeds=range(2)), lost=0.0, failed=0.0))
    (panel,) = found.panels
    for run in panel.runs:
        run.record.config["tuned"] = None
    shown = tuning.learning_rates(panel, found.choosing())
    assert not shown["chosen"].any()
    assert len(shown) == 7 * 4
    assert "not chosen yet" in column(learning_rates.rates_table(found), "chosen")


def test_the_papers_numbers_stand_beside_ours_with_what_verify_says():
    (sheet,) = published.published_tables(single())
    assert sheet.title == "arXiv 2303.10512, Table 1, beside ours"
    assert set(column(sheet, "arm")) == {"lora", "adalora"}
    assert set(column(sheet, "verified")) == {"not comparable"}
    assert all(text.startswith("another model: minilm-l6 on glue-rte") for text in column(sheet, "why"))
    ours = next(row for row in sheet.rows if row[0].arm == "adalora")
    (panel,) = single().panels
    assert ours[5].value == pytest.approx(100 * panel.measured("adalora").mean())
    assert sheet.notes[0].startswith("120 numbers in that table: ")
    assert sheet.notes[2].startswith("No run that is ok on glue-cola, ")


def test_a_paper_that_cannot_be_read_is_said():
    made = declared(seeds=range(2))
    unknown = [table.model_copy(update={"file": "nobody"}) for table in made.report.published]
    made = made.model_copy(update={"report": made.report.model_copy(update={"published": unknown})})
    (sheet,) = published.published_tables(gather(study(made)))
    assert "has no numbers of nobody" in sheet.notes[0]


def test_the_design_lists_arms_axes_and_what_was_typed():
    sheet = arms_table(single())
    assert column(sheet, "settings")[:2] == ["method=lora", "method=igu"]
    assert sheet.notes[0] == "Axes: model=[minilm-l6], task=[glue-rte], budget=[r8], seed=[0,1,2,3,4,5,6,7]."
    head = dict(facts(single()))
    assert (head["runs ok"], head["seeds"], head["code"]) == ("184 of 184", "8 (0 to 7)", "c" * 10)
    assert re.fullmatch(r"[\d.]+ min|[\d.]+ h", head["run time"])


def test_the_run_time_of_short_runs_is_not_zero():
    """Nine runs of three seconds are no "0 min"."""
    short = [made_record("lora", seed, cost={"training": {"seconds": 3.0}}) for seed in range(9)]
    made = single()
    nine = replace(made, study=replace(made.study, records={record.run_id: record for record in short}))
    assert dict(facts(nine))["run time"] == "27 s"


def test_differences_from_the_sources_are_those_of_the_records_each_once():
    def run(arm, *deviations):
        return SimpleNamespace(arm=arm, record=made_record(arm, 0, provenance={"deviations": list(deviations)}))

    old, failed = SimpleNamespace(arm="old", record=made_record("fim", 0)), SimpleNamespace(arm="failed", record=None)
    runs = [run("igu", "Scale.", "sign=outside: |w|."), run("igu N=4", "Scale."), run("igu", "Scale."), old, failed]
    sheet = deviations_table(SimpleNamespace(panels=[SimpleNamespace(runs=runs)]))
    assert column(sheet, "arms") == ["IGU-LoRA, IGU-LoRA, N 4", "IGU-LoRA"]
    assert column(sheet, "difference") == ["Scale.", "sign=outside: |w|."]
    assert deviations_table(SimpleNamespace(panels=[SimpleNamespace(runs=[old, failed])])) is None


def test_every_arm_of_a_panel_has_a_place_of_its_own():
    for panel in several().panels:
        assert len(set(links(panel).values())) == len(panel.arms)


def test_arms_of_a_base_that_are_in_no_curve_are_its_variants():
    made = declared(seeds=range(4))
    made.vary["igu"]["method.score"] = ["product"]
    made.grid["igu"] = {"method.score": ["product"], "method.estimator": ["instantaneous"]}
    (variants,) = [ablation for ablation in ablations(made) if not ablation.keys]
    assert variants.title == "Variants of igu"
    assert variants.arms == ["igu", "igu score=product", "igu score=product estimator=instantaneous"]
    assert not {"igu score=product"} & varied(ablations(made))
    found = gather(study(made, lost=0.0, failed=0.0))
    ((_, comparison),) = found.varied[variants.name]
    assert (comparison.reference, comparison.rows) == ("igu", variants.arms)
    assert any(line.startswith("Variants of igu, against igu: ") for line in verdict.sentences(found))


def test_curves_of_a_single_panel_are_one_figure_on_one_scale():
    drawn = settings.draw_ablations(single())
    assert [axes.get_xlabel() for axes in drawn.figure.axes] == ["path points", "β₁"]
    assert len({axes.get_ylim() for axes in drawn.figure.axes}) == 1
    assert drawn.numbers["setting"].unique().tolist() == ["method.quadrature_steps", "method.beta1"]
    many = settings.draw_ablation(several().ablations[0], several())
    assert len(many.figure.axes) == 4


def test_a_learning_rate_that_diverges_does_not_hide_the_others():
    found = gather(study(declared(seeds=range(2)), lost=0.0, failed=0.0))
    for run in found.panels[0].runs:
        run.record.config["tuned"]["curve"][3][1] = 50.0
    (axes,) = tuning.draw_learning_rates(found).figure.axes
    assert axes.get_yscale() == "log"
    (axes,) = tuning.draw_learning_rates(single()).figure.axes
    assert axes.get_yscale() == "linear"


def test_budgets_of_one_task_are_drawn_in_shares_of_their_mean_rank():
    rte = several().panels[:2]
    data = mean_maps.draw_rank_maps("rte", rte, several()).numbers
    assert data["budget"].unique().tolist() == ["r4", "r8"]
    means = data.groupby(["label", "budget"])["rank"].mean()
    assert means.tolist() == pytest.approx([1.0] * len(means))
    alone = mean_maps.draw_rank_maps("rte", rte[:1], several()).numbers
    assert alone[alone["label"] == "lora"]["rank"].unique().tolist() == [4.0]


def test_arms_keep_their_hue_and_differ_in_marker_or_dash():
    styles = single().styles
    assert styles["igu"].colour == styles["igu beta1=0.5"].colour != styles["lora"].colour
    assert len({(style.colour, style.marker, style.dash) for style in styles.values()}) == len(styles)
    assert len({styles[arm].marker for arm in single().arms}) == len(single().arms)


@pytest.mark.slow
def test_of_many_panels_twelve_are_drawn_and_all_are_in_the_csv():
    names = [f"r{rank}" for rank in range(1, 16)]
    many = gather(study(declared(budgets=names, seeds=range(2)), layers=1, lost=0.0, failed=0.0))
    for drawn in (draw_costs(many), rank_history.draw_rank_totals(many)):
        assert len(drawn.figure.axes) == 12
        assert drawn.numbers["panel"].nunique() == 15
        assert drawn.note.endswith(" 12 of 15 panels are drawn; the CSV has all.")
    rates = tuning.draw_learning_rates(many)  # the same in all panels
    assert len(rates.figure.axes) == 1
    assert rates.numbers["panel"].nunique() == 15
    assert "are drawn" not in draw_costs(single()).note
