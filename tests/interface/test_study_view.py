"""`rankbench.load`, `sweep` and `report`: where a study may lie, and its tables, sentences and page."""

import json
import subprocess
import sys
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
from support import studies as made_up
from support.harness import ENVIRONMENT, QUICK
from support.records import runs

import rankbench as rb
from rankbench.analysis.frame import SelectionError
from rankbench.records.run_folder import save
from rankbench.studies import study as studies
from rankbench.sweeps.manifest import SweepError

ROOT = Path(__file__).resolve().parents[2]
VALUES = {
    "lora": {0: 0.50, 1: 0.54, 2: 0.51, 3: 0.55},
    "igu": {0: 0.40, 1: 0.43, 2: 0.41, 3: 0.44},
    "fim": {0: 0.60, 1: 0.64, 2: 0.61, 3: 0.65},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of records alone: three methods on two maps."""
    records = [
        run
        for kind, shift in (("few", 0.0), ("deep", 0.2))
        for method, values in VALUES.items()
        for run in runs(method, {seed: value + shift for seed, value in values.items()}, task={"map": kind})
    ]
    for number, run in enumerate(records):
        run.run_id, run.ranks = f"run{number}", {"layers.0.q": 1 + number % 2, "layers.1.q": 2}
    save(records, tmp_path / "records.jsonl")
    return tmp_path


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report of an experiment."""
    place = tmp_path_factory.mktemp("declared")
    study = made_up.study(made_up.declared(seeds=range(4), vary={}, grid={}), layers=2, lost=0, failed=0)
    studies.save(replace(study, problems=[]), place)
    return place


def test_records_alone_are_a_panel_for_each_value_of_a_setting_that_differs(folder: Path) -> None:
    study = rb.load(folder / "records.jsonl")
    assert study.panels == [f"tiny, planted, budget r1, task.map={kind}" for kind in ("deep", "few")]
    assert len(study.runs) == 24
    assert study.runs.groupby("panel")["label"].nunique().tolist() == [3, 3]
    assert rb.load(folder).panels == study.panels
    assert rb.load(folder.name, results=folder.parent).panels == study.panels


def test_a_table_is_the_comparison_with_the_reference(folder: Path) -> None:
    table = rb.load(folder).table()
    assert table.index.names == ["panel", "arm"]
    few = table.loc["tiny, planted, budget r1, task.map=few"]
    assert few.index.tolist() == ["lora", "igu", "fim"]  # the reference, then from the best mean to the worst
    assert few.loc["igu", ["n", "mean"]].tolist() == [4, pytest.approx(0.42)]
    assert few.loc["igu", "difference"] < few.loc["igu", "high"] < 0 < few.loc["fim", "low"]
    assert few["finding"].tolist()[::2] == ["reference", "worse"]
    assert few.loc["igu", "unit"] == "%"  # kl is judged by its logarithm
    assert table.columns.name == "test/kl ↓"


def test_runs_can_be_grouped_by_a_setting(folder: Path) -> None:
    table = rb.load(folder).table(by="task.map")
    assert table.index.get_level_values("panel").unique().tolist() == [
        f"tiny, planted, budget r1, task.map={kind}" for kind in ("deep", "few")
    ]
    assert "finding" not in table
    assert table.loc["tiny, planted, budget r1, task.map=few"].loc["igu", "difference"] == pytest.approx(-0.105)
    with pytest.raises(SelectionError, match="no record has a setting"):
        rb.load(folder).table(by=["task.mop"])


def test_of_a_metric_that_was_not_declared_nothing_is_judged(declared: Path) -> None:
    study = rb.load(declared)
    assert "finding" in study.table()
    other = study.table("test/loss")
    assert "finding" not in other
    assert other.columns.name == "test/loss ↓"
    assert other.loc["igu", "difference"] == pytest.approx(-study.table().loc["igu", "difference"])
    with pytest.raises(SelectionError, match="no run has the metric 'test/f1'; there are test/accuracy"):
        study.table("test/f1")


def test_the_folder_of_a_report_says_what_the_report_says(
    declared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = rb.load(declared)
    assert study.name == "made_up"
    assert len(study.panels) == 1
    page = study.report(tmp_path / "page")
    assert page == tmp_path / "page" / "index.html"
    assert study.verdict[-1] in (tmp_path / "page" / "tables.md").read_text()
    assert set().union(*study.badges.values()) >= {"igu", "fim"}
    assert study.trials["label"].nunique() == len(study.trials) / len(made_up.RATES)
    with pytest.raises(SweepError, match="say where to write its report"):
        study.report()
    monkeypatch.setattr("rankbench.reporting.report.build", lambda *arguments: [])
    assert rb.report(declared) == declared / "index.html"
    assert rb.report(declared, folder="elsewhere") == Path("elsewhere/index.html")
    assert rb.report(declared.name, results=declared.parent) == declared / "index.html"


def test_ranks_are_a_row_per_run_and_site(folder: Path) -> None:
    study = rb.load(folder)
    ranks = study.ranks()
    assert len(ranks) == 48
    assert ranks["rank"].sum() == 24 * 3.5
    few = study.ranks("igu", "tiny, planted, budget r1, task.map=few")
    assert (few["label"].unique().tolist(), len(few)) == (["igu"], 8)
    with pytest.raises(SelectionError, match="no run of 'iguana'; there are lora, igu, fim"):
        study.ranks("iguana")
    with pytest.raises(SelectionError, match="no panel 'many'; there are tiny"):
        study.ranks(panel="many")


def test_figures_are_those_of_the_report(declared: Path, folder: Path) -> None:
    study = rb.load(declared)
    (axes,) = study.forest().axes
    assert len(axes.get_yticklabels()) == len(study.table()) - 1
    assert study.rank_maps(study.panels[0]).axes
    with pytest.raises(SelectionError, match="nothing to draw"):
        study.found_against_gain()
    both, one = rb.load(folder).forest(), rb.load(folder).forest("task.map=few")
    assert (len(both.axes), len(one.axes)) == (2, 1)
    with pytest.raises(SelectionError, match="no panel 'many'"):
        study.forest("many")


def test_another_arm_can_be_the_reference(folder: Path) -> None:
    table = rb.load(folder, reference="fim").table()
    assert table["finding"].tolist() == ["reference", "better by more than 4.9 %", "better by more than 4.9 %"] * 2
    with pytest.raises(SelectionError, match="reference fam: no such arm; there are lora, igu, fim"):
        rb.load(folder, reference="fam").table()


def test_a_run_of_a_study_is_a_result(folder: Path) -> None:
    study = rb.load(folder)
    assert study.result("run0").metrics["test/kl"] == 0.5
    assert study.result("run0").folder is None
    with pytest.raises(rb.RankbenchError, match="run99: no record of the study"):
        study.result("run99")


def test_it_is_shown_as_a_line_and_as_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = rb.load(folder)
    assert repr(study).endswith(": 24 runs, 24 ok; 3 arms, 2 panels>")
    html = study._repr_html_()
    assert escape(study.headline) in html
    assert "worse: <span" in html
    assert html.count("<table") == 2
    assert "not shown here" not in html
    monkeypatch.setattr("rankbench.interface.study_view.SHOWN_PANELS", 1)
    assert "not shown here, 1 of 2 panels: study.table()" in rb.load(folder)._repr_html_()
    mixed = json.loads((folder / "records.jsonl").read_text().splitlines()[0])
    mixed["provenance"]["git_commit"] = "d" * 40
    lines = (folder / "records.jsonl").read_text().splitlines()
    (folder / "records.jsonl").write_text("\n".join([json.dumps(mixed), *lines[1:]]) + "\n")
    assert "differ" in rb.load(folder)._repr_html_()
    assert "<table" in rb.load(folder, allow_mixed=["code"])._repr_html_()


def test_tuned_rates_are_no_axis_and_other_rates_are(tmp_path: Path) -> None:
    tuned = [*runs("lora", VALUES["lora"]), *runs("igu", VALUES["igu"])]
    for run in tuned[4:]:
        run.config["train"] = {"learning_rate": 0.1}
    save(tuned, tmp_path / "records.jsonl")
    assert rb.load(tmp_path).panels == ["tiny, planted, budget r1"]
    tried = runs("lora", VALUES["lora"])
    for run in tried:
        run.config["train"], run.run_id = {"learning_rate": 0.3}, f"{run.run_id}x"
    save([*tuned, *tried], tmp_path / "records.jsonl")
    assert len(rb.load(tmp_path).panels) == 3
    for run in tried:
        run.config["trial"] = True
    save([*tuned, *tried], tmp_path / "records.jsonl")
    study = rb.load(tmp_path)
    assert (len(study.runs), len(study.trials), len(study.panels)) == (8, 4, 1)
    save(tried, tmp_path / "records.jsonl")
    trials_alone = rb.load(tmp_path)
    assert (len(trials_alone.runs), len(trials_alone.trials), len(trials_alone.panels)) == (0, 4, 1)


def test_what_cannot_be_read_is_a_warning(folder: Path) -> None:
    with (folder / "records.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.warns(UserWarning, match=r"not counted: .*records.jsonl:25: not a run record"):
        rb.load(folder)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(SweepError, match="holds no study"):
        rb.load(tmp_path / "mine")
    save(runs("lora", VALUES["lora"]), tmp_path / "mine" / "records.jsonl")
    with pytest.raises(SweepError, match=r"yours: no folder or file of this name, .* has mine$"):
        rb.load("yours", results=tmp_path)
    (tmp_path / "mine" / "records.jsonl").write_text("")
    with pytest.raises(SweepError, match="holds no records"):
        rb.load(tmp_path / "mine")
    with pytest.raises(rb.RankbenchError, match="holds no sweep of experiment=none"):
        rb.report("none", tmp_path)


SCRIPT = """
import rankbench as rb
study = rb.sweep("method=lora,random", ["seed=0"], {words}, "train.steps=1", "results_dir=out")
print(study)
print(rb.load("out").panels, rb.load(study.name, results="out").runs["status"].tolist())
print(study.result(study.runs["run_id"][0]).adapter.is_dir())
"""


@pytest.mark.slow
def test_a_script_sweeps_without_being_executed_again_in_each_job(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(words=", ".join(map(repr, QUICK))))
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    study, panels, adapter = done.stdout.splitlines()
    assert study.endswith(": 2 runs, 2 ok; 2 arms, 1 panel>")
    assert panels == "['tiny, planted, budget true_ranks'] ['ok', 'ok']"
    assert adapter == "True"


def test_mistakes_of_a_sweep_are_said_before_anything_runs() -> None:
    with pytest.raises(rb.RankbenchError, match="method=lra: unknown method; did you mean lora"):
        rb.sweep("method=lora,lra", "seed=0,1")
