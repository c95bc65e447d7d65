"""A W&B workspace with the panels of a report. Needs the extra rankbench[dashboard]; to save it, key and service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.analysis.labels import colour
from rankbench.files import write_atomically
from rankbench.records.record import PHASES, RunRecord
from rankbench.tracking.series import names

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

# A group differs in the seed alone: nothing else is averaged.
OVER_SEEDS = {"groupby": "Group", "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
WHEN = ("start", "peak", "final")


def sections(metrics: Sequence[str]) -> list[Section]:
    """Quality, ranks, budget, cost and training; bars and lines are means over seeds, their bands its extremes.

    Args:
        metrics: columns of the frame of runs, such as "test/accuracy".
    """
    from wandb_workspaces.reports import v2 as wr
    from wandb_workspaces.workspaces import Section

    def bars(title: str, *keys: str) -> Any:
        return wr.BarPlot(title=title, metrics=list(keys), **OVER_SEEDS)

    def lines(title: str, key: str) -> Any:
        return wr.LinePlot(title=title, x="Step", y=[key], **OVER_SEEDS)

    maps = wr.MediaBrowser(title="rank maps", media_keys=["ranks/map"], num_columns=3)
    panels = {
        "Quality": [bars(metric, f"eval/{metric}") for metric in metrics],
        "Ranks": [lines("rank total", "ranks/total"), maps],
        "Budget": [bars("target, and what was held", "budget/target", *(f"budget/{when}/params" for when in WHEN))],
        "Cost": [
            bars("seconds by phase", *(f"cost/{phase}/seconds" for phase in PHASES)),
            bars("peak memory, bytes", "cost/peak_memory_bytes"),
        ],
        "Training": [lines("loss", "train/loss"), lines("learning rate", "train/learning_rate")],
    }
    return [Section(name=name, panels=held, is_open=True) for name, held in panels.items()]


def workspace(title: str, found: Sequence[RunRecord], metrics: Sequence[str], entity: str, project: str) -> Workspace:
    """The workspace of the runs with the tag `title`, not saved; methods have the colours they have everywhere."""
    from wandb_workspaces import workspaces as ws

    colours = {names(record.run_id, record.config)["group"]: colour(record.method) for record in found}
    runs = ws.RunsetSettings(
        filters=ws.And(ws.Tags().isin([title])), groupby=[ws.Metric("Group")], group_colors=colours
    )
    return ws.Workspace(entity=entity, project=project, name=title, sections=sections(metrics), runset_settings=runs)


def save(made: Workspace, folder: Path) -> str:
    """Save a workspace, over the one that an earlier call saved; its address, which `folder` keeps by its name."""
    from wandb_workspaces import workspaces as ws

    file = folder / f"workspace-{made.name}.url"
    if file.is_file():
        known = ws.Workspace.from_url(file.read_text().strip())
        known.sections, known.runset_settings = made.sections, made.runset_settings
        made = known
    url = str(made.save().url)
    write_atomically(file, f"{url}\n".encode())
    return url
