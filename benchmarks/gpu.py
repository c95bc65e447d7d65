"""Speed and memory of training and evaluation on a GPU beside bare PEFT: one JSON line per row, in about eight minutes.

python benchmarks/gpu.py [--seconds 480] [--out FILE] [--dry]

Rows come in the order of their worth, and a row is written as soon as it is measured, so that a run that is cut short
keeps what it has; no row begins for which the time left is too short. A row that fails says why, and the next begins.
Models have random weights in the shapes of SmolLM2-135M and Qwen2.5-0.5B, so that no file is needed; data are made up.

`step`: a step of a method at a budget over a step of bare PEFT LoRA at that rank, in turns of several steps; the ratio
is the median of the ratios pair by pair. `evaluation`: what a run does at its end. `two_runs`: two processes train at a
time on the one device. The device has finished before a clock is read. Memory is the peak that the arm allocates, other
arms left out; on a CPU it is not measured. --dry does all rows in small on the CPU, to see that they work.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import evaluation
import torch
from peft import LoraConfig
from random_inputs import QWEN, SMOLLM2, write_data, write_model
from sides import Bare, Ours, StepShape
from transformers.utils.logging import disable_progress_bar

from rankbench.models.random_model import byte_tokenizer
from rankbench.training.provenance import code, libraries

METHODS = ("lora", "adalora", "igu", "l1ra")
PRECISIONS = {
    "bf16": ("train.precision=bf16", "model.dtype=bfloat16"),
    "fp32": ("train.precision=fp32", "model.dtype=float32"),
    "tf32": ("train.precision=tf32", "model.dtype=float32"),
}
WARM_UP = 4  # steps before the first turn

Line = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much there is to do in a row.

    Attributes:
        batch_size, length: examples of a step, and their tokens.
        ranks: of the budgets.
        steps: of a turn; even, since IGU scores every second step.
        pairs: turns of each side.
        items, prompts, new_tokens: questions with options; problems to be solved, and tokens of their answers.
        shrink: whether models have two narrow layers.
    """

    batch_size: int
    length: int
    ranks: tuple[int, int]
    steps: int
    pairs: int
    items: int
    prompts: int
    new_tokens: int
    shrink: bool


FULL = Size(16, 256, (8, 64), steps=6, pairs=5, items=256, prompts=64, new_tokens=64, shrink=False)
DRY = Size(2, 8, (2, 4), steps=2, pairs=1, items=4, prompts=2, new_tokens=4, shrink=True)


