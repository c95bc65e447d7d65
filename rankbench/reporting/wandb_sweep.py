"""A finished sweep on Weights & Biases: `rankbench report --wandb experiment=X [results_dir=DIR]`.

Each record with its steps becomes a W&B run of the same id, as `tracking=wandb` would have made it: repeating it is
harmless. Online, with the extra rankbench[dashboard], a workspace shows them in the panels of a report.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from rankbench.analysis.labels import colour
from rankbench.analysis.metrics import higher_is_better
from rankbench.files import write_atomically
from rankbench.records import run_folder
from rankbench.records.record import PHASES, RunRecord
from rankbench.records.run_folder import RunFolder
from rankbench.studies import study
from rankbench.studies.study import Curve
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import SweepError
from rankbench.tracking.series import names
from rankbench.tracking.wandb_run import Wandb, first_line, leave, warn

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

FOLDER = "wandb"  # as W&B calls it, in the results folder


@dataclass(frozen=True)
class MirrorRequest:
    """What is to be mirrored.

    Attributes:
        title: title of the sweep; the tag of its runs and the name of its workspace.
        curves: run_id -> rank total over the steps, for runs whose own steps are not there.
        metrics: columns of the frame of runs ("test/accuracy") that the report shows.
        problems: sentences on files that could not be read.
    """

    title: str
    records: list[RunRecord]
    curves: Mapping[str, Curve]
    metrics: list[str]
    problems: list[str]


@dataclass
class MirrorResult:
    """How many runs were mirrored, how many had only a record, whose project it is, and the run_ids of failures."""

    online: int = 0
    offline: int = 0
    stepless: int = 0
    entity: str | None = None
    failed: list[str] = field(default_factory=list)


def request_of(words: Sequence[str]) -> MirrorRequest:
    """What to mirror: the sweep that words name (see `study.load`), a results folder, or a JSON-lines file of records.

    Raises:
        SweepError: there is none, or it holds no record.
    """
    named = [word for word in words if not word.startswith("results_dir=")]
    path = Path(named[0]).resolve() if len(named) == 1 and "=" not in named[0] else None
    if path and path.exists() and not (path / manifest.FILE).is_file():
        records, problems = run_folder.records(path)
        request = MirrorRequest((path.parent if path.is_file() else path).name, records, {}, _tests(records), problems)
    else:
        named_study = study.load(named if path else words)
        records = list(named_study.records.values())
        metrics_shown = named_study.sweep.experiment.report.metrics if named_study.sweep.experiment else {}
        metrics = list(dict.fromkeys(metrics_shown.values())) or _tests(records)
        request = MirrorRequest(named_study.sweep.name, records, named_study.curves, metrics, named_study.problems)
    if not request.records:
        raise SweepError(f"{request.title}: no record to mirror; {'; '.join(request.problems) or 'no run has ended'}")
    return request


def _tests(records: Sequence[RunRecord]) -> list[str]:
    measured = (name for record in records for name in ((record.metrics or {}).get("test") or {}))
    return [f"test/{name}" for name in dict.fromkeys(measured) if name != "step"]


def mirror(
    records: Sequence[RunRecord],
    results_dir: Path,
    settings: Any,
    tags: tuple[str, ...] = (),
    curves: Mapping[str, Curve] | None = None,
) -> MirrorResult:
    """Make a W&B run of each record; once the service is away, the others are made offline.

    Args:
        results_dir: folder of runs/<run_id>/steps.jsonl, if they exist; wandb/ is made there.
        settings: the `tracking` section.
        curves: run_id -> rank totals, for runs without steps.
    """
    done, settings = MirrorResult(), SimpleNamespace(**settings)
    for record in records:
        folder = RunFolder(results_dir, record.run_id)
        steps = folder.lines("steps.jsonl")
        rows = steps or [{"step": step, "ranks": ranks} for step, ranks in (curves or {}).get(record.run_id, ())]
        done.stepless += not rows
        for earlier in (results_dir / FOLDER).glob(f"*run-*-{record.run_id}"):
            shutil.rmtree(earlier)
        try:
            run = Wandb(settings, record.run_id, record.config, results_dir, tags, False, folder, best_ends(record))
            for row in rows:
                run.step(row)
            run.finish(record, more=True)
        except Exception as error:  # whatever it is: the others are still to be made
            warn(f"{record.run_id}: {first_line(error)}. The others are mirrored offline")
            done.failed.append(record.run_id)
            settings.mode = "offline"
        else:
            if run.run.offline:
                done.offline, settings.mode = done.offline + 1, "offline"
            else:
                done.online, done.entity = done.online + 1, run.run.entity
    leave()
    return done


def best_ends(record: RunRecord) -> dict[str, Literal["min", "max"]]:
    """Whether the smallest or the largest is best of each metric of a record, by the mirror's names, where known."""
    directions = {
        f"eval/{split}/{name}": higher_is_better(name)
        for split, values in (record.metrics or {}).items()
        for name in values or ()
    }
    return {name: "max" if higher else "min" for name, higher in directions.items() if higher is not None}


