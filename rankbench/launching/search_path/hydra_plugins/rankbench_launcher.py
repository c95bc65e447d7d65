"""The launcher `local` of Hydra: rankbench.launching.local_pool under the name and the settings that Hydra knows it by.

Hydra 1.3 takes plugins from modules of `hydra_plugins` alone; rankbench.config.overrides puts this folder on the path.
It is not on the path of the processes to which other launchers send Hydra's state, so nothing in that state may be
defined here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from rankbench.launching import jobs, local_pool
from rankbench.launching.progress import SweepProgress, stopping

ConfigStore.instance().store(group="hydra/launcher", name="local", node=jobs.LauncherConfig, provider="rankbench")


class LocalLauncher(Launcher):
    """Runs each job in a separate process on this machine."""

    def __init__(self, slots: int | None, timeout: float | None, memory: float | None) -> None:
        self._settings = jobs.LaunchSettings(slots, jobs.devices(), timeout, memory)

    def show_in(self, progress: SweepProgress) -> None:
        """Show the runs of each launch, which is one batch of a sweep, in `progress`."""
        self._progress = progress

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing: the jobs bring what they need."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do the frozen runs; `job_overrides` hold nothing but where each lies.

        A job's exit code is a value, not an error: one that fails stops no other.
        """
        files = [Path(overrides[0].partition("=")[2].strip("'")) for overrides in job_overrides]
        settings = replace(self._settings, threads=jobs.fixed_threads(files))
        rooms = settings.rooms()
        self._progress.use(len(rooms), rooms[0].threads)
        ended = local_pool.launch(files, settings, self._progress.show, stopping, self._progress.start)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=one.exit_code)
            for one, overrides in zip(ended, job_overrides, strict=True)
        ]
