"""Faults that must not lose a result, repeat a run or tear a record; after each of them the sweep completes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
from kill_sweep import besiege, children, holds
from support.harness import faulty_installed, freeze, rows

from rankbench.launching import local_pool
from rankbench.launching.driver import start
from rankbench.launching.jobs import JobOutcome, LaunchSettings
from rankbench.launching.local_pool import LaunchError
from rankbench.records import run_folder
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.run_folder import HELD_UP
from rankbench.studies.study import load
from rankbench.sweeps import manifest

SHORT = ["train.steps=3", "train.checkpoint_every=1"]
SWEEP = ["model=tiny", "task=planted", *SHORT, "train.threads=1", "task.train_size=16", "task.test_size=8"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory) -> Iterator[dict[str, str]]:
    with faulty_installed(tmp_path_factory.mktemp("site")) as environment:
        yield environment


def results(files: list[Path]) -> dict[str, bytes]:
    """What stands of these runs, by run_id."""
    found = {file.stem: FrozenRun.read(file).folder.path / "record.json" for file in files}
    return {name: file.read_bytes() for name, file in found.items() if file.exists()}


def complete(files: list[Path], before: dict[str, bytes], settings: LaunchSettings | None = None) -> list[JobOutcome]:
    """Start again: all runs end, and what was ok is left as it was."""
    ended = local_pool.launch(files, settings or LaunchSettings(slots=2))
    assert [one.record.status for one in ended] == ["ok"] * len(files)
    after = results(files)
    good = {name: content for name, content in before.items() if b'"status": "ok"' in content}
    assert {name: after[name] for name in good} == good
    return ended


# ------------------------------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_twice_stops_what_runs_and_the_same_runs_go_on(tmp_path):
    note = tmp_path / "notes"
    note.touch()
    files = [freeze(tmp_path, *SHORT, "seed=5", note=str(note))]
    for seed in (0, 1):
        settings = {"fault": "hang once", "note": str(note), "target": str(tmp_path / f"mark{seed}")}
        files.append(freeze(tmp_path, *SHORT, f"seed={seed}", **settings))
    asked: list[int] = []
    heard = signal.getsignal(signal.SIGINT)  # ignored, where a shell has put the tests into the background

    def interrupt() -> None:
        while note.read_text().count("hangs") < 2:
            time.sleep(0.02)
        for times in (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
            while len(asked) < times:  # two signals at once are one
                time.sleep(0.02)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        local_pool.launch(files, LaunchSettings(slots=2), stopping=asked.append)
    assert asked == [1, 2]
    before = results(files)
    statuses = {name: json.loads(content)["status"] for name, content in before.items()}
    assert [statuses[file.stem] for file in files] == ["ok", "killed", "killed"]
    reason = json.loads(before[files[1].stem])["reason"]
    assert reason == "killed by SIGKILL; goes on from its checkpoint when started again"
    assert signal.getsignal(signal.SIGINT) is heard
    ended = complete(files, before)
    assert all("after step 1" in one.log.read_text() for one in ended[1:])


def test_a_request_to_end_stops_at_once(tmp_path):
    """SIGTERM, as a batch system sends it."""
    note = tmp_path / "notes"
    note.touch()
    file = freeze(tmp_path, *SHORT, fault="hang", note=str(note))

    def request() -> None:
        while "hangs" not in note.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=request, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        local_pool.launch([file, freeze(tmp_path, *SHORT)], LaunchSettings(), stopping=lambda asked: None)
    assert FrozenRun.read(file).folder.record().status == "killed"
    assert len(results([file])) == 1


# ------------------------------------------------------------------------------------------------------- a full disk


def test_a_disk_that_is_full_as_the_record_is_written(tmp_path):
    """The run is held up, not failed: it leaves no record and its checkpoint, and goes on from there."""
    settings = {"fault": "full once", "target": str(tmp_path / "mark")}
    files = [freeze(tmp_path, *SHORT, **settings), freeze(tmp_path, *SHORT)]
    held, other = local_pool.launch(files, LaunchSettings())
    assert (held.record, held.code) == (None, HELD_UP)
    assert other.record.status == "ok"
    assert {file.name for file in held.run.folder.path.iterdir()} >= {"checkpoint.pt", "started.json"}
    assert "No space left on device" in held.log.read_text()
    again, _ = complete(files, results(files))
    assert "after step 3" in again.log.read_text()


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of this many bytes; skips where one may not make it."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_that_is_full_at_any_moment(tmp_path):
    """Room for a third of what a run writes, for two thirds, for nearly all: it fails at another file each time."""
    with small_disk(tmp_path / "disk", 8 * 2**20) as disk:
        first = freeze(tmp_path, *SHORT, "seed=9", results=disk)
        empty = used(disk)
        (done,) = local_pool.launch([first], LaunchSettings())
        assert done.record.status == "ok"
        size = used(disk) - empty
        before = results([first])
        said = []
        for seed, share in enumerate((0.3, 0.6, 0.95)):
            file = freeze(tmp_path, *SHORT, f"seed={seed}", results=disk)
            ballast = disk / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb") as full:
                full.write(bytes(8 * 2**20))
            os.truncate(ballast, (ballast.stat().st_size // 4096 * 4096) - int(size * share) // 4096 * 4096)
            (held,) = local_pool.launch([file], LaunchSettings())
            said.append((held.code, held.record and held.record.status))
            assert held.record is None or held.record.status in ("killed", "ok")
            ballast.unlink()
            complete([first, file], before)
        print(f"a run takes {size} bytes; exit code and record of those that had less: {said}")
        assert HELD_UP in [code for code, _ in said]
        found, problems = run_folder.records(disk)
        assert (len(found), problems) == (4, [])


# ------------------------------------------------------------------------------------------- files that are no records


def test_torn_and_foreign_files_are_named_not_counted_and_in_nobodys_way(tmp_path, capsys):
    words = [*SWEEP, "method=lora", "seed=0,1", "hydra.launcher.slots=1", f"results_dir={tmp_path}"]
    assert start(words) == 0
    runs = sorted(tmp_path.glob("runs/*"))
    whole = (runs[1] / "record.json").read_bytes()
    (runs[0] / "record.json").write_bytes((runs[0] / "record.json").read_bytes()[:100])
    for name, content in {"foreign": b'{"a": 1}', "binary": b"\x80\xff", "copy": whole, "list": b"[]"}.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "record.json").write_bytes(content)
    (tmp_path / "sweeps" / "torn").mkdir()
    (tmp_path / "sweeps" / "torn" / "sweep.json").write_text('{"name": "sw')
    found, problems = run_folder.records(tmp_path)
    assert [record.run_id for record in found] == [runs[1].name]
    assert {Path(problem.partition(": ")[0]).parent.name for problem in problems} == {
        *(runs[0].name, "foreign", "binary", "copy", "list")
    }
    assert [Path(p.partition(": ")[0]).parent.name for p in load([f"results_dir={tmp_path}"]).problems] == [
        runs[0].name
    ]
    capsys.readouterr()
    assert start(words) == 0
    assert "2 runs: 2 ok" in capsys.readouterr().out
    assert (runs[1] / "record.json").read_bytes() == whole
    assert (runs[0] / "record.unreadable").stat().st_size == 100
    assert {record.status for record in run_folder.records(tmp_path)[0]} == {"ok"}


# ------------------------------------------------------------------------------------------------------------- clocks


def test_a_clock_that_runs_backwards(tmp_path, monkeypatch):
    """Neither seconds nor order come from it: in a run, in a launch, of sweeps."""
    begun = time.monotonic()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 1000 * (time.monotonic() - begun))
    notes = tmp_path / "notes"
    settings = {"fault": "clock", "at": 1, "note": str(notes)}
    files = [freeze(tmp_path, *SHORT, f"seed={seed}", **settings) for seed in range(3)]
    ended = local_pool.launch(files, LaunchSettings(timeout=600))
    assert [one.record.status for one in ended] == ["ok"] * 3
    assert all(0 < one.seconds < 600 for one in ended)
    spent = [phase["seconds"] for one in ended for name, phase in one.record.cost.items() if name.endswith("ing")]
    assert len(spent) == 3
    assert min(spent) > 0
    begins = [row["pid"] for row in rows(notes) if row["event"] == "begin"]
    assert len(set(begins)) == 3
    for order in (1, 2, 3):
        manifest.save(manifest.Sweep(f"x-{9 - order}", "x", order, [], None, None), tmp_path)
    assert manifest.last(tmp_path, "x").order == 3


# ------------------------------------------------------------------------------------------------- the fork server


def test_jobs_that_are_lost_with_the_process_they_were_forked_from_go_on(tmp_path):
    settings = {"fault": "server", "target": str(tmp_path / "mark")}
    files = [freeze(tmp_path, *SHORT, **settings), freeze(tmp_path, *SHORT, "seed=1")]
    lost, other = local_pool.launch(files, LaunchSettings())
    assert lost.code == 255
    assert lost.record is None or lost.record.reason.startswith("lost with the process it was forked from")
    assert other.record.status == "ok"
    complete(files, results(files))


def test_a_fork_server_that_cannot_live_is_given_up(tmp_path, monkeypatch):
    def starting() -> None:
        forkserver.ensure_running()
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
        os.waitid(os.P_PID, forkserver._forkserver._forkserver_pid, os.WEXITED | os.WNOWAIT)

    file = freeze(tmp_path, *SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(local_pool, "start_server", starting)
        patch.setattr(forkserver._forkserver, "ensure_running", lambda: None)
        with pytest.raises(
            LaunchError, match=r"has died 3 times: python -c 'import rankbench.launching.preload' may say why"
        ):
            local_pool.launch([file], LaunchSettings())
    assert results([file]) == {}
    complete([file], {})


# ------------------------------------------------------------------------------------------------------ other processes


def wait_for(what: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_launchers_on_one_folder_do_every_run_once(installed, tmp_path):
    note = tmp_path / "notes"
    note.touch()
    words = [*SWEEP, "method=faulty", f"method.note={note}", "seed=range(0,12)", "hydra.launcher.slots=2"]
    words += [f"results_dir={tmp_path}"]
    command = [sys.executable, "-m", "rankbench", "-m", *words]
    other = subprocess.Popen(command, env=installed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: '"end"' in note.read_text(), other)
    assert start(words) == 0
    out, _ = other.communicate(timeout=300)
    assert other.returncode == 0, out
    assert "12 runs: 12 ok" in out
    events = [row["event"] for row in rows(note)]
    assert (events.count("begin"), events.count("end")) == (12, 12)
    found, problems = run_folder.records(tmp_path)
    assert ({record.status for record in found}, len(found), problems) == ({"ok"}, 12, [])
    logs = [log.read_text() for log in tmp_path.glob("runs/*/log.txt")]
    assert sum(len(re.findall(r"^step 1/", text, re.M)) for text in logs) == 12
    assert len(manifest.all_of(tmp_path)[0]) == 1
    assert len(re.findall("done already", out)) < 12  # each did some


LAUNCH = """
import sys
from pathlib import Path
from rankbench.launching.jobs import LaunchSettings
from rankbench.launching.local_pool import launch
try:
    launch([Path(name) for name in sys.argv[1:]], LaunchSettings(slots=2), stopping=lambda asked: None)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_jobs_go_with_a_launcher_that_is_killed(installed, tmp_path):
    """One that hangs would stay for ever."""
    note = tmp_path / "notes"
    note.touch()
    settings = {"fault": "hang once", "note": str(note), "target": str(tmp_path / "mark")}
    files = [freeze(tmp_path, *SHORT, "seed=1"), freeze(tmp_path, *SHORT, **settings)]
    process = subprocess.Popen([sys.executable, "-c", LAUNCH, *map(str, files)], env=installed)
    wait_for(lambda: "hangs" in note.read_text() and len(results(files)) == 1, process)
    (job,) = {row["pid"] for row in rows(note)}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{job}").exists():
        assert time.monotonic() < deadline, "it outlives its launcher"
        time.sleep(0.02)
    assert not FrozenRun.read(files[1]).folder.busy()
    complete(files, results(files))