def show(wanted: MirrorRequest, done: MirrorResult, project: str, results_dir: Path) -> str:
    """Save the workspace if possible; return a sentence on it."""
    if done.entity is None:
        return "no workspace: it needs a key (wandb login, or WANDB_API_KEY) and the service"
    if importlib.util.find_spec("wandb_workspaces") is None:
        return "no workspace: it needs pip install 'rankbench[dashboard]'"
    built = workspace(wanted.title, wanted.records, wanted.metrics, done.entity, project)
    try:
        return f"workspace: {save(built, results_dir / FOLDER)}"
    except Exception as error:  # whatever the service says: the runs are there, and this can be repeated
        return f"no workspace: {first_line(error)}; repeat this, the runs stay as they are"


# A group differs in the seed alone: nothing else is averaged.
OVER_SEEDS = {"groupby": "Group", "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
WHEN = ("start", "peak", "final")


def sections(metrics: Sequence[str]) -> list[Section]:
    """Quality, ranks, budget, cost and training; bars and lines are means over seeds, their bands its extremes."""
    from wandb_workspaces.reports import v2 as wr
    from wandb_workspaces.workspaces import Section

    def bars(title: str, *keys: str) -> Any:
        return wr.BarPlot(title=title, metrics=list(keys), **OVER_SEEDS)

    def lines(title: str, key: str) -> Any:
        return wr.LinePlot(title=title, x="Step", y=[key], **OVER_SEEDS)

    maps = wr.MediaBrowser(title="rank maps", media_keys=["ranks/map"], num_columns=3)
    over_time = wr.MediaBrowser(title="rank maps over time", media_keys=["ranks/over_time"], num_columns=4)
    panels = {
        "Quality": [bars(metric, f"eval/{metric}") for metric in metrics],
        "Ranks": [lines("rank total", "ranks/total"), maps, over_time],
        "Budget": [bars("target, and what was held", "budget/target", *(f"budget/{when}/params" for when in WHEN))],
        "Cost": [
            bars("seconds by phase", *(f"cost/{phase}/seconds" for phase in PHASES)),
            bars("peak memory, bytes", "cost/peak_memory_bytes"),
        ],
        "Training": [lines("loss", "train/loss"), lines("learning rate", "train/learning_rate")],
    }
    return [Section(name=name, panels=plots, is_open=True) for name, plots in panels.items()]


def workspace(title: str, records: Sequence[RunRecord], metrics: Sequence[str], entity: str, project: str) -> Workspace:
    """The workspace of the runs with the tag `title`, not saved; methods have the colours they have everywhere."""
    from wandb_workspaces import workspaces as ws

    colours = {names(record.run_id, record.config)["group"]: colour(record.method) for record in records}
    runs = ws.RunsetSettings(
        filters=ws.And(ws.Tags().isin([title])), groupby=[ws.Metric("Group")], group_colors=colours
    )
    return ws.Workspace(entity=entity, project=project, name=title, sections=sections(metrics), runset_settings=runs)


def save(built: Workspace, folder: Path) -> str:
    """Save a workspace over the one that an earlier call saved; return its address, which `folder` keeps."""
    from wandb_workspaces import workspaces as ws

    file = folder / f"workspace-{built.name}.url"
    if file.is_file():
        saved = ws.Workspace.from_url(file.read_text().strip())
        saved.sections, saved.runset_settings = built.sections, built.runset_settings
        built = saved
    url = str(built.save().url)
    write_atomically(file, f"{url}\n".encode())
    return url
