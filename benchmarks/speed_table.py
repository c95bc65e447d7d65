"""The rows of experiments/speed.md, one after the other on a quiet machine: JSON lines in results/speed/rows.jsonl.

python benchmarks/speed_table.py [row ...] [--boolq DIR] [--gsm8k DIR] [--minutes 30] [--wait 120]
python benchmarks/speed_table.py --show

Rows come in the order of their worth. Each waits until less than 0.3 of a core is busy (not the load average, which
remembers the row before for two minutes), --wait seconds at most, and its lines say how much was; no row begins for
which too few of the --minutes are left. Runs of the command line are processes with their own results folder; their
records are kept in records.jsonl beside the rows. --show prints the table from the lines.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from rankbench.records.record import portable
from rankbench.training.provenance import code

ROOT = Path(__file__).resolve().parents[1]
QUIET = 0.3  # busy cores
FIRST_STEP_LIMIT = 240.0  # seconds after which a run is not waited for
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
PROGRAM = (sys.executable, "-m", "rankbench")
TINY = ("method=lora", "model=tiny", "task=planted", "train=smoke", "train.threads=1")
EVA = ("method=eva", "train.steps=1", "train.evaluate_before=false", "task.validation_size=1", "task.test_size=1")
MODEL = """
import pathlib, sys
from random_inputs import QWEN, write_model
from sides import StepShape, config_of
from rankbench.models.loading import tokenizer_of
write_model(QWEN, pathlib.Path(sys.argv[1]), tokenizer_of(config_of(StepShape("smollm2-135m", 1, 1)).model))
"""  # in a process of its own, which gives its memory back

Line = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """What the caller names.

    Attributes:
        boolq, gsm8k: folders of data; None leaves out the rows that need them.
        out: folder for rows.jsonl and records.jsonl.
    """

    boolq: Path | None
    gsm8k: Path | None
    out: Path


def script(name: str, *arguments: str) -> Iterator[Line]:
    """The lines that a benchmark prints."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            yield {"command": shown("python", f"benchmarks/{name}", *arguments), **json.loads(line)}


def shown(*words: str) -> str:
    """A command as the lines have it: folders of this machine are DIR."""
    return " ".join(re.sub(r"(^|=)/.*", r"\1DIR", word) for word in words)


def run(inputs: Inputs, *words: str, until_first_step: bool = False) -> Line:
    """A run of the command line: seconds of its process until its first output, its first step and its end.

    Args:
        words: of the command line.
        until_first_step: whether to end the process after its first step, or after FIRST_STEP_LIMIT.
    """
    with tempfile.TemporaryDirectory() as results:
        output = Path(results) / "output.txt"
        spent, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [*PROGRAM, *words, f"results_dir={results}"]
        with output.open("w") as file:
            process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=file, stderr=file)
        line: Line = {"command": shown("rankbench", *words), "first_output": None, "first_step": None}
        while process.poll() is None:
            time.sleep(0.02)
            passed = time.perf_counter() - start
            if line["first_output"] is None and output.stat().st_size:
                line["first_output"] = passed
            if line["first_step"] is None and any(f.stat().st_size for f in Path(results).glob("runs/*/steps.jsonl")):
                line["first_step"] = passed
            if until_first_step and (line["first_step"] is not None or passed > FIRST_STEP_LIMIT):
                process.kill()
                process.wait()
        line["seconds"] = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        line["cpu_seconds"] = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
        for file_of_record in Path(results).glob("runs/*/record.json"):
            record = json.loads(file_of_record.read_text())
            with (inputs.out / "records.jsonl").open("a") as records:
                records.write(json.dumps(portable(record)) + "\n")
            phases = {name: cost["seconds"] for name, cost in record["cost"].items() if isinstance(cost, dict)}
            line |= {"status": record["status"], "phases": phases, "metrics": record["metrics"]}
    return line


def default_runs(inputs: Inputs) -> Iterator[Line]:
    """The default run, the same with uniform ranks, and the one over the other: whole processes; without evaluation."""
    igu, uniform = run(inputs), run(inputs, "method=lora")
    yield {"row": "default_run", **igu}
    yield {"row": "uniform_run", **uniform}
    work = [sum(s for phase, s in line["phases"].items() if phase != "evaluation") for line in (igu, uniform)]
    yield {"row": "igu_over_uniform", "ratio": igu["seconds"] / uniform["seconds"], "ratio_of_work": work[0] / work[1]}


def tiny_runs(inputs: Inputs) -> Iterator[Line]:
    """A small run on one thread, five times."""
    for _ in range(5):
        yield {"row": "tiny_run", **run(inputs, *TINY)}


def options(inputs: Inputs) -> Iterator[Line]:
    """BoolQ beside lm-evaluation-harness."""
    if inputs.boolq is not None:
        yield from script("evaluation.py", "options", "--boolq", str(inputs.boolq), "--threads", "2")


def generation(inputs: Inputs) -> Iterator[Line]:
    """GSM8K beside lm-evaluation-harness."""
    if inputs.gsm8k is not None:
        arguments = ("--gsm8k", str(inputs.gsm8k), "--threads", "2", "--rounds", "2")
        yield from script("evaluation.py", "generation", *arguments)


def first_step(inputs: Inputs) -> Iterator[Line]:
    """IGU on GSM8K with a model of Qwen2.5-0.5B's shape from a local folder, until its first step."""
    if inputs.gsm8k is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", MODEL, folder], check=True, cwd=ROOT / "benchmarks")
        words = ("method=igu", "model=qwen2.5-0.5b", f"model.path={folder}", "task=gsm8k")
        data = f"task.data_dir={inputs.gsm8k.resolve()}"
        yield {"row": "first_step", **run(inputs, *words, data, until_first_step=True)}


