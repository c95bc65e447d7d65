"""The index of a results folder: the same records as without it, never an old one, and never needed."""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pyarrow import parquet
from support.records import record

from rankbench.records import record_index, run_folder
from rankbench.records.record import RecordError, RunRecord
from rankbench.records.run_folder import RECORD, RunFolder, collected, records

SITES = [f"model.layers.{layer}.mlp.up_proj" for layer in range(3)]


def varied(number: int) -> RunRecord:
    """A record with parts of its own, parts that others share, and parts that not every record has."""
    method = ("lora", "igu", "fim")[number % 3]
    settings = {"method": {"name": method}, "train": {"learning_rate": 10**-number, "steps": 60}, "seed": number}
    return record(
        method,
        number,
        run_id=f"run{number}",
        status="ok" if number % 4 else "nan",
        reason=None if number % 4 else 'loss is nan at "step" 3, Größe',
        config=settings if number % 2 else {**settings, "trial": True, "tuned": None, "task": {"map": "few"}},
        ranks=None if number % 5 == 0 else dict.fromkeys(SITES[: 1 + number % 3], number),
        metrics={"before": None, "test": {"step": 9, "kl": 0.1 / (number + 1)}} if number % 4 else None,
        notes=["a note"] * (number % 2),
    )


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder of twelve runs, which counts as many."""
    monkeypatch.setattr(run_folder, "MANY", 3)
    for number in range(12):
        write(tmp_path, varied(number))
    return tmp_path


def write(results, run):
    folder = RunFolder(results, run.run_id)
    with folder.open():
        folder.write_record(run)


def file_of(results):
    return results / "runs" / record_index.FILE


def read_files(monkeypatch):
    """Names of the runs whose record.json is read from now on."""
    names = []
    read = RunFolder.record
    monkeypatch.setattr(RunFolder, "record", lambda folder: names.append(folder.run_id) or read(folder))
    return names


def test_records_are_the_same_with_and_without_an_index(results, monkeypatch):
    monkeypatch.setattr(run_folder, "MANY", 100)
    expected = records(results)
    assert not file_of(results).exists()
    assert {run.run_id: run for run in expected[0]} == {f"run{number}": varied(number) for number in range(12)}
    monkeypatch.setattr(run_folder, "MANY", 3)
    assert records(results) == expected
    assert file_of(results).exists()
    names = read_files(monkeypatch)
    assert records(results) == expected
    assert names == []
    by_name = {run.run_id: run for run in records(results)[0]}
    assert all(by_name[run.run_id].to_json() == run.to_json() for run in expected[0])
    assert list(by_name["run2"].ranks) == SITES  # in the order of the file


def test_parts_that_runs_share_are_one_object(results):
    records(results)
    runs = {run.run_id: run for run in records(results)[0]}
    assert runs["run1"].config["method"] is runs["run4"].config["method"]
    assert runs["run1"].provenance is runs["run2"].provenance


def test_what_was_changed_removed_or_added_is_read_again(results, monkeypatch):
    records(results)
    names = read_files(monkeypatch)
    write(results, replace(varied(3), reason="another one"))
    shutil.rmtree(results / "runs" / "run5")
    write(results, varied(12))
    (results / "runs" / "run7" / RECORD).unlink()
    (results / "runs" / "run8" / RECORD).write_text('{"run_id": ')
    os.utime(results / "runs" / "run9" / RECORD)
    found, problems = records(results)
    assert sorted(names) == ["run12", "run3", "run8", "run9"]
    assert {run.run_id for run in found} == {f"run{number}" for number in range(13)} - {"run5", "run7", "run8"}
    assert next(run for run in found if run.run_id == "run3").reason == "another one"
    assert [problem.partition(": ")[2][:9] for problem in problems] == ["no record", "not JSON "]
    names.clear()
    assert records(results) == (found, problems)
    assert names == ["run8"]  # what is no record stands in no index


def test_a_record_of_equal_size_and_time_in_another_file_is_another_record(results):
    records(results)
    old = results / "runs" / "run1" / RECORD
    status = old.stat()
    changed = replace(varied(1), notes=["b note"])
    write(results, changed)
    os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert old.stat().st_size == status.st_size
    assert changed in records(results)[0]


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None], ids=["empty", "foreign", "cut off"])
def test_an_index_that_cannot_be_read_is_made_again_and_said(results, content):
    expected = records(results)
    file = file_of(results)
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.warns(UserWarning, match=r"\.index\.parquet: cannot be read, and is made again"):
        assert records(results) == expected
    assert records(results) == expected


def test_an_index_of_another_version_is_made_again(results, monkeypatch):
    expected = records(results)
    with monkeypatch.context() as patch:
        patch.setattr(record_index, "FORMAT", b"of another version")
        names = read_files(patch)
        assert records(results) == expected
        assert len(names) == 12
    assert records(results) == expected


def test_some_runs_of_a_folder_are_collected_and_the_others_stay_in_the_index(results, monkeypatch):
    records(results)
    names = read_files(monkeypatch)
    wanted = ["run4", "gone", "run2", "run0"]
    assert list(collected(results, wanted)) == [
        *(("run4", varied(4)), ("gone", None), ("run2", varied(2)), ("run0", varied(0)))
    ]
    records(results)
    assert names == []


def test_an_error_stands_in_the_place_of_its_run(results):
    (results / "runs" / "run1" / RECORD).write_text(varied(2).to_json())
    runs = dict(collected(results))
    assert isinstance(runs["run1"], RecordError)
    assert "the record of another run, run2" in str(runs["run1"])


def test_little_that_is_new_does_not_write_the_index_again(results, monkeypatch):
    for number in range(12, 210):
        write(results, varied(number))
    records(results)
    before = file_of(results).stat().st_mtime_ns
    write(results, varied(210))
    write(results, varied(211))
    assert len(records(results)[0]) == 212
    assert file_of(results).stat().st_mtime_ns == before
    write(results, varied(212))
    assert len(records(results)[0]) == 213
    assert file_of(results).stat().st_mtime_ns > before


def test_a_disk_that_is_full_leaves_no_index(results, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_index, "write_atomically", refuse)
    assert len(records(results)[0]) == 12
    assert not file_of(results).exists()


def test_a_folder_that_cannot_be_written_needs_no_index(results, monkeypatch):
    monkeypatch.setattr(record_index.os, "access", lambda *_: False)
    monkeypatch.setattr(record_index.json, "dumps", None)  # nothing is prepared that cannot be kept
    assert {run.run_id: run for run in records(results)[0]} == {f"run{number}": varied(number) for number in range(12)}
    assert not file_of(results).exists()


def test_a_run_that_is_named_twice_stands_in_the_index_once(results):
    wanted = ["run1", "run2", "run1", "run3"]
    assert [name for name, _ in collected(results, wanted)] == wanted
    table = parquet.ParquetFile(file_of(results)).read()
    assert sorted(table["run_id"].to_pylist()) == ["run1", "run2", "run3"]


def test_a_name_that_parquet_cannot_hold_is_read_from_its_file(results):
    odd = replace(varied(1), model="tiny\ud800")
    write(results, odd)
    assert [odd in records(results)[0] for _ in range(2)] == [True, True]


def test_several_readers_write_it_at_once_while_runs_end(results):
    def read(number):
        write(results, varied(number))
        return {run.run_id for run in records(results)[0]}

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(read, range(12, 24)))
    assert all({f"run{number}" for number in range(12)} <= each for each in seen)
    assert {run.run_id: run for run in records(results)[0]} == {f"run{number}": varied(number) for number in range(24)}
    assert [file.name for file in (results / "runs").iterdir() if file.name.startswith(".")] == [record_index.FILE]


def test_few_runs_import_no_pyarrow(tmp_path, monkeypatch):
    write(tmp_path, varied(0))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert records(tmp_path) == ([varied(0)], [])
    assert not file_of(tmp_path).exists()
