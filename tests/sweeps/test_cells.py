"""Cells of a study: what each changes, which are run, and how they share rates, ranks and panels."""

from __future__ import annotations

import json

import pytest
from support.harness import write_experiment
from support.schedules import Played

from rankbench.config.schema import ConfigError
from rankbench.studies import panels
from rankbench.studies.study import study_of_sweep
from rankbench.sweeps import manifest
from rankbench.sweeps.cells import parts, with_cells
from rankbench.sweeps.composition import lay_out, words
from rankbench.sweeps.experiment import arms, rates_of
from rankbench.sweeps.experiment_files import read
from rankbench.sweeps.grid import cells_of
from rankbench.sweeps.selection import with_arms

STUDY = {
    "name": "x",
    "question": "Does it?",
    "source": "a paper",
    "arms": {
        "lora": {"method": "lora"},
        "random": {"method": "random"},
        "map": {"method": "transplant", "method.source_run": "{random}"},
        "mixed": {"method": "permuted", "method.source": None, "method.source_run": "{random}"},
    },
    "vary": {"mixed": {"method.within": ["type", "layer"]}},
    "axes": {"seed": [0, 1]},
    "settings": {"train.steps": 7, "budget": "r2"},
    "when": {"method=lora": {"train.steps": 8}},
    "shares": {"mixed": "map"},
    "tune": {"learning_rate": [1e-3, 1e-2], "widen": 0},
    "cells": {
        "one": {"settings": {"model": "tiny"}, "axes": {"task.map": ["few", "type"]}, "only": {"mixed": {"seed": [0]}}},
        "two": {
            "arms": ["lora", "map", "mixed", "mixed within=type"],
            "settings": {"train.steps": 9},
            "when": {"method=transplant": {"train.steps": 10}},
            "tune": {"learning_rate": [1.0], "widen": 0},
            "maps": "maps/two",
        },
    },
    "report": {"reference": "lora"},
}


def made(**changes):
    return read({**STUDY, **changes}, "x.yaml")


def test_a_cell_changes_key_by_key_and_keeps_what_it_leaves_out():
    one, two = parts(made()).values()
    assert one.settings == {"train.steps": 7, "budget": "r2", "model": "tiny"}
    assert (one.axes, two.axes) == ({"seed": [0, 1], "task.map": ["few", "type"]}, {"seed": [0, 1]})
    assert two.settings == {"train.steps": 9, "budget": "r2"}
    assert two.when == {"method=lora": {"train.steps": 8}, "method=transplant": {"train.steps": 10}}
    assert (one.tune.learning_rate, two.tune.learning_rate) == ([1e-3, 1e-2], [1.0])
    assert list(arms(one)) == [*STUDY["arms"], "mixed within=type", "mixed within=layer"]
    assert list(arms(two)) == STUDY["cells"]["two"]["arms"]
    plain = made(cells={})
    assert parts(plain) == {None: plain}


def test_a_control_takes_the_map_that_a_cell_has_beforehand():
    one, two = parts(made()).values()
    assert {settings.get("method.source_run") for settings in arms(one).values()} == {None, "{random}"}
    assert {settings.get("method.source_run") for settings in arms(two).values()} == {None, "maps/two/random"}


def test_an_arm_and_those_that_vary_it_may_be_run_at_fewer_points():
    (one, _) = parts(made()).values()
    seeds = {arm: {cell.settings["seed"] for cell in cells_of(one, {}) if cell.arm == arm} for arm in arms(one)}
    assert seeds == {arm: {"seed=0"} if arm.startswith("mixed") else {"seed=0", "seed=1"} for arm in arms(one)}
    (again, _) = parts(with_arms(made(), ["random", "mixed within=type"])).values()
    assert [cell.settings["seed"] for cell in cells_of(again, {}) if cell.arm != "random"] == ["seed=0"] * 2


def test_some_cells_and_some_arms():
    assert list(with_cells(made(), ["two"]).cells) == ["two"]
    assert list(with_arms(made(), ["random"]).cells) == ["one"]  # the other has no run of it
    with pytest.raises(ConfigError, match=r"cells: experiment=x has no cell 'tow'; did you mean two"):
        with_cells(made(), ["one", "tow"])
    assert words(["experiment=x", "cells=one,two"]).cells == ["one", "two"]


