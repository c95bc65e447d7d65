"""How long the command line takes to answer, beside `python -c "import torch"`: wall and CPU seconds.

`python benchmarks/answer_times.py [--rounds 5]` starts every command once per round, one after the other, so that a
busy moment of the machine falls on all of them alike. It prints, for each command, the medians and the median over
rounds of its ratio to the import of torch in the same round. A finished run is made first, in a temporary folder. The
last row is the whole process of a tiny run, with its own seed in every round; no limit holds for it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from statistics import median

BASE = "import torch"
RUN = ["method=lora", "model=tiny", "task=planted", "train=smoke", "train.threads=1"]
LIMIT = 1.5  # of the base, in wall and in CPU time
WHOLE = "tiny run, whole process"


def commands(results: str, number: int = 0) -> dict[str, list[str]]:
    """What is measured: name -> arguments of the interpreter.

    Args:
        results: folder of the runs.
        number: of the round, from 1; 0 is the run that is finished before them.
    """
    rankbench = ["-m", "rankbench"]
    return {
        BASE: ["-c", BASE],
        "help": [*rankbench, "--help"],
        "help of a group": [*rankbench, "--help", "method"],
        "methods": [*rankbench, "methods"],
        "mistyped command": [*rankbench, "reprot"],
        "mistyped setting": [*rankbench, "method=igu", "train.stps=10"],
        "mistyped method": [*rankbench, "method=igo"],
        "finished run": [*rankbench, *RUN, f"results_dir={results}"],
        "status of no sweep": [*rankbench, "status", "--results", results],
        WHOLE: [*rankbench, *RUN, f"results_dir={results}", f"seed={number}"],
    }


def seconds(arguments: Sequence[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(measured: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Markdown: medians, and medians of the ratios to the base of the same round."""
    lines = ["| command | wall s | CPU s | wall ratio | CPU ratio |", "| --- | --- | --- | --- | --- |"]
    for name, rounds in measured.items():
        pairs = list(zip(rounds, measured[BASE], strict=True))
        ratios = [median(own[kind] / base[kind] for own, base in pairs) for kind in (0, 1)]
        figures = [*(median(one[kind] for one in rounds) for kind in (0, 1)), *ratios]
        late = " over" if max(ratios) > LIMIT and name != WHOLE else ""
        lines.append(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)}{late} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes of each command (%(default)s)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as results:
        listed = commands(results)
        subprocess.run([sys.executable, *listed["finished run"]], capture_output=True, check=True)
        for arguments in listed.values():
            seconds(arguments)  # compiled and in the file cache from here on
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in listed}
        for number in range(1, rounds + 1):
            for name, arguments in commands(results, number).items():
                measured[name].append(seconds(arguments))
    print(table(measured))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\n{rounds} rounds, alternating; load of the machine at the end: {load} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
