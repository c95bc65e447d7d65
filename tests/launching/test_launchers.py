"""One sweep under each launcher of Hydra: identical numbers, and the consequences of a killed job."""

import json
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from support.harness import QUICK, freeze, install_faulty, rows, write_experiment
from support.records import record

from rankbench.config.schema import ConfigError
from rankbench.launching import driver, hydra_task, local_pool
from rankbench.launching.driver import EXTRAS
from rankbench.launching.jobs import LaunchSettings
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.run_folder import RunFolder
from rankbench.sweeps import manifest

EXPERIMENT = """
question: Does it run?
source: none
arms:
  killed: {method: faulty, method.fault: kill}
  igu: {method: igu}
axes: {seed: [0, 1]}
report: {reference: igu}
"""
PACKAGES = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "ray": "hydra-ray-launcher",
}
SETTINGS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "ray": ["+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"],
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a command that finds the faulty method, and is told to stay at home."""
    return {**install_faulty(tmp_path_factory.mktemp("site")), "RAY_USAGE_STATS_ENABLED": "0"}


class Swept:
    """The experiment under one launcher, from a folder of its own, paths as one types them."""

    def __init__(self, place: Path, name: str, environment: dict[str, str]) -> None:
        self.place, self._environment = place, environment
        self._choice = [f"hydra/launcher={name}", *SETTINGS.get(name, [])]
        write_experiment(place / "conf", EXPERIMENT)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "rankbench", "-m", "--config-dir", "conf", *self._choice]
        return subprocess.run(
            [*command, *QUICK, "train.steps=3", "results_dir=out", *arguments],
            cwd=self.place,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def folders(self) -> dict[tuple[str, int], RunFolder]:
        """Of the runs, by arm and seed."""
        results = self.place / "out"
        ((found,), _) = manifest.all_of(results)
        place = manifest.folder(results, found.sweep_id)
        seeds = {made: FrozenRun.read(manifest.frozen_file(place, made.run_id)).config["seed"] for made in found.jobs}
        return {(made.arm, seed): RunFolder(results, made.run_id) for made, seed in seeds.items()}


def swept(name: str, place: Path, environment: dict[str, str]) -> Swept:
    try:
        distribution(PACKAGES.get(name, "hydra-core"))
    except PackageNotFoundError:
        pytest.skip(f"needs pip install 'rankbench[{EXTRAS[name]}]'")
    return Swept(place, name, environment)


def numbers(folder: RunFolder) -> dict:
    """All that must not depend on who launched the run: neither seconds nor bytes, nor where it ran."""
    record = json.loads((folder.path / "record.json").read_text())
    passes = {
        phase: {key: value for key, value in spent.items() if key != "seconds"}
        for phase, spent in record["cost"].items()
        if isinstance(spent, dict)
    }
    kept = ("status", "reason", "ledger", "ranks", "history_events", "metrics")
    files = ("steps.jsonl", "items.jsonl", "ranks.jsonl")
    return {
        "passes": passes,
        **{key: record[key] for key in kept},
        **{name: rows(folder.path / name) for name in files},
        "adapter": (folder.path / "adapter" / "adapter_model.safetensors").read_bytes(),
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory, installed):
    made = Swept(tmp_path_factory.mktemp("local"), "local", installed)
    return made, made.run("experiment=small", "futile=allow")


@pytest.fixture(scope="module", params=["basic", "joblib", "submitit_local", "ray"])
def other(request, tmp_path_factory, installed):
    made = swept(request.param, tmp_path_factory.mktemp(request.param), installed)
    return made, made.run("experiment=small", "futile=allow")


@pytest.mark.slow
def test_every_launcher_gives_the_same_records(local, other):
    expected, found = local[0].folders(), other[0].folders()
    assert {arm for arm, _ in expected} == {"killed", "igu"}
    for seed in (0, 1):
        wanted = numbers(expected["igu", seed])
        assert wanted["status"] == "ok"
        assert len(wanted["steps.jsonl"]) == 3
        assert numbers(found["igu", seed]) == wanted, seed
    assert numbers(found["igu", 0]) != numbers(found["igu", 1])


@pytest.mark.slow
def test_a_job_that_is_killed_takes_no_other_with_it_and_the_exit_code_says_so(local, other):
    for made, done in (local, other):
        assert done.returncode == 1, done.stderr
        assert "4 runs: 2 ok, 2 killed" in done.stdout
        for seed in (0, 1):
            record = made.folders()["killed", seed].record()
            assert record.reason.startswith("killed by SIGKILL; goes on from its checkpoint when started again")
            assert (made.folders()["killed", seed].path / "log.txt").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_a_sweep_of_joblib_which_goes_on_when_it_is_started_again(tmp_path, installed):
    made = swept("joblib", tmp_path, installed)
    words = ["method=faulty", "method.fault=worker once", f"method.target={tmp_path / 'mark'}", "seed=0,1"]
    done = made.run(*words)
    assert done.returncode == 1
    assert "SIGKILL" in done.stderr
    assert "without record" in done.stdout
    again = made.run(*words)
    assert again.returncode == 0, again.stderr
    assert "2 runs: 2 ok" in again.stdout


# ------------------------------------------------------------------------------------- what is told before any run


def start(results: Path, *arguments: str) -> int:
    return driver.start(["method=lora", *QUICK, f"results_dir={results}", *arguments])


@pytest.mark.parametrize(("name", "extra"), EXTRAS.items())
def test_a_launcher_that_is_not_installed_says_which_extra_brings_it(monkeypatch, tmp_path, name, extra):
    known = ConfigLoaderImpl.get_group_options

    def without_extras(*arguments, **more):
        return [option for option in known(*arguments, **more) if option not in EXTRAS]

    monkeypatch.setattr(ConfigLoaderImpl, "get_group_options", without_extras)
    sentence = rf"hydra/launcher={name}: comes with an extra: pip install 'rankbench\[{extra}\]'$"
    with pytest.raises(ConfigError, match=sentence):
        start(tmp_path / "out", f"hydra/launcher={name}")
    assert not (tmp_path / "out").exists()


def test_an_unknown_launcher_is_named(tmp_path):
    with pytest.raises(ConfigError, match="hydra/launcher=basik: unknown; did you mean basic"):
        start(tmp_path / "out", "hydra/launcher=basik")
    assert not (tmp_path / "out").exists()


def test_a_setting_that_a_launcher_does_not_have_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.slots=2: .*Could not override 'hydra\.launcher\.slots'"):
        start(tmp_path / "out", "hydra/launcher=basic", "hydra.launcher.slots=2")
    assert not (tmp_path / "out").exists()


def test_a_guest_leaves_the_signals_to_its_host(tmp_path):
    """Submitit puts a job back into the queue when it hears one."""
    file = freeze(tmp_path)
    frozen = FrozenRun.read(file)
    with frozen.folder.open():
        frozen.folder.write_record(record("lora", 0, run_id=frozen.run_id, config=frozen.config))
    heard = []
    for told in (None, print):
        local_pool.launch([file], LaunchSettings(), lambda ended: heard.append(signal.getsignal(signal.SIGTERM)), told)
    assert heard[0] == signal.getsignal(signal.SIGTERM) != heard[1]


@pytest.mark.parametrize(("visible", "devices"), [(None, ()), ("3", ("3",)), ("0,1", ("0,1",)), ("", ("",))])
def test_a_guest_takes_the_devices_that_its_process_has_now(monkeypatch, visible, devices):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [room.device for room in hydra_task._settings().rooms()] == [*devices] or [None]
