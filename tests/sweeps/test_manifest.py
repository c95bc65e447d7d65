"""A sweep on disk: it is read back as it was written; a torn file is named and stops nothing."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.harness import SMALL_EXPERIMENT, write_experiment

from rankbench.sweeps import experiment_files, manifest
from rankbench.sweeps.declaration import PanelDeclaration, SweepDeclaration
from rankbench.sweeps.experiment import Tune
from rankbench.sweeps.manifest import Job, Sweep, SweepError

JOB = Job("igu", "abc", False, ("method=igu", "model=tiny", "train.steps=3", "seed=1", "train.learning_rate=0.1"))
TUNE = Tune(learning_rate=[0.1], seeds=[100], metric="validation/loss", widen=1)


def made(order: int = 1, name: str = "sweep", **changes) -> Sweep:
    return Sweep(f"{name}-{order}", name, order, ["seed=0"], None, None, **changes)


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    return experiment_files.load("small", write_experiment(tmp_path_factory.mktemp("conf"), SMALL_EXPERIMENT))


def test_a_sweep_comes_back(tmp_path, declared):
    whole = made(jobs=[JOB, replace(JOB, arm=None, trial=True)], waiting=["igu: waits"])
    for one in (whole, replace(whole, experiment=declared, tune=TUNE)):
        place = manifest.save(one, tmp_path)
        assert place == tmp_path / "sweeps" / "sweep-1"
        assert manifest.read(place) == one
    assert [file.name for file in place.iterdir()] == ["sweep.json"]


def test_a_run_is_told_by_what_tells_it():
    assert JOB.title == "igu model=tiny method=igu seed=1 train.learning_rate=0.1"
    assert JOB.method == "igu"
    assert replace(JOB, overrides=("seed=1",)).method == "default method"
    assert replace(JOB, arm=None, trial=True).title.endswith("train.learning_rate=0.1 (trial)")


def test_the_name_of_a_sweep_tells_its_runs_and_their_tuning():
    configs = [{"seed": 0, "results_dir": "a"}, {"seed": 1, "results_dir": "a"}]
    names = {
        manifest.identity("x", configs, [None]),
        manifest.identity("x", configs[:1], [None]),
        manifest.identity("x", configs, [TUNE]),
        manifest.identity("x", configs, [TUNE.replace(widen=2)]),
        manifest.identity("y", configs, [None]),
    }
    assert len(names) == 5
    assert all(re.fullmatch(r"[xy]-[0-9a-f]{8}", name) for name in names)
    moved = [{**config, "results_dir": "b"} for config in configs]
    assert manifest.identity("x", iter(moved), [None]) == manifest.identity("x", configs, [None])


def test_the_last_one_is_the_one_that_was_started_last(tmp_path):
    for one in (made(2, "b"), made(10, "a"), made(3, "a")):
        manifest.save(one, tmp_path)
    found, problems = manifest.all_of(tmp_path)
    assert [one.order for one in found] == [2, 3, 10]
    assert problems == []
    assert manifest.last(tmp_path, None).order == 10
    assert manifest.last(tmp_path, "b").order == 2
    assert manifest.last(tmp_path, "b", ["seed=0"]).order == 2
    assert manifest.last(tmp_path, "b", ["seed=1"]) is None
    assert manifest.last(tmp_path / "nowhere", None) is None


@pytest.mark.parametrize(
    "torn", [b"", b'{"sweep_id": ', b"[]", b"null", b"{}", b"\xff\xfe", b'{"jobs": ["a"], "experiment": null}']
)
def test_a_torn_sweep_is_told_by_name_and_hides_no_other(tmp_path, torn):
    manifest.save(made(1, "good"), tmp_path)
    place = manifest.save(made(2, "torn"), tmp_path)
    (place / "sweep.json").write_bytes(torn)
    with pytest.raises(SweepError, match=rf"{place}/sweep.json: not a sweep of this version \(.*\); start it again"):
        manifest.read(place)
    found, problems = manifest.all_of(tmp_path)
    assert [one.name for one in found] == ["good"]
    assert len(problems) == 1
    assert problems[0].startswith(f"{place}/sweep.json: not a sweep")
    assert manifest.last(tmp_path, "good").order == 1
    with pytest.raises(SweepError, match=r"torn-2/sweep.json: not a sweep"):
        manifest.last(tmp_path, "torn")


def test_a_sweep_of_an_experiment_that_is_no_longer_one(tmp_path, declared):
    place = manifest.save(replace(made(), experiment=declared), tmp_path)
    content = json.loads((place / "sweep.json").read_text())
    del content["experiment"]["arms"]
    (place / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(SweepError, match=r"sweep.json: not a sweep of this version \(1 mistake"):
        manifest.read(place)


def test_the_controls_of_an_older_sweep_have_the_names_of_today(tmp_path, declared):
    report = declared.report.replace(controls={"random": {"permuted": "random permuted"}})
    place = manifest.save(replace(made(), experiment=declared.replace(report=report)), tmp_path)
    file = place / "sweep.json"
    file.write_text(file.read_text().replace('"permuted"', '"shuffled"'))
    assert manifest.read(place).experiment.report == report


def test_a_folder_without_a_sweep(tmp_path):
    with pytest.raises(SweepError, match=f"{tmp_path} holds no sweep.json"):
        manifest.read(tmp_path)


def test_a_sweep_of_two_folders_has_what_was_declared_in_either(tmp_path):
    def folder(*cells: str) -> Path:
        panels = [PanelDeclaration(cell, [], 1, cell, [], [0], "test/kl", False, 0.1) for cell in cells]
        declared = SweepDeclaration("code", "lora", [], 0.95, panels)
        jobs = [replace(JOB, run_id=cell, cell=cell) for cell in cells]
        manifest.save(made(jobs=jobs, declaration=declared), tmp_path / str(len(cells)))
        return tmp_path / str(len(cells))

    assert manifest.merge([folder("one"), folder("one", "two")], tmp_path / "both") == []
    (merged,), _ = manifest.all_of(tmp_path / "both")
    assert [panel.cell for panel in merged.declaration.panels] == ["one", "two"]


def test_seeds_of_every_earlier_look_count_and_a_sweep_without_the_reference_declares_nothing(tmp_path):
    def declared(*seeds: int) -> SweepDeclaration:
        panel = PanelDeclaration(None, [], 1, "group", [], [*seeds], "test/kl", False, 0.1)
        return SweepDeclaration("code", "lora", [], 0.95, [panel] if seeds else [])

    for order, seeds in enumerate(((0, 1), (2, 3))):
        one = Sweep(f"x-{order}", "x", order, [], None, None, declaration=declared(*seeds))
        manifest.save(one, tmp_path)
        manifest.look(one, tmp_path)
    last = Sweep("x-2", "x", 2, [], None, None)
    manifest.stamp(last, declared(0, 1, 2, 3), tmp_path)
    assert list(last.looks) == ["x-0", "x-1"]
    without = Sweep("x-3", "x", 3, [], None, None)
    manifest.stamp(without, declared(), tmp_path)
    assert without.declaration.panels == []
