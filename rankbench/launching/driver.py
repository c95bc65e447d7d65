"""`python -m rankbench -m`: lay the runs out, freeze them, and launch them batch by batch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode

from rankbench.config.overrides import search
from rankbench.config.schema import ConfigError, near
from rankbench.launching import hydra_task, local_pool
from rankbench.launching.progress import PlannedRun, SweepProgress
from rankbench.records.record import RecordError, RunRecord
from rankbench.records.run_folder import RunFolder, collected
from rankbench.sweeps import manifest
from rankbench.sweeps.composition import FrozenCell, describe, lay_out, results_dir_of, words
from rankbench.sweeps.design import designs_of, refuse_futile
from rankbench.sweeps.experiment_files import usual_metric
from rankbench.sweeps.grid import spell
from rankbench.sweeps.manifest import Job, Sweep, SweepError
from rankbench.sweeps.run_titles import RunTitles
from rankbench.sweeps.schedule import SweepSchedule
from rankbench.terminal import console

LAUNCHER, LOCAL = "hydra/launcher", "local"
EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}  # launcher -> extra

Launch = Callable[[Sequence[Path]], None]


def start(
    arguments: Sequence[str],
    config_dir: Path | None = None,
    config_name: str = "config",
    ended: Callable[[Sweep, Path], None] = lambda sweep, results_dir: None,
) -> int:
    """Do every run that is not done.

    Args:
        arguments: words of the sweep and overrides of its runs, as typed.
        config_dir: a folder with more configuration files (--config-dir).
        config_name: name of the primary configuration file.
        ended: called with the sweep and its results folder, after the last run.

    Returns:
        0 if every run of the sweep has status ok, else 1.

    Raises:
        ConfigError: the command line has mistakes, all named, or a futile design; nothing was run.
        KeyboardInterrupt: the user asked to stop.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(["-m: starts its own processes; under accelerate launch give one run at a time"])
    typed = words(arguments)
    if _chosen(typed.hydra) == LOCAL:
        local_pool.start_server()  # it imports while the runs are laid out
    layout = lay_out(typed, config_dir, config_name)
    refuse_futile(designs_of(layout), typed.futile)
    results_dir = results_dir_of(layout)
    header = describe(typed, layout, arguments, results_dir)
    folder = manifest.folder(results_dir, header.sweep_id)
    final: dict[str, str] = {}
    progress = SweepProgress(layout.experiment.report.metric_of if layout.experiment else usual_metric)
    with _launching(typed.hydra, folder, config_dir, config_name, progress) as launch:
        try:
            schedule = SweepSchedule(layout, header, results_dir, typed.retry == "failed")
            titles = RunTitles(map(_job_of, layout.cells))
            with progress:
                _follow(schedule, titles, results_dir, launch, final, progress)
        except Exception:  # of the launcher: a job of it was lost, or could not be started
            _conclude(header, results_dir, final)
            raise
    code = _conclude(header, results_dir, final)
    ended(header, results_dir)
    return code


def _follow(
    schedule: SweepSchedule,
    titles: RunTitles,
    results_dir: Path,
    launch: Launch,
    final: dict[str, str],
    progress: SweepProgress,
) -> None:
    """Launch the runs as they can be frozen, batch by batch.

    Args:
        schedule: freezes them.
        titles: how they are called.
        results_dir: folder of every run.
        launch: does frozen runs.
        final: takes run_id -> status of those that are left as they are, so that their records are read once.
        progress: shows all of them.
    """
    header = schedule.sweep
    folder = manifest.folder(results_dir, header.sweep_id)
    earlier = _earlier(folder)
    _save(header, earlier, results_dir)
    while batch := [schedule.frozen_run(job) for job in schedule.advance()]:
        files = {frozen.run_id: manifest.frozen_file(folder, frozen.run_id) for frozen in batch}
        for frozen in batch:
            frozen.write(files[frozen.run_id])
        _save(header, earlier, results_dir)
        finished = collected(results_dir, [frozen.run_id for frozen in batch])
        for frozen, (_, record) in zip(batch, finished, strict=True):
            if isinstance(record, RunRecord) and record.is_final(frozen.redo):
                final[frozen.run_id] = record.status
                progress.take(frozen.folder.path, record)
        progress.plan(_planned(schedule, titles), more=bool(schedule.sweep.tuned and schedule.left()))
        if todo := [frozen for frozen in batch if frozen.run_id not in final]:
            launch([files[frozen.run_id] for frozen in todo])
    manifest.save(header, results_dir)


def _earlier(folder: Path) -> list[Job]:
    """The jobs of this sweep as it was started before."""
    try:
        return manifest.read(folder).jobs
    except SweepError:
        return []


