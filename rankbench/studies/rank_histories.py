"""Ranks over the steps of runs, by kind of site: from their final ranks and the log of their changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rankbench.core.sites import parse_site
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder
from rankbench.studies.panels import Panel

FILE = "rank_histories.csv"  # in the folder of a report
LOG = "ranks.jsonl"  # of a run
COLUMNS = ["panel", "arm", "kind", "step", "rank", "n"]
SEEDS = 5  # of an arm in a panel whose logs are read


def rank_histories(all_panels: Sequence[Panel], arms: Sequence[str], results_dir: Path) -> pd.DataFrame:
    """Frame of COLUMNS: mean rank of a kind of site over n runs from each step on, of arms that change it in training.

    Args:
        all_panels: panels of a study.
        arms: labels of the arms that are read.
        results_dir: folder that has the runs.
    """
    parts = [
        part.assign(panel=panel.name, arm=arm)
        for panel in all_panels
        for arm in arms
        if len(part := _mean_history(list(_of_runs(panel, arm, results_dir))))
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def _of_runs(panel: Panel, arm: str, results_dir: Path) -> Iterator[pd.DataFrame]:
    """Steps x kinds of the first runs of an arm that are ok and changed a rank."""
    records = [run.record for run in panel.runs if run.arm == arm and run.status == "ok" and run.record]
    for record in [record for record in records if record.ranks and record.history_events][:SEEDS]:
        yield by_kind(record, RunFolder(results_dir, record.run_id).lines(LOG))


def by_kind(record: RunRecord, changes: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Mean rank of each kind of site, a row for each step with a change and for the start, at step -1.

    Args:
        record: of a run with ranks.
        changes: lines of its log, in order: step, site, before, after.
    """
    ranks, steps = dict(record.ranks or {}), {}
    events = list(changes)
    for event in reversed(events):  # back to the start
        ranks[event["site"]] = event["before"]
    kinds = {site: parse_site(site)[1] for site in ranks}
    steps[-1] = dict(ranks)
    for event in events:
        ranks[event["site"]] = event["after"]
        steps[event["step"]] = dict(ranks)
    table = pd.DataFrame.from_dict(steps, orient="index").sort_index()
    return table.T.groupby(pd.Series(kinds), sort=True).mean().T


def _mean_history(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean of runs, as long rows kind, step, rank, n; none where nothing changes after step 0."""
    if not tables or max(table.index.max() for table in tables) < 1:
        return pd.DataFrame()
    steps = sorted({step for table in tables for step in table.index})
    whole = sum(table.reindex(steps).ffill() for table in tables) / len(tables)
    return (
        whole.rename_axis("step").reset_index().melt("step", var_name="kind", value_name="rank").assign(n=len(tables))
    )
