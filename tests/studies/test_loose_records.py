"""Records that no sweep names make a study: arms by their labels, panels by settings in which runs of an arm differ."""

import gc
import json
from dataclasses import replace

import pytest
from support.records import record

from rankbench.analysis.frame import SelectionError
from rankbench.cli import main
from rankbench.records import run_folder
from rankbench.records.run_folder import RunFolder
from rankbench.studies import loose_records, panels, study
from rankbench.sweeps.manifest import SweepError


def finished(method, seed, task=None, rate=0.01, **config):
    """A run on a planted task; each has a run_id of its own."""
    settings = {"map": "few", "kind": None, **(task or {})}
    name = f"{method}{seed}{''.join(map(str, settings.values()))}{''.join(map(str, config))}".replace("-", "")
    value = 0.1 + 0.01 * seed - 0.05 * (method == "igu")
    return record(
        method,
        seed,
        run_id=name,
        config={
            "method": {"name": method},
            "task": {"name": "planted", **settings},
            "train": {"learning_rate": rate, "steps": 100},
            "seed": seed,
            **config,
        },
        metrics={"test": {"step": 100, "kl": value}},
    )


def two_maps():
    return [
        finished(name, seed, {"map": kind}) for kind in ("few", "depth") for name in ("lora", "igu") for seed in (0, 1)
    ]


@pytest.fixture
def folder(tmp_path):
    """A folder with records.jsonl and nothing else."""
    run_folder.save([*two_maps(), finished("igu", 9, rate=0.1, trial=True)], tmp_path / "maps" / "records.jsonl")
    return tmp_path / "maps"


def test_values_are_in_the_order_of_their_size_and_versions_are_words():
    values = ["main", "1.10.0", "0.1", "1e-05", "-1", "10", "2"]
    assert sorted(values, key=loose_records._order) == ["-1", "1e-05", "0.1", "2", "10", "1.10.0", "main"]


def test_panels_are_the_settings_in_which_runs_of_an_arm_differ(folder):
    loose = study.load([str(folder)])
    assert (loose.sweep.name, loose.sweep.experiment, loose.looks) == ("maps", None, 1)
    made = panels.panels(loose)
    assert [panel.rest for panel in made] == [("task.map=depth",), ("task.map=few",)]
    assert {panel.title for panel in made} == {
        f"tiny, planted, budget r1, task.map={kind}" for kind in ("few", "depth")
    }
    for panel in made:
        assert panel.arms == ["lora", "igu"]
        assert sorted((run.arm, run.seed) for run in panel.runs) == [("igu", 0), ("igu", 1), ("lora", 0), ("lora", 1)]
    assert [run.seed for panel in made for run in panel.trials] == [9]
    assert panels.report_of(loose).reference == "lora"


def test_the_name_of_a_kind_stands_for_the_settings_that_follow_from_it(tmp_path):
    kinds = {
        "few-r8": {"map": "few", "rank": 8},
        "few-r16": {"map": "few", "rank": 16},
        "depth": {"map": "depth", "rank": 8},
    }
    runs = [finished("lora", 0, {"kind": kind, **settings}) for kind, settings in kinds.items()]
    run_folder.save(runs, tmp_path / "records.jsonl")
    made = panels.panels(study.load([str(tmp_path)]))
    assert [panel.rest for panel in made] == [("task.kind=depth",), ("task.kind=few-r16",), ("task.kind=few-r8",)]


def test_learning_rates_part_runs_that_nothing_else_parts(tmp_path):
    runs = [finished("lora", 0, {"kind": rate}, rate=rate) for rate in (0.03, 0.1)]  # kind: for run_ids that differ
    for run in runs:
        run.config["task"] = {"name": "planted"}
    run_folder.save([*runs, finished("igu", 0, rate=0.03)], tmp_path / "records.jsonl")
    made = panels.panels(study.load([str(tmp_path)]))
    assert [panel.rest for panel in made] == [("train.learning_rate=0.03",), ("train.learning_rate=0.1",)]
    assert [panel.arms for panel in made] == [["lora", "igu"], ["lora"]]