def test_who_takes_the_rate_of_a_taker_takes_that_of_the_arm_with_trials():
    assert rates_of(made()) == dict.fromkeys(["mixed", "mixed within=type", "mixed within=layer"], "map")
    longer = made(shares={"mixed": "map", "map": "lora"})
    assert set(rates_of(longer).values()) == {"lora"}
    with pytest.raises(ConfigError, match=r"shares.map: leads back to itself"):
        made(shares={"map": "mixed", "mixed": "map"})


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"arms": ["lroa"]}, r"cells.one.arms: no arm 'lroa'; did you mean lora"),
        ({"only": {"lroa": {"seed": [0]}}}, r"cells.one.only: no arm 'lroa'"),
        ({"when": {"tiny": {}}}, r"cells.one.when: 'tiny' is no key=value"),
        ({"arm": ["lora"]}, r"cells.one.arm=.*unknown key; did you mean arms"),
    ],
)
def test_a_mistake_in_a_cell_is_named_with_its_place(cell, message):
    with pytest.raises(ConfigError, match=message):
        made(cells={"one": cell})


def two_cells(place):
    """Two cells of one model and task, told apart by their names alone; the second has its maps beforehand."""
    (place / "random").write_text('{"a": 1, "b": 3}')
    cells = {
        "one": {"axes": {"task.map": ["few", "type"]}, "only": {"mixed": {"seed": [0]}}},
        "two": {
            "axes": {"task.map": ["few"]},
            "arms": ["lora", "map"],
            "tune": {"learning_rate": [1.0], "widen": 0},
            "maps": str(place),
        },
    }
    settings = {"model": "tiny", "task": "planted", "results_dir": str(place / "results")}
    content = {**STUDY, "cells": cells, "settings": settings, "when": {}}
    return write_experiment(place, json.dumps({key: content[key] for key in content if key != "name"}))


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    place = tmp_path_factory.mktemp("cells")
    config_dir = two_cells(place)
    return Played(lay_out(words(["experiment=small"]), config_dir), place / "results")


def test_each_cell_is_tuned_on_its_own_grid_and_shares_within_itself(played):
    assert played.sweep.waiting == []
    tried = {(job.cell, played.config(job)["train"]["learning_rate"]) for job in played.sweep.jobs if job.trial}
    assert tried == {("one", 1e-3), ("one", 1e-2), ("two", 1.0)}
    assert set(played.rates("mixed", trial=True)) == set()
    assert {job.cell for job in played.jobs("mixed")} == {"one"}
    assert {played.config(job)["method"]["origin"] for job in played.jobs("map") if job.cell == "two"} == {"pattern"}
    assert list(dict.fromkeys(job.cell for job in played.sweep.jobs if not job.trial)) == ["one", "two"]
    assert {"one", "two"} <= {word for job in played.sweep.jobs for word in job.title.split()}


def test_each_point_of_each_cell_is_a_panel(played):
    study = study_of_sweep(played.sweep, played.schedule._results_dir)
    points = [("task.map=few", "cell=one"), ("task.map=type", "cell=one"), ("task.map=few", "cell=two")]
    assert [panel.rest for panel in panels.panels(study)] == points


def test_a_cell_is_reported_before_the_next_is_tuned_and_declared_when_it_starts(played):
    order = [(job.cell, job.trial) for batch in played.batches for job in batch]
    assert list(dict.fromkeys(order)) == [("one", True), ("one", False), ("two", True), ("two", False)]
    assert [(panel.cell, panel.done) for panel in played.sweep.declaration.panels] == [
        ("one", 0),
        ("one", 0),
        ("two", 0),
    ]


def test_a_cell_that_was_run_alone_keeps_what_was_declared_then(tmp_path):
    config_dir, results = two_cells(tmp_path), tmp_path / "results"
    alone = Played(lay_out(words(["experiment=small", "cells=[one]"]), config_dir), results)
    manifest.save(alone.sweep, results)
    together = lay_out(words(["experiment=small"]), config_dir)
    played = Played(together, results)
    assert played.sweep.declaration.panels[:2] == alone.sweep.declaration.panels
    assert played.sweep.declaration.panels[2].cell == "two"
    assert played.sweep.changes == []
