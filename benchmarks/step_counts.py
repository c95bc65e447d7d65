"""Operators, and reads by the host, in each of a few steps of default runs: one JSON line per method.

python benchmarks/step_counts.py [method ...] [--model MODEL]

On a GPU a read makes the host wait until the device has done all before it, and an operator costs the host some
microseconds whatever it computes. Both are counted on the CPU (host_reads.py), on the default task at steps between
IGU's first and last cut: every second of them has a scoring pass. Batches are small, which changes no count but one:
transformers looks at the mask of each pass, once if no text is padded (batches of one here), else twice.
"""

from __future__ import annotations

import argparse
import json
import warnings
from itertools import pairwise
from typing import Any

from host_reads import HostReads
from hydra import compose, initialize_config_dir

from rankbench.config.validation import build
from rankbench.config.yaml_files import CONF_DIR
from rankbench.training.assembly import assemble

GOALS = {"lora": 2, "adalora": 3, "igu": 4}  # most reads in a step; of IGU in one with a scoring pass, 3 in others
FIRST, STEPS, TOTAL = 20, 4, 60


def count(method: str, model: str, batch_size: int) -> dict[str, Any]:
    """Reads and operators of each step, without those that only look at a tensor in another way."""
    settings = [f"method={method}", f"model={model}", "task=arithmetic", f"train.batch_size={batch_size}"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        trainer = assemble(build(compose("config", [*settings, f"train.steps={TOTAL}"]))).trainer
    trainer.calibrate()
    trainer.build_optimizer()
    trainer.engine.model.train()
    trainer.step(FIRST - 1, TOTAL)  # makes the optimizer's state
    reads, copies, operators = [0], [0], [0]
    with HostReads(trainer.engine.model) as counter:
        for index in range(FIRST, FIRST + STEPS):
            trainer.step(index, TOTAL)
            reads.append(counter.reads.total())
            copies.append(counter.copies)
            operators.append(counter.operators)
    line: dict[str, Any] = {"row": "step_counts", "method": method, "model": model, "padded": batch_size > 1}
    line |= {"sites": len(trainer.adapters.sites)}
    line |= {"reads": steps(reads), "copies": steps(copies), "operators": steps(operators), "by": dict(counter.reads)}
    if goal := GOALS.get(method):
        line |= {"goal": goal, "met": max(line["reads"]) <= goal}
    return line


def steps(totals: list[int]) -> list[int]:
    """What each step adds."""
    return [later - earlier for earlier, later in pairwise(totals)]


def main(arguments: list[str] | None = None) -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/step_counts.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("methods", nargs="*", default=list(GOALS), metavar="method")
    parser.add_argument("--model", default="smollm2-135m")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    for method in options.methods:
        for batch_size in (1, 4):
            print(json.dumps(count(method, options.model, batch_size)), flush=True)


if __name__ == "__main__":
    main()
