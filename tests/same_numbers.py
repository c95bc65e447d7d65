"""Shows whether a change moved a number: a fixed set of runs, reduced to what must stay bit for bit.

python tests/same_numbers.py runs RESULTS --rte DIR > before.json    at the older commit, and again at the newer one
python tests/same_numbers.py compare before.json after.json          exit code 1 if a number differs

The set: every built-in method and control on tiny + planted (two seeds), six methods on minilm-l6 + glue-rte (ten
steps, data from DIR with train.jsonl and validation.jsonl), three on smollm2-135m + arithmetic (three steps), and two
runs without a sweep. The runs are started through the command line alone, so that the script works at any commit whose
command line is compatible. Numbers agree bit for bit only on one machine with the same library versions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

METHODS = [
    *("adalora", "by_depth", "by_type", "eva", "fim", "fim_code", "gora", "igu", "igu_code", "increlora", "l1ra"),
    *("linear_depth", "lora", "oracle", "para", "para_retrain", "random", "reversed", "scaled", "sensitivity"),
    *("permuted", "sora", "stable_rank", "svd_lora"),
]
TINY = [
    *("model=tiny", "task=planted", "train.steps=30", "train.batch_size=8", "train.threads=1"),
    *("task.train_size=256", "task.validation_size=32", "task.test_size=32", "task.length=16"),
]
RTE = [
    *("model=minilm-l6", "task=glue-rte", "train.steps=10", "train.batch_size=8", "train.threads=1"),
    *("task.train_size=200", "task.validation_size=16", "task.test_size=16", "task.max_length=96"),
]
ARITHMETIC = [
    *("model=smollm2-135m", "task=arithmetic", "train.steps=3", "train.batch_size=4", "train.threads=1"),
    *("task.train_size=200", "task.validation_size=8", "task.test_size=8", "train.evaluate_before=false"),
]
KEPT = ("status", "reason", "metrics", "ranks", "ledger", "history_events")
FILES = (
    "steps.jsonl",
    "items.jsonl",
    "ranks.jsonl",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
)


def start(results: Path, *words: str) -> None:
    """Run one command line of rankbench; failed runs (exit code 1) are part of the set, any other code stops."""
    command = [sys.executable, "-m", "rankbench", *words, f"results_dir={results}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (results / "commands.log").open("a") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}; see {results / 'commands.log'}")


def do_runs(results: Path, rte: Path | None, tiny: bool) -> None:
    """Do the whole set, or what runs on the tiny model alone; finished runs are not done again."""
    results.mkdir(parents=True, exist_ok=True)
    two = "hydra.launcher.slots=2"
    start(results, "-m", f"method={','.join(METHODS)}", *TINY, "seed=0,1", two)
    source = next(
        run["run_id"] for run in records(results) if (run["method"], run["model"], run["seed"]) == ("igu", "tiny", 0)
    )
    start(results, "-m", "method=transplant", f"method.source_run={source}", *TINY, "seed=0,1", two)
    for method in ("lora", "igu"):
        start(results, f"method={method}", *TINY, "seed=2")
    if tiny:
        return
    if rte is not None:
        start(results, "-m", "method=lora,adalora,igu,fim,l1ra,sensitivity", *RTE, f"task.data_dir={rte}", two)
    start(results, "-m", "method=lora,igu,fim", *ARITHMETIC, two)


def records(results: Path) -> list[dict[str, Any]]:
    """All records of a results folder, sorted by run_id."""
    return [json.loads(file.read_text()) for file in sorted(results.glob("runs/*/record.json"))]


def reduced_records(results: Path) -> dict[str, dict[str, Any]]:
    """run_id -> what must not change: numbers of the record, passes and tokens, hashes of the run's other files."""
    reduced = {}
    for record in records(results):
        folder = results / "runs" / record["run_id"]
        cost = record["cost"] or {}
        passes = {
            phase: {key: count for key, count in spent.items() if key != "seconds"}
            for phase, spent in cost.items()
            if isinstance(spent, dict)
        }
        hashes = {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES if (folder / name).exists()
        }
        arm = f"{record['method']} {record['model']} {record['task']} seed {record['seed']}"
        reduced[record["run_id"]] = {
            "arm": arm,
            **{key: record[key] for key in KEPT},
            "passes": passes,
            "sha256": hashes,
        }
    return reduced


def compare(before: dict[str, Any], after: dict[str, Any], subset: bool) -> int:
    """Print every difference, then the counts; the exit code is 1 if there is a difference.

    With `subset`, runs that were done before the change alone do not count.
    """
    differences = 0
    for run_id in sorted(after if subset else {*before, *after}):
        older, newer = before.get(run_id), after.get(run_id)
        if older is None or newer is None:
            arm = (older or newer)["arm"]
            print(f"{run_id} {arm}: only {'after' if older is None else 'before'} the change")
            differences += 1
            continue
        for key in older:
            if older[key] != newer[key]:
                print(f"{run_id} {older['arm']}: {key} {older[key]} -> {newer[key]}")
                differences += 1
    statuses = sorted({run["status"] for run in after.values()})
    print(f"{len(before)} runs before, {len(after)} after (status {', '.join(statuses)}); {differences} differences")
    return 1 if differences or not before else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("runs")
    runs.add_argument("results", type=Path)
    runs.add_argument("--rte", type=Path, help="folder with train.jsonl and validation.jsonl of RTE; left out without")
    runs.add_argument("--tiny", action="store_true", help="only the runs on the tiny model: half a minute")
    comparison = commands.add_parser("compare")
    comparison.add_argument("before", type=Path)
    comparison.add_argument("after", type=Path)
    comparison.add_argument("--subset", action="store_true", help="runs that only `before` has do not count")
    given = parser.parse_args()
    if given.command == "compare":
        return compare(json.loads(given.before.read_text()), json.loads(given.after.read_text()), given.subset)
    do_runs(given.results.absolute(), given.rte and given.rte.absolute(), given.tiny)
    print(json.dumps(reduced_records(given.results.absolute()), indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
