"""Gains over seeds and test items: by hand, kept without the items, and left out where the items are not the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.records import record

from rankbench.analysis.comparison import compare
from rankbench.analysis.frame import frame
from rankbench.analysis.item_gains import ItemGain, item_gains, load, save
from rankbench.records.run_folder import RunFolder
from rankbench.statistics.estimates import mean_interval
from rankbench.statistics.seeds_and_items import crossed_mean

UNITS = np.array([1, 1, 4, 2, 2])
LOSSES = np.random.default_rng(0).uniform(0.5, 1.5, size=(2, 3, 5))  # lora and gora x seeds x items
RUNS = [
    record(arm, seed, metrics={"test": {"step": 9, "loss": 1.0 + seed}})
    for arm in ("lora", "gora")
    for seed in range(3)
]


@pytest.fixture
def results(tmp_path):
    """A results folder with the items of all runs, and two of another part."""
    for run, losses in zip(RUNS, LOSSES.reshape(6, 5), strict=True):
        rows = zip(range(5), losses, UNITS.tolist(), strict=True)
        items = [{"id": f"test/{number}", "gold": "yes", "loss": loss, "units": units} for number, loss, units in rows]
        folder = RunFolder(tmp_path, run.run_id)
        folder.path.mkdir(parents=True)
        folder.write_lines("items.jsonl", [*items, *[{**items[0], "part": "other", "loss": 9.0}] * 2])
    return tmp_path


def gains(results, before=()) -> list[ItemGain]:
    return list(
        item_gains("panel", compare(frame(RUNS, names=[run.method for run in RUNS]), ["test/loss"]), results, before)
    )


def test_both_errors_of_a_gain(results):
    (gain,) = gains(results)
    differences = LOSSES[0] - LOSSES[1]
    these = np.average(differences, axis=1, weights=UNITS)
    interval, both = mean_interval(these), crossed_mean(differences, UNITS)
    assert (gain.panel, gain.arm, gain.seeds, gain.items) == ("panel", "gora", 3, 5)
    assert (gain.mean, gain.error) == pytest.approx((these.mean(), these.std(ddof=1) / np.sqrt(3)))
    assert (gain.low, gain.high) == (interval.low, interval.high)
    assert (gain.low_both, gain.high_both) == (both.mean.low, both.mean.high)
    assert gain.error_both**2 == pytest.approx(both.of_seeds + both.of_items + both.of_both)


def test_gains_are_kept_for_the_same_runs_alone(results, tmp_path):
    before = gains(results)
    save(before, tmp_path / "gains.csv")
    assert load(tmp_path / "gains.csv") == before
    assert gains(None, before) == before
    assert gains(None, [ItemGain(**{**vars(before[0]), "runs": "0" * 12})]) == []
    save([], tmp_path / "gains.csv")
    assert load(tmp_path / "gains.csv") == []


@pytest.mark.parametrize(
    "change", [{"gold": "no"}, {"gold": None}, {"id": "test/7"}, {"units": 3}, {"loss": None}, None]
)
def test_runs_without_the_same_items_show_none(results, change):
    """As where each seed has data of its own."""
    file = results / "runs" / "gora2" / "items.jsonl"
    first, *rest = file.read_text().splitlines()
    file.unlink() if change is None else file.write_text(
        "\n".join([json.dumps({**json.loads(first), **change}), *rest, ""])
    )
    assert gains(results) == []
