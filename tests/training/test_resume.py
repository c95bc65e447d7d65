"""Killed at any moment and started again, a run ends as if nothing had happened."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from support.harness import configure, folder_of, perform, rows

from rankbench import files
from rankbench.launching.local_pool import start_server
from rankbench.records.run_folder import RunFolder
from rankbench.tasks.planted import Planted
from rankbench.training.engine import Engine
from rankbench.training.run import execute

NOISE = ("peak_memory_bytes",)
FILES = (
    "steps.jsonl",
    "items.jsonl",
    "ranks.jsonl",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
)


def outcome(config, record) -> dict:
    """All that a run leaves, without seconds, memory, paths and the state of the checkout."""
    cost = {phase: {**spent, "seconds": None} for phase, spent in record["cost"].items() if phase not in NOISE}
    settings = {
        **record["config"],
        "results_dir": None,
        "train": {**record["config"]["train"], "checkpoint_every": None},
    }
    provenance = {**record["provenance"], "git_commit": None, "git_dirty": None}
    files = {name: (folder_of(config).path / name).read_bytes() for name in FILES}
    return {**record, "cost": cost, "config": settings, "provenance": provenance, **files}


def differences(one: dict, other: dict) -> list[str]:
    assert set(one) == set(other)
    return [key for key in one if one[key] != other[key]]


class Stopped(BaseException):
    """The end of a process, as far as the code that it stops can tell."""


def stop_after_step(monkeypatch, step: int) -> None:
    append = RunFolder.append

    def stopping(self, name, row):
        append(self, name, row)
        if row.get("step") == step:
            raise Stopped

    monkeypatch.setattr(RunFolder, "append", stopping)


def run_until_stopped(config) -> None:
    with pytest.raises(Stopped):
        execute(config)


METHODS = {
    "lora": ["adapter.dropout=0.3", "train.weight_decay=0.1", "train.micro_batch_size=2"],
    "adalora": [],
    "adalora-loose": ["method=adalora", "method.compact=false", "method.every=3"],
    "igu": [],
    "igu-hard": ["method=igu", "method.prune=hard", "method.sample_count=2"],
    "igu-shared": ["method=igu", "method.estimator=instantaneous", "method.sample_count=3", "method.ema_every=3"],
    "igu-scratch": ["method=igu", "method.stage2=scratch", "method.stage1_share=0.5", "adapter.scale_rule=live"],
    "igu_code": ["method.every=2"],
    "random": [],
}


def arguments(name: str) -> list[str]:
    return [f"method={name.split('-')[0]}", *METHODS[name]]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_run_stopped_after_any_step_goes_on_bit_for_bit(tmp_path, monkeypatch, name):
    whole = configure(tmp_path / "whole", *arguments(name), "train.checkpoint_every=0")
    expected = outcome(whole, perform(whole))
    assert expected["status"] == "ok"
    parts = configure(tmp_path / "parts", *arguments(name), "train.checkpoint_every=4")
    assert folder_of(parts).run_id == folder_of(whole).run_id
    for step in (2, 7, 8, 12):
        with monkeypatch.context() as patch:
            stop_after_step(patch, step)
            run_until_stopped(parts)
        assert folder_of(parts).record() is None
    assert differences(expected, outcome(parts, perform(parts))) == []
    assert not folder_of(parts).checkpoint_file().exists()


def test_a_run_stopped_in_its_last_evaluation_does_not_train_again(tmp_path, monkeypatch):
    whole = configure(tmp_path / "whole", "method=igu")
    expected = outcome(whole, perform(whole))
    parts = configure(tmp_path / "parts", "method=igu", "train.checkpoint_every=5")
    evaluate = Planted.evaluate
    calls = []

    def stopping(self, *rest):
        calls.append(1)
        if len(calls) == 3:
            raise Stopped
        return evaluate(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Planted, "evaluate", stopping)
        run_until_stopped(parts)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "loss", None)  # a training step would fail
        assert differences(expected, outcome(parts, perform(parts))) == []


def test_a_run_stopped_while_it_writes_a_checkpoint_goes_on_from_the_one_before(tmp_path, monkeypatch):
    whole = configure(tmp_path / "whole", "method=adalora")
    expected = outcome(whole, perform(whole))
    parts = configure(tmp_path / "parts", "method=adalora", "train.checkpoint_every=4")
    replaced = []

    def stopping(source, target):
        if Path(target).name == "checkpoint.pt":
            replaced.append(target)
            if len(replaced) == 3:  # the first is that of step 0
                raise Stopped
        shutil.move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", stopping)
        run_until_stopped(parts)
    assert [row["step"] for row in rows(folder_of(parts).path / "steps.jsonl")] == list(range(1, 9))
    assert differences(expected, outcome(parts, perform(parts))) == []


def test_a_resumed_run_says_so_and_forgets_the_steps_after_its_checkpoint(tmp_path, monkeypatch, capsys):
    config = configure(tmp_path, "train.checkpoint_every=4")
    with monkeypatch.context() as patch:
        stop_after_step(patch, 7)
        run_until_stopped(config)
    capsys.readouterr()
    trained = []
    loss = Engine.loss
    monkeypatch.setattr(Engine, "loss", lambda self, *rest: trained.append(1) or loss(self, *rest))
    perform(config)
    assert len(trained) == 12 - 4
    assert f"resuming {folder_of(config).run_id} after step 4" in capsys.readouterr().out
    assert [row["step"] for row in rows(folder_of(config).path / "steps.jsonl")] == list(range(1, 13))


STEPS = 60


def perform_until_killed(config, step: int, delay: float) -> None:
    """Perform the run until its process is killed, `delay` seconds after its first step from `step` on."""
    append = RunFolder.append
    killers = []

    def counting(self, name, row):
        append(self, name, row)
        if row.get("step", 0) >= step and not killers:
            killers.append(threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)))
            killers[0].start()

    RunFolder.append = counting
    perform(config)


def kill_after(config, step: int, delay: float) -> None:
    start_server()
    arguments = (config, step, delay)
    process = multiprocessing.get_context("forkserver").Process(target=perform_until_killed, args=arguments)
    process.start()
    process.join(120)
    code = process.exitcode  # None: it still runs
    process.kill()
    assert code == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), [("igu", 0)])
def test_a_run_killed_at_three_random_moments_ends_with_the_record_of_the_whole_run(tmp_path, capsys, name, seed):
    whole = configure(tmp_path / "whole", *arguments(name), f"train.steps={STEPS}")
    expected = outcome(whole, perform(whole))
    parts = configure(tmp_path / "parts", *arguments(name), f"train.steps={STEPS}", "train.checkpoint_every=5")
    rng = np.random.default_rng(seed)
    for step in sorted(rng.choice(np.arange(2, STEPS - 20), 3, replace=False).tolist()):
        kill_after(parts, step, float(rng.uniform(0, 0.05)))
        assert step <= len(folder_of(parts).lines("steps.jsonl")) < STEPS
        assert folder_of(parts).record() is None
    capsys.readouterr()
    assert differences(expected, outcome(parts, perform(parts))) == []
    assert "resuming" in capsys.readouterr().out


class NoLock:
    """The lock of a file system where locks do nothing."""

    def acquire(self, timeout: float = -1) -> "contextlib.nullcontext[None]":
        return contextlib.nullcontext()

    def release(self) -> None:
        pass


def test_two_processes_at_one_run_where_locks_do_nothing_leave_a_whole_folder(tmp_path, monkeypatch):
    """The other process begins and ends while this one is between two steps."""
    config = configure(tmp_path / "both", "method=random", "train.steps=4", "train.checkpoint_every=1")
    alone = configure(tmp_path / "alone", "method=random", "train.steps=4", "train.checkpoint_every=1")
    expected = outcome(alone, perform(alone))
    monkeypatch.setattr(RunFolder, "_lock", lambda folder: NoLock())
    append, left = RunFolder.append, []

    def interrupted(self, name, row):
        append(self, name, row)
        if row["step"] == 2 and not left:
            left.append(None)
            left[0] = perform(config)

    monkeypatch.setattr(RunFolder, "append", interrupted)
    record = perform(config)
    assert record == left[0]  # the first record stays
    assert without_seconds(outcome(config, record)) == without_seconds(expected)
    both, one = ({file.name for file in folder_of(each).path.iterdir()} for each in (config, alone))
    assert both | {".lock"} == one


def without_seconds(left: dict) -> dict:
    steps = [{**json.loads(line), "seconds": None} for line in left["steps.jsonl"].splitlines()]
    return {**left, "steps.jsonl": steps}
