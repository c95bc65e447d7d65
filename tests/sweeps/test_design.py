"""What a design can tell, from its numbers alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.harness import SMALL_EXPERIMENT, write_experiment
from support.schedules import Played

from rankbench.config.schema import ConfigError
from rankbench.statistics.family import POWER, power
from rankbench.sweeps.composition import lay_out, words
from rankbench.sweeps.design import Design, designs_of, refuse_futile, scatter_of

TEXT = SMALL_EXPERIMENT.replace(
    "{reference: lora}", "{reference: lora, metrics: {planted: test/loss}, log: {planted: null}}"
)
ABLATION = Design("igu_ablation", None, "lora", 9, 5, "seeds", 3, 0.95)  # 10 arms, 5 seeds


def test_five_seeds_of_ten_arms_are_refused_and_ten_are_not():
    with pytest.raises(ConfigError) as error:
        refuse_futile([ABLATION], "refuse")
    assert error.value.problems == [
        "experiment=igu_ablation: 5 seeds are too few for 9 comparisons: even an effect of 2 standard deviations would "
        "be shown in 40 of 100 such studies; give 6 or more (seed=0,1,2,...; 8 show it in 80 of 100), fewer arms "
        "(arms=[lora,...]), or ask for it by name: futile=allow"
    ]
    refuse_futile([ABLATION], "allow")
    refuse_futile([replace(ABLATION, pairs=10)], "refuse")
    refuse_futile([], "refuse")


def test_the_floor_is_shown_with_the_power_it_promises():
    assert power(ABLATION.floor, 1.0, 5, 9) == pytest.approx(POWER)
    assert replace(ABLATION, pairs=1).floor == float("inf")
    assert replace(ABLATION, pairs=1).futile


@pytest.mark.parametrize(
    ("typed", "numbers"),
    [
        (["arms=[lora,random,random permuted]", "seed=0,1,2"], [(2, 3, "seeds")]),
        (["arms=[lora,random]", "task.map=few,type,depth", "tune.pooled=[task.map]"], [(1, 3, "panels")]),
        (["arms=[lora,random]", "seed=0"], []),  # a part of a sweep, or a try
    ],
)
def test_a_design_counts_arms_panels_and_pairs(typed, numbers, config_dir):
    designs = designs_of(lay_out(words(["experiment=small", *typed]), config_dir))
    assert [(design.comparisons, design.pairs, design.unit) for design in designs] == numbers


def test_cells_share_the_errors_equally_and_controls_claim_nothing(config_dir, tmp_path):
    few = "{random permuted: {seed: [0, 1, 2, 3]}}"
    cells = f"cells: {{long: {{only: {few}}}, short: {{axes: {{task.map: [few, type]}}}}}}\nreport:"
    controls = "controls: {random: {permuted: random permuted}}, metrics"
    text = TEXT.replace("report:", cells).replace("metrics", controls)
    typed = ["experiment=small", "arms=[lora,random,random permuted]", "seed=0,1,2,3,4"]
    designs = designs_of(lay_out(words(typed), write_experiment(tmp_path, text)))
    assert [(design.cell, design.comparisons) for design in designs] == [("long", 2), ("short", 4)]
    assert [(design.pairs, design.control_pairs) for design in designs] == [(5, 4), (5, 5)]
    assert designs[0].power(0.5, 2) < replace(designs[0], control_pairs=None).power(0.5, 2)
    assert replace(designs[0], pairs=2).refusal.startswith("experiment=small, cell long: 2 seeds are too few for 2 com")


def test_a_sweep_without_an_experiment_declares_nothing_and_is_never_refused():
    typed = ["method=lora,random", "seed=0,1", "model=tiny", "task=planted"]
    assert designs_of(lay_out(words(typed))) == []


def test_finished_runs_say_how_far_differences_scatter(config_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout = lay_out(words(["experiment=small", "arms=[lora,random]", "tune.widen=0"]), config_dir)

    def loss(frozen) -> float:  # finish() negates it on the test split; differences of random: 1 and 3
        config = frozen.config
        return 0.0 if config["method"]["name"] == "lora" else 1.0 + 2 * config["seed"]

    played = Played(layout, tmp_path / "results", loss=loss)
    records = {name: frozen.folder.record() for name, frozen in played.frozen_runs.items()}
    (scatter,) = scatter_of(played.sweep, records)
    assert scatter.deviation == pytest.approx(2**0.5 / 0.005)  # in margins


@pytest.fixture(scope="module")
def config_dir(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("conf"), TEXT)