def eva(inputs: Inputs) -> Iterator[Line]:
    """EVA's calibration on the default model and data."""
    yield {"row": "eva_on_smollm2", **run(inputs, *EVA)}


def speed_rows(*names: str, pairs: int) -> Callable[[Inputs], Iterator[Line]]:
    """Rows of speed.py."""
    return lambda _: script("speed.py", *names, "--pairs", str(pairs))


def later_jobs(_: Inputs) -> Iterator[Line]:
    """Jobs of a sweep."""
    yield from script("launch_overhead.py", "--jobs", "20", "--rounds", "3", "--rows", "loop", "local")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        minutes: that it may take on two quiet cores.
        measure: gives its lines.
    """

    minutes: float
    measure: Callable[[Inputs], Iterator[Line]]


ROWS = {
    "default": Row(9, default_runs),
    "options": Row(4, options),
    "generation": Row(5, generation),
    "tiny": Row(1, tiny_runs),
    "first_step": Row(4, first_step),
    "eva": Row(3, eva),
    "step_counts": Row(2, lambda _: script("step_counts.py")),
    "later_job": Row(2, later_jobs),
    "adalora_work": Row(1, speed_rows("adalora_work", pairs=20)),
    "steps": Row(3, speed_rows("igu_code_step", "l1ra_step", pairs=10)),
    "calibrations": Row(4, speed_rows("fim_calibration", "sensitivity_calibration", "eva_calibration", pairs=8)),
}


def wait_until_quiet(seconds: float) -> float:
    """Wait until few cores are busy, at most so long, and return how many are."""
    end = time.monotonic() + seconds
    while True:
        busy: float = psutil.cpu_percent(interval=3.0) / 100 * (os.cpu_count() or 1)
        if busy < QUIET or time.monotonic() > end:
            return busy


def attempt(name: str, row: Row, inputs: Inputs) -> Iterator[Line]:
    """The lines of a row; where it breaks, the last one says why, and the rows that follow are measured."""
    try:
        yield from row.measure(inputs)
    except Exception as error:
        yield {"row": name, "error": f"{type(error).__name__}: {error}"}


def measure(names: Sequence[str], inputs: Inputs, minutes: float, wait: float) -> None:
    """Measure the rows and append their lines, as they come."""
    end = time.monotonic() + 60 * minutes
    inputs.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        row = ROWS[name]
        if time.monotonic() + 60 * row.minutes > end:
            print(json.dumps({"row": name, "skipped": f"it may take {row.minutes} minutes"}), flush=True)
            continue
        busy = wait_until_quiet(wait)
        facts = {"busy_cores_before": round(busy, 2), "cores": os.cpu_count(), "commit": code()["git_commit"]}
        start = time.monotonic()
        for line in attempt(name, row, inputs):
            whole = {**line, **facts, "at": datetime.now(UTC).isoformat(timespec="seconds")}
            print(json.dumps(whole), flush=True)
            with (inputs.out / "rows.jsonl").open("a") as file:
                file.write(json.dumps(whole) + "\n")
        print(json.dumps({"row": name, "minutes": round((time.monotonic() - start) / 60, 2)}), flush=True)


def show(lines: Sequence[Line]) -> str:
    """Markdown: what each row measured, n, quartiles, and the most that was busy before it."""
    table = ["| row | what | n | median | quartiles | busy before |", "| --- | --- | --- | --- | --- | --- |"]
    for row in dict.fromkeys(str(line["row"]) for line in lines):
        own = [line for line in lines if line["row"] == row]
        busy = max(line["busy_cores_before"] for line in own)
        for what in (
            "speedup",
            "ratio",
            "ratio_of_work",
            "later",
            "seconds",
            "cpu_seconds",
            "first_output",
            "first_step",
        ):
            values = [line[what] for line in own if line.get(what) is not None]
            if values:
                ends = own[-1].get("quartiles") if what in ("speedup", "ratio") and len(values) == 1 else None
                n = own[-1].get("pairs", 1) if ends else len(values)
                ends = ends or (statistics.quantiles(values, n=4, method="inclusive")[::2] if len(values) > 1 else ())
                middle, between = f"{statistics.median(values):.3f}", " to ".join(f"{end:.3f}" for end in ends)
                table.append(f"| {row} | {what} | {n} | {middle} | {between} | {busy:.2f} |")
        for phase, seconds in own[-1].get("phases", {}).items():
            table.append(f"| {row} | {phase}, s | 1 | {seconds:.3f} | | {busy:.2f} |")
    return "\n".join(table)


def main(arguments: list[str] | None = None) -> None:
    """Measure rows, or show what was measured."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/speed_table.py", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("rows", nargs="*", metavar="row", help=f"one of {', '.join(ROWS)}; all if none is given")
    parser.add_argument("--boolq", type=Path, help="folder with BoolQ's files; without it, its row is left out")
    parser.add_argument("--gsm8k", type=Path, help="folder with GSM8K's files; without it, its rows are left out")
    parser.add_argument("--minutes", type=float, default=30, help="time for all rows (%(default)s)")
    parser.add_argument("--wait", type=float, default=120, help="seconds to wait for a quiet machine (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "speed", help="folder for the lines")
    parser.add_argument("--show", action="store_true", help="print the table from the lines; measure nothing")
    options = parser.parse_args(arguments)
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"row {min(unknown)!r} is unknown; rows are {', '.join(ROWS)}")
    if options.show:
        print(show([json.loads(line) for line in (options.out / "rows.jsonl").read_text().splitlines()]))
        return
    measure(
        options.rows or list(ROWS), Inputs(options.boolq, options.gsm8k, options.out), options.minutes, options.wait
    )


if __name__ == "__main__":
    main()
