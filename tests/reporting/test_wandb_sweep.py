"""A finished sweep is mirrored as its runs would have been, any number of times, and a workspace shows it."""

import json

import pytest
from support.harness import configure, perform, python
from support.mirrors import alone, read, the_file
from support.services import service

from rankbench.analysis.labels import displays
from rankbench.cli import main
from rankbench.config.yaml_files import defaults
from rankbench.records import run_folder
from rankbench.reporting.wandb_sweep import MirrorResult, mirror, request_of, show, workspace
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import Job, Sweep, SweepError
from rankbench.tracking.series import names

OFFLINE = {**defaults("tracking", "wandb"), "mode": "offline"}
VOLATILE = (
    "_timestamp",
    "_runtime",
    "_wandb.runtime",
    "ranks/table.artifact_path",
    "ranks/table._latest_artifact_path",
)

# wandb-workspaces 0.4 declares its own models in a way that pydantic will no longer take one day
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with two runs, mirrored while they ran, and one that failed."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    place = tmp_path_factory.mktemp("results")
    live = ("tracking=wandb", "tracking.mode=offline")
    for overrides in (("seed=0",), ("seed=1",), ("train.learning_rate=1e30", "train.warmup_share=0")):
        perform(configure(place, "method=adalora", *overrides, *live))
    patch.undo()
    return place


@pytest.fixture(scope="module")
def records(results):
    return run_folder.records(results)[0]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def steady(figures):
    return {key: value for key, value in figures.items() if key not in VOLATILE}


def file_of(place, run_id):
    (found,) = place.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    return found


@pytest.mark.slow
def test_a_finished_run_is_mirrored_as_it_would_have_been_while_it_ran(results, records):
    done = mirror(records, results, OFFLINE)
    assert (done.offline, done.online, done.failed, done.stepless) == (3, 0, [], 0)
    for record in records:
        live = read(the_file(results / "runs" / record.run_id))
        later = read(file_of(results, record.run_id))
        for one, other in ((live, later), (later, live)):
            assert [steady(row) for row in one.history] == [steady(row) for row in other.history]
            assert steady(one.summary) == steady(other.summary)
            assert one.artifacts == other.artifacts
            assert one.exit_code == other.exit_code
        for fact in ("run_id", "display_name", "run_group", "job_type", "project", "host"):
            assert getattr(live.run, fact) == getattr(later.run, fact)
        assert {**live.config, "_wandb": 0} == {**later.config, "_wandb": 0}
    assert (
        len({read(file_of(results, record.run_id)).run.run_group for record in records if record.status == "ok"}) == 1
    )
    assert {record.status for record in records} == {"ok", "nan"}


def test_the_mirror_knows_which_direction_is_better(results, records):
    mirror(records, results, OFFLINE)
    ok = next(record for record in records if record.status == "ok")
    best = read(file_of(results, ok.run_id)).best
    assert best["eval/test/kl"] == best["eval/validation/loss"] == "min"
    assert best["eval/test/map_overlap"] == "max"
    assert "eval/test/step" not in best


def test_mirroring_again_leaves_one_mirror_of_each_run(results, records):
    mirror(records, results, OFFLINE)
    before = {record.run_id: steady(read(file_of(results, record.run_id)).summary) for record in records}
    mirror(records, results, OFFLINE, tags=("again",))
    assert before == {record.run_id: steady(read(file_of(results, record.run_id)).summary) for record in records}
    assert list(read(file_of(results, records[0].run_id)).run.tags) == ["again"]


def test_without_steps_the_rank_totals_of_a_curve_are_mirrored(records, tmp_path):
    ok = [record for record in records if record.status == "ok"]
    done = mirror(ok, tmp_path, OFFLINE, curves={ok[0].run_id: [(1, 58), (7, 40), (12, 36)]})
    assert (done.offline, done.stepless) == (2, 1)
    rows = read(file_of(tmp_path, ok[0].run_id)).history
    assert [(row["_step"], row["ranks/total"]) for row in rows if "ranks/total" in row] == [(1, 58), (7, 40), (12, 36)]
    assert "train/loss" not in rows[0]
    assert read(file_of(tmp_path, ok[1].run_id)).summary["eval/test/kl"] == ok[1].metrics["test"]["kl"]


def test_a_run_that_cannot_be_mirrored_is_told_and_the_others_are_made(records, tmp_path, capsys):
    broken, *others = records
    broken = type(broken)(**{**vars(broken), "config": {**broken.config, "model": {}}})
    done = mirror([broken, *others], tmp_path, OFFLINE)
    assert done.failed == [broken.run_id]
    assert done.offline == len(others)
    assert f"rankbench: W&B: {broken.run_id}: 'name'. The others are mirrored offline" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- the command


def call(capsys, *words):
    code = main(["report", "--wandb", *map(str, words)])
    return code, capsys.readouterr().out


