"""What launching adds to a job: the same runs under each launcher, in turn, with nothing else going on.

python benchmarks/launch_overhead.py [--jobs N] [--rounds N] [--rows NAME ...]

A row is one way to do the runs. Its clock starts with its command; a job has ended when its record is written. "first"
is the first job's end, "later" the mean time from one end to the next, over all that follow. `loop` does the runs one
after the other in one process, without a launcher: what the work itself takes; `loops` are two of those at a time. One
JSON line per row and round, then the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
QUICK = [
    *("model=tiny", "train.batch_size=4", "train.threads=1"),
    *("task=planted", "task.train_size=64", "task.validation_size=8", "task.test_size=8", "task.length=8"),
]
RUNS = ["method=lora", *QUICK, "train.steps=3"]
HERE, SWEEP = [__file__, "here"], ["-m", "rankbench"]  # the job in the launcher's own process; in one of its own
ROWS: dict[str, tuple[list[str], int]] = {  # command after python, jobs at a time
    "loop": ([__file__, "loop", "0", "1"], 1),
    "local": ([*SWEEP, "-m", "hydra.launcher.slots=1"], 1),
    "basic": ([*HERE, "-m", "hydra/launcher=basic"], 1),
    "loops": ([__file__, "loop", "0", "2"], 2),
    "local, 2 slots": ([*SWEEP, "-m", "hydra.launcher.slots=2"], 2),
    "joblib, 2 workers": ([*HERE, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], 2),
    "joblib, our jobs": ([*SWEEP, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], 2),
}


def here(composed: Any) -> int:
    """A job as Hydra's own launchers do it: in the process that they have."""
    from rankbench.launching import worker
    from rankbench.records import frozen_run

    return worker.perform(frozen_run.FrozenRun.read(Path(composed.frozen)))


def sweep_here(arguments: list[str]) -> int:
    """`rankbench` with jobs that stay in the launcher's process."""
    from rankbench.cli import main
    from rankbench.launching import hydra_task

    hydra_task.task = here
    return main(arguments)


def loop(part: int, parts: int, arguments: list[str]) -> None:
    """Every `parts`-th run, one after the other, in this process."""
    from rankbench.launching import worker
    from rankbench.records import frozen_run
    from rankbench.records.record import run_id
    from rankbench.sweeps.composition import lay_out, words

    frozen = lay_out(words(arguments)).cells[part::parts]
    for cell in frozen:
        worker.perform(frozen_run.FrozenRun(run_id(cell.config), cell.config, ""))


def measure(row: str, jobs: int) -> dict[str, Any]:
    """Do the runs, in a new folder."""
    command, at_once = ROWS[row]
    with tempfile.TemporaryDirectory() as results:
        arguments = [*RUNS, f"seed={','.join(map(str, range(jobs)))}", f"results_dir={results}"]
        parts = [command] if row != "loops" else [[*command[:2], str(part), "2"] for part in (0, 1)]
        start = time.time()
        with open(os.devnull, "w") as null:
            running = [
                subprocess.Popen([sys.executable, *part, *arguments], env=ENVIRONMENT, stdout=null) for part in parts
            ]
            codes = [process.wait() for process in running]
        ends = sorted(file.stat().st_mtime - start for file in Path(results).glob("runs/*/record.json"))
    assert codes == [0] * len(codes), (row, codes)
    assert len(ends) == jobs, (row, len(ends))
    later = (ends[-1] - ends[0]) / (jobs - 1)
    load = os.getloadavg()[0]
    return {"row": row, "at once": at_once, "jobs": jobs, "first": ends[0], "later": later, "load": load}


def main() -> None:
    """Read the command line."""
    if sys.argv[1:2] == ["here"]:
        sys.exit(sweep_here(sys.argv[2:]))
    if sys.argv[1:2] == ["loop"]:
        return loop(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    options = parser.parse_args()
    lines = []
    for _ in range(options.rounds):
        for row in options.rows:
            lines.append(measure(row, options.jobs))
            print(json.dumps(lines[-1]), flush=True)
    for row in options.rows:
        measured = [line for line in lines if line["row"] == row]
        first, later = (statistics.median(line[key] for line in measured) for key in ("first", "later"))
        print(f"{row:<18} {len(measured)} x {options.jobs} jobs: first {first:6.2f} s, later {later:5.3f} s per job")


if __name__ == "__main__":
    main()