class Bench:
    """The rows.

    Args:
        folder: for models and data.
        size: how much there is to do.
        device: where accelerate puts the runs.
    """

    def __init__(self, folder: Path, size: Size, device: torch.device) -> None:
        self.folder, self.size, self.device = folder, size, device
        self._bare: tuple[Any, Any] = (None, None)
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
        for name in (SMOLLM2, QWEN):
            write_model(name, folder / name, byte_tokenizer(), size.shrink)
        self.boolq, self.gsm8k = folder / "boolq", folder / "gsm8k"
        for data in (self.boolq, self.gsm8k):
            data.mkdir()
        write_data(self.boolq, self.gsm8k, size.items, size.prompts)

    def rows(self) -> Iterator[tuple[float, Line, Callable[[], Line]]]:
        """Seconds that a row may take, its name, and how it is measured; the most wanted first."""
        low, high = self.size.ranks
        models = (SMOLLM2, QWEN)
        yield from (self._step_row(model, "bf16", low, method) for model in models for method in METHODS)
        for model in models:
            yield 40, self._names("evaluation", model, "bf16"), partial(self.evaluation, model, "bf16")
        yield 60, self._names("two_runs", SMOLLM2, "bf16"), partial(self.two_runs, SMOLLM2, "bf16")
        for precision, rank in (("fp32", low), ("bf16", high), ("tf32", low), ("fp32", high)):
            yield from (self._step_row(model, precision, rank, method) for model in models for method in METHODS)

    def _step_row(self, model: str, precision: str, rank: int, method: str) -> tuple[float, Line, Callable[[], Line]]:
        names = {**self._names("step", model, precision), "rank": rank, "method": method}
        return 20, names, partial(self.step, model, precision, rank, method)

    def _names(self, row: str, model: str, precision: str) -> Line:
        return {"row": row, "model": model, "precision": precision}

    def settings(self, model: str, precision: str) -> tuple[str, ...]:
        """Overrides of the configuration."""
        return (f"model.path={self.folder / model}", "model.architecture=decoder", *PRECISIONS[precision])

    def shape(self, model: str, precision: str) -> StepShape:
        """What a step works on."""
        return StepShape("auto", self.size.batch_size, self.size.length, self.settings(model, precision))

    def step(self, model: str, precision: str, rank: int, method: str) -> Line:
        """A method's step over that of bare PEFT."""
        shape, size = self.shape(model, precision), self.size
        bare, bare_peak = self.bare(shape, rank)
        (ours, peak) = self._warm(lambda: Ours(shape, method, f"budget=r{rank}"))
        turns: tuple[list[float], list[float]] = ([], [])
        for _ in range(size.pairs):
            for side, arm in zip(turns, (ours, bare), strict=True):
                side.append(timed(self.device, arm.step, size.steps))
        ratios = [a / b for a, b in zip(*turns, strict=True)]
        ranks = ours.trainer.adapters.ranks().values()
        return {
            "ratio": round(statistics.median(ratios), 4),
            "quartiles": quartiles(ratios),
            "pairs": size.pairs,
            "steps": size.steps,
            **{
                f"step_ms{side}": round(1e3 * statistics.median(turn), 3)
                for side, turn in zip(SIDES, turns, strict=True)
            },
            "tokens_per_second": round(size.batch_size * size.length / statistics.median(turns[0])),
            "peak_bytes": peak,
            "peak_bytes_bare": bare_peak,
            "batch": f"{size.batch_size} x {size.length}",
            "mean_rank": sum(ranks) / len(ranks),
        }

    def bare(self, shape: StepShape, rank: int) -> tuple[Any, int | None]:
        """Bare PEFT at this rank, and its peak; kept for the rows that follow with the same."""
        if self._bare[0] != (shape, rank):
            self._bare = (None, None)  # first free the last one
            self._bare = ((shape, rank), self._warm(lambda: Bare(shape, LoraConfig, r=rank)))
        arm: tuple[Any, int | None] = self._bare[1]
        return arm

    def _warm(self, make: Callable[[], Any]) -> tuple[Any, int | None]:
        """An arm that has done its first steps, and the most memory that it allocated meanwhile."""
        gc.collect()
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if cuda else 0
        arm = make()
        timed(self.device, arm.step, WARM_UP)
        return arm, torch.cuda.max_memory_allocated() - before if cuda else None

    def evaluation(self, model: str, precision: str) -> Line:
        """Items and tokens per second of a run's evaluation: options of questions, and answers to problems."""
        size = self.size
        chosen = {
            "items": ("task=boolq", f"task.data_dir={self.boolq}"),
            "new_tokens": ("task=gsm8k", f"task.data_dir={self.gsm8k}", f"task.max_new_tokens={size.new_tokens}"),
        }
        counts = {"items": size.items, "new_tokens": size.prompts * size.new_tokens}
        line: Line = {**counts, "prompts": size.prompts}
        for kind, task in chosen.items():
            settings = ("model=auto", *self.settings(model, precision), *task, *evaluation.SMALLEST)
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                ours = evaluation.Ours(Path(folder), *settings)
                evaluate = partial(ours.evaluate, ours.examples)
                evaluate()
                seconds = [timed(self.device, evaluate) for _ in range(size.pairs)]
            line[f"{kind}_per_second"] = round(counts[kind] / statistics.median(seconds), 2)
            line["batch"] = ours.batch_size
        return line

    def two_runs(self, model: str, precision: str) -> Line:
        """Steps of two processes at a time, after steps of one while the other waits."""
        context = multiprocessing.get_context("spawn" if self.device.type == "cuda" else "fork")
        shape, steps, workers, ends = self.shape(model, precision), 5 * self.size.steps, [], []
        for _ in range(2):
            end, theirs = context.Pipe()
            arguments = (theirs, shape, f"budget=r{self.size.ranks[0]}", steps)
            worker: Any = context.Process(target=train, args=arguments, daemon=True)  # type: ignore[attr-defined]
            worker.start()
            theirs.close()
            workers.append(worker)
            ends.append(end)
        for end in ends:
            end.recv()  # it is ready
        ends[0].send("go")
        alone = ends[0].recv()
        for end in ends:
            end.send("go")
        together = [end.recv() for end in ends]
        for end, worker in zip(ends, workers, strict=True):
            end.send("stop")
            worker.join()
        return {
            "step_ms_alone": round(1e3 * alone, 3),
            "step_ms_together": [round(1e3 * seconds, 3) for seconds in together],
            "throughput": round(sum(alone / seconds for seconds in together), 3),  # 2: neither slows the other down
            "steps": steps,
        }


