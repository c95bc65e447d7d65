"""Weights & Biases mirrors the record: the same numbers, offline without a key; it never prompts or ends a run."""

import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.harness import ENVIRONMENT, QUICK, configure, folder_of, perform, python, rows
from support.mirrors import alone, read, the_file
from support.records import record
from support.services import KEY, service

from rankbench.tracking.rank_map_image import draw
from rankbench.tracking.series import maps_over_time, names, record_figures, step_figures
from rankbench.tracking.wandb_run import GuardedMirror, NoMirror, tracker

AWAY = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}  # the discard port: nobody listens
CONFIG = {**{section: {"name": section} for section in ("model", "task", "method", "budget")}, "seed": 3}
STEPS = [{"step": step, "loss": 1 / step, "ranks": 8, "params": 64, "penalty": None} for step in (1, 2, 3)]
MIRROR = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from rankbench.records.record import RunRecord
from rankbench.tracking.wandb_run import tracker

given = json.loads(sys.argv[1])
record = RunRecord.from_json(json.dumps(given["record"]))
mirror = tracker(SimpleNamespace(**given["settings"]), record.run_id, record.config, Path(given["folder"]))
for row in given["steps"]:
    mirror.step(row)
mirror.finish(record)
"""


def mirrored(folder, mode="auto", timeout=3, **environment):
    """Mirrors a made-up record in another process: what it printed, and seconds."""
    settings = {"name": "wandb", "project": "rankbench", "mode": mode, "timeout": timeout}
    made = json.loads(record("lora", 3, config=CONFIG, ranks={"a.0.b": 3, "a.1.b": 5}).to_json())
    given = {"settings": settings, "record": made, "steps": STEPS, "folder": str(folder)}
    start = time.monotonic()
    done = python("-c", MIRROR, json.dumps(given), environment=alone(folder, **environment))
    assert done.returncode == 0, done.stderr[-2000:]
    offline = [f"W&B: the run lies offline; to upload it: wandb sync {place}" for place in folder.glob("wandb/off*")]
    assert done.stdout.splitlines() == offline
    return done.stderr.splitlines(), time.monotonic() - start


# ------------------------------------------------------------------------------ what the files hold equals the record


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that changes ranks and is mirrored: its folder, its record, its mirror."""
    patch = pytest.MonkeyPatch()
    for name in [key for key in ENVIRONMENT if key.startswith("WANDB")]:
        patch.delenv(name)
    patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    config = configure(tmp_path_factory.mktemp("mirrored"), "method=adalora", "tracking=wandb", "tracking.mode=offline")
    made = perform(config)
    patch.undo()
    folder = folder_of(config)
    return SimpleNamespace(folder=folder, record=made, mirror=read(the_file(folder.path)))


def flat(tree, prefix):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}/{key}")
        elif value is not None:
            yield f"{prefix}/{key}", value


def own(figures):
    """Without what W&B adds, and without its descriptions of media."""
    media = ("_", "ranks/map.", "ranks/over_time.")
    return {key: value for key, value in figures.items() if not key.startswith(media)}


def test_the_names_of_the_mirror_are_the_runs(run):
    found, id_ = run.mirror.run, run.record["run_id"]
    assert found.run_id == id_ == run.folder.run_id
    assert found.project == "rankbench"
    assert found.display_name == "tiny-planted-adalora-true_ranks-seed0"
    assert found.run_group == names(id_, run.record["config"])["group"]
    assert found.job_type == "adalora"
    assert run.mirror.exit_code == 0


def test_the_mirror_has_the_configuration_of_the_record(run):
    assert {key: run.mirror.config[key] for key in run.record["config"]} == run.record["config"]


def test_the_mirror_has_every_step(run):
    logged = rows(run.folder.path / "steps.jsonl")
    assert [row["_step"] for row in run.mirror.history] == [row["step"] for row in logged] == list(range(1, 13))
    for found, row in zip(run.mirror.history, logged, strict=True):
        assert (found["ranks/total"], found["budget/params"]) == (row["ranks"], row["params"])
        rest = {key: value for key, value in row.items() if key not in ("step", "ranks", "params")}
        assert {key: value for key, value in found.items() if key.startswith("train/")} == dict(flat(rest, "train"))
    assert len({row["ranks"] for row in logged}) > 1


