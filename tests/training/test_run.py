"""One run, from configuration to record: skipped if finished, repeated if failed, never without a record."""

import json
import math
import os
import resource
import sys
import threading

import pytest
import torch
from support.harness import begun, configure, folder_of, perform, prepared, python, rows

from rankbench.methods.sensitivity import Sensitivity
from rankbench.models import loading
from rankbench.models.errors import ModelError
from rankbench.records.run_folder import HELD_UP, RunFolder
from rankbench.tasks.planted import Planted
from rankbench.terminal import console, outlive_readers
from rankbench.training import run
from rankbench.training.run import Run, execute


def content(config) -> dict[str, bytes]:
    path = folder_of(config).path
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.slow
def test_the_smoke_run_ends_within_twenty_seconds(tmp_path):
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python(
        "-m", "rankbench", "method=lora", "model=tiny", "task=planted", "train=smoke", f"results_dir={tmp_path}"
    )
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = (
        end.ru_utime - start.ru_utime + end.ru_stime - start.ru_stime
    )  # of one thread: the clock of an idle machine
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("runs/*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "ok"
    assert record["run_id"] == file.parent.name
    assert f"record: {file}" in done.stdout
    assert "lora on tiny, planted, budget true_ranks, seed 0  ok" in done.stdout
    assert done.stderr == ""
    assert seconds < 20


def test_a_run_leaves_these_files(tmp_path):
    config = configure(tmp_path, "method=adalora")
    record = perform(config)
    assert set(content(config)) == {
        *(".lock", "record.json", "steps.jsonl", "items.jsonl", "ranks.jsonl"),
        *("adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
    }
    path = folder_of(config).path
    steps, items, ranks = (rows(path / f"{name}.jsonl") for name in ("steps", "items", "ranks"))
    assert [row["step"] for row in steps] == list(range(1, 13))
    keys = {"step", "loss", "penalty", "learning_rate", "gradient_norm", "ranks", "params", "score_updates"}
    assert all(set(row) == keys for row in steps)
    assert steps[-1]["ranks"] == record["ledger"]["final"]["ranks"] < steps[0]["ranks"]
    assert [item["id"] for item in items] == list(range(8))
    assert all(set(item) >= {"id", "gold", "prediction", "correct", "loss"} for item in items)
    assert sum(item["loss"] for item in items) / 8 == pytest.approx(record["metrics"]["test"]["loss"])
    assert len(ranks) == record["history_events"]
    final = {}
    for row in ranks:
        assert set(row) == {"step", "site", "before", "after", "reason"}
        assert final.get(row["site"], row["before"]) == row["before"] != row["after"]
        final[row["site"]] = row["after"]
    assert final.items() <= record["ranks"].items()


def test_a_finished_run_is_not_done_again(tmp_path, capsys):
    config = configure(tmp_path)
    perform(config)
    before = content(config)
    capsys.readouterr()
    assert execute(config) == 0
    assert content(config) == before
    assert "(done already; delete its folder to run it again)" in " ".join(capsys.readouterr().out.split())


def test_a_failed_run_is_a_row_and_is_done_again(tmp_path, monkeypatch):
    config = configure(tmp_path, "train.checkpoint_every=2")

    def fail(self, model, examples, batch_size):
        raise ZeroDivisionError("no metric")

    monkeypatch.setattr(Planted, "evaluate", fail)
    failed = perform(config)
    assert (failed["status"], failed["code"]) == ("error", 1)
    error = folder_of(config).path / "error.txt"
    assert failed["reason"] == f"ZeroDivisionError: no metric (traceback: {error})"
    assert "in fail" in error.read_text()
    assert not folder_of(config).checkpoint_file().exists()
    monkeypatch.undo()
    assert perform(config)["status"] == "ok"
    assert len(rows(folder_of(config).path / "steps.jsonl")) == 12


def test_scores_that_are_not_finite_end_the_run(tmp_path, monkeypatch):
    def calibrate(self, adapters, probe):
        self.scores = dict.fromkeys(adapters.ranks(), math.nan)

    monkeypatch.setattr(Sensitivity, "calibrate", calibrate)
    record = perform(configure(tmp_path, "method=sensitivity"))
    assert record["status"] == "nan"
    assert record["reason"].startswith("method sensitivity scores 14 of 14 sites as NaN or infinite (model.layers.0.")


def test_a_run_whose_reader_has_gone_goes_on(tmp_path, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "__stdout__", pipe)
        outlive_readers()
        record = perform(configure(tmp_path))
        print("nobody reads this", flush=True)
    assert record["status"] == "ok"


def test_a_console_whose_reader_has_gone_says_nothing(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        out = console()
        out.print("a")
        out.print("b")
        assert out.quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # what is left in the buffer


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "oom", "CUDA out of memory. Tried"),
        (MemoryError(), "oom", "out of memory"),
        (ModelError("model.path=x: no such folder"), "error", "model.path=x: no such folder"),
        (RuntimeError("shapes"), "error", "RuntimeError: shapes (traceback: "),
        (ValueError("shapes"), "error", "ValueError: shapes (traceback: "),  # torch's or numpy's: no advice
        (FileNotFoundError(2, "No such file", "x.json"), "error", "[Errno 2] No such file: 'x.json'"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "oom", "CUDA error: CUBLAS_STATUS_ALLOC"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9\nmore"), "oom", "DefaultCPUAllocator: can't all"),
        (SystemExit(0), "error", "it called sys.exit(0) (traceback: "),
        (SystemExit("bye"), "error", "it called sys.exit('bye') (traceback: "),
    ],
)
def test_what_a_failure_is_called(tmp_path, monkeypatch, error, status, reason):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(loading, "load", fail)
    record = perform(configure(tmp_path))
    assert (record["status"], record["code"]) == (status, 1)
    assert record["reason"].startswith(reason)
    assert record["ledger"] is record["ranks"] is record["history_events"] is None
    assert record["metrics"] == {"before": None, "validation": None, "test": None}


def test_an_interrupt_leaves_the_checkpoint_and_no_record(tmp_path, monkeypatch):
    config = configure(tmp_path, "train.checkpoint_every=2")
    calls = []
    loss = Planted.loss

    def interrupt(self, model, batch):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return loss(self, model, batch)

    monkeypatch.setattr(Planted, "loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        execute(config)
    assert set(content(config)) == {".lock", "checkpoint.pt", "steps.jsonl", "started.json"}
    assert folder_of(config).json("started.json")["packages"]["torch"]
    monkeypatch.undo()
    assert perform(config)["status"] == "ok"


def test_a_checkpoint_of_another_config_is_refused_and_kept(tmp_path, capsys, monkeypatch):
    config, other = (
        configure(tmp_path, "train.checkpoint_every=2"),
        configure(tmp_path, "train.checkpoint_every=2", "seed=1"),
    )
    begun(other)
    checkpoint = folder_of(other).checkpoint_file().read_bytes()
    folder_of(config).path.mkdir(parents=True)
    folder_of(config).checkpoint_file().write_bytes(checkpoint)
    capsys.readouterr()
    assert execute(config) == HELD_UP
    said = " ".join(capsys.readouterr().out.split())
    mine, others = folder_of(config).run_id, folder_of(other).run_id
    assert f"is a checkpoint of another config (run {others}, this is {mine}): delete it to start" in said
    assert folder_of(config).checkpoint_file().read_bytes() == checkpoint
    folder_of(config).checkpoint_file().unlink()
    assert perform(config)["status"] == "ok"


def test_a_results_dir_that_became_a_file(tmp_path, capsys):
    config = configure(tmp_path / "results")
    (tmp_path / "results").write_text("a file")
    assert execute(config) == HELD_UP
    said = "".join(capsys.readouterr().out.split("\n"))
    assert f"results_dir cannot be written: {folder_of(config).path}: Not a directory" in said


@pytest.mark.slow
def test_a_results_dir_that_is_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "results").write_text("a file")
    done = python("-m", "rankbench", "method=lora", "model=tiny", "task=planted", f"results_dir={tmp_path}/results")
    assert done.returncode == 2
    assert f"results_dir={tmp_path}/results: cannot be written ({tmp_path}/results: Not a directory)" in done.stderr
    assert "give results_dir=<a folder that you may write to>" in done.stderr


def test_two_processes_do_not_share_a_run(tmp_path, capsys):
    config = configure(tmp_path)
    with RunFolder(tmp_path, folder_of(config).run_id).open():
        capsys.readouterr()
        assert execute(config) == HELD_UP
    assert "another process is working on this run" in " ".join(capsys.readouterr().out.split())
    assert set(content(config)) == {".lock"}


def test_a_record_is_the_same_when_made_twice(tmp_path):
    first, second = (perform(configure(tmp_path / name, "method=igu")) for name in "ab")
    for record in (first, second):
        record["cost"].pop("peak_memory_bytes")
        for phase in record["cost"].values():
            phase.pop("seconds")
        record["config"].pop("results_dir")
    assert first == second


@pytest.mark.slow
def test_methods_are_paired(tmp_path):
    """The same data, order and base model for every method: before any step all have the same loss."""
    records = [
        perform(configure(tmp_path, f"method={name}")) for name in ("lora", "adalora", "igu", "random", "oracle")
    ]
    assert len({record["metrics"]["before"]["loss"] for record in records}) == 1
    assert len({record["run_id"] for record in records}) == 5
    firsts = [rows(tmp_path / "runs" / record["run_id"] / "steps.jsonl")[0]["loss"] for record in records]
    assert len(set(firsts)) == 1


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), Exception("IoError: No space left on device (os error 28)")]
)
def test_a_full_disk_is_not_the_runs_fault(tmp_path, monkeypatch, error):
    """Whoever says so: safetensors has an error of its own for it."""
    config = configure(tmp_path, "train.checkpoint_every=2")

    def fail(*arguments):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(run, "export", fail)
        with pytest.raises(type(error), match="No space left on device"):
            execute(config)
    assert set(content(config)) >= {"checkpoint.pt", "started.json"}
    assert folder_of(config).record() is None
    assert perform(config)["status"] == "ok"