SIDES = ("", "_bare")


def train(end: Connection, shape: StepShape, budget: str, steps: int) -> None:
    """Worker of `two_runs`: make a run with uniform ranks, then do steps whenever told to and send seconds per step."""
    warnings.simplefilter("ignore")
    arm = Ours(shape, "lora", budget)
    device = arm.trainer.engine.accelerator.device
    timed(device, arm.step, WARM_UP)
    end.send("ready")
    while end.recv() == "go":
        end.send(timed(device, arm.step, steps))


def timed(device: torch.device, action: Callable[[], Any], times: int = 1) -> float:
    """Seconds per call, the device's work included."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    start = time.perf_counter()
    for _ in range(times):
        action()
    wait()
    return (time.perf_counter() - start) / times


def quartiles(values: list[float]) -> list[float]:
    """First and third quartile."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [round(low, 4), round(high, 4)]


def machine(device: torch.device) -> Line:
    """What the rows were measured on and with."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else device.type,
        "driver": subprocess.run(command, capture_output=True, text=True).stdout.split()[0] if cuda else None,
        "cuda": torch.version.cuda,
        **code(),
        "packages": dict(libraries()),
        "python": sys.version.split()[0],
    }


def measure(seconds: float, size: Size, device: torch.device, facts: Line, write: Callable[[Line], None]) -> int:
    """Measure and write the rows for which there is time, each with the facts, and return how many failed."""
    end, failed = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        for price, names, row in Bench(Path(folder), size, device).rows():
            if time.monotonic() + price > end:
                write({**names, "skipped": f"it may take {price:.0f} s, and {end - time.monotonic():.0f} s are left"})
                continue
            start = time.monotonic()
            try:
                line = row()
            except Exception as error:  # the rows that follow may be measured all the same
                failed += 1
                line = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            taken = {"row_seconds": round(time.monotonic() - start, 1), "load": round(os.getloadavg()[0], 2)}
            write({**names, **line, **taken, **facts})
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Print the rows, append them to a file, and return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=480, help="time for all rows (%(default)s)")
    parser.add_argument("--out", type=Path, help="file to which each row is appended as well")
    parser.add_argument("--commit", default=code()["git_commit"], help="of a copy of the code without its .git folder")
    parser.add_argument("--dry", action="store_true", help="all rows in small, on the CPU: do they work?")
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; to try the script without one, add --dry")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if options.dry:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    warnings.simplefilter("ignore")
    disable_progress_bar()  # type: ignore[no-untyped-call]

    def write(line: Line) -> None:
        print(json.dumps(line), flush=True)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")

    size, device = (DRY, torch.device("cpu")) if options.dry else (FULL, torch.device("cuda"))
    facts = {**machine(device), "git_commit": options.commit}
    return int(measure(options.seconds, size, device, facts, write) > 0)


if __name__ == "__main__":
    sys.exit(main())
