"""`rankbench.run` and what it returns: a run that was done, one that is found done, and one that failed."""

import gc
import logging
import os
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from support.harness import QUICK
from support.records import record

import rankbench as rb
from rankbench.records.run_folder import RunFolder, StoreError
from rankbench.terminal import console

SITES = {"model.layers.0.self_attn.q_proj": 3, "model.layers.1.self_attn.q_proj": 1, "lm_head": 2}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def finished(results: Path) -> rb.RunResult:
    return rb.run("method=random", QUICK, "train.steps=2", f"results_dir={results}")


def kept(folder: Path, **changes) -> rb.RunResult:
    """A made-up run in a folder."""
    RunFolder.from_path(folder).write_record(record("igu", 0, ranks=SITES, **changes))
    return rb.RunResult.from_folder(folder)


def test_a_run_has_its_record_and_what_its_folder_holds(finished: rb.RunResult, results: Path) -> None:
    assert (finished.status, finished.reason, finished.record.method) == ("ok", None, "random")
    assert finished.folder == results / "runs" / finished.record.run_id
    assert finished.metrics["test/kl"] == finished.record.metrics["test"]["kl"]
    assert finished.steps["step"].tolist() == [1, 2]
    assert finished.history.empty
    assert finished.ranks.to_numpy().sum() == sum(finished.record.ranks.values())
    assert finished.cost.loc["training", "backward_passes"] == 2
    assert finished.adapter == finished.folder / "adapter"
    assert (finished.adapter / "adapter_config.json").is_file()


def test_what_a_run_prints_goes_to_its_log(finished: rb.RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    log = (finished.folder / "log.txt").read_text()
    assert "step 2/2" in log
    assert "record: " in log
    assert capsys.readouterr().out == ""


def test_the_process_stays_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = os.getcwd(), sys.stdout, logging.getLogger().level, list(logging.getLogger().handlers)
    rb.run("method=lora", QUICK, "train.steps=1", f"results_dir={tmp_path}")
    assert (os.getcwd(), sys.stdout, logging.getLogger().level, list(logging.getLogger().handlers)) == before
    assert gc.isenabled()
    assert capfd.readouterr().out == ""


def test_a_finished_run_is_returned_at_once(
    finished: rb.RunResult, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rankbench.training.run", None)  # to import it is an error
    again = rb.run(["method=random", *QUICK], "train.steps=2", f"results_dir={results}", show=True)
    assert again == finished


def test_a_run_that_fails_is_a_result_with_a_reason(results: Path) -> None:
    failed = rb.run("method=lora", QUICK, "train.learning_rate=1e30", f"results_dir={results}")
    assert failed.status == "nan"
    assert failed.reason in repr(failed)
    assert failed.reason in failed._repr_html_()


def test_mistakes_are_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(rb.RankbenchError, match="method=lra: unknown method; did you mean lora"):
        rb.run("method=lra")
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="results_dir cannot be written"):
        rb.run("method=lora", QUICK, f"results_dir={tmp_path}")
    with pytest.raises(rb.RankbenchError, match=r"holds no record\.json"):
        rb.RunResult.from_folder(tmp_path)


def test_a_run_that_left_no_record_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankbench.training.run.execute", lambda config: 75)
    with pytest.raises(StoreError, match="the run left no record"):
        rb.run("method=lora", QUICK, f"results_dir={tmp_path}")


def test_ranks_are_kinds_by_layers_and_what_is_not_there_is_missing(tmp_path: Path) -> None:
    ranks = kept(tmp_path).ranks
    assert ranks.index.tolist() == ["self_attn.q_proj", "lm_head"]
    assert ranks.columns.tolist() == [0, 1, pd.NA]
    assert ranks.iloc[0].tolist() == [3, 1, pd.NA]
    assert ranks.iloc[1].tolist() == [pd.NA, pd.NA, 2]


def test_what_was_not_measured_is_nan(tmp_path: Path) -> None:
    early = kept(tmp_path, status="oom", reason="too large", metrics=None, cost=None, ledger=None)
    assert early.metrics.empty
    assert early.cost.isna().all(axis=None)
    assert early.adapter is None
    nothing = kept(tmp_path, metrics={"before": None, "validation": None, "test": {"step": 9, "kl": None}})
    assert nothing.metrics.isna().tolist() == [True]


def test_a_record_alone_has_no_steps() -> None:
    alone = rb.RunResult(record("igu", 0))
    assert alone.ranks.empty
    assert alone.adapter is None
    with pytest.raises(rb.RankbenchError, match=r"steps.jsonl of igu0: its record alone was kept"):
        _ = alone.steps


def test_it_is_shown_as_a_line_and_as_tables(tmp_path: Path) -> None:
    shown = kept(tmp_path)
    assert repr(shown) == "<igu on tiny, planted, budget r1, seed 0: ok, test/kl 0.25>"
    html = shown._repr_html_()
    assert "<b>igu on tiny, planted, budget r1, seed 0: ok</b>" in html
    assert "self_attn.q_proj" in html
    assert "Budget: 64 params, spent 64." in html
    assert "&lt;b&gt;" in kept(tmp_path, status="nan", reason="<b>")._repr_html_()


def test_a_notebook_gets_no_output_of_its_own_for_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with redirect_stdout(StringIO()) as printed:
        console().print("step 1/2")
    assert printed.getvalue() == "step 1/2\n"
