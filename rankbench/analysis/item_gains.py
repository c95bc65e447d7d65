"""Gains in the loss of test items, over seeds x items: what they would be on other seeds, and on other items, too."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from rankbench.analysis.comparison import Comparison
from rankbench.records.run_folder import RunFolder
from rankbench.statistics.estimates import Array, mean_interval
from rankbench.statistics.seeds_and_items import crossed_mean

ITEMS = "items.jsonl"  # of a run
Items = tuple[tuple[tuple[Any, str, int], ...], Array]  # id, gold answer and units of each, and its loss


@dataclass(frozen=True)
class ItemGain:
    """Mean gain of an arm over the reference in the loss of the test items that all their runs share.

    Attributes:
        panel, arm: names.
        runs: tells the runs of both from others; 12 hexadecimal digits.
        seeds, items: how many, two or more of each.
        mean: above 0 where the arm is better.
        error, low, high: standard error and interval on new seeds and these items.
        error_both, low_both, high_both: the same on new seeds and new items.
    """

    panel: str
    arm: str
    runs: str
    seeds: int
    items: int
    mean: float
    error: float
    low: float
    high: float
    error_both: float
    low_both: float
    high_both: float


def item_gains(
    panel: str, comparison: Comparison, results_dir: Path | None, before: Sequence[ItemGain]
) -> Iterator[ItemGain]:
    """The gains of a panel's arms; none of an arm without two seeds, or whose runs' items are not those of all.

    Args:
        panel: name of the panel.
        comparison: its comparison.
        results_dir: where the items lie; None: nowhere.
        before: gains that stand for those whose items are gone, if they are of the same runs.
    """
    read = cache(lambda name: _items(RunFolder(results_dir, name)) if results_dir else None)
    earlier = {(gain.panel, gain.arm, gain.runs): gain for gain in before}
    done = comparison.data[comparison.data["status"] == "ok"]
    names = dict(zip(zip(done["label"], done["seed"], strict=True), done["run_id"], strict=True))
    for arm in comparison.judged:
        seeds = sorted(comparison.pairs(comparison.metrics[0], arm).index)
        runs = [names[label, seed] for label in (str(comparison.reference), arm) for seed in seeds]
        digest = hashlib.sha256(json.dumps(runs).encode()).hexdigest()[:12]
        parts = list(takewhile(lambda part: part is not None, map(read, runs)))  # no more is read than has to be
        if len(parts) == len(runs):
            numbers = _numbers([part for part in parts if part is not None], comparison.level)
            if numbers is not None:
                yield ItemGain(panel, arm, digest, len(seeds), *numbers)
        elif (panel, arm, digest) in earlier:
            yield earlier[panel, arm, digest]


def _items(folder: RunFolder) -> Items | None:
    """The test items of a run, of the main part where there are several.

    None where they cannot be read, or have no gold answer: items of another seed may be others under the same id.
    """
    try:
        rows = folder.lines(ITEMS)
        rows = [row for row in rows if not row.get("part")] or rows
        if not rows or any(row["gold"] is None for row in rows):
            return None
        items = tuple((row["id"], json.dumps(row["gold"]), row.get("units", 1)) for row in rows)
        return items, np.array([row["loss"] for row in rows], dtype=float)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _numbers(runs: Sequence[Items], level: float) -> tuple[int, float, float, float, float, float, float, float] | None:
    """What a gain has from its items on; None where the items are not the same, or too few, or without spread.

    Args:
        runs: of the reference, then as many of the arm.
        level: coverage of the intervals.
    """
    if len({items for items, _ in runs}) > 1 or len(runs) < 4 or len(runs[0][0]) < 2:
        return None
    losses = np.array([values for _, values in runs])
    units = np.array([units for _, _, units in runs[0][0]], dtype=float)
    if not np.isfinite(losses).all() or units.min() <= 0:
        return None
    differences: Array = losses[: len(runs) // 2] - losses[len(runs) // 2 :]
    of_seeds = np.average(differences, axis=1, weights=units)
    these, both = mean_interval(of_seeds, level), crossed_mean(differences, units, level)
    error = float(of_seeds.std(ddof=1) / np.sqrt(len(of_seeds)))
    if these.low is None or these.high is None or both.mean.low is None or both.mean.high is None:
        return None
    return len(units), these.mean, error, these.low, these.high, both.error, both.mean.low, both.mean.high


def save(gains: Sequence[ItemGain], file: Path) -> None:
    """Write what `load` reads; no file for none."""
    file.unlink(missing_ok=True)
    if gains:
        with file.open("w", newline="") as target:
            writer = csv.DictWriter(target, [each.name for each in fields(ItemGain)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(gain) for gain in gains)


def load(file: Path) -> list[ItemGain]:
    """The gains in a file; [] without one."""
    if not file.is_file():
        return []
    kinds = {"panel": str, "arm": str, "runs": str, "seeds": int, "items": int}
    with file.open(newline="") as source:
        rows = [{key: kinds.get(key, float)(text) for key, text in row.items()} for row in csv.DictReader(source)]
    return [ItemGain(**row) for row in rows]
