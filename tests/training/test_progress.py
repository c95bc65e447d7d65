"""The progress display agrees with the record and fits the width of the terminal."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from support.harness import configure, perform, prepared

from rankbench import terminal
from rankbench.launching import progress
from rankbench.records.record import RunRecord
from rankbench.tasks.text.tokens import LISTENERS, counting, length_groups
from rankbench.training import progress as run_progress
from rankbench.training.progress import EvaluationProgress, TrainingProgress, rank_map, summarize

RANKS = {f"model.layers.{layer}.{kind}": 10 * layer + site for layer in range(30) for site, kind in enumerate("qkvo")}


def shown(monkeypatch, record: RunRecord, width: int = 100) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    monkeypatch.setattr(run_progress, "console", lambda: out)
    summarize(record, "results/runs/0123456789ab")
    return out.file.getvalue()


def record(**changes) -> RunRecord:
    spent = {"seconds": 12.34, "forward_passes": 60, "backward_passes": 59, "tokens": 9}
    nothing = {"seconds": 0.0, "forward_passes": 0, "backward_passes": 0, "tokens": 0}
    given = {
        "run_id": "0123456789ab",
        "status": "ok",
        "reason": None,
        "method": "igu",
        "model": "tiny",
        "task": "planted",
        "budget": "r4",
        "seed": 3,
        "config": {},
        "provenance": {},
        "ledger": {
            "unit": "params",
            "target": 5632,
            "start": {"ranks": 77, "params": 11264},
            "peak": {"ranks": 78, "params": 11300},
            "final": {"ranks": 39, "params": 5600},
            "head_params": 1234,
        },
        "ranks": {"model.layers.0.q": 3, "model.layers.1.q": 5},
        "metrics": {
            "before": {"step": 0, "loss": 0.5},
            "validation": {"step": 60, "loss": 0.25, "accuracy": None},
            "test": {"step": 60, "loss": 0.125, "accuracy": 0.75},
        },
        "cost": {"training": spent, "allocation": nothing, "peak_memory_bytes": 3 * 2**20},
    }
    return RunRecord(**{**given, **changes})


def test_the_summary_shows_what_the_record_says(monkeypatch):
    text = shown(monkeypatch, record())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "igu on tiny, planted, budget r4, seed 3 ok" in lines
    assert "metric validation before (step 0) validation (step 60) test (step 60)" in lines
    assert "loss 0.5000 0.2500 0.1250" in lines
    assert "accuracy 0.7500" in lines  # not measured is blank, not 0
    assert "budget: asked 5,632 params, got start 11,264, peak 11,300, final 5,600; head 1,234 apart" in lines
    assert "cost (forward+backward): training 12.3 s (60+59 passes); peak memory 3 MiB" in lines
    assert "q 3 5 4.0" in lines
    assert "record: results/runs/0123456789ab/record.json" in lines


def test_a_failed_run_shows_why_and_what_there_is(monkeypatch):
    text = shown(monkeypatch, record(status="nan", reason="loss is nan at step 3 [sic]", ranks=None, metrics=None))
    assert "nan" in text
    assert "loss is nan at step 3 [sic]" in text
    assert "rank by layer" not in text
    assert "metric" not in text
    bare = shown(
        monkeypatch, record(status="error", reason="no data", ranks=None, metrics=None, ledger=None, cost=None)
    )
    assert "no data" in bare
    assert "budget:" not in bare


def test_notes_stand_under_a_heading(monkeypatch):
    text = shown(monkeypatch, record(notes=["layerdrop set to 0", "12 sites [of rank 1] skipped"]))
    lines = text.splitlines()
    assert lines[lines.index("notes") + 1 :][:2] == ["  layerdrop set to 0", "  12 sites [of rank 1] skipped"]
    assert "notes" not in shown(monkeypatch, record())


def drawn(ranks: dict[str, int], width: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    out.print(rank_map(ranks, width))
    return out.file.getvalue().splitlines()


def test_the_rank_map_has_every_layer_where_there_is_room():
    head, *body = (line.split() for line in drawn(RANKS, 200))
    assert head == ["rank", "by", "layer", *(str(layer) for layer in range(30)), "mean"]
    assert body[2] == ["v", *(str(10 * layer + 2) for layer in range(30)), "147.0"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_the_rank_map_narrows_to_the_width(width):
    lines = drawn(RANKS, width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 5  # a row per kind, none of them wrapped
    assert not any("…" in line for line in lines)
    assert [line.split()[-1] for line in lines[1:]] == ["145.0", "146.0", "147.0", "148.0"]


def test_neighbouring_layers_are_averaged():
    head, row = drawn({f"layers.{layer}.q": layer for layer in range(12)}, 31)
    assert head.split() == ["rank", "by", "layer", "0", "6", "mean"]
    assert row.split() == ["q", "2", "8", "5.5"]


def test_kinds_that_some_layers_lack_and_sites_outside_the_layers():
    lines = drawn({"layers.0.q": 1, "layers.1.q": 2, "layers.1.up": 7, "pooler": 4}, 80)
    assert lines == [
        "rank by layer 0 1 - mean",
        "q             1 2    1.5",
        "up              7    7.0",
        "pooler            4  4.0",
    ]
    narrow = drawn({**{f"layers.{layer}.q": layer for layer in range(12)}, "pooler": 4}, 31)
    assert [line.split() for line in narrow] == [
        ["rank", "by", "layer", "0", "-", "mean"],
        ["q", "6", "5.5"],
        ["pooler", "4", "4.0"],
    ]
    assert drawn({"pooler": 4}, 80) == ["rank by layer - mean", "pooler        4  4.0"]


def test_without_a_terminal_progress_is_a_line_every_tenth(capsys):
    with TrainingProgress("igu", 40, 0, True) as progress:
        for step in range(1, 41):
            progress.show({"step": step, "loss": step / 100, "ranks": 7}, 0.5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[0] == "step 1/40  loss 0.0100  rank sum 7  0.50 s/step"
    assert lines[-1] == "step 40/40  loss 0.4000  rank sum 7  0.50 s/step"


def test_other_processes_are_silent(capsys):
    with TrainingProgress("igu", 4, 0, False) as progress:
        progress.show({"step": 1, "loss": 0.1, "ranks": 7}, 0.5)
    assert capsys.readouterr().out == ""


def test_on_a_terminal_progress_is_a_bar_with_loss_rate_and_time_left(monkeypatch):
    out = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(run_progress, "console", lambda: out)
    with TrainingProgress("igu", 40, 30, True) as progress:
        progress.show({"step": 31, "loss": 0.125, "ranks": 77}, 0.5)
        progress._progress.refresh()
        text = out.file.getvalue()
    for part in ("igu", "31/40", "loss 0.1250", "rank sum 77", "0.50 s/step", "left"):
        assert part in text


def test_a_run_shows_its_own_record(tmp_path, capsys):
    config = configure(tmp_path, "method=adalora")
    found = perform(config)
    text = " ".join(capsys.readouterr().out.split())
    ledger = found["ledger"]
    assert f"asked {ledger['target']:,} params, got start {ledger['start']['params']:,}" in text
    assert f"final {ledger['final']['params']:,}" in text
    kl = [f"{found['metrics'][split]['kl']:.4f}" for split in ("before", "validation", "test")]
    assert f"kl {' '.join(kl)}" in text
    assert f"map_overlap {found['metrics']['test']['map_overlap']:.4f}" in text
    down = [found["ranks"][f"model.layers.{layer}.mlp.down_proj"] for layer in (0, 1)]
    assert f"mlp.down_proj {down[0]} {down[1]} {sum(down) / 2:.1f}" in text
    assert "evaluating validation at step 0 (8 examples) evaluating validation at step 12 (8 examples)" in text
    assert prepared(config).folder.record().status == "ok"


# ------------------------------------------------------------------------------------------------------------ a sweep


def test_who_asks_to_stop_is_told_what_happens(capsys):
    progress.stopping(1)
    progress.stopping(2)
    once, twice = capsys.readouterr().out.splitlines()
    assert once == "no more runs are started; those that run are finished, Ctrl-C again stops them"
    assert twice == "stopping; the same command goes on from here"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (5999, "100 min"),
        (6000, "1.7 h"),
        (172800, "2.0 days"),
        (1e6, "11.6 days"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert terminal.duration(seconds) == said


def test_a_long_evaluation_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    clock = iter([0.0, 15.0, 30.0, 45.0, 60.0, 70.0, 90.0, 100.0, 110.0])
    monkeypatch.setattr(run_progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with EvaluationProgress("test", 8, visible=True) as progress, counting(progress.show):
        for _ in range(2):  # the losses, then the answers
            assert len(list(length_groups([5] * 8, 2))) == 4
    assert not LISTENERS
    assert capsys.readouterr().out.splitlines() == [
        "evaluating test (8 examples)",
        "test 4/8  about 30 s left",
        "test 2/8  about 30 s left",
        "test 6/8  about 13 s left",
    ]


def test_an_evaluation_has_a_bar_on_a_terminal_and_nothing_in_other_processes(capsys, monkeypatch):
    out = Console(file=io.StringIO(), width=80, force_terminal=True)
    monkeypatch.setattr(run_progress, "console", lambda: out)
    with EvaluationProgress("test", 8, visible=True) as progress:
        progress.show(4, 8)
    assert "4/8" in out.file.getvalue()
    with EvaluationProgress("test", 8, visible=False) as progress:
        progress.show(4, 8)
    assert out.file.getvalue().count("evaluating") == 1
    assert capsys.readouterr().out == ""
