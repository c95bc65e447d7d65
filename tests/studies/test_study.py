"""A sweep with the records of its runs; files that are not records are named, not counted, and stop nothing."""

import json

import pytest
from support.records import record

from rankbench.records import run_folder
from rankbench.records.run_folder import RunFolder
from rankbench.studies import study
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import Job, Sweep, SweepError

NAMES = ("whole", "bare", "gone", "torn", "binary", "foreign", "other", "steps", "rows")


def job(name: str, trial: bool = False) -> Job:
    return Job("lora", name, trial, ("method=lora",))


@pytest.fixture
def results(tmp_path):
    """A results folder with a sweep of nine runs and a trial, in all states."""
    jobs = [job("trial", trial=True), *map(job, NAMES)]
    words = ["experiment=x", "seed=0", f"results_dir={tmp_path}"]
    manifest.save(Sweep("x-1", "x", 1, words, None, None, jobs), tmp_path)
    for name in {"trial", *NAMES} - {"gone"}:
        folder = RunFolder(tmp_path, name)
        folder.path.mkdir(parents=True)
        folder.write_record(record("lora", 0, run_id=name))
        if name != "bare":
            folder.write_lines("steps.jsonl", [{"step": i, "ranks": ranks} for i, ranks in enumerate([8, 8, 6, 6], 1)])
    for name, content in {"torn": b'{"run_id": ', "binary": b"\xff\x00", "foreign": b'{"a": 1}'}.items():
        (tmp_path / "runs" / name / "record.json").write_bytes(content)
    (tmp_path / "runs" / "other" / "record.json").write_text(record("lora", 0, run_id="whole").to_json())
    (tmp_path / "runs" / "steps" / "steps.jsonl").write_text('{"step": 1, "ran{"step": 2, "ranks": 8}\n')
    (tmp_path / "runs" / "rows" / "steps.jsonl").write_text('{"loss": 1}\n')
    return tmp_path


def test_the_runs_of_a_sweep_with_their_records(results):
    found = study.load(["experiment=x", f"results_dir={results}"])
    assert set(found.records) == {"trial", "whole", "bare", "steps", "rows"}
    assert [(job.run_id, record is None) for job, record in found.runs()] == [
        *(("whole", False), ("bare", False), ("gone", True), ("torn", True), ("binary", True)),
        *(("foreign", True), ("other", True), ("steps", False), ("rows", False)),
    ]
    assert [job.run_id for job, _ in found.runs(trial=True)] == ["trial"]
    assert found.curves["whole"] == [(1, 8), (3, 6), (4, 6)]
    assert found.curves["bare"] == []


def test_what_cannot_be_read_is_named(results):
    problems = study.load([f"results_dir={results}"]).problems
    runs = results / "runs"
    starts = [
        f"{runs}/torn/record.json: not JSON (",
        f"{runs}/binary/record.json: not JSON (",
        f"{runs}/foreign/record.json: not a run record (",
        f"{runs}/other/record.json: the record of another run, whole",
        f"{runs}/steps/steps.jsonl: not the steps of a run (",
        f"{runs}/rows/steps.jsonl: not the steps of a run (",
    ]
    assert len(problems) == len(starts)
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start)


def test_collecting_counts_none_of_them_either(results):
    found, problems = run_folder.records(results)
    assert sorted(record.run_id for record in found) == ["bare", "rows", "steps", "trial", "whole"]
    assert len(problems) == 4
    assert {problem.partition(": ")[0].split("/")[-2] for problem in problems} == {"torn", "binary", "foreign", "other"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("status", 5), ("status", "done"), ("config", []), ("metrics", "none"), ("cost", 1.0), ("provenance", None)],
)
def test_a_record_with_other_kinds_of_values_is_none(results, key, value):
    file = results / "runs" / "whole" / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    found = study.load([f"results_dir={results}"])
    assert "whole" not in found.records
    assert f"{file}: not a run record (values of another kind: ['{key}'])" in found.problems


def test_a_study_is_complete_in_itself(results, tmp_path):
    found = study.load([f"results_dir={results}"])
    study.save(found, tmp_path / "report")
    again = study.load([str(tmp_path / "report")])
    assert again.sweep == found.sweep
    assert again.records == found.records
    assert again.curves == found.curves
    assert again.problems == [" ".join(problem.split()) for problem in found.problems]


def test_what_a_study_was_read_from_is_not_written_again(results, tmp_path):
    report, copy = tmp_path / "report", tmp_path / "copy"
    study.save(study.load([f"results_dir={results}"]), report)
    before = {name: (report / name).read_text() + "\n" for name in ("records.jsonl", "sweep.json")}
    for name, text in before.items():
        (report / name).write_text(text)  # as another version would have written them
    study.save(study.load([str(report)]), report)
    study.save(study.load([str(report)]), copy)
    assert {name: (report / name).read_text() for name in before} == before
    assert (copy / "records.jsonl").read_text() == before["records.jsonl"].rstrip("\n") + "\n"


def test_large_records_are_kept_compressed_and_read_alike(results, tmp_path, monkeypatch):
    whole = study.load([f"results_dir={results}"])
    study.save(whole, tmp_path / "plain")
    monkeypatch.setattr(study, "LARGE", 100)
    study.save(whole, tmp_path / "packed")
    packed = tmp_path / "packed" / "records.jsonl.xz"
    assert not (tmp_path / "packed" / "records.jsonl").exists()
    assert packed.stat().st_size < (tmp_path / "plain" / "records.jsonl").stat().st_size
    assert run_folder.records(packed) == run_folder.records(tmp_path / "plain" / "records.jsonl")
    assert study.load([str(tmp_path / "packed")]).records == whole.records
    assert study.load([str(packed)]).sweep.name == "packed"
    before = packed.read_bytes()
    study.save(study.load([str(tmp_path / "packed")]), tmp_path / "packed")  # its own records are not written again
    assert packed.read_bytes() == before
    monkeypatch.setattr(study, "LARGE", 10**9)
    study.save(whole, tmp_path / "packed")
    assert (tmp_path / "packed" / "records.jsonl").is_file()
    assert not packed.exists()


def test_a_study_that_was_committed_is_found_where_no_sweep_is(results, tmp_path):
    study.save(study.load([f"results_dir={results}"]), tmp_path / "clone" / "x")
    words = ["experiment=x", f"results_dir={tmp_path / 'clone'}"]
    assert study.load(words).sweep.name == "x"
    with pytest.raises(
        SweepError, match=r"clone holds no sweep of experiment=x seed=1 results_dir=.*; start it with rankbench -m exp"
    ):
        study.load(["experiment=x", "seed=1", f"results_dir={tmp_path / 'clone'}"])
    with pytest.raises(
        SweepError, match=r"start it with rankbench -m experiment=y results_dir=.*, or give --results DIR"
    ):
        study.load(["experiment=y", f"results_dir={results}"])
    with pytest.raises(SweepError, match=r"no sweep in .*clone; start one with rankbench -m \.\.\., or give --results"):
        study.load([f"results_dir={tmp_path / 'clone'}"])


def test_a_torn_sweep_beside_it_is_not_in_the_way(results):
    (results / "sweeps" / "y-2").mkdir()
    (results / "sweeps" / "y-2" / "sweep.json").write_text("{")
    assert study.load(["experiment=x", f"results_dir={results}"]).sweep.sweep_id == "x-1"
    with pytest.raises(SweepError, match=r"y-2/sweep.json: not a sweep of this version"):
        study.load(["experiment=y", f"results_dir={results}"])
