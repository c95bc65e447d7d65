"""Results folders made into one: each run once, nothing lost, nothing decided where numbers differ."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.harness import write_experiment
from support.records import record
from support.schedules import Played

from rankbench.cli import main
from rankbench.launching import driver
from rankbench.records import merging
from rankbench.records.merging import MergeError, merge
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder, records, save
from rankbench.sweeps import manifest
from rankbench.sweeps.composition import describe, lay_out, words
from rankbench.sweeps.manifest import Job, Sweep


def leave(results: Path, run: RunRecord | None, name: str = "unfinished", note: str = "") -> RunFolder:
    """A run folder with the files that a run leaves, the record last."""
    folder = RunFolder(results, run.run_id if run else name)
    with folder.open():
        folder.write("items.jsonl", f"{note}\n")
        (folder.path / "adapter").mkdir()
        (folder.path / "adapter" / "weights").write_text("1 2 3")
        (folder.path / ".record.json.1.tmp").write_text("{")
        if run is not None:
            folder.write_record(run)
    return folder


@pytest.fixture
def nodes(tmp_path):
    """Two nodes: run a on the first, b on both (stopped on the first), c on the second, and one unfinished run."""
    first, second = tmp_path / "node-0", tmp_path / "node-1"
    leave(first, record("a", 0), note="first")
    leave(first, record("b", 0, status="killed", reason="killed by SIGTERM"), note="first")
    leave(first, None)
    leave(second, record("b", 0), note="second")
    leave(second, record("c", 0, status="nan", reason="loss is nan"), note="second")
    return first, second


def notes(results: Path) -> dict[str, str]:
    """Run folder -> what it says where it comes from."""
    return {folder.name: (folder / "items.jsonl").read_text().strip() for folder in (results / "runs").iterdir()}


def test_each_run_comes_once_and_from_where_it_got_furthest(nodes, tmp_path):
    merged = merge(nodes, tmp_path / "all")
    assert (merged.taken, merged.present, merged.unfinished, merged.problems) == (3, 0, 1, [])
    assert notes(tmp_path / "all") == {"a0": "first", "b0": "second", "c0": "second"}
    read, problems = records(tmp_path / "all")
    assert ({run.run_id: run.status for run in read}, problems) == ({"a0": "ok", "b0": "ok", "c0": "nan"}, [])
    files = sorted(file.name for file in (tmp_path / "all" / "runs" / "a0").rglob("*"))
    assert files == ["adapter", "items.jsonl", "record.json", "weights"]  # neither the lock nor half a record
    again = merge(nodes, tmp_path / "all")
    assert (again.taken, again.present) == (0, 3)


def test_only_finished_runs_share_their_files(nodes, tmp_path):
    """A failed run may be done again, and then writes into its files."""
    merge(nodes, tmp_path / "all")
    weights = {name: tmp_path / "all" / "runs" / name / "adapter" / "weights" for name in ("a0", "c0")}
    assert weights["a0"].samefile(nodes[0] / "runs" / "a0" / "adapter" / "weights")
    assert weights["c0"].stat().st_nlink == 1


def test_a_run_that_failed_in_the_target_gives_way_to_one_that_is_ok(nodes, tmp_path):
    leave(tmp_path / "all", record("c", 0, status="killed"), note="target")
    leave(tmp_path / "all", record("a", 0, status="oom"), note="target")
    busy = RunFolder(tmp_path / "all", "a0")
    with busy.open():
        merged = merge(nodes, tmp_path / "all")
    assert merged.problems == [
        f"{nodes[0]}/runs/a0: not merged: {busy.path}: another process is working on this run; wait for it or stop it"
    ]
    assert notes(tmp_path / "all") == {"a0": "target", "b0": "second", "c0": "second"}
    assert merge(nodes, tmp_path / "all").problems == []
    assert notes(tmp_path / "all")["a0"] == "first"
    assert busy.record() == record("a", 0)


def test_different_numbers_are_named_and_nothing_is_merged(nodes, tmp_path, capsys):
    other = replace(record("a", 0), metrics={"test": {"step": 9, "kl": 0.26}})
    leave(nodes[1], other)
    assert main(["records", "merge", *map(str, nodes), "--into", str(tmp_path / "all")]) == 2
    error = capsys.readouterr().err
    assert f"{nodes[0]}/runs/a0 and {nodes[1]}/runs/a0: metrics" in error
    assert "remove one folder or line of each" in error
    assert not (tmp_path / "all").exists()
    shutil.rmtree(nodes[1] / "runs" / "a0")
    leave(nodes[1], replace(record("a", 0), cost=None, provenance={"host": "another"}))
    assert merge(nodes, tmp_path / "all").taken == 3  # time and place are no numbers


def test_an_interrupted_merge_is_finished_by_the_next(nodes, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merging.Path, "rename", fail)
        with pytest.raises(KeyboardInterrupt):
            merge(nodes, tmp_path / "all")
    assert records(tmp_path / "all") == ([], [])  # what was begun is no run
    assert merge(nodes, tmp_path / "all").taken == 3
    assert len(list((tmp_path / "all" / "runs").iterdir())) == 3


def test_files_are_copied_where_links_cannot_be_made(nodes, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(merging.os, "link", fail)
    assert merge(nodes, tmp_path / "all").taken == 3
    assert notes(tmp_path / "all")["a0"] == "first"


def test_sweeps_come_along_with_the_jobs_of_all_nodes(nodes, tmp_path, capsys):
    jobs = [Job(None, name, False, (f"method={name[0]}",)) for name in ("a0", "b0", "c0")]
    for node, own, order in ((nodes[0], jobs[:2], 4), (nodes[1], jobs[1:], 7)):
        manifest.save(Sweep("sweep-1", "sweep", order, ["method=a,b,c"], None, None, own), node)
    manifest.save(Sweep("sweep-0", "sweep", 3, ["method=z"], None, None), nodes[0])
    assert main(["records", "merge", *map(str, nodes), "--into", str(tmp_path / "all")]) == 0
    printed = capsys.readouterr().out
    assert "3 runs merged, 0 there already\n1 unfinished runs were left where they are\n" in printed
    sweeps, problems = manifest.all_of(tmp_path / "all")
    assert ([(sweep.sweep_id, sweep.order) for sweep in sweeps], problems) == ([("sweep-0", 1), ("sweep-1", 2)], [])
    assert sweeps[1].jobs == jobs
    assert main(["status", "--results", str(tmp_path / "all")]) == 1
    assert "nan: c  c0" in capsys.readouterr().out


def test_a_folder_that_holds_no_runs_is_named(nodes, tmp_path):
    with pytest.raises(MergeError, match=f"{tmp_path}/typo: no runs/ there; name results folders or files of records"):
        merge([nodes[0], tmp_path / "typo"], tmp_path / "all")


def test_a_record_in_a_file_comes_after_a_folder_and_as_a_folder_of_its_own(nodes, tmp_path, capsys):
    file = tmp_path / "records.jsonl"
    save([record("a", 0), record("b", 0), record("d", 0, ranks={"site": 2})], file)
    into = tmp_path / "all"
    assert main(["records", "merge", str(file), str(nodes[0]), "--into", str(into)]) == 0
    assert f"{into}: 3 runs merged (2 of them as records alone), 0 there already" in capsys.readouterr().out
    files = {folder.name: sorted(file.name for file in folder.iterdir()) for folder in (into / "runs").iterdir()}
    assert files == {"a0": ["adapter", "items.jsonl", "record.json"], "b0": ["record.json"], "d0": ["record.json"]}
    assert RunFolder(into, "d0").record() == record("d", 0, ranks={"site": 2})
    assert merge([file], into).present == 3


def test_a_file_of_records_is_refused_as_a_folder_is(nodes, tmp_path):
    file = tmp_path / "records.jsonl"
    save([replace(record("a", 0), history_events=7)], file)
    with pytest.raises(MergeError, match=rf"runs/a0 and {file} \(run a0\): history_events"):
        merge([file, *nodes], tmp_path / "all")
    save([replace(record("a", 0), run_id="../a0")], file)
    file.write_text(file.read_text() + "{\n")
    merged = merge([file], tmp_path / "all")
    assert merged.taken == 0
    assert [problem.split(":")[1].split("(")[0] for problem in merged.problems] == [
        " '../a0' names no run; not merged",
        "2",
    ]


def test_a_sweep_goes_on_from_a_file_of_records(tmp_path, monkeypatch, capsys):
    """Nothing is started where all are there: trials, runs, and controls that take the ranks of a run."""
    monkeypatch.chdir(tmp_path)
    config_dir, results = write_experiment(tmp_path / "conf"), Path("results")
    typed = ["experiment=small", "arms=[lora,random,random permuted]", "seed=0", "tune.widen=0"]
    layout = lay_out(words(typed), config_dir)
    sweep, started = describe(words(typed), layout, typed, results), []
    sweep.jobs, sweep.looks = Played(layout, results).sweep.jobs, {sweep.sweep_id: "2026-01-02"}
    jobs = [job.run_id for job in sweep.jobs]
    kept = Path("kept") / "records.jsonl"
    save(records(results)[0], kept)
    (kept.parent / manifest.FILE).write_text(sweep.to_json())
    shutil.rmtree(results)
    assert main(["records", "merge", str(kept), "--into", str(results)]) == 0

    @contextmanager
    def launching(*_):
        yield lambda files: started.extend(file.stem for file in files)

    monkeypatch.setattr(driver, "_launching", launching)
    monkeypatch.setattr(driver.local_pool, "start_server", lambda: None)
    capsys.readouterr()
    assert driver.start(typed, config_dir) == 0
    assert (started, capsys.readouterr().out) == ([], f"{len(jobs)} runs: {len(jobs)} ok\n")
    again = manifest.last(results, "small")
    assert (again.jobs, again.looks) == (sweep.jobs, sweep.looks)
    shutil.rmtree(results / "runs" / jobs[-1])
    assert driver.start(typed, config_dir) == 1
    assert started == jobs[-1:]


@pytest.mark.slow
def test_a_run_whose_files_lay_elsewhere_is_answered_from_its_record(tmp_path, monkeypatch, capsys):
    place = tmp_path / "map.json"
    place.write_text(json.dumps({"peft_type": "LORA", "target_modules": "all-linear", "r": 1}))
    run = ["method=transplant", f"method.source_run={place}", "model=tiny", "task=planted", "train.steps=2"]
    sizes = ["budget=r1", "task.train_size=16", "task.test_size=8", "train.threads=1"]
    assert main([*run, *sizes, f"results_dir={tmp_path / 'first'}"]) == 0
    assert main(["records", str(tmp_path / "first"), "--save", str(tmp_path / "records.jsonl")]) == 0
    assert str(tmp_path) not in (tmp_path / "records.jsonl").read_text()
    assert main(["records", "merge", str(tmp_path / "records.jsonl"), "--into", str(tmp_path / "second")]) == 0
    capsys.readouterr()
    monkeypatch.setattr("rankbench.training.run.execute", None)
    assert main([*run, *sizes, f"results_dir={tmp_path / 'second'}"]) == 0
    assert "done already" in capsys.readouterr().out
