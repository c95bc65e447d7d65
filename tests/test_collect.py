"""Records as a frame and as tables."""

from __future__ import annotations

import sys

import pytest

from rankbench import collect
from rankbench.record import RunRecord


def record(method: str, seed: int, **changes) -> RunRecord:
    figures = {"ranks": 4, "params": 64}
    spent = {"seconds": 2.0, "forward_passes": 3, "backward_passes": 1, "tokens": 10}
    content = {
        "run_id": f"{method}{seed}",
        "status": "ok",
        "reason": None,
        "method": method,
        "model": "tiny",
        "task": "planted",
        "budget": "r1",
        "seed": seed,
        "config": {},
        "provenance": {},
        "ledger": {
            "unit": "params",
            "target": 64,
            "head_params": 0,
            **dict.fromkeys(("start", "peak", "final"), figures),
        },
        "metrics": {"before": {"step": 0, "kl": 0.5}, "validation": None, "test": {"step": 9, "kl": 0.25}},
        "cost": {
            **dict.fromkeys(("calibration", "training", "allocation", "evaluation"), spent),
            "peak_memory_bytes": 2**20,
        },
    }
    return RunRecord(**{**content, **changes})


def test_a_frame_has_a_row_per_run_and_null_for_what_was_not_measured():
    failed = record("igu", 0, status="nan", metrics=None, ledger=None, cost=None)
    frame = collect.frame([record("lora", 0), failed])
    assert frame["test/kl"].tolist()[0] == 0.25
    assert frame["test/kl"].isna().tolist() == [False, True]
    assert frame["final/params"].isna().tolist() == [False, True]
    assert frame["status"].tolist() == ["ok", "nan"]


def test_saved_records_come_back_sorted(tmp_path):
    written = [record("lora", 1), record("igu", 0), record("lora", 0)]
    collect.save(written, tmp_path / "deep" / "records.jsonl")
    found, problems = collect.records(tmp_path / "deep" / "records.jsonl")
    assert problems == []
    assert [(r.method, r.seed) for r in found] == [("igu", 0), ("lora", 0), ("lora", 1)]
    assert found[2] == written[0]


def test_saved_records_name_no_folder_of_this_machine(tmp_path):
    config = {"results_dir": "/home/me/results", "task": {"data_dir": "/data/rte"}, "model": {"path": None}}
    collect.save([record("lora", 0, config=config)], tmp_path / "records.jsonl")
    (found,), _ = collect.records(tmp_path / "records.jsonl")
    assert found.config == {"results_dir": "results", "task": {"data_dir": "rte"}, "model": {"path": None}}


def test_a_foreign_file_is_named_and_not_counted(tmp_path, monkeypatch, capsys):
    for name, text in (("good", record("lora", 0).to_json()), ("torn", '{"run_id": '), ("foreign", '{"a": 1}')):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "record.json").write_text(text)
    monkeypatch.setattr(sys, "argv", ["collect", str(tmp_path)])
    collect.main()
    printed = capsys.readouterr().out
    assert printed.count("not counted: ") == 2
    assert "torn/record.json: not JSON" in printed
    assert "foreign/record.json: not a run record" in printed
    assert "tiny, planted, budget r1: 1 runs" in printed
    assert "| lora | 0 | ok | 0.5000 | 0.2500 | 64 | 64 | 64 | 2 | 2.0 | 2 | 1 | lora0 |" in printed


def test_a_run_that_failed_early_has_a_row_too():
    failed = record("igu", 0, status="error", metrics=None, ledger=None, cost=None)
    lines = collect.table([record("lora", 0), failed], ["test/kl"]).splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("| igu | 0 | error |")


@pytest.mark.parametrize("column", ["before/kl", "test/kl"])
def test_metrics_are_columns(column):
    assert f"| {column} |" in collect.table([record("lora", 0)], [column])