def test_the_mirror_has_every_figure_of_the_record_and_no_other(run):
    made = run.record
    figures = {
        **dict(flat(made["metrics"], "eval")),
        **dict(flat(made["ledger"], "budget")),
        **dict(flat(made["cost"], "cost")),
        "ranks/changes": made["history_events"],
        "status": "ok",
    }
    steps = step_figures(rows(run.folder.path / "steps.jsonl")[-1])
    found = {key: value for key, value in own(run.mirror.summary).items() if not key.startswith("ranks/table.")}
    assert found == {**steps, **figures}
    assert found["eval/test/kl"] > 0
    assert found["budget/peak/ranks"] > found["budget/final/ranks"]
    assert found["cost/training/forward_passes"] == 12
    assert not set(steps) & set(figures)


def test_the_mirror_has_the_rank_map_as_table_picture_and_artifact(run):
    ranks = run.record["ranks"]
    table = json.loads(run.mirror.media("ranks/table").read_text())
    assert table["columns"] == ["site", "layer", "kind", "rank"]
    assert {site: rank for site, _, _, rank in table["data"]} == ranks
    assert ["model.layers.1.mlp.up_proj", 1, "mlp.up_proj", ranks["model.layers.1.mlp.up_proj"]] in table["data"]
    with Image.open(run.mirror.media("ranks/map")) as picture:
        expected = draw(ranks, f"tiny-planted-adalora-true_ranks-seed0: {sum(ranks.values())} ranks")
        assert np.array_equal(np.asarray(picture), np.asarray(expected))
    assert json.loads(run.mirror.artifacts["rank_map"]["rank_map.json"]) == ranks


def test_the_mirror_shows_how_the_rank_map_came_about(run):
    shown = {key.removeprefix("ranks/over_time."): value for key, value in run.mirror.history[-1].items()}
    maps = maps_over_time(run.record["ranks"], rows(run.folder.path / "ranks.jsonl"))
    assert shown["captions"] == [f"step {step}: {sum(ranks.values())} ranks" for step, ranks in maps]
    assert len(shown["filenames"]) == len(maps) > 2
    assert all((run.mirror.folder / "files" / name).is_file() for name in shown["filenames"])
    totals = {row["step"]: row["ranks"] for row in rows(run.folder.path / "steps.jsonl")}
    assert [sum(ranks.values()) for _, ranks in maps[1:]] == [totals[step] for step, _ in maps[1:]]


def test_of_many_rank_maps_some_are_shown_the_first_and_the_last_among_them():
    changes = [{"step": step, "site": "a", "before": 40 - step, "after": 39 - step} for step in range(1, 31)]
    maps = maps_over_time({"a": 9, "b": 2}, changes)
    assert [step for step, _ in maps] == [0, 4, 9, 13, 17, 21, 26, 30]
    assert [ranks["a"] for _, ranks in maps] == [39 - step for step, _ in maps]
    assert maps_over_time({"a": 9}, []) == [(0, {"a": 9})]


def test_the_mirror_has_the_record_itself(run):
    assert run.mirror.artifacts["record"]["record.json"] == (run.folder.path / "record.json").read_text()


def test_the_mirror_knows_nothing_of_the_machine_that_the_record_does_not(run):
    written = {file.name for file in (run.mirror.folder / "files").iterdir()}
    assert written <= {"media", "config.yaml", "wandb-summary.json"}
    assert not run.mirror.run.host


def test_a_run_does_not_notice_its_mirror(run, tmp_path):
    plain = perform(configure(tmp_path, "method=adalora"))
    for key in ("run_id", "status", "metrics", "ranks", "ledger", "history_events"):
        assert plain[key] == run.record[key]


def test_a_failed_run_is_mirrored_as_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    broken = ("train.learning_rate=1e30", "train.warmup_share=0", "tracking=wandb", "tracking.mode=offline")
    config = configure(tmp_path, *broken)
    made = perform(config)
    found = read(the_file(folder_of(config).path))
    assert made["status"] == found.summary["status"] == "nan"
    assert made["reason"] == found.summary["reason"]
    assert found.exit_code == 1
    assert "eval/test/loss" not in found.summary
    assert json.loads(found.artifacts["record"]["record.json"])["status"] == "nan"


def test_what_was_not_measured_is_left_out():
    made = record("lora", 0, metrics={"before": None, "test": {"step": 9, "kl": None}}, ledger=None, cost=None)
    assert record_figures(made) == {"status": "ok", "eval/test/step": 9}
    assert step_figures({"step": 4, "loss": 0.5, "penalty": None}) == {"train/loss": 0.5}


@pytest.mark.slow
def test_a_run_that_starts_anew_takes_the_place_of_the_one_before_and_one_with_a_checkpoint_goes_on(run, tmp_path):
    assert not run.mirror.run.resume
    (tmp_path / "checkpoint.pt").touch()
    mirrored(tmp_path, "offline")
    assert read(the_file(tmp_path)).run.resume


