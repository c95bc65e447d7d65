"""What a terminal and a pipe show of a sweep, on made-up records; nothing is run here."""

from __future__ import annotations

import re

import pytest
from support.harness import write_experiment
from support.schedules import Played, finish

from rankbench.launching import driver
from rankbench.launching.jobs import JobOutcome
from rankbench.launching.progress import SweepProgress
from rankbench.records.frozen_run import FrozenRun
from rankbench.sweeps.composition import Layout, lay_out, words
from rankbench.sweeps.run_titles import RunTitles


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    """Two arms at two seeds, each with trials of its learning rate; its results lie in the folder that is current."""
    monkeypatch.chdir(tmp_path)
    return lay_out(words(["experiment=small", "arms=[lora,random]"]), write_experiment(tmp_path / "conf"))


def begun(layout: Layout, results, kill_after: int) -> tuple[Played, SweepProgress]:
    """A sweep of which some runs are done, and its progress."""
    played = Played(layout, results, kill_after=kill_after)
    progress = SweepProgress(lambda task: "test/loss")
    titles = RunTitles(map(driver._job_of, layout.cells))
    progress.plan(driver._planned(played.schedule, titles), more=True)
    progress.use(2, None)
    return played, progress


def end(progress: SweepProgress, frozen: FrozenRun, seconds: float = 10.0) -> None:
    progress.start(frozen)
    record = frozen.folder.record()
    progress.show(JobOutcome(frozen, record, seconds, 0 if record.status == "ok" else 1))


def table(progress: SweepProgress, capsys) -> list[str]:
    progress._out.print(progress._table())
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out).splitlines()]


def test_in_a_pipe_each_run_has_a_short_line_that_counts_the_whole_sweep(layout, tmp_path, capsys):
    played, progress = begun(layout, tmp_path / "results", kill_after=2)
    first, second, *_ = played.frozen_runs.values()
    end(progress, first)
    end(progress, second)
    head, one, _ = capsys.readouterr().out.splitlines()
    total = len(progress._runs)
    assert total > 4  # the reported runs that wait for their learning rates among them
    assert head == f"{total}+ runs, 2 at a time"
    assert one.startswith(f"[1/{total}+] ok        lora (trial), rate 0.001, seed 100  10 s  (about ")
    assert "=" not in one


def test_the_time_left_is_that_of_the_whole_sweep(layout, tmp_path):
    played, progress = begun(layout, tmp_path / "results", kill_after=1)
    end(progress, next(iter(played.frozen_runs.values())))
    assert progress._left() == pytest.approx(10.0 * (len(progress._runs) - 1) / 2, rel=0.05)


def test_a_failure_comes_with_its_reason_and_log(layout, tmp_path, capsys):
    played, progress = begun(layout, tmp_path / "results", kill_after=1)
    frozen = next(iter(played.frozen_runs.values()))
    finish(frozen, status="nan")
    end(progress, frozen)
    assert capsys.readouterr().out.splitlines()[-1] == f"    log: {frozen.folder.path / 'log.txt'}"


def test_on_a_terminal_a_table_has_a_row_for_each_arm_with_the_state_of_its_runs(layout, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    played, progress = begun(layout, tmp_path / "results", kill_after=None)
    runs = {job.run_id: job for batch in played.batches for job in batch}
    capsys.readouterr()
    with progress:
        progress.use(2, None)
        for frozen in played.frozen_runs.values():
            if runs[frozen.run_id].arm == "lora":
                end(progress, frozen)
        trial = played.jobs("random", trial=True)[0]
        progress.start(played.frozen_runs[trial.run_id])
    shown = capsys.readouterr().out
    assert "●" in shown  # while it runs
    assert "] ok " not in shown
    lines = table(progress, capsys)
    rows = {line[:16].strip(): line[16:].split() for line in lines}
    assert lines[0].split() == ["arm", "runs", "done", "mean", "so", "far"]
    trials = len(played.jobs("lora", trial=True))
    assert rows["lora (trials)"] == ["●" * trials, f"{trials}/{trials}"]
    assert rows["lora"] == ["●●", "2/2", "validation", "loss", "↓", "0", "±", "0"]
    assert rows["random (trials)"][0] == "◐" + "·" * (len(played.jobs("random", trial=True)) - 1)
    assert rows["random"] == ["··", "0/2"]
    assert re.fullmatch(rf"{trials + 2} of \d+\+ runs, 2 at a time; 0 s; about \d+ s left", lines[-1])
    assert max(map(len, lines)) <= 80


def test_a_low_terminal_shows_the_rows_that_run(layout, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LINES", "6")
    played, progress = begun(layout, tmp_path / "results", kill_after=None)
    progress.start(played.frozen_runs[played.jobs("random")[0].run_id])
    capsys.readouterr()
    lines = table(progress, capsys)
    assert any(line.startswith("random ") for line in lines)
    assert "and 2 more rows" in lines


def test_titles_name_what_tells_the_runs_apart_and_no_more():
    layout = lay_out(words(["method=lora,igu", "budget=r2,r4", "task=planted", "model=tiny", "seed=0,1"]))
    jobs = [driver._job_of(cell) for cell in layout.cells]
    titles = RunTitles(jobs)
    assert [titles.run(job) for job in jobs[:3]] == ["lora, r2, seed 0", "lora, r2, seed 1", "lora, r4, seed 0"]
    assert {titles.row(job) for job in jobs} == {"lora, r2", "lora, r4", "igu, r2", "igu, r4"}
