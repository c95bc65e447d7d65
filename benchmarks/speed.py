"""Speed and memory of the harness against bare PEFT and of methods against uniform ranks: one JSON line per row.

python benchmarks/speed.py [row ...] [--threads N] [--pairs N] [--quick]

Both sides run in one process and take turns, A B A B ...; a row's ratio is the median of the ratios pair by pair
(igu_memory looks once; whole runs and EVA, which need a fresh model each, take fewer pairs). Seconds are medians of one
turn. All in fp32.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig
from sides import LONG, Bare, Ours, StepShape, fill_gradients
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rankbench.methods.peft_search import per_token
from rankbench.models.errors import ModelError

ENCODER, DECODER = StepShape("minilm-l6", 32, 64), StepShape("smollm2-135m", 4, 128)
QUICK = StepShape("tiny", 4, 32)
RANK = 8  # the budget
WARM_UP = 3  # turns of each side before the first pair
RUN_STEPS = 20  # length of the runs that are timed whole
MEMORY_STEPS = 8  # length of the runs whose memory is measured: long enough for scores, cuts and the compaction

Line = dict[str, Any]
Turns = dict[str, list[float]]


class Bench:
    """One method per row of the table; each yields its lines.

    Args:
        pairs: turns of each side.
        quick: whether to use the tiny model, only to see that the rows work.
    """

    def __init__(self, pairs: int, quick: bool) -> None:
        self.pairs, self.quick = pairs, quick
        self.warm_up, self.run_steps = (1, MEMORY_STEPS) if quick else (WARM_UP, RUN_STEPS)

    def shape(self, shape: StepShape) -> StepShape:
        """Return the shape of the row, or the tiny one."""
        return QUICK if self.quick else shape

    def uniform_step(self) -> Iterator[Line]:
        """Our step with uniform ranks over the same step with bare PEFT LoRA."""
        for shape in [QUICK] if self.quick else [ENCODER, DECODER]:
            yield from self.attempt(shape, self._uniform_step)

    def _uniform_step(self, shape: StepShape) -> Line:
        ours, bare = Ours(shape, "lora", f"budget=r{RANK}"), Bare(shape, LoraConfig, r=RANK)
        return ratio(self.turns(a=ours.step, b=bare.step), goal=1.03, rank=RANK)

    def adalora_work(self) -> Iterator[Line]:
        """AdaLoRA's own work per step over that of PEFT's AdaLoRA: penalty with backward pass, hooks, masks."""
        yield from self.attempt(self.shape(DECODER), self._adalora_work)

    def _adalora_work(self, shape: StepShape) -> Line:
        ours = Ours(shape, "adalora", f"budget=r{RANK}")
        peft = peft_adalora(shape, ours).without_model()
        fill_gradients(ours.trainer.adapters.parameters())
        fill_gradients(peft.trained)
        sites, rank = len(ours.trainer.adapters.sites), present_rank(ours)
        return ratio(self.turns(a=ours.own_work, b=peft.own_work), goal=0.35, sites=sites, rank=rank)

    def adalora_step(self) -> Iterator[Line]:
        """A step of AdaLoRA over a uniform step at the same rank; beside it the same ratio of PEFT's two."""
        yield from self.attempt(self.shape(ENCODER), self._adalora_step)

    def _adalora_step(self, shape: StepShape) -> Line:
        ours = Ours(shape, "adalora", f"budget=r{RANK}")
        rank = present_rank(ours)
        uniform, peft = uniform_at(shape, rank), peft_adalora(shape, ours)
        lora = Bare(shape, LoraConfig, r=rank)
        turns = self.turns(a=ours.step, b=uniform.step, c=peft.step, d=lora.step)
        theirs = ratio({"a": turns["c"], "b": turns["d"]}, goal=1.04)
        return ratio(turns, goal=1.04, rank=rank, peft_ratio=theirs["ratio"])

    def igu_code_step(self) -> Iterator[Line]:
        """A step of IGU as released, in its first stage, over a uniform step at the same rank."""
        yield from self.attempt(self.shape(ENCODER), self._igu_code_step)

    def _igu_code_step(self, shape: StepShape) -> Line:
        ours = Ours(shape, "igu_code", f"budget=r{RANK}")
        rank = present_rank(ours)
        return ratio(self.turns(a=ours.step, b=uniform_at(shape, rank).step), goal=1.05, rank=rank)

    def igu_memory(self) -> Iterator[Line]:
        """Peak memory of a run of IGU beyond that of uniform ranks at its start rank, in adapters' sizes."""
        yield from self.attempt(self.shape(ENCODER), self._igu_memory)

    def _igu_memory(self, shape: StepShape) -> Line:
        with PeakMemory() as igu:
            ours = Ours(shape, "igu", f"budget=r{RANK}", steps=MEMORY_STEPS)
            rank, size = present_rank(ours), 4 * ours.trainer.adapters.param_count()
            ours.trainer.run()
        del ours
        gc.collect()
        with PeakMemory() as uniform:
            uniform_at(shape, rank, steps=MEMORY_STEPS).trainer.run()
        extra = (igu.peak - uniform.peak) / size
        figures = {"adapter_bytes": size, "bytes_a": igu.peak, "bytes_b": uniform.peak, "steps": MEMORY_STEPS}
        return {"ratio": round(extra, 3), "goal": 4, "met": extra <= 4, "pairs": 1, "rank": rank, **figures}

    def igu_run(self) -> Iterator[Line]:
        """A whole training run of IGU at its defaults over one of uniform ranks at the same budget."""
        yield from self.attempt(self.shape(ENCODER), self._igu_run)

    def _igu_run(self, shape: StepShape) -> Line:
        turns: Turns = {"a": [], "b": []}
        for _ in range(max(1, self.pairs // 5)):
            for side, method in (("a", "igu"), ("b", "lora")):
                arm = Ours(shape, method, f"budget=r{RANK}", steps=self.run_steps)
                turns[side].append(seconds(arm.trainer.run))
        return ratio(turns, goal=1.5, steps=self.run_steps)

    def fim_calibration(self) -> Iterator[Line]:
        """FIM-LoRA's calibration over the same number of bare forward and backward passes with adapters."""
        yield from self.attempt(self.shape(ENCODER), self._fim_calibration)

    def _fim_calibration(self, shape: StepShape) -> Line:
        ours, bare = Ours(shape, "fim", f"budget=r{RANK}"), Bare(shape, LoraConfig, r=RANK)
        passes = ours.trainer.allocator.config.batches
        return ratio(self.turns(a=ours.calibrate, b=lambda: bare.forward_backward(passes)), goal=1.1, passes=passes)

    def sensitivity_calibration(self) -> Iterator[Line]:
        """Sensitivity-LoRA's calibration over the same number of bare forward passes of the base model."""
        yield from self.attempt(self.shape(ENCODER), self._sensitivity_calibration)

    def _sensitivity_calibration(self, shape: StepShape) -> Line:
        ours, bare = Ours(shape, "sensitivity", f"budget=r{RANK}"), Bare(shape, LoraConfig, r=RANK)
        bare.model.eval()
        passes = ours.trainer.allocator.config.batches
        return ratio(self.turns(a=ours.calibrate, b=lambda: bare.forward(passes)), goal=1.1, passes=passes)

    def l1ra_step(self) -> Iterator[Line]:
        """A step of L1RA over a uniform step at the same rank."""
        yield from self.attempt(self.shape(ENCODER), self._l1ra_step)

    def _l1ra_step(self, shape: StepShape) -> Line:
        ours = Ours(shape, "l1ra", f"budget=r{RANK}")
        return ratio(self.turns(a=ours.step, b=uniform_at(shape, RANK).step), goal=1.05, rank=present_rank(ours))

    def eva_calibration(self) -> Iterator[Line]:
        """Our EVA calibration with PEFT's search over PEFT's initialize_lora_eva_weights on the same mini-batches."""
        yield from self.attempt(self.shape(ENCODER), self._eva_calibration)

    def _eva_calibration(self, shape: StepShape) -> Line:
        turns: Turns = {"a": [], "b": []}
        ours = Ours(shape, "eva", "method.search=peft", f"budget=r{RANK}")  # its first calibration is the warm-up
        probe = ours.trainer.probe("start")
        drawn = probe.batches(ours.trainer.allocator.config.batches)
        batches = [per_token(micro) for batch in drawn for micro in probe.inputs(batch)]
        for _ in range(max(2, self.pairs // 4)):
            bare = Bare(shape, LoraConfig, r=RANK, init_lora_weights="eva")
            turns["a"].append(seconds(ours.calibrate))
            turns["b"].append(seconds(lambda bare=bare: bare.initialize_eva(batches)))  # type: ignore[misc]
        return ratio(turns, goal=1.05)

    def turns(self, **sides: Callable[[], None]) -> Turns:
        """Seconds of each turn of each side, after warm-up."""
        for _ in range(self.warm_up):
            for turn in sides.values():
                turn()
        gc.collect()
        turns: Turns = {side: [] for side in sides}
        for _ in range(self.pairs):
            for side, turn in sides.items():
                turns[side].append(seconds(turn))
        return turns

    def attempt(self, shape: StepShape, row: Callable[[StepShape], Line]) -> Iterator[Line]:
        """Yield the line of the row, or the reason why there is none."""
        start = {"row": row.__name__.removeprefix("_"), "model": shape.model}
        try:
            line = row(shape)
        except ModelError as error:
            yield {**start, "skipped": str(error)}
            return
        batch = f"{shape.batch_size} x {shape.length}"
        yield {**start, "batch": batch, **line, "threads": torch.get_num_threads(), "precision": "fp32"}


def uniform_at(shape: StepShape, rank: int, steps: int = LONG) -> Ours:
    """An arm with uniform ranks."""
    return Ours(shape, "lora", "budget=r8", f"budget.reference_rank={rank}", steps=steps)


def peft_adalora(shape: StepShape, ours: Ours) -> Bare:
    """PEFT's AdaLoRA with our arm's ranks, schedule and penalty."""
    config, decay = ours.trainer.allocator.config, ours.decay
    return Bare(
        shape,
        AdaLoraConfig,
        first=decay.begin + 1,
        init_r=present_rank(ours),
        target_r=RANK,
        total_step=LONG,
        tinit=decay.begin,
        tfinal=LONG - decay.end,
        deltaT=config.every,
        orth_reg_weight=config.orthogonality,
    )


def present_rank(arm: Ours) -> int:
    """The number of live components that all sites share."""
    (rank,) = set(arm.trainer.adapters.ranks().values())
    return rank


def seconds(action: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def ratio(turns: Turns, goal: float, **facts: Any) -> Line:
    """The comparison of side a with side b, with the quartiles of the pairs."""
    ratios = [a / b for a, b in zip(turns["a"], turns["b"], strict=True)]
    middle = statistics.median(ratios)
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [middle] * 3
    return {
        "ratio": round(middle, 4),
        "goal": goal,
        "met": middle <= goal,
        "pairs": len(ratios),
        "quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
        "seconds_a": round(statistics.median(turns["a"]), 5),
        "seconds_b": round(statistics.median(turns["b"]), 5),
        **facts,
    }


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Largest sum of bytes of the tensor storages made inside the block and still alive.

    Every operator's outputs are looked at, forward and backward; a storage counts from its first sight until it is
    freed. What an operator allocates and frees within itself is not seen.

    Attributes:
        peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, then look at its outputs."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._seen:
            self._seen[key] = storage.nbytes()
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._now -= self._seen.pop(key)


ROWS = (
    "uniform_step",
    "adalora_work",
    "adalora_step",
    "igu_code_step",
    "igu_memory",
    "igu_run",
    "fim_calibration",
    "sensitivity_calibration",
    "l1ra_step",
    "eva_calibration",
)


def main(arguments: list[str] | None = None) -> None:
    """Print the lines of the rows asked for."""
    parser = argparse.ArgumentParser(prog="python benchmarks/speed.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="row", help=f"one of {', '.join(ROWS)}; all if none is given")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--pairs", type=int, default=20, help="turns of each side (default 20)")
    parser.add_argument("--quick", action="store_true", help="the tiny model: does it work?")
    options = parser.parse_args(arguments)
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"row {unknown[0]!r} is unknown; rows are {', '.join(ROWS)}")
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    bench = Bench(options.pairs, options.quick)
    for row in options.rows or ROWS:
        for line in getattr(bench, row)():
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