def _save(header: Sweep, earlier: Sequence[Job], results_dir: Path) -> None:
    """Save the manifest, with jobs of an earlier start that this one has not reached yet: they may be done."""
    reached = {job.run_id for job in header.jobs}
    manifest.save(
        replace(header, jobs=[*header.jobs, *(job for job in earlier if job.run_id not in reached)]), results_dir
    )


def _planned(schedule: SweepSchedule, titles: RunTitles) -> list[PlannedRun]:
    """Every run of a sweep that is known: those that were frozen, and those that wait for other runs."""
    runs = []
    for job in schedule.sweep.jobs:
        frozen = schedule.frozen_run(job)
        runs.append(PlannedRun(titles.row(job), titles.run(job), frozen.config, frozen.folder.path, job.trial))
    for cell in schedule.left():
        job = _job_of(cell)
        runs.append(PlannedRun(titles.row(job), titles.run(job), cell.config, None))
    return runs


def _job_of(cell: FrozenCell) -> Job:
    """A run to be reported as a job, which has no run_id while it cannot be frozen."""
    return Job(cell.arm, "", False, tuple(cell.settings.values()), cell.cell)


def _chosen(words_of_hydra: Sequence[str]) -> str:
    """Name of the launcher."""
    named = [word.partition("=")[2] for word in words_of_hydra if word.startswith(f"{LAUNCHER}=")]
    return named[-1] if named else LOCAL


@contextmanager
def _launching(
    asked: Sequence[str], folder: Path, config_dir: Path | None, config_name: str, progress: SweepProgress
) -> Iterator[Launch]:
    """Set up Hydra's launcher; that of this package shows what becomes of the runs in `progress`.

    Raises:
        ConfigError: no such launcher, or settings that it does not have.
    """
    name = _chosen(asked)
    settings = [word for word in asked if not word.startswith(f"{LAUNCHER}=")]
    overrides = [f"{LAUNCHER}={name}", *settings, spell("hydra.sweep.dir", str(folder / "hydra"))]
    with search(config_dir) as hydra:
        if problem := _missing(name, hydra.config_loader.get_group_options(LAUNCHER)):
            raise ConfigError([problem])
        try:
            config = hydra.compose_config(config_name, overrides, RunMode.MULTIRUN)
            context = HydraContext(hydra.config_loader, Callbacks(config))
            plugin: Any = Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=hydra_task.task, config=config
            )
        except HydraException as error:
            raise ConfigError([f"{' '.join(overrides[:-1])}: {error}"]) from error
        if hasattr(plugin, "show_in"):  # one of another package has none, and may pickle what it holds
            plugin.show_in(progress)
        done = 0

        def launch(files: Sequence[Path]) -> None:
            nonlocal done
            for returned in plugin.launch([[spell("+frozen", str(file.absolute()))] for file in files], done):
                if returned.status is JobStatus.FAILED:
                    console().print(f"{name}: {returned._return_value}", style="red", markup=False)
            done += len(files)

        yield launch


def _missing(name: str, launchers: Sequence[str]) -> str | None:
    """What to do about a launcher that is not here; None where it is."""
    if name in launchers:
        return None
    extra = EXTRAS.get(name)
    return f"{LAUNCHER}={name}: " + (
        f"comes with an extra: pip install 'rankbench[{extra}]'" if extra else f"unknown; {near(name, launchers)}"
    )


def _conclude(header: Sweep, results_dir: Path, final: Mapping[str, str]) -> int:
    """Print how the runs ended and return the exit code; `final`: run_id -> status, as far as known."""
    statuses = Counter(final.get(job.run_id) or _status(job, results_dir) for job in header.jobs)
    ordered = sorted(statuses.items(), key=lambda pair: (pair[0] != "ok", -pair[1], pair[0]))
    counts = ", ".join(f"{count} {status}" for status, count in ordered)
    out = console()
    out.print(f"{len(header.jobs)} runs: {counts or 'none'}")
    for sentence in header.kept_back:
        out.print(sentence, style="yellow", markup=False)
    for sentence in header.changes:
        out.print(f"not as declared: {sentence}", style="yellow", markup=False)
    for sentence in header.waiting:
        out.print(f"not run: {sentence}", style="red", markup=False)
    if len(header.jobs) > statuses["ok"]:
        out.print("rankbench status says which and why; retry=failed does failed runs again", markup=False)
    return 0 if len(header.jobs) == statuses["ok"] and not header.waiting else 1


def _status(job: Job, results_dir: Path) -> str:
    try:
        record = RunFolder(results_dir, job.run_id).record()
    except RecordError:
        return "unreadable"
    return "without record" if record is None else record.status
