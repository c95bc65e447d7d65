"""Runs on disk: complete files or none, one process at a time, and clear errors otherwise."""

import errno
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.harness import python

from rankbench import files
from rankbench.records.record import RecordError, RunRecord
from rankbench.records.run_folder import RunFolder, StoreError


def record(**changes) -> RunRecord:
    names = {"method": "lora", "model": "tiny", "task": "planted", "budget": "r8", "seed": 0}
    return RunRecord(
        "0123456789ab", **{"status": "ok", "reason": None, **names, "config": {}, "provenance": {}, **changes}
    )


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "results", "0123456789ab")
    with made.open():
        yield made


def test_a_record_comes_back(folder, tmp_path):
    assert folder.path == tmp_path / "results" / "runs" / "0123456789ab"
    assert folder.record() is None
    folder.write_record(record())
    folder.write_record(record(status="nan", reason="loss is nan at step 3"))
    assert folder.record() == record(status="nan", reason="loss is nan at step 3")
    assert sorted(file.name for file in folder.path.iterdir()) == [".lock", "record.json"]


def test_the_record_of_another_run_is_none(folder, tmp_path):
    (folder.path / "record.json").write_text(replace(record(), run_id="ba9876543210").to_json())
    with pytest.raises(RecordError, match=rf"{folder.path}/record.json: the record of another run, ba9876543210"):
        folder.record()
    assert (
        RunFolder.from_path(folder.path).record().run_id == "ba9876543210"
    )  # a folder may be named as one likes elsewhere


def test_bytes_that_are_no_text_are_no_record(folder):
    (folder.path / "record.json").write_bytes(b"\xff\x00{}")
    with pytest.raises(RecordError, match=r"record.json: not JSON"):
        folder.record()
    assert folder.set_aside() == folder.path / "record.unreadable"
    assert folder.record() is None
    assert (folder.path / "record.unreadable").read_bytes() == b"\xff\x00{}"


