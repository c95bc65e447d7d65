"""The ladder of a panel and what a sweep declares by it, on made-up records; nothing is run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.harness import SMALL_EXPERIMENT, write_experiment
from support.schedules import Played

from rankbench.config.schema import ConfigError
from rankbench.sweeps import declaration, manifest
from rankbench.sweeps.composition import lay_out, words
from rankbench.sweeps.declaration import PanelDeclaration, SweepDeclaration
from rankbench.sweeps.experiment import Ladder
from rankbench.sweeps.schedule import SweepSchedule

TEXT = SMALL_EXPERIMENT.replace("seeds: [100]", "seeds: [100, 101, 102]").replace(
    "report: {reference: lora}",
    "ladder: {gate: true}\nreport: {reference: lora, metrics: {planted: test/loss}, log: {planted: 0.05}}",
)
TYPED = ["experiment=small", "arms=[lora,random]", "tune.learning_rate=[1e-3,1e-2,1e-1]"]
BEST = {0.5: 1e-1, 1: 1e-2, 2: 1e-2, 4: 1e-3}  # a larger rank wants a smaller rate
OCTAVE = 0.3  # gain in log loss of twice the budget


def loss(frozen, octave: float = OCTAVE) -> float:
    """Log-linear in the budget; a tenth more for each decade from the best rate; seeds differ in their level."""
    config = frozen.config
    factor = config["budget"].get("factor", 1)
    decades = abs(np.log10(config["train"]["learning_rate"] / BEST[factor]))
    wiggle = 0.01 * np.log2(factor) * (config["seed"] - 101)  # of the gains, over the seeds
    return float(np.exp(0.1 * config["seed"] - octave * np.log2(factor) + wiggle + 0.1 * decades))


def flat(frozen) -> float:
    return loss(frozen, octave=0.0)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    return lay_out(words(TYPED), write_experiment(tmp_path_factory.mktemp("conf"), TEXT))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("results")


def ungated(laid_out):
    return replace(laid_out, experiment=laid_out.experiment.replace(ladder=Ladder(gate=False)))


def test_a_ladder_is_run_on_validation_after_the_reference_is_tuned_and_before_anything_is_reported(laid_out, results):
    played = Played(laid_out, results, loss=loss)
    rungs = [job for batch in played.batches for job in batch if job.rung is not None]
    assert all(job.trial and job.arm == "lora" for job in rungs)
    configs = [played.config(job) for job in rungs]
    assert {(c["budget"]["factor"], c["seed"]) for c in configs} == {
        (f, s) for f in (0.5, 2, 4) for s in (100, 101, 102)
    }
    assert {c["method"]["name"] for c in configs} == {"lora"}
    kinds = [
        {"rung" if job.rung else "trial" if job.trial else "reported" for job in batch} for batch in played.batches
    ]
    assert kinds[0] == {"trial"}
    assert kinds[-1] == {"reported"}
    assert all("reported" not in kind for kind in kinds[:-1])
    assert played.sweep.waiting == []
    assert (SweepSchedule(laid_out, played.sweep, results).trials_of_ladders(), len(rungs)) == (27, 45)  # widened twice


def test_each_rung_is_taken_at_its_own_rate_and_the_smallest_effect_is_a_quarter_more_budget(laid_out, results):
    played = Played(laid_out, results, loss=loss)
    (panel,) = played.sweep.declaration.panels
    assert panel.rates == pytest.approx([BEST[factor] for factor in (0.5, 1, 2, 4)])
    assert panel.smallest_effect == pytest.approx(OCTAVE * np.log2(1.25))
    assert np.mean(panel.gains, axis=0) == pytest.approx([-OCTAVE, 0, OCTAVE, 2 * OCTAVE])
    assert panel.headroom is True
    assert panel.log is True
    assert panel.metric == "test/loss"
    assert panel.seeds == [0, 1]
    assert len(panel.trials) == 12
    assert set(panel.trials) <= {job.run_id for job in played.sweep.jobs if job.trial}
    assert played.sweep.declaration.panel_of(played.jobs("random")[0].overrides) == panel


def test_without_headroom_nothing_is_reported_unless_it_is_asked_for(laid_out, results):
    played = Played(laid_out, results, loss=flat)
    assert played.jobs("lora") == []
    (sentence,) = played.sweep.kept_back
    assert sentence.startswith("the panel: no headroom: 4 x the budget gains ")
    assert sentence.endswith("its reported runs are not started (ladder.gate=false starts them)")
    assert played.sweep.waiting == []
    assert played.schedule.left() == []
    (panel,) = played.sweep.declaration.panels
    assert (panel.headroom, panel.smallest_effect) == (False, 0.05)  # the report's margin
    asked = Played(ungated(laid_out), results, loss=flat)
    assert len(asked.jobs("lora")) == 2
    assert asked.sweep.kept_back == []
    assert asked.sweep.declaration.panels[0].headroom is False


def test_pooled_panels_have_one_ladder_whose_gains_are_those_of_the_panels(results, tmp_path):
    typed = [*TYPED, "task.map=few,depth", "tune.pooled=[task.map]", "tune.seeds=[100]"]
    layout = lay_out(words(typed), write_experiment(tmp_path / "conf", TEXT))

    def of_map(frozen) -> float:  # maps differ in level and in what more budget buys
        return loss(frozen, octave=0.3 if frozen.config["task"]["map"] == "few" else 0.33)

    sweep = Played(layout, results, loss=of_map).sweep
    (panel,) = sweep.declaration.panels
    assert (panel.panels, panel.point) == (2, [])
    assert [row[-1] for row in panel.gains] == pytest.approx([0.62, 0.68])  # 0.02 is the wiggle of seed 100


def test_a_ladder_that_fails_shows_nothing_and_says_so(laid_out, results):
    def broken(frozen) -> float:
        return float("nan") if frozen.config["budget"].get("factor") == 4 else loss(frozen)

    played = Played(laid_out, results, loss=broken)
    assert played.jobs("lora") == []
    assert any("shows nothing" in sentence for sentence in played.sweep.waiting)
    assert played.sweep.declaration.panels == []
    manifest.save(played.sweep, results)
    shutil.rmtree(results / "runs")
    again = Played(laid_out, results, loss=loss).sweep
    assert (again.declaration.panels[0].headroom, again.changes) == (True, [])


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ("tune.seeds=[100]", "ladder: needs two tuning seeds or more"),
        ("ladder.gates=false", "ladder.gates"),
    ],
)
def test_what_a_ladder_needs_is_said_at_once(tmp_path, changed, problem):
    with pytest.raises(ConfigError) as error:
        lay_out(words([*TYPED, changed]), write_experiment(tmp_path, TEXT))
    assert error.value.problems[0].startswith(problem)


def test_what_was_declared_stays_and_what_changed_is_said(laid_out, results):
    first = Played(laid_out, results, loss=loss).sweep
    assert first.changes == []
    place = manifest.save(first, results)
    assert manifest.read(place) == first
    report = laid_out.experiment.report.replace(level=0.9, log={"planted": 0.2})
    again = Played(replace(laid_out, experiment=laid_out.experiment.replace(report=report)), results, loss=loss).sweep
    assert again.declaration == first.declaration
    assert again.changes == [
        "level: 0.9, declared was 0.95",
        "the panel: smallest effect: 0.2, declared was 0.09658",
        "the panel: headroom: no, declared was yes",
    ]


def test_seeds_that_are_added_after_a_report_are_another_look(laid_out, results, tmp_path):
    first = Played(laid_out, results, loss=loss).sweep
    manifest.save(first, results)
    layout = lay_out(words([*TYPED, "seed=0,1,2"]), write_experiment(tmp_path / "conf", TEXT))
    before = Played(layout, results, loss=loss).sweep
    assert (before.looks, before.changes) == ({}, ["the panel: declared when 4 reported runs had been done"])
    manifest.look(first, results)
    manifest.look(manifest.read(manifest.folder(results, first.sweep_id)), results)  # the same runs again
    added = Played(layout, results, loss=loss).sweep
    assert added.changes == ["the panel: seeds: 3 (0, 1, 2), declared was 2 (0, 1)"]
    manifest.save(added, results)
    manifest.look(added, results)
    assert list(added.looks) == [first.sweep_id, added.sweep_id]
    assert manifest.read(manifest.folder(results, added.sweep_id)).looks == added.looks


@pytest.mark.parametrize("error", [PermissionError, NotImplementedError])
def test_a_look_that_cannot_be_noted_counts_all_the_same(error, results, monkeypatch):
    def refuse(path):
        raise error(path)

    sweep = manifest.Sweep("small-1", "small", 1, [], None, None)
    monkeypatch.setattr(manifest, "FileLock", refuse)
    manifest.look(sweep, results)
    assert list(sweep.looks) == ["small-1"]
    assert not results.exists()


def test_a_look_that_is_noted_while_the_sweep_goes_on_stays(results):
    sweep = manifest.Sweep("small-1", "small", 1, [], None, None)
    place = manifest.save(sweep, results)
    manifest.look(manifest.read(place), results)
    manifest.save(sweep, results)
    assert list(manifest.read(place).looks) == ["small-1"]


def test_of_panels_that_were_seen_before_the_first_declaration_holds_and_others_are_new():
    def declared(*panels: PanelDeclaration, level: float = 0.95) -> SweepDeclaration:
        return SweepDeclaration(declaration.code_of_analysis(), "lora", [], level, [*panels])

    def panel(cell: str | None, seeds: int, *point: str) -> PanelDeclaration:
        return PanelDeclaration(cell, [*point], 1, "first", ["igu"], [*range(seeds)], "test/kl", False, 0.1)

    now = declared(panel("first", 3), panel("second", 3), level=0.9)
    whole = declaration.after([declared(panel("third", 2)), declared(panel("first", 2))], now)
    assert whole.panels == [panel("first", 2), panel("second", 3)]  # though all have the same runs of the reference
    alone = declaration.after([declared(panel(None, 2))], declared(panel("first", 3, "task=boolq")))
    assert alone.panels == [panel("first", 2, "task=boolq")]
    assert declaration.changes(whole, now) == [
        "level: 0.9, declared was 0.95",
        "first: seeds: 3 (0, 1, 2), declared was 2 (0, 1)",
    ]
    assert declaration.after([], now) == now


def test_other_code_of_the_analysis_is_said():
    (sentence,) = declaration.code_changes(SweepDeclaration("another", "lora", [], 0.95, []))
    assert sentence.endswith("declared was another")
