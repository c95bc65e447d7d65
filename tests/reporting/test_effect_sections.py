"""Maps drawn alike, panels taken together and the positive control, on made-up studies."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.studies import declared, study

from rankbench.analysis.labels import arm_title
from rankbench.analysis.map_spread import map_spread
from rankbench.analysis.pooled import PooledPanels
from rankbench.reporting import decisions, report
from rankbench.reporting.decisions import judged_arms
from rankbench.reporting.figures.forest import forests
from rankbench.reporting.figures.layout import facets
from rankbench.reporting.plotting import drawn, own_style
from rankbench.reporting.report_data import ReportData, gather
from rankbench.reporting.sections import map_effects, over_panels, positive_control, results, verdict
from rankbench.statistics.map_effect import map_effect
from rankbench.statistics.over_tasks import mean_of_such, mean_of_these
from rankbench.sweeps import experiment_files

GAIN = "gain over LoRA (uniform)"
MAPS = ["igu", "fim", "random", "igu ranks permuted"]
TASKS = ("glue-rte", "glue-cola", "glue-mrpc")


def gathered(
    control: str = "igu", where: str = "task=glue-rte", drawn: bool = False, **changes: dict[str, Any]
) -> ReportData:
    """The report of a made-up study."""
    plain = declared(tasks=TASKS, seeds=range(5), vary={}, grid={}).plain()
    shown = {
        "metrics": {"default": "test/accuracy"},
        "map_effect": {"Four maps": MAPS},
        "over": {"Tasks like these": ["task"]},
        "positive_control": {"arm": control, "where": [where]},
        "curves": {},
        "maps": {},
    }
    made = experiment_files.read({**plain, "report": {**plain["report"], **shown, **changes}}, "made up")
    runs = study(made, lost=0.0, failed=0.0)
    for job in runs.sweep.jobs:
        if job.arm in MAPS and not drawn:  # one map at all seeds
            runs.records[job.run_id].ranks = {"layers.0.mlp.up_proj": 1 + MAPS.index(job.arm)}
    return gather(runs)


standard = functools.cache(gathered)


def row_of(table, name, at=0):
    (row,) = [row for row in table.rows if name in (row[at].text, row[at].arm)]
    return dict(zip(table.columns, row, strict=True))


def test_the_spread_is_that_of_the_table_of_maps_and_seeds():
    _, comparison = standard().compared()[0]
    spread = map_spread(comparison, MAPS, 0.95)
    table = comparison.values["test/accuracy"][MAPS].to_numpy(float).T
    assert spread.effect == map_effect(table)
    assert (spread.maps, spread.seeds) == (MAPS, 5)
    assert spread.gains["lora"].mean == pytest.approx(
        (comparison.values["test/accuracy"]["lora"] - table.mean(axis=0)).mean()
    )
    assert np.mean([spread.gains[arm].mean for arm in MAPS]) == pytest.approx(0)


def test_losses_by_their_logarithm_count_downwards():
    _, comparison = gathered(metrics={"default": "test/loss"}, log={"glue-rte": 0.05}).compared()[0]
    spread = map_spread(comparison, MAPS, 0.95)
    values = comparison.values["test/loss"][MAPS]
    assert spread.effect == map_effect(-np.log(values.to_numpy(float)).T)
    assert spread.gains["igu"].mean == pytest.approx((np.log(values).mean(axis=1) - np.log(values["igu"])).mean())


def test_what_was_not_run_or_lost_withholds_the_outcome():
    _, comparison = gathered().compared()[0]
    assert map_spread(comparison, [*MAPS, "another"], 0.95).reason == "another: not run"
    assert map_spread(comparison, ["igu", "another"], 0.95) is None
    comparison.values["test/accuracy"].loc[3, "fim"] = np.nan
    lost = map_spread(comparison, MAPS, 0.95)
    assert (lost.outcome, lost.seeds) == ("withheld", 4)
    assert lost.reason == "all maps have a run that is ok at 4 of 5 seeds"


def test_arms_with_another_map_at_every_seed_are_no_maps():
    assert map_effects.spread_tables(gathered(drawn=True)) == []


def test_the_table_says_what_the_best_map_would_gain():
    (table,) = map_effects.spread_tables(standard())
    row = row_of(table, "RTE")
    assert (row["maps"].text, row["n"].text, row["smallest effect"].text) == ("4", "5", "0.01")
    assert row["best of 100"].value == pytest.approx(2.5076 * row["sigma_map"].value, rel=1e-4)
    assert row["outcome"].text in ("maps matter", "the best map would gain enough over the mean map")
    assert "By the residuals alone, seeds that show" in table.notes[1]
    said = list(map_effects.sentences(standard()))
    assert said[0].startswith(f"Four maps, RTE: {row['outcome'].text}. 4 maps at 5 seeds: sigma_map")
    (sketch,) = map_effects.make(standard()).sketches
    figure = drawn(sketch)
    of_maps = figure.numbers[
        (figure.numbers["panel"] == figure.numbers["panel"].iloc[0]) & figure.numbers["arm"].isin(MAPS)
    ]
    best = float(re.search(r"the best of these 4 ([-+\d.]+)", said[0])[1])
    assert best == pytest.approx(of_maps["mean"].max(), rel=0.06)  # it is printed with two digits
    assert len(figure.figure.axes) == 3
    assert set(figure.numbers["arm"]) == set(standard().arms)


def test_over_panels_the_means_of_the_panels_are_the_pairs():
    table, others = over_panels.pooled_tables(standard())
    assert others.title == f"{table.title}, arms without controls of their own"
    assert {row[0].arm for row in table.rows} == set(standard().report.controls)
    assert table.title == "Tasks like these, 3 panels: MiniLM-L6, budget r8"
    gains = [comparison.gains("igu", ["lora"]) / 0.01 for _, comparison in standard().compared()]  # two metrics
    row, family = row_of(table, "igu"), len(table.rows) + len(others.rows)
    level = 1 - 0.05 / family
    such, these = mean_of_such(gains, level), mean_of_these(gains, level)
    shown = [(row[name].value, row[name].low, row[name].high) for name in (GAIN, "these panels alone")]
    expected = [(each.value, each.low, each.high) for each in (such.mean, these)]
    assert shown == [pytest.approx(each) for each in expected]
    assert row["one more such panel"].low == pytest.approx(mean_of_such(gains).another.low)
    (said,) = over_panels.sentences(standard())
    assert said.startswith(f"{table.title}: ")
    assert said.endswith(f"(a sample of such; each interval is one of {family} that hold together with 95 %).")
    assert f"{row['outcome'].text}: IGU-LoRA" in said


def test_panels_of_a_sample_are_shown_as_one_and_are_files_one_by_one():
    losses = gathered(metrics=dict.fromkeys(("default", *TASKS), "test/loss"), margins=dict.fromkeys(TASKS, 0.01))
    assert losses.alone() == []
    section = results.make(losses)
    assert {table.name.partition("-")[0] for table in section.tables if table.filed} == {"results", "all"}
    assert all(table.filed for table in section.tables if not table.name.startswith("tasks"))
    pictures = filter(None, map(drawn, section.sketches))
    (shade,) = [picture for picture in pictures if picture.name.startswith("sample")]
    (sample,) = losses.samples
    _, first = sample.members[0]
    row = shade.numbers[(shade.numbers["arm"] == "igu") & (shade.numbers["panel"] == "RTE")]
    assert row["difference"].item() == pytest.approx(first.pairs("test/loss", "igu").mean())
    assert sample.means("igu")[0] == pytest.approx(-row["difference"].item())
    one_by_one = next(table for table in verdict.make(losses).tables if table.name == "verdict-one-by-one")
    assert one_by_one.filed
    assert {row[0].text for row in one_by_one.rows} == {"RTE", "CoLA", "MRPC"}
    (seen,) = [sentence for sentence in verdict.sentences(losses) if "smallest mean difference" in sentence]
    assert "(n = 3 panels)" in seen


def test_the_forest_shows_what_panels_show_together_as_a_difference():
    losses = gathered(metrics=dict.fromkeys(("default", *TASKS), "test/loss"), margins=dict.fromkeys(TASKS, 0.01))
    table, *_ = over_panels.pooled_tables(losses)
    gain = row_of(table, "igu")[GAIN]
    (forest,) = forests(losses)
    (row,) = forest.rows[forest.rows["arm"] == "igu"].to_dict("records")
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((-gain.value, -gain.high, -gain.low))
    assert not forest.higher
    assert forest.title.endswith("3 panels")


def test_an_arm_that_is_nowhere_to_be_run_has_no_verdict():
    whole = standard()
    fewer = {name: without_fim(comparison) for name, comparison in whole.comparisons.items()}
    for report_data in (whole, replace(whole, comparisons=fewer)):
        table, *_ = over_panels.pooled_tables(report_data)
        planned = report_data is whole
        assert any(row[0].arm == "fim" for row in table.rows) == planned
        assert (
            any(row[1].arm == "fim" for row in verdict.verdict_table(report_data, judged_arms(report_data)).rows)
            == planned
        )


def without_fim(comparison):
    seeds = {arm: numbers for arm, numbers in comparison.terms.seeds.items() if arm != "fim"}
    rows = [arm for arm in comparison.rows if arm != "fim"]
    return replace(comparison, rows=rows, terms=replace(comparison.terms, seeds=seeds))


def test_lost_seeds_of_a_panel_withhold_the_decision_over_all():
    comparisons = [comparison for _, comparison in gathered().compared()]
    whole = PooledPanels(comparisons, 5).pool("igu", {"random ranks": ["random"]}).decision
    assert whole.outcome != "withheld"
    comparisons[1].values[comparisons[1].metrics[0]].loc[3, "random"] = np.nan
    lost = PooledPanels(comparisons, 5).pool("igu", {"random ranks": ["random"]}).decision
    assert (lost.outcome, lost.reason) == ("withheld", "seeds are lost (1 of 3 panels)")
    absent = PooledPanels(comparisons, 5).pool("igu", {"random ranks": ["another"]}).decision
    assert absent.reason.endswith("random ranks: not run")


def test_an_arm_that_lost_its_runs_is_withheld_and_one_that_was_not_to_be_run_is_not_judged():
    comparisons = [comparison for _, comparison in gathered().compared()]
    lost = PooledPanels(comparisons, 5).pool("another", {"random ranks": ["random"]}).decision
    assert (lost.outcome, lost.reason) == ("withheld", "not run (3 of 3 panels)")
    elsewhere = gathered()
    elsewhere.report.controls["another"] = {"random": "random"}
    table, *_ = over_panels.pooled_tables(elsewhere)
    assert "another" not in {row[0].text for row in table.rows}
    assert not [
        row for row in verdict.verdict_table(elsewhere, judged_arms(elsewhere)).rows if row[1].text == "another"
    ]


def test_looks_at_the_data_widen_the_intervals_of_maps_and_of_pooled_panels():
    once, sweep = standard(), standard().study.sweep
    twice = replace(once, study=replace(once.study, sweep=replace(sweep, looks={"a": "2026-01-01"})))  # and this one
    for tables, column in (
        (over_panels.pooled_tables, GAIN),
        (map_effects.spread_tables, "sigma_map"),
    ):
        first, second = (tables(each)[0] for each in (once, twice))
        narrow, wide = ([row[table.columns.index(column)] for row in table.rows] for table in (first, second))
        assert all(b.low < a.low and b.high > a.high for a, b in zip(narrow, wide, strict=True))
        assert "and 2 looks at the data" in second.notes[0]
    (said,) = over_panels.sentences(twice)
    arms = sum(len(table.rows) for table in over_panels.pooled_tables(twice))
    assert f"one of {2 * arms} that hold together" in said


def test_panels_taken_together_have_the_share_of_the_errors_of_their_cell():
    alone, shared = (over_panels.pooled_tables(replace(standard(), shares=shares))[0] for shares in (1, 3))
    column = alone.columns.index(GAIN)
    for wide, narrow in zip(shared.rows, alone.rows, strict=True):
        assert wide[column].low < narrow[column].low
    assert "with one of 3 equal shares of the errors" in shared.notes[0]


def test_an_axis_that_no_panels_differ_in_is_said():
    (said,) = over_panels.sentences(gathered(over={"Kinds": ["task.map"]}))
    assert said == "Kinds: no two panels with headroom differ in task.map alone."


def test_a_positive_control_that_wins_is_said_and_changes_nothing():
    (test,) = standard().control_tests
    gains = standard().compared()[0][1].gains("igu", ["lora"]) / 0.01
    assert test.gain == mean_of_these([gains])
    assert next(positive_control.sentences(standard())).startswith(
        "The positive control IGU-LoRA won, in smallest effects of interest: task=glue-rte +"
    )
    assert "withheld" not in {row_of(map_effects.spread_tables(standard())[0], "RTE")["outcome"].text}


@pytest.mark.parametrize(
    ("control", "where", "why"),
    [
        ("random", "task=glue-rte", "not shown to be better"),
        ("oracle", "task=glue-rte", "oracle: not run on 1 of 1 panels"),
        ("igu", "task=boolq", "no panel meets the condition"),
        ("l1ra", "task=glue-rte", "l1ra: not at an equal budget"),
    ],
)
def test_without_its_win_every_verdict_is_withheld(control, where, why):
    void = gathered(control, where)
    assert positive_control.control_table(void).rows[0][3].text == why
    (said,) = positive_control.sentences(void)
    assert (
        said
        == f"The positive control {arm_title(control)} is not shown to win ({where}: {why}): every verdict is withheld."
    )
    for _, comparison in void.compared():
        decision = decisions.decide(void.report, comparison, "igu")
        assert decision.outcome == "withheld"
        assert "the positive control is not shown to win" in decision.reason
    assert {row[3].text for table in map_effects.spread_tables(void) for row in table.rows} == {"withheld"}
    outcomes = {row[1].text for table in over_panels.pooled_tables(void) for row in table.rows}
    assert outcomes == {"withheld", "not at an equal budget"}


def test_the_sections_stand_on_the_page_after_the_verdict():
    sections = report.make_sections(standard())
    assert [section.anchor for section in sections][:4] == ["verdict", "control", "maps", "holes"]


@own_style
def test_long_titles_of_figures_stay_within_their_columns():
    long = "tiny, planted, task.kind=few-4-r16-strong, adapter.scale_rule=live"
    figure, axes = facets([long] * 3)
    starts = [each.get_window_extent().x0 for each in axes]
    ends = [each.title.get_window_extent().x1 for each in axes]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))
    assert ends[-1] < figure.bbox.x1
