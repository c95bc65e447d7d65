"""What a run takes from another one: the budget at its peak, the steps that cost its passes."""

from __future__ import annotations

import pytest
from support.harness import configure
from support.records import record

from rankbench.config import matched_runs
from rankbench.config.schema import ConfigError
from rankbench.config.sections import Config
from rankbench.records.record import portable, run_id
from rankbench.records.run_folder import RunFolder
from rankbench.training.run import execute


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with the run "source": 12 steps, half as many passes beside them, a peak of 500 parameters."""
    results = tmp_path_factory.mktemp("results")
    passes = {"calibration": (1, 1), "training": (12, 12), "allocation": (10, 0), "evaluation": (9, 0)}
    cost = {phase: {"forward_passes": a, "backward_passes": b} for phase, (a, b) in passes.items()}
    for name, status in (("source", "ok"), ("broken", "nan")):
        folder = RunFolder(results, name)
        folder.path.mkdir(parents=True)
        ledger = {"peak": {"params": 500, "ranks": 7}}
        config = configure(results).plain()
        folder.write_record(record("igu", 0, run_id=name, status=status, config=config, ledger=ledger, cost=cost))
    return results


@pytest.mark.parametrize(("unit", "target"), [("params", 500), ("ranks", 7)])
def test_the_figures_of_the_run_are_the_identity_and_the_run_is_not(results, unit, target):
    words = ["budget.peak_of=source", "train.passes_of=source", f"budget.unit={unit}"]
    config = configure(results, *words).plain()
    assert (config["budget"]["target"], config["train"]["steps"]) == (target, 18)
    elsewhere = configure(results, *[word.replace("source", f"{results}/runs/source") for word in words]).plain()
    assert run_id(elsewhere) == run_id(config) != run_id(configure(results, f"budget.unit={unit}").plain())
    assert Config.from_plain(config).plain() == config
    saved = portable({"config": elsewhere})["config"]
    assert (saved["budget"]["peak_of"], saved["train"]["passes_of"]) == ("source", "source")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["budget.peak_of=nowhere"], "budget.peak_of=nowhere: no run there"),
        (["budget.peak_of=broken"], "budget.peak_of=broken: .*the run ended with status nan; finish it first"),
        (["train.passes_of=source", "train.batch_size=8"], "its batches are of 4 examples, those of this run of 8"),
        (["budget.peak_of=source", "budget.factor=2"], "budget.peak_of sets the target; give one of the two"),
        (["+budget.target=500"], "budget.target: is filled in from budget.peak_of"),
    ],
)
def test_what_cannot_be_matched_says_so(results, words, message):
    with pytest.raises(ConfigError, match=message):
        configure(results, *words)


def test_an_arm_is_filled_in_by_its_run_and_means_nothing_by_itself(results):
    config = configure(results, "budget.peak_of='{igu}'", "train.passes_of='{igu}'")
    plain = config.plain()
    assert matched_runs.awaited(plain) == {"budget.peak_of": "igu", "train.passes_of": "igu"}
    assert plain["budget"]["target"] is None
    ready = matched_runs.with_run(plain, "source", results)
    assert ready == configure(results, "budget.peak_of=source", "train.passes_of=source").plain()
    assert execute(config) == 1
    reason = RunFolder(results, run_id(plain)).readable_record().reason
    assert "train.passes_of={igu}: an arm stands for its run in an experiment alone" in reason
