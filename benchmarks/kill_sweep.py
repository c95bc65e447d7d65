"""Kills a sweep of planted jobs at random moments and starts it again until it is done.

python benchmarks/kill_sweep.py RESULTS [--jobs 200] [--kills 10] [--seed 0] [--slots 2]

A kill is a SIGKILL of a job, of the launcher, or of both at once, in turn. Prints the figures; the exit code is 0 if
every run left one ok record that was written once, and resumed runs ended as if nothing had happened.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from rankbench.config.sections import Config
from rankbench.records import run_folder
from rankbench.records.run_folder import RunFolder
from rankbench.training.run import execute

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
METHODS = ("lora", "random", "adalora", "svd_lora")
KINDS = ("job", "launcher", "both")
STEPS = 24
SHORT = [
    *("model=tiny", "task=planted", f"train.steps={STEPS}", "train.checkpoint_every=1", "train.batch_size=4"),
    *("train.threads=1", "task.train_size=64", "task.validation_size=8", "task.test_size=8", "task.length=8"),
]
PATIENCE = 600.0  # seconds without a new record; then the sweep counts as hanging
SAME = ("status", "reason", "metrics", "ranks", "ledger", "history_events")  # must agree after a resumption


def children(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = entry.read_text().rpartition(")")
            if int(rest.split()[1]) == pid:
                pids.append(int(name.split()[0]))
    return pids


class Siege:
    """A sweep and its killer; keeps what it observes."""

    def __init__(self, results: Path, jobs: int, kills: int, seed: int, slots: int) -> None:
        seeds = ",".join(map(str, range(jobs // len(METHODS))))
        words = [f"method={','.join(METHODS)}", *SHORT, f"seed={seeds}", f"hydra.launcher.slots={slots}"]
        self._command = [sys.executable, "-m", "rankbench", "-m", *words, f"results_dir={results}"]
        self._results, self._rng = results, np.random.default_rng(seed)
        self.total = len(METHODS) * (jobs // len(METHODS))
        moments = np.sort(self._rng.choice(np.arange(1, self.total - 2), kills, replace=False))
        self._due = [(int(moment), KINDS[index % len(KINDS)]) for index, moment in enumerate(moments)]
        self.written: dict[str, bytes] = {}  # run_id -> ok record, as first seen
        self._stamps: dict[str, tuple[int, int]] = {}  # run_id -> inode and time of its record
        self.kills: Counter[str] = Counter()
        self.starts, self.changed = 0, 0
        self.outlived = 0.0  # longest time that a job outlived its launcher, seconds

    def run(self) -> None:
        """Start the sweep again and again until it ends with exit code 0."""
        while True:
            self.starts += 1
            with (self._results / "launcher.txt").open("a") as out:
                launcher = subprocess.Popen(
                    self._command, env=ENVIRONMENT, stdout=out, stderr=out, start_new_session=True
                )
            try:
                code = self._watch(launcher)
            finally:
                launcher.kill()
            if code == 0:
                return
            assert self.starts < 5 + 2 * sum(self.kills.values()), f"it never ends: {self._results}/launcher.txt"

    def _watch(self, launcher: subprocess.Popen[bytes]) -> int:
        """Kill what is due until the launcher has ended; return its exit code."""
        last = time.monotonic()
        while (code := launcher.poll()) is None:
            last = time.monotonic() if self._look() else last
            assert time.monotonic() - last < PATIENCE, f"it hangs: {self._results}/launcher.txt"
            if self._due and len(self.written) >= self._due[0][0]:
                self._strike(launcher)
            time.sleep(0.05)
        self._look()
        return code

    def _look(self) -> bool:
        """Note new records and count changed ones; return whether there are new ones."""
        new = False
        for file in self._results.glob("runs/*/record.json"):
            name, status = file.parent.name, file.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if self._stamps.get(name) == stamp:
                continue
            self._stamps[name], content = stamp, file.read_bytes()
            self.changed += name in self.written
            if b'"status": "ok"' in content:
                self.written[name], new = content, True
        return new

    def _strike(self, launcher: subprocess.Popen[bytes]) -> None:
        """Do the kill that is due after a random delay, if a job is running."""
        jobs = [job for server in children(launcher.pid) for job in children(server)]
        kind = self._due[0][1]
        if not jobs:
            return
        time.sleep(float(self._rng.uniform(0, 0.5)))
        victim = jobs[int(self._rng.integers(len(jobs)))]
        targets = {"job": [victim], "launcher": [launcher.pid], "both": [victim, launcher.pid]}[kind]
        for pid in targets:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # the job has ended meanwhile: try again later
        self._due.pop(0)
        self.kills[kind] += 1
        if kind != "job":
            launcher.wait()
            self._wait_for_the_end_of(jobs)

    def _wait_for_the_end_of(self, jobs: list[int]) -> None:
        start = time.monotonic()
        while any(Path(f"/proc/{job}").exists() for job in jobs):
            time.sleep(0.01)
        self.outlived = max(self.outlived, time.monotonic() - start)

    def resumed(self) -> list[str]:
        """Ids of the runs that were resumed from a checkpoint after their first step."""
        logs = {log.parent.name: log.read_text() for log in self._results.glob("runs/*/log.txt")}
        return sorted(name for name, text in logs.items() if re.search(r"^resuming .* after step [1-9]", text, re.M))


def like_undisturbed(results: Path, names: list[str]) -> int:
    """Count the runs whose record equals that of the same run, done undisturbed."""
    same = 0
    for name in names:
        record = RunFolder(results, name).record()
        assert record is not None
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            assert execute(Config.from_plain({**record.config, "results_dir": folder})) == 0
            whole = RunFolder(Path(folder), name).record()
        same += all(getattr(record, key) == getattr(whole, key) for key in SAME)
    return same


def besiege(results: Path, jobs: int, kills: int, seed: int, slots: int) -> dict[str, Any]:
    """Run one sweep under kills and return its figures."""
    results.mkdir(parents=True, exist_ok=True)
    siege = Siege(results, jobs, kills, seed, slots)
    start = time.monotonic()
    siege.run()
    seconds = time.monotonic() - start
    records, problems = run_folder.records(results)
    resumed = siege.resumed()
    return {
        "jobs": siege.total,
        "kills of a job": siege.kills["job"],
        "kills of the launcher": siege.kills["launcher"],
        "kills of both at once": siege.kills["both"],
        "times the command was started": siege.starts,
        "seconds that a job outlived its launcher, at most": round(siege.outlived, 2),
        "runs resumed from a checkpoint": len(resumed),
        "of these, like an undisturbed run": like_undisturbed(results, resumed),
        "ok records": sum(record.status == "ok" for record in records),
        "distinct runs": len({(record.method, record.seed) for record in records if record.status == "ok"}),
        "records of another status, or unreadable": sum(r.status != "ok" for r in records) + len(problems),
        "records changed after they were written": siege.changed,
        "wall seconds": round(seconds),
    }


def holds(figures: dict[str, Any], kills: int) -> bool:
    """Return whether no result was lost, repeated or torn."""
    jobs = figures["jobs"]
    return (
        figures["ok records"] == figures["distinct runs"] == jobs
        and sum(value for key, value in figures.items() if key.startswith("kills")) == kills
        and figures["runs resumed from a checkpoint"] == figures["of these, like an undisturbed run"]
        and not any(figures[key] for key in figures if key.startswith("records"))
    )


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    for name, default in {"jobs": 200, "kills": 10, "seed": 0, "slots": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    figures = besiege(options.results, options.jobs, options.kills, options.seed, options.slots)
    for key, value in figures.items():
        print(f"{key}: {value}")
    return 0 if holds(figures, options.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