# ------------------------------------------------------------------------------------------------ the key, the service


def test_none_is_silent_and_imports_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    assert isinstance(tracker(SimpleNamespace(name="none"), "x", {}, tmp_path), NoMirror)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "offline"])
def test_without_a_key_it_is_offline_and_says_where_it_lies(tmp_path, mode):
    said, _ = mirrored(tmp_path, mode)
    assert said == []
    assert [row["train/loss"] for row in read(the_file(tmp_path)).history] == [1, 1 / 2, 1 / 3]


@pytest.mark.slow
def test_online_without_a_key_is_offline_and_said(tmp_path):
    (said,), _ = mirrored(tmp_path, "online")
    assert said == (
        "rankbench: W&B: tracking.mode=online, and no key is set up (wandb login, or WANDB_API_KEY). The run is "
        "mirrored offline"
    )


@pytest.mark.slow
def test_offline_does_not_ask_the_service_although_there_is_a_key(tmp_path):
    said, _ = mirrored(tmp_path, "offline", **AWAY)
    assert said == []
    assert the_file(tmp_path).exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["environment", "netrc"])
def test_a_service_that_is_away_is_told_once_and_the_run_is_mirrored_offline(tmp_path, place):
    environment = dict(AWAY)
    if place == "netrc":
        del environment["WANDB_API_KEY"]
        (tmp_path / ".netrc").write_text(f"machine 127.0.0.1:9 login user password {KEY}\n")
    said, seconds = mirrored(tmp_path, **environment)
    assert len(said) == 1
    assert said[0].endswith("connection refused. The run is mirrored offline")
    assert seconds < 60  # left to itself, W&B waits for 90
    assert read(the_file(tmp_path)).summary["eval/test/kl"] == 0.25


@pytest.mark.slow
def test_a_key_that_is_none_is_told_once(tmp_path):
    (said,), _ = mirrored(tmp_path, WANDB_API_KEY="short")
    assert "WANDB_API_KEY invalid" in said
    assert the_file(tmp_path).exists()


@pytest.mark.slow
def test_with_a_key_the_service_is_sent_the_steps_while_they_are_made(tmp_path):
    with service() as found:
        said, _ = mirrored(tmp_path, **found.environment)
    assert said == []
    first = found.runs[0]
    assert (first["name"], first["groupName"]) == ("lora3", names("lora3", CONFIG)["group"])
    assert [(row["_step"], row["train/loss"]) for row in found.rows if "train/loss" in row] == [
        (1, 1),
        (2, 1 / 2),
        (3, 1 / 3),
    ]


@pytest.mark.slow
def test_a_service_that_goes_away_meanwhile_is_told_once(tmp_path):
    with service(stays=False) as found:
        said, seconds = mirrored(tmp_path, **found.environment)
    assert len(said) == 1
    assert said[0].endswith("The run goes on without its mirror; rankbench report --wandb makes it later")
    assert seconds < 90
    assert read(the_file(tmp_path, "run")).summary["eval/test/kl"] == 0.25  # what it did not get lies here


@pytest.mark.parametrize("fails", ["start", "step", "finish"])
def test_whatever_a_mirror_raises_is_told_once_and_stops_nothing(fails, capsys):
    done = []

    class Broken:
        def __init__(self):
            self.act("start")

        def act(self, what):
            done.append(what)
            if what == fails:
                raise RuntimeError("no such luck.\nand more")

        def step(self, row):
            self.act("step")

        def finish(self, made):
            self.act("finish")

    mirror = GuardedMirror(Broken)
    mirror.step({"step": 1})
    mirror.step({"step": 2})
    mirror.finish(record("lora", 0))
    assert done == {"start": ["start"], "step": ["start", "step"], "finish": ["start", "step", "step", "finish"]}[fails]
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("rankbench: W&B: no such luck. The run goes on without its mirror; ")


@pytest.mark.slow
def test_a_run_ends_ok_while_the_service_is_away(tmp_path):
    command = ["-m", "rankbench", "method=lora", *QUICK, "tracking=wandb", "tracking.timeout=3"]
    done = python(*command, f"results_dir={tmp_path}", environment=alone(tmp_path, **AWAY))
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum("W&B" in line for line in done.stderr.splitlines()) == 1
    (file,) = tmp_path.glob("runs/*/record.json")
    assert json.loads(file.read_text())["status"] == "ok"
    assert read(the_file(file.parent)).artifacts["record"]["record.json"] == file.read_text()