def test_settings_between_arms_are_no_axis(tmp_path):
    runs = [finished("lora", 0), finished("igu", 0, train={"learning_rate": 0.03, "steps": 200})]
    run_folder.save(runs, tmp_path / "records.jsonl")
    loose = study.load([str(tmp_path)])
    assert [panel.rest for panel in panels.panels(loose)] == [()]
    with pytest.raises(SelectionError, match=r"train.steps: 100, 200"):
        panels.refuse_mixed(loose, panels.panels(loose), [])


def test_a_job_has_the_command_that_does_its_run_again(folder):
    jobs = {job.run_id: job for job in study.load([str(folder)]).sweep.jobs}
    words = jobs["igu1depthNone"].overrides
    assert words[:6] == ("model=tiny", "task=planted", "method=igu", "budget=r1", "seed=1", "task.map=depth")
    assert {"train.learning_rate=0.01", "train.steps=100"} == set(words[6:])  # both differ from conf/train/default.yaml


def test_another_reference_is_an_arm_of_the_study(folder, tmp_path):
    loose = study.load([str(folder)])
    assert panels.report_of(replace(loose, reference="igu")).reference == "igu"
    with pytest.raises(SelectionError, match=r"reference fim: no such arm; there are lora, igu"):
        panels.report_of(replace(loose, reference="fim"))


def test_a_file_a_folder_and_a_results_folder_make_the_same_study(folder, tmp_path):
    results = tmp_path / "results"
    for run in two_maps():
        place = RunFolder(results, run.run_id)
        with place.open():
            place.write_record(run)
            place.write_lines(study.STEPS, [{"step": 1, "ranks": 8}, {"step": 2, "ranks": 6}])
    run_folder.save(two_maps(), tmp_path / "some.jsonl")
    studies = {
        name: study.load([str(path)]) for name, path in {"some": tmp_path / "some.jsonl", "results": results}.items()
    }
    assert {name: each.sweep.name for name, each in studies.items()} == {"some": "some", "results": "results"}
    expected = {run.run_id: run for run in two_maps()}
    assert all(each.records == expected for each in studies.values())
    assert studies["some"].curves == {}
    assert set(studies["results"].curves) == set(expected)


def test_what_holds_no_records_is_refused(tmp_path):
    with pytest.raises(SweepError, match=r"holds no study: neither sweep.json nor records.jsonl nor runs/ is there"):
        study.load([str(tmp_path)])
    (tmp_path / "lines.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(SweepError, match=r"lines.jsonl holds no records; .*lines.jsonl:1: not a run record"):
        study.load([str(tmp_path / "lines.jsonl")])


def test_the_report_says_that_nothing_was_declared_and_leaves_the_records_as_they_are(folder, tmp_path, capsys):
    before = (folder / "records.jsonl").read_bytes()
    assert main(["report", str(folder), "--reference", "igu"]) == 0
    assert gc.isenabled()  # as before
    printed = capsys.readouterr().out
    assert printed.startswith(f"{folder / 'index.html'}\n")
    assert "Exploratory: nothing was declared before the runs." in printed
    shown = (folder / "tables.md").read_text()
    assert "2 comparisons with IGU-LoRA at an equal budget" in shown
    assert "Exploratory: no sweep names these records" in shown
    page = (folder / "index.html").read_text()
    assert "<dt>Compared</dt><dd>LoRA (uniform) and IGU-LoRA on " in page.replace("\n", "")
    assert "<dt>Asked</dt>" not in page
    assert (folder / "records.jsonl").read_bytes() == before
    assert (folder / "index.html").is_file()
    assert not (folder / "sweep.json").exists()
    assert main(["report", str(folder), "--out", str(tmp_path / "copy")]) == 0
    copy = study.load([str(tmp_path / "copy")])
    assert copy.records == study.load([str(folder)]).records


def test_a_report_of_records_alone_replaces_none_of_a_sweep(folder, tmp_path, capsys):
    out = tmp_path / "swept"
    out.mkdir()
    (out / "sweep.json").write_text(json.dumps({}))
    assert main(["report", str(folder), "--out", str(out)]) == 2
    assert "holds the report of a sweep; name another folder with --out" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == ["sweep.json"]