def test_the_command_mirrors_records_and_says_what_a_workspace_needs(records, tmp_path, capsys):
    run_folder.save(records, tmp_path / "my_study" / "records.jsonl")
    with (tmp_path / "my_study" / "records.jsonl").open("a") as file:
        file.write("{}\n")
    code, out = call(capsys, tmp_path / "my_study" / "records.jsonl", f"results_dir={tmp_path}")
    assert code == 0
    assert f"not mirrored: {tmp_path}/my_study/records.jsonl:4: not a run record" in out
    assert "my_study: 0 runs online, 3 offline, 0 failed; 3 of them without steps\n" in out
    assert f"to upload them: wandb sync {tmp_path}/wandb/offline-run-*\n" in out
    assert "no workspace: it needs a key (wandb login, or WANDB_API_KEY) and the service\n" in out
    found = read(file_of(tmp_path, records[0].run_id))
    assert (found.run.project, list(found.run.tags)) == ("rankbench", ["my_study"])
    assert found.run.run_group == names(records[0].run_id, records[0].config)["group"]


def test_a_sweep_is_mirrored_whole_by_its_words(results, records, capsys):
    jobs = [Job(None, record.run_id, False, ()) for record in records]
    manifest.save(Sweep("mine-0", "mine", 1, ["method=adalora"], None, None, jobs), results)
    code, out = call(capsys, f"results_dir={results}", "method=adalora", "--project", "other")
    assert code == 0
    assert "mine: 0 runs online, 3 offline, 0 failed\n" in out
    for record in records:
        found = read(file_of(results, record.run_id))
        assert (found.run.project, list(found.run.tags)) == ("other", ["mine"])
        assert len(found.history) == (12 if record.status == "ok" else 1)


def test_where_there_is_nothing_to_mirror_it_says_so(tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SweepError, match=r"no record to mirror; no run has ended"):
        request_of([str(tmp_path / "empty.jsonl")])
    assert main(["report", "--wandb", "experiment=igu_ablation", f"results_dir={tmp_path}"]) == 2
    assert "rankbench: " in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ the workspace


def panels_of(view):
    """Title of each section and the panels' settings, as they are sent."""
    spec = (
        json.loads(view["spec"])
        if isinstance(view, dict)
        else json.loads(view._to_model().spec.model_dump_json(by_alias=True))
    )
    return {
        section["name"]: [panel["config"] for panel in section["panels"]]
        for section in spec["section"]["panelBankConfig"]["sections"]
    }


def test_every_panel_shows_what_the_mirror_has(results, records):
    mirror(records, results, OFFLINE)
    ok = next(record for record in records if record.status == "ok")
    found = read(file_of(results, ok.run_id))
    there = {key.removesuffix("._type") for key in (*found.summary, *found.history[-1])}
    wanted = request_of([str(results)])
    panels = panels_of(workspace(wanted.title, records, wanted.metrics, "me", "rankbench"))
    assert list(panels) == ["Quality", "Ranks", "Budget", "Cost", "Training"]
    assert {panel["metrics"][0] for panel in panels["Quality"]} >= {"eval/test/kl", "eval/test/loss"}
    for panel in (panel for section in panels.values() for panel in section):
        shown = panel.get("metrics") or panel["mediaKeys"]
        assert shown
        assert set(shown) <= there


def test_the_workspace_shows_the_runs_of_its_sweep_by_group_in_the_colours_of_the_figures(records):
    made = workspace("mine", records, ["test/kl"], "me", "rankbench")
    (runs,) = json.loads(made._to_model().spec.model_dump_json(by_alias=True))["section"]["runSets"]
    assert runs["filters"]["filters"][0]["value"] == ["mine"]
    assert runs["grouping"][0]["name"] == "group"
    groups = {names(record.run_id, record.config)["group"] for record in records}
    assert made.runset_settings.group_colors == dict.fromkeys(groups, displays()["adalora"].colour)


def test_a_workspace_that_cannot_be_saved_is_said(results, records, monkeypatch):
    def refuse(made, folder):
        raise RuntimeError(f"no room for {made.name}\nand more")

    monkeypatch.setattr("rankbench.reporting.wandb_sweep.save", refuse)
    said = show(request_of([str(results)]), MirrorResult(online=3, entity="me"), "rankbench", results)
    assert said == f"no workspace: no room for {results.name}; repeat this, the runs stay as they are"


@pytest.mark.slow
def test_online_the_runs_are_sent_and_the_workspace_is_saved_over_the_last_one(records, tmp_path):
    run_folder.save([record for record in records if record.status == "ok"], tmp_path / "my_study" / "records.jsonl")
    command = ["-W", "ignore", "-m", "rankbench", "report", "--wandb", str(tmp_path / "my_study" / "records.jsonl")]
    with service() as found:
        for _ in range(2):
            done = python(*command, f"results_dir={tmp_path}", environment=alone(tmp_path, **found.environment))
            assert done.returncode == 0, done.stdout + done.stderr
            assert "my_study: 2 runs online, 0 offline, 0 failed; 2 of them without steps\n" in done.stdout
            assert "\nworkspace: http" in done.stdout
    assert {run["name"] for run in found.runs} == {record.run_id for record in records if record.status == "ok"}
    (view,) = found.views.values()
    assert (view["displayName"], view["projectName"], view["entityName"]) == ("my_study", "rankbench", "me")
    assert [panel["metrics"] for panel in panels_of(view)["Training"]] == [["train/loss"], ["train/learning_rate"]]
