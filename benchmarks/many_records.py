"""Measures the commands that read runs on folders of many finished runs.

python benchmarks/many_records.py FOLDER --runs 10000 [--only records status plan ...]

Two short runs are done; the runs of a sweep over 2 methods, 10 seeds and many planted tasks get copies of what they
left, each with its own configuration, run_id and numbers. Of a run's files only those are copied that a command reads
(record.json, steps.jsonl and the lock): 4 inodes and 16 KiB a run on ext4. The folders of two nodes, which are merged,
share the files. Each command is a process of its own; the table gives CPU seconds and the peak of its memory.
FOLDER is left for a look; it may be removed afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
METHODS = ("lora", "adalora")
SETTINGS = ["model=tiny", "task=planted", "train.threads=1", "train.steps=24"]
SEEDS = 10
READ = "import sys; from pathlib import Path; from rankbench.records.run_folder import records; "
GATHER = "import sys; from rankbench.studies import study; "


def sweep_of(maps: int, seeds: int, results: Path) -> list[str]:
    """Words of a sweep over METHODS, and some maps and seeds."""
    axes = [f"task.map_seed=range(0,{maps})", f"method={','.join(METHODS)}", f"seed=range(0,{seeds})"]
    return [*axes, *SETTINGS, f"results_dir={results}"]


def write(folder: Path, typed: list[str]) -> None:
    """Write a finished run for each run of a sweep into results/, and by turns into node-0/ and node-1/."""
    # not above: the memory of a measured process counts from that of the process which starts it
    from rankbench.launching.driver import start
    from rankbench.records.record import run_id
    from rankbench.records.run_folder import LOCK, RECORD, RunFolder, records
    from rankbench.studies.study import STEPS
    from rankbench.sweeps.composition import lay_out, words

    with contextlib.redirect_stdout(io.StringIO()):
        assert start(sweep_of(1, 1, folder / "template")) == 0
    known = {record.method: record for record in records(folder / "template")[0]}
    steps = {
        name: (RunFolder(folder / "template", record.run_id).path / STEPS).read_bytes()
        for name, record in known.items()
    }
    for index, cell in enumerate(lay_out(words(typed)).cells):
        name, config = cell.config["method"]["name"], cell.config
        own = {key: _scaled(getattr(known[name], key), 1 + 1e-6 * index) for key in ("metrics", "cost")}
        record = replace(known[name], run_id=run_id(config), seed=config["seed"], config=config, **own)
        path, node = (RunFolder(folder / place, record.run_id).path for place in ("results", f"node-{index % 2}"))
        path.mkdir(parents=True)
        node.mkdir(parents=True)
        (path / RECORD).write_text(record.to_json())
        (path / STEPS).write_bytes(steps[name])
        for file in (RECORD, STEPS):
            (node / file).hardlink_to(path / file)
        (path / LOCK).touch()


def _scaled(values: Any, factor: float) -> Any:
    """The same values, floats times a factor."""
    if isinstance(values, dict):
        return {key: _scaled(value, factor) for key, value in values.items()}
    return values * factor if isinstance(values, float) else values


def spent(command: list[str]) -> tuple[float, float, float, int]:
    """CPU seconds, wall seconds and peak memory (MiB) of a command, and its exit code."""
    begin = time.monotonic()
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, time.monotonic() - begin, usage.ru_maxrss / 1024, process.returncode


def commands(folder: Path, typed: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Title and command of each row."""
    rankbench, results = [sys.executable, "-m", "rankbench"], str(folder / "results")
    read = [sys.executable, "-c", f"{READ} records(Path(sys.argv[1]))", results]
    yield "all records read, and the index written", read
    yield "all records read from the index", read
    yield "sweep, all done: first start", [*rankbench, "-m", *typed]
    yield "sweep, all done: started again", [*rankbench, "-m", *typed]
    yield "report: gathering", [sys.executable, "-c", f"{GATHER} study.load(sys.argv[1:])", f"results_dir={results}"]
    yield "status", [*rankbench, "status", "--results", results]
    yield "plan", [*rankbench, "plan", *typed]
    yield "records", [*rankbench, "records", "--results", results]
    yield "records --save", [*rankbench, "records", "--results", results, "--save", str(folder / "saved.jsonl")]
    yield "records of a saved file", [*rankbench, "records", str(folder / "saved.jsonl")]
    nodes = [str(folder / "node-0"), str(folder / "node-1")]
    yield "records merge", [*rankbench, "records", "merge", *nodes, "--into", str(folder / "merged")]
    yield "records merge, again", [*rankbench, "records", "merge", *nodes, "--into", str(folder / "merged")]


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--only", nargs="*", metavar="ROW", help="rows whose title begins so")
    parser.add_argument("--write", action="store_true", help="write the runs, and no more")
    options = parser.parse_args()
    folder = options.folder
    typed = sweep_of(options.runs // (len(METHODS) * SEEDS), SEEDS, folder / "results")
    if options.write:
        write(folder, typed)
        return 0
    if not folder.exists():
        subprocess.run([sys.executable, __file__, str(folder), "--runs", str(options.runs), "--write"], check=True)
    print(
        f"| {options.runs} runs | CPU s | wall s | peak MiB | exit code |\n| --- | --- | --- | --- | --- |", flush=True
    )
    for title, command in commands(folder, typed):
        if options.only is None or title.startswith(tuple(options.only)):
            cpu, wall, memory, code = spent(command)
            print(f"| {title} | {cpu:.1f} | {wall:.1f} | {memory:.0f} | {code} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
