"""Hydra task function: executes one frozen run under a third-party launcher (joblib, submitit, Ray).

That launcher says where and when; there, ours does the run in a separate process. So the process it hands out may be
used again: memory is the run's own, and a run that exits, crashes or is killed takes nothing with it.
"""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from rankbench.launching import local_pool
from rankbench.launching.jobs import LaunchSettings
from rankbench.launching.progress import announce

if TYPE_CHECKING:
    from omegaconf import DictConfig


def task(composed: DictConfig) -> int:
    """The run of the frozen file that `frozen` names; the rest of the configuration is not read.

    Returns:
        0 if its record says ok, else the exit code of its process.
    """
    multiprocessing.set_start_method("forkserver", force=True)  # joblib's own is no method that a child knows
    os.chdir(HydraConfig.get().runtime.cwd)  # paths are as they were typed
    (ended,) = local_pool.launch([Path(composed.frozen)], _settings())
    announce(ended)
    return ended.exit_code


def _settings() -> LaunchSettings:
    """One job, with the devices of this process as they are now: its fork server may be from before they changed."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return LaunchSettings(slots=1, devices=() if visible is None else (visible,))