def test_in_a_sweep_a_failed_run_stands_unless_it_is_to_be_redone(tmp_path, monkeypatch, capsys):
    config = configure(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Planted, "evaluate", None)
        failed = perform(config)
    assert failed["status"] == "error"
    before = content(config)
    assert execute(config, sweep=True) == 1
    assert execute(config, sweep=True, redo="of another attempt") == 1
    assert content(config) == before
    assert execute(config, sweep=True, redo=folder_of(config).record().digest()) == 0
    assert execute(config, sweep=True) == 0
    assert "(done already; delete its folder" in " ".join(capsys.readouterr().out.split())


def test_in_a_sweep_a_run_waits_for_the_process_that_is_at_it(tmp_path):
    """And then sees that there is nothing left to do."""
    config = configure(tmp_path)
    whole = perform(config)
    (folder_of(config).path / "record.json").rename(tmp_path / "aside")
    codes = []
    with folder_of(config).open():
        waiting = threading.Thread(target=lambda: codes.append(execute(config, sweep=True)))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        (tmp_path / "aside").rename(folder_of(config).path / "record.json")
    waiting.join(60)
    assert codes == [0]
    assert json.loads((folder_of(config).path / "record.json").read_text()) == {
        key: value for key, value in whole.items() if key != "code"
    }