def test_a_record_that_is_none_is_named(folder):
    (folder.path / "record.json").write_text('{"status": "o')
    with pytest.raises(RecordError, match=re.escape(f"{folder.path}/record.json: not JSON")):
        folder.record()


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file(folder, monkeypatch, broken):
    folder.write_record(record())

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, broken, fail)
    with pytest.raises(OSError, match="No space left on device"):
        folder.write_record(record(status="error", reason="later"))
    monkeypatch.undo()
    assert folder.record() == record()
    assert sorted(file.name for file in folder.path.iterdir()) == [".lock", "record.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from rankbench import files
if sys.argv[2] == "replace":
    files.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
else:
    write = Path.open
    def half(path, mode="r"):
        file = write(path, mode)
        file.write(b'{"half": ')
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    Path.open = half
files.write_atomically(Path(sys.argv[1]), b'{"new": 1}')
"""


@pytest.mark.parametrize("moment", ["replace", "write"])
def test_a_write_that_is_killed_leaves_the_old_file(tmp_path, moment):
    file = tmp_path / "record.json"
    file.write_text('{"old": 1}')
    done = python("-c", KILLED, str(file), moment)
    assert done.returncode == -9, done.stderr
    assert file.read_text() == '{"old": 1}'
    assert len(list(tmp_path.iterdir())) == 2  # what the killed process had begun lies beside it, under a hidden name
    assert [path.name for path in tmp_path.glob("*") if not path.name.startswith(".")] == ["record.json"]
    files.write_atomically(file, b'{"new": 2}')
    assert file.read_text() == '{"new": 2}'


HOLDER = """
import sys
from pathlib import Path
from rankbench.records.run_folder import RunFolder, StoreError
folder = RunFolder(Path(sys.argv[1]), "0123456789ab")
try:
    with folder.open():
        print("in")
except StoreError as error:
    print(error)
"""


def test_a_second_process_is_kept_out_until_the_first_is_gone(folder):
    results = str(folder.path.parent.parent)
    kept_out = python("-c", HOLDER, results)
    assert kept_out.stdout == f"{folder.path}: another process is working on this run; wait for it or stop it\n"
    free = RunFolder(folder.path.parent.parent, "another")
    with free.open():
        pass
    with pytest.raises(StoreError, match="another process is working on this run"), folder.open():
        pass


def test_a_folder_is_busy_as_long_as_a_process_is_at_it(folder, tmp_path):
    assert RunFolder(tmp_path / "results", "0123456789ab").busy()
    free = RunFolder(tmp_path, "another")
    assert not free.busy()
    assert not free.path.exists()  # asking makes nothing
    with free.open():
        assert free.busy()
    assert not free.busy()
    with free.open():  # and asking holds nothing
        pass


def test_a_folder_whose_lock_cannot_be_asked_is_not_busy(folder, monkeypatch):
    """Who may only read, or has lost the server of the locks, can look at a sweep; who opens the folder is told."""

    def fail(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("rankbench.records.run_folder.FileLock.acquire", fail)
    assert not folder.busy()
    with pytest.raises(StoreError, match=r"results_dir cannot be written: .*: No locks available"), folder.open():
        pass


def test_one_may_wait_for_a_folder(tmp_path):
    """Another process enters once this one has left, and not before."""
    folder = RunFolder(tmp_path, "0123456789ab")
    waits = HOLDER.replace("folder.open()", "folder.open(wait=True)").replace('"in"', "folder.record().reason")
    with folder.open():
        process = subprocess.Popen([sys.executable, "-c", waits, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        folder.write_record(record(reason="written last"))
    assert process.communicate(timeout=60)[0] == "written last\n"


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'), True),
        (ValueError("no space in a name"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error, full):
    assert files.disk_is_full(error) is full


def test_the_lock_ends_with_its_holder(tmp_path):
    folder = RunFolder(tmp_path, "0123456789ab")
    with folder.open():
        pass
    killed = python("-c", HOLDER.replace('print("in")', "import os; os.kill(os.getpid(), 9)"), str(tmp_path))
    assert killed.returncode == -9
    with folder.open():
        folder.write_record(record())
    with pytest.raises(ZeroDivisionError), folder.open():
        _ = 1 / 0
    with folder.open():
        assert folder.record() == record()


def test_a_results_dir_that_is_a_file(tmp_path):
    (tmp_path / "results").write_text("a file")
    folder = RunFolder(tmp_path / "results", "0123456789ab")
    with (
        pytest.raises(StoreError, match=rf"results_dir cannot be written: {folder.path}: Not a directory"),
        folder.open(),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0 or sys.platform == "win32", reason="root may write anywhere")
def test_a_results_dir_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    folder = RunFolder(tmp_path / "results", "0123456789ab")
    with pytest.raises(StoreError, match=r"results_dir cannot be written: .*: Permission denied"), folder.open():
        pass


def test_lines(folder):
    assert folder.lines("steps.jsonl") == []
    for step in (1, 2):
        folder.append("steps.jsonl", {"step": step, "loss": 0.1 + 0.2})
    with (folder.path / "steps.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # killed while it wrote
    assert folder.lines("steps.jsonl") == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 0.1 + 0.2}]
    folder.write_lines("steps.jsonl", [{"step": 1}])
    folder.append("steps.jsonl", {"step": 2})
    assert (folder.path / "steps.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_checkpoint_is_forgotten_once_it_is_not_needed(folder):
    folder.forget()
    folder.write_checkpoint(b"state")
    assert folder.checkpoint_file().read_bytes() == b"state"
    folder.write_record(record())
    folder.forget()
    assert not folder.checkpoint_file().exists()
    assert folder.record() == record()


def test_paths_are_relative_to_the_results_dir_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RunFolder(Path("here"), "0123456789ab").open():
        pass
    assert (tmp_path / "here" / "runs" / "0123456789ab").is_dir()
