"""Plans before a sweep and its status during it, on made-up records; nothing is run here."""

from __future__ import annotations

import json

import pytest
from support.harness import write_experiment
from support.records import record
from support.schedules import Played, finish

from rankbench.analysis.run_costs import from_records
from rankbench.cli import main
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import PHASES
from rankbench.records.run_folder import RunFolder
from rankbench.sweeps import manifest
from rankbench.sweeps.composition import lay_out, words


@pytest.fixture
def config_dir(tmp_path, monkeypatch):
    """Of the small experiment; its results lie in the folder that is current."""
    monkeypatch.chdir(tmp_path)
    return write_experiment(tmp_path / "conf")


def planned(capsys, *arguments: str) -> dict[str, list[str]]:
    """Arm -> the other columns."""
    assert main(["plan", *arguments, "futile=allow"]) == 0  # two seeds of four arms
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return {row[0]: [cell for cell in row[1:] if cell.strip()] for row in rows}


def test_before_the_first_run_the_trials_are_named_and_what_waits_for_them(config_dir, capsys):
    found = planned(capsys, "experiment=small", "--config-dir", str(config_dir))
    assert found["lora (trials)"][:2] == ["2", "0"]
    assert [found[arm][:2] for arm in ("lora", "random", "random permuted", "random reversed")] == [["2", "0"]] * 4
    assert found["lora"][2:4] == ["5,632", "5,568"]  # less than one rank is left over
    assert found["lora"][4] == "not known"
    assert found["all"][-1] == "not known"
    assert not (config_dir.parent / "results").exists()


def test_the_words_of_a_sweep_may_come_with_its_flag(config_dir, capsys):
    typed = ["experiment=small", "--config-dir", str(config_dir)]
    assert planned(capsys, "-m", *typed) == planned(capsys, *typed)


def test_of_a_sweep_that_has_ended_nothing_is_left(config_dir, capsys):
    played = Played(lay_out(words(["experiment=small"]), config_dir), config_dir.parent / "results")
    found = planned(capsys, "--config-dir", str(config_dir), "experiment=small")
    count = str(len(played.frozen_runs))
    assert found["all"][:2] == [count, count]
    assert found["random permuted (trials)"][:2] == ["4", "4"]


def test_the_time_of_a_run_is_the_mean_of_those_of_its_method_else_of_its_kind():
    train = {"batch_size": 4, "micro_batch_size": None, "threads": 1}

    def config(method: str, steps: int) -> dict:
        named = {"model": {"name": "tiny"}, "task": {"name": "planted"}, "method": {"name": method}}
        return {**named, "train": {**train, "steps": steps}}

    def spent(method: str, seconds: float):
        phases = {phase: {"seconds": seconds} for phase in PHASES}
        return record(method, 0, config=config(method, 10), cost=phases)

    cost = from_records([spent("lora", 1.0), spent("lora", 3.0), spent("random", 5.0)])
    assert cost(config("lora", 20)) == pytest.approx(4.0 + 0.4 * 20)  # 2 s a phase; two of them by the step
    assert cost(config("igu", 20)) == pytest.approx(6.0 + 0.6 * 20)
    assert cost({**config("lora", 20), "task": {"name": "gsm8k"}}) is None


def test_what_failed_takes_no_time_unless_it_is_to_be_done_again(config_dir, capsys):
    layout = lay_out(words(["experiment=small", "arms=[lora]", "tune.widen=0"]), config_dir)
    played = Played(layout, config_dir.parent / "results")
    (first, _) = played.jobs("lora")
    finish(FrozenRun(first.run_id, played.config(first), ""), status="nan")
    typed = ["experiment=small", "arms=[lora]", "tune.widen=0", "--config-dir", str(config_dir)]
    (runs, done, *_, left) = planned(capsys, *typed)["lora"]
    assert (runs, done, left) == ("2", "1", "0 s")
    assert planned(capsys, *typed, "retry=failed")["lora"][-1] != "0 s"


def test_a_design_that_can_tell_nothing_is_refused_by_plan_and_sweep_alike(config_dir, capsys):
    typed = ["experiment=small", "--config-dir", str(config_dir)]
    assert main(["plan", *typed]) == 2
    planned = capsys.readouterr()
    assert "power at the smallest effect of interest, and seeds for 80 %" in planned.out
    refusal = planned.err.splitlines()[-1]
    assert refusal.strip().startswith("experiment=small: 2 seeds are too few for 4 comparisons: even an effect of 2 ")
    assert refusal.endswith("or ask for it by name: futile=allow")
    assert main(["-m", *typed]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == refusal
    assert not (config_dir.parent / "results").exists()


def test_mistakes_are_told_and_nothing_is_planned(capsys):
    assert main(["plan", "experiment=igu_ablatio"]) == 2
    assert "experiment=igu_ablatio: unknown experiment; " in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- status


@pytest.fixture
def played(config_dir):
    found = Played(lay_out(words(["experiment=small", "arms=[lora]"]), config_dir), config_dir.parent / "results")
    manifest.save(found.sweep, config_dir.parent / "results")
    return found


def test_a_status_counts_states_and_names_failures_with_their_log(played, capsys):
    assert main(["status"]) == 0
    failed, running, gone = played.jobs("lora", trial=True)
    place = RunFolder(played.frozen_runs[failed.run_id].folder.path.parent.parent, failed.run_id)
    finish(played.frozen_runs[failed.run_id], status="nan")
    (place.path / "log.txt").write_text("what it printed")
    (played.frozen_runs[gone.run_id].folder.path / "record.json").unlink()
    with played.frozen_runs[running.run_id].folder.open():
        (played.frozen_runs[running.run_id].folder.path / "record.json").unlink()
        assert main(["status"]) == 1
    out = capsys.readouterr().out
    assert "| lora (trials) |  | 1 | 1 | 1 |  |" in out.splitlines()
    assert f"nan: lora (trial), rate 0.001, seed 100  {failed.run_id}" in out
    assert f"log: {place.path / 'log.txt'}" in out


def test_a_sweep_without_a_job_is_not_done(played, config_dir, capsys):
    file = manifest.folder(config_dir.parent / "results", played.sweep.sweep_id) / manifest.FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "jobs": []}))
    assert main(["status"]) == 1
    assert main(["status", "experiment=other"]) == 2
