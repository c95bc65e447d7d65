"""Ranks over the steps, by kind of site: from the log of a run's changes."""

from __future__ import annotations

import json

import pandas as pd
from support.records import record

from rankbench.studies import rank_histories as histories


def moving(seed: int, results_dir=None, **final: int):
    """A run of two layers whose query of layer 0 ends at `final`, from 4 over 3, cut at steps 5 and 9."""
    sites = {"layers.0.q": final["q"], "layers.1.q": 2, "layers.0.up": 6}
    run = record("igu", seed, ranks=sites)
    run.history_events = 2
    log = [(5, "layers.0.q", 4, 3), (9, "layers.0.q", 3, final["q"])]
    lines = [dict(zip(("step", "site", "before", "after"), change, strict=True)) for change in log]
    if results_dir is not None:
        folder = results_dir / "runs" / run.run_id
        folder.mkdir(parents=True)
        (folder / histories.LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run, lines


def test_ranks_are_followed_from_the_end_back_to_the_start():
    table = histories.by_kind(*moving(0, q=1))
    assert table["q"].to_dict() == {-1: 3.0, 5: 2.5, 9: 1.5}
    assert set(table["up"]) == {6.0}


def test_histories_are_means_over_runs_and_arms_that_stand_still_have_none(tmp_path):
    runs = [moving(seed, tmp_path, q=seed + 1)[0] for seed in (0, 1)]
    still = record("lora", 0, ranks={"layers.0.q": 2})
    data = histories.rank_histories({("panel", "igu"): runs, ("panel", "lora"): [still]}, tmp_path)
    assert set(data["arm"]) == {"igu"}
    queries = data[data["kind"] == "q"].set_index("step")
    assert queries["rank"].to_dict() == {-1: 3.0, 5: 2.5, 9: 1.75}
    assert set(queries["n"]) == {2}


def test_what_is_saved_with_a_report_is_read_again(tmp_path):
    data = histories.rank_histories({("panel", "igu"): [moving(0, tmp_path, q=1)[0]]}, tmp_path)
    histories.save(data, tmp_path)
    pd.testing.assert_frame_equal(histories.load(tmp_path), data, check_dtype=False)
    histories.save(None, tmp_path)
    assert histories.load(tmp_path) is None