def test_ctrl_c_at_a_terminal_lets_runs_finish_and_starts_no_more(installed, tmp_path):
    """It reaches every process of the terminal, also while they import: the launcher alone minds it."""
    note = tmp_path / "notes"
    note.touch()
    files = [freeze(tmp_path, *SHORT, f"seed={seed}", note=str(note)) for seed in range(8)]
    command = [sys.executable, "-c", LAUNCH, *map(str, files)]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(command, env=installed, stdout=out, stderr=out, start_new_session=True)
    wait_for(lambda: children(process.pid), process)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 130
    assert (tmp_path / "out").read_text() == ""
    events = [row["event"] for row in rows(note)]
    assert events.count("begin") == events.count("end") < 8
    before = results(files)
    assert {json.loads(content)["status"] for content in before.values()} == {"ok"}
    assert len(before) == events.count("end") > 0
    complete(files, before)


def test_a_sweep_survives_kills_of_a_job_of_its_launcher_and_of_both(tmp_path):
    """The small setting of kill_sweep.py; experiments/sweep_faults.md has the large one."""
    figures = besiege(tmp_path / "results", jobs=8, kills=3, seed=1, slots=2)
    print(figures)
    assert holds(figures, kills=3)
    assert [figures[f"kills of {what}"] for what in ("a job", "the launcher", "both at once")] == [1, 1, 1]
    assert figures["times the command was started"] >= 3
