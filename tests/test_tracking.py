"""Weights & Biases mirrors the record: offline without a key, never a prompt, never the source of a number."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from harness import ENVIRONMENT, QUICK, configure, folder_of, perform, python

from rankbench.tracking import Silent, _mode, tracker


class Service:
    """Stands in for the wandb package: notes what it is told."""

    def __init__(self) -> None:
        self.settings, self.rows, self.summary, self.exit_code = {}, [], {}, None

    def init(self, **settings):
        self.settings = settings
        return self

    def log(self, row, step):
        self.rows.append((step, row))

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def service(monkeypatch):
    made = Service()
    module = ModuleType("wandb")
    module.init = made.init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return tmp_path


def test_auto_is_offline_without_a_key(home):
    assert _mode("auto") == "offline"
    (home / ".netrc").write_text("machine example.org login a password b\n")
    assert _mode("auto") == "offline"


def test_auto_is_online_with_a_key(home, monkeypatch):
    (home / ".netrc").write_text("machine api.wandb.ai login user password b\n")
    assert _mode("auto") == "online"
    (home / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert _mode("auto") == "online"


@pytest.mark.parametrize("asked", ["online", "offline"])
def test_what_is_asked_for_is_done(home, asked):
    assert _mode(asked) == asked


def test_none_is_silent_and_imports_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    assert isinstance(tracker(SimpleNamespace(name="none"), "x", {}, tmp_path), Silent)


def test_a_run_is_mirrored_under_its_own_name(tmp_path, service, home):
    plain = configure(tmp_path / "plain", "method=adalora")
    config = configure(tmp_path / "mirrored", "method=adalora", "tracking=wandb")
    assert folder_of(config).run_id == folder_of(plain).run_id
    record, other = perform(config), perform(plain)
    settings = service.settings
    assert settings["id"] == record["run_id"] == other["run_id"]
    assert settings["mode"] == "offline"
    assert settings["project"] == "rankbench"
    assert settings["dir"] == str(folder_of(config).path)
    assert settings["name"] == "tiny-planted-adalora-true_ranks-seed0"
    assert settings["group"] == "tiny-planted-adalora-true_ranks"
    assert settings["config"] == record["config"]
    assert [step for step, _ in service.rows] == list(range(1, 13))
    assert set(service.rows[0][1]) >= {"train/loss", "train/learning_rate", "train/ranks"}
    assert service.summary["eval/test/kl"] == record["metrics"]["test"]["kl"]
    assert service.summary["ranks"] == record["ranks"]
    assert service.summary["status"] == "ok"
    assert service.exit_code == 0
    for key in ("metrics", "ranks", "ledger", "status", "history_events"):
        assert record[key] == other[key]


def test_a_failed_run_is_mirrored_as_failed(tmp_path, service, home):
    config = configure(tmp_path, "tracking=wandb", "train.learning_rate=1e30", "train.warmup_share=0")
    assert perform(config)["status"] == "nan"
    assert service.summary["status"] == "nan"
    assert service.exit_code == 1


def test_without_a_key_the_files_of_an_offline_run_lie_in_the_runs_folder(tmp_path):
    environment = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("WANDB")}
    command = ["-m", "rankbench", "method=lora", *QUICK, "tracking=wandb", f"results_dir={tmp_path}"]
    done = python(*command, environment={**environment, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-2000:]
    said = (done.stdout + done.stderr).lower()
    assert not any(word in said for word in ("enter your choice", "paste an api key", "api.wandb.ai/authorize"))
    (file,) = tmp_path.glob("runs/*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "ok"
    (mirror,) = file.parent.glob(f"wandb/offline-run-*-{record['run_id']}/run-{record['run_id']}.wandb")
    content = mirror.read_bytes()
    for part in ("train/loss", "eval/test/kl", record["run_id"], "tiny-planted-lora-true_ranks-seed0"):
        assert part.encode() in content