def test_a_file_that_is_no_record_is_kept_under_another_name(tmp_path, capsys):
    config = configure(tmp_path)
    folder_of(config).path.mkdir(parents=True)
    (folder_of(config).path / "record.json").write_text("{")
    assert perform(config)["status"] == "ok"
    assert (folder_of(config).path / "record.unreadable").read_text() == "{"
    assert "kept as record.unreadable, the run starts anew" in " ".join(capsys.readouterr().out.split())


def test_a_run_does_not_inherit_the_peak_memory_of_the_one_before(tmp_path):
    """In one process, as pools of workers have it."""
    small = perform(configure(tmp_path, "train.steps=1", "task.test_size=1"))
    held = torch.ones(400, 2**18)
    large = perform(configure(tmp_path, "train.steps=1", "task.test_size=2"))
    del held
    last = perform(configure(tmp_path, "train.steps=1", "task.test_size=3"))
    peaks = [record["cost"]["peak_memory_bytes"] / 2**20 for record in (small, large, last)]
    assert 380 < peaks[1] - peaks[0] < 450
    assert abs(peaks[2] - peaks[0]) < 60


def test_the_traceback_of_an_earlier_attempt_goes_away(tmp_path):
    config = configure(tmp_path, "method=lora")
    folder = folder_of(config)
    folder.path.mkdir(parents=True)
    folder.write("error.txt", "of an earlier attempt")
    assert execute(config) == 0
    assert not (folder.path / "error.txt").exists()


@pytest.mark.parametrize(("method", "trained"), [("igu", True), ("full", False)])
def test_the_first_step_does_not_wait_for_an_evaluation_of_the_base(tmp_path, monkeypatch, method, trained):
    """A method that starts at the base model has the same figures before its first step, bit for bit, afterwards."""
    calls = []

    def evaluate(run, split, name, step):
        calls.append((name, run.assembly.trainer.last_loss is not None))
        return evaluation(run, split, name, step)

    evaluation = Run.evaluate
    monkeypatch.setattr(Run, "evaluate", evaluate)
    config = configure(tmp_path, f"method={method}")
    record = perform(config)
    assert calls == [("before", trained), ("validation", True), ("test", True)]
    again = prepared(config)
    again.assembly.complete()
    again.assembly.trainer.calibrate()
    evaluation(again, "validation", "before", 0)
    assert again.metrics["before"] == record["metrics"]["before"] != record["metrics"]["validation"]
