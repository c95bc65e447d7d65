"""A frozen run: stored on disk, executed in this process, and executed in a process that cannot even start."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.harness import freeze

from rankbench.launching import local_pool, worker
from rankbench.launching.jobs import LaunchSettings, SlotResources
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.run_folder import HELD_UP


def test_an_order_comes_back_and_says_where_its_run_is(tmp_path):
    file = freeze(tmp_path, "train.steps=1", results=tmp_path / "results")
    frozen = FrozenRun.read(file)
    assert frozen.folder.path == tmp_path / "results" / "runs" / frozen.run_id
    again = replace(frozen, title="seed=0", redo="of another attempt")
    again.write(file)
    assert FrozenRun.read(file) == again
    before = file.stat().st_ino
    again.write(file)
    assert file.stat().st_ino == before  # it was there already
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_run_is_done_once_and_a_failed_one_again_if_it_is_told_to(tmp_path, capsys):
    frozen = FrozenRun.read(freeze(tmp_path, "train.steps=1"))
    assert worker.perform(frozen) == 0
    record = frozen.folder.path / "record.json"
    before = record.read_bytes()
    assert worker.perform(frozen) == 0
    assert record.read_bytes() == before
    assert "(done already" in " ".join(capsys.readouterr().out.split())
    frozen.folder.write_record(replace(frozen.folder.record(), status="nan", reason="made up"))
    failed = record.read_bytes()
    assert worker.perform(frozen) == 1
    assert record.read_bytes() == failed
    assert worker.perform(replace(frozen, redo=frozen.folder.record().digest())) == 0
    assert json.loads(record.read_bytes())["metrics"] == json.loads(before)["metrics"]


def test_what_was_frozen_is_what_is_done(tmp_path):
    """Its configuration is not composed again: one that no file has is taken as it is."""
    frozen = FrozenRun.read(freeze(tmp_path, "train.steps=1"))
    config = {**frozen.config, "task": {**frozen.config["task"], "test_size": 3}}
    changed = replace(frozen, config=config)
    assert worker.perform(changed) == 0
    (file,) = tmp_path.glob("runs/*/record.json")
    assert json.loads(file.read_text())["config"] == config


def test_a_folder_that_cannot_be_used_holds_its_run_up_and_no_other(tmp_path):
    (tmp_path / "results").write_text("a file")
    files = [freeze(tmp_path, "train.steps=1", results=tmp_path / "good"), freeze(tmp_path, "train.steps=2")]
    blocked = replace(
        FrozenRun.read(files[1]), config={**FrozenRun.read(files[1]).config, "results_dir": str(tmp_path / "results")}
    )
    blocked.write(files[1])
    good, held = local_pool.launch(files, LaunchSettings())
    assert good.record.status == "ok"
    assert (held.record, held.code) == (None, 1)
    assert (tmp_path / "results").read_text() == "a file"


def test_a_checkpoint_of_another_run_holds_its_run_up(tmp_path):
    """Nothing in the folder is touched: no record of ours either."""
    file = freeze(tmp_path, "train.steps=2", "train.checkpoint_every=1")
    frozen = FrozenRun.read(file)
    frozen.folder.path.mkdir(parents=True)
    torch.save({"run_id": "0123456789ab"}, frozen.folder.checkpoint_file())
    before = frozen.folder.checkpoint_file().read_bytes()
    (held,) = local_pool.launch([file], LaunchSettings())
    assert (held.record, held.code) == (None, HELD_UP)
    assert "is a checkpoint of another config (run 0123456789ab" in " ".join(held.log.read_text().split())
    assert frozen.folder.checkpoint_file().read_bytes() == before


@pytest.mark.parametrize(("sharing", "share"), [(1, None), (2, 0.4), (4, 0.15)])
def test_a_job_keeps_to_its_share_of_a_device(monkeypatch, sharing, share):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    seen = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=10 * 2**30))
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda fraction: seen.append((os.environ["CUDA_VISIBLE_DEVICES"], pytest.approx(fraction))),
    )
    worker._settle(SlotResources("3", sharing=sharing))
    assert seen == ([] if share is None else [("3", share)])  # its device is visible before CUDA is asked
