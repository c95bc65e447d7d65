"""Whole methods on the planted kinds beside other arms: `python experiments/equal_terms/whole_methods.py`.

Prints how much higher the test KL of one arm is than that of the other, in per cent: geometric mean over 24 kinds, with
Student's 95 % interval over the kinds, each for itself. Reads the committed records of results/equal_terms.
"""

import json
import lzma
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

STUDY = Path(__file__).parents[2] / "results" / "equal_terms"
PAIRS = [
    *(("igu", "svd_lora"), ("adalora", "svd_lora"), ("increlora", "svd_lora")),
    *(("adalora", "peak of adalora"), ("igu", "peak of igu"), ("sora", "peak of igu"), ("para", "peak of igu")),
    *((method, f"{method} map") for method in ("adalora", "igu", "increlora", "eva", "para")),
]


def main() -> None:
    """Print a line for each pair; uniform ranks at the peaks of sora and para are the runs at that of igu."""
    with lzma.open(STUDY / "records.jsonl.xz", "rt") as lines:
        records = {record["run_id"]: record for record in map(json.loads, lines)}
    logs: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for job in json.loads((STUDY / "sweep.json").read_text())["jobs"]:
        if job["cell"] == "planted" and not job["trial"]:
            words = dict(word.split("=", 1) for word in job["overrides"])
            loss = records[job["run_id"]]["metrics"]["test"]["kl"]
            logs[job["arm"]][words["task.kind"]][words["seed"]] = np.log(loss)
    for arm, other in PAIRS:
        means = [
            np.mean([logs[arm][kind][seed] - logs[other][kind][seed] for seed in seeds])
            for kind, seeds in logs[arm].items()
        ]
        low, high = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
        value, low, high = (100 * np.expm1(each) for each in (np.mean(means), low, high))
        print(f"{arm} beside {other}: {value:+.0f} % [{low:+.0f}, {high:+.0f}], {len(means)} kinds")


if __name__ == "__main__":
    main()
