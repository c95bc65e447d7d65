"""The process that jobs are forked from: everything is imported, and nothing runs."""

import gc
import sys
from importlib import reload
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from support.harness import freeze, python

from rankbench.launching import local_pool, preload
from rankbench.launching.jobs import LaunchSettings
from rankbench.training import code_identity, provenance


@pytest.mark.slow
def test_it_can_be_imported():
    """The fork server would not say so: it goes without what cannot be imported."""
    reload(preload)
    assert gc.get_freeze_count() > 100_000  # a job leaves them alone
    gc.unfreeze()
    assert set(preload.LATER) <= set(sys.modules)
    assert torch.cuda._nvml_based_avail()  # a look for a GPU starts no driver, which would be lost to forked processes
    assert provenance.code.cache_info().currsize == 1  # the commit at the start is that of every job
    assert code_identity.own_sources.cache_info().currsize == 1  # and so is the code


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_runs_one_thread_and_outlives_its_jobs(tmp_path):
    files = [freeze(tmp_path, "train.steps=1", f"seed={seed}") for seed in (0, 1)]
    servers = set()
    local_pool.launch(files, LaunchSettings(), lambda ended: servers.add(forkserver._forkserver._forkserver_pid))
    (server,) = servers
    lines = Path(f"/proc/{server}/status").read_text().splitlines()
    assert next(line.split()[1] for line in lines if line.startswith("Threads:")) == "1"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_goes_with_the_process_that_started_it_even_while_it_imports():
    """It holds that one's streams: whoever reads them would wait for imports that nobody needs."""
    code = (
        "from multiprocessing import forkserver as f; from rankbench.launching.local_pool import start_server as start"
    )
    done = python("-c", f"{code}; start(); print(f._forkserver._forkserver_pid)")
    assert done.returncode == 0, done.stderr
    status = Path(f"/proc/{int(done.stdout)}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()
