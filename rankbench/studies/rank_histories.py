"""Ranks over the steps of runs, by kind of site: from their final ranks and the log of their changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rankbench.core.sites import parse_site
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder

FILE = "rank_histories.csv"  # in the folder of a report
LOG = "ranks.jsonl"  # of a run
COLUMNS = ["panel", "arm", "kind", "step", "rank", "n"]
SEEDS = 5  # of an arm in a panel whose logs are read


def rank_histories(runs: Mapping[tuple[str, str], Sequence[RunRecord]], results_dir: Path) -> pd.DataFrame:
    """Frame of COLUMNS: mean rank of a kind of site over n runs from each step on, of arms that change it in training.

    Args:
        runs: name of a panel and arm -> records of its runs that are ok.
        results_dir: folder that has the runs.
    """
    parts = []
    for (panel, arm), records in runs.items():
        moving = [record for record in records if record.ranks and record.history_events][:SEEDS]
        tables = [by_kind(record, RunFolder(results_dir, record.run_id).lines(LOG)) for record in moving]
        parts += [part.assign(panel=panel, arm=arm) for part in [_mean_history(tables)] if len(part)]
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def by_kind(record: RunRecord, changes: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Mean rank of each kind of site, a row for each step with a change and for the start, at step -1.

    Args:
        record: of a run with ranks.
        changes: lines of its log, in order: step, site, before, after.
    """
    ranks = dict(record.ranks or {})
    events = list(changes)
    for event in reversed(events):  # back to the start
        ranks[event["site"]] = event["before"]
    kinds = {site: parse_site(site)[1] for site in ranks}
    steps = {-1: dict(ranks)}
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
    whole = pd.concat([table.reindex(steps).ffill() for table in tables]).groupby(level=0).mean()
    return (
        whole.rename_axis("step").reset_index().melt("step", var_name="kind", value_name="rank").assign(n=len(tables))
    )


def load(folder: Path) -> pd.DataFrame | None:
    """Those in the folder of a report; None without any."""
    return pd.read_csv(folder / FILE) if (folder / FILE).is_file() else None


def save(histories: pd.DataFrame | None, folder: Path) -> None:
    """Write what `load` reads; without rows there is no file."""
    (folder / FILE).unlink(missing_ok=True)
    if histories is not None and len(histories):
        histories.to_csv(folder / FILE, index=False)
