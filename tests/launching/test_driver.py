"""Whole sweeps with `rankbench -m` in this process; their jobs are forked as usual."""

import json
import signal
from pathlib import Path

import pytest
from support.harness import SMALL_EXPERIMENT, faulty_installed, write_experiment

from rankbench.cli import main
from rankbench.config.overrides import compose
from rankbench.config.schema import ConfigError
from rankbench.config.validation import build
from rankbench.launching.driver import start
from rankbench.launching.progress import SweepProgress
from rankbench.records.record import RunRecord, run_id
from rankbench.records.run_folder import RunFolder
from rankbench.sweeps import manifest

SHORT = ["model=tiny", "task=planted", "train.steps=3", "train.threads=1", "task.train_size=16", "task.test_size=8"]
RANDOM = "name: random\nconcentration: {concentration}\nleast_rank: 0\n"
TUNED = ["experiment=small", "arms=[lora,random,random permuted]", "seed=0", "tune.widen=0", "task.test_size=8"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    with faulty_installed(tmp_path_factory.mktemp("site")):
        yield


def content(results: Path) -> dict[str, bytes]:
    return {str(file.relative_to(results)): file.read_bytes() for file in sorted(results.glob("runs/*/record.json"))}


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


# -------------------------------------------------------------------------------------------------------- an experiment


class Tuned:
    """A sweep with trials and a control, whose files were edited as its first run ended."""

    def __init__(self, config_dir: Path, results: Path) -> None:
        self.config_dir, self.results, self.words = config_dir, results, [*TUNED, f"results_dir={results}"]
        self.edit(3, 1.0)
        with pytest.MonkeyPatch.context() as patch:
            show = SweepProgress.show

            def editing(progress, *what) -> None:
                self.edit(4, 9.0)
                show(progress, *what)

            patch.setattr(SweepProgress, "show", editing)
            self.code = start(["hydra.launcher.slots=2", *self.words], config_dir)
        self.sweep = manifest.last(results, "small")

    def edit(self, steps: int, concentration: float) -> None:
        text = SMALL_EXPERIMENT.replace("train.steps: 3", f"train.steps: {steps}")
        write_experiment(self.config_dir, text.replace("{method: random}", "{method: drawn}"))
        (self.config_dir / "method").mkdir(exist_ok=True)
        (self.config_dir / "method" / "drawn.yaml").write_text(RANDOM.format(concentration=concentration))

    def records(self, trial: bool) -> list[RunRecord]:
        return [RunFolder(self.results, job.run_id).record() for job in self.sweep.jobs if job.trial == trial]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return Tuned(tmp_path_factory.mktemp("conf"), tmp_path_factory.mktemp("results"))


@pytest.mark.slow
def test_every_run_is_done_and_stands_for_its_arm(tuned):
    assert tuned.code == 0
    assert [(job.arm, job.trial) for job in tuned.sweep.jobs] == [
        *[("lora", True)] * 2,
        *[("random", True)] * 2,
        *[("random permuted", True)] * 2,
        *[(arm, False) for arm in ("lora", "random", "random permuted")],
    ]
    assert {record.status for trial in (True, False) for record in tuned.records(trial)} == {"ok"}
    assert len(content(tuned.results)) == 9
    assert tuned.sweep.words == ["hydra.launcher.slots=2", *tuned.words]
    assert list(tuned.sweep.experiment.arms) == ["lora", "random", "random permuted"]


@pytest.mark.slow
def test_an_edit_while_it_runs_changes_nothing(tuned):
    """Runs that were started after it, even those that were frozen after it, are as they were laid out."""
    records = [*tuned.records(trial=True), *tuned.records(trial=False)]
    assert {record.config["train"]["steps"] for record in records} == {3}
    assert {r.config["method"]["concentration"] for r in records if r.method == "random"} == {1.0}
    assert compose(["method=drawn"], tuned.config_dir).method.concentration == 9.0  # it was an edit


@pytest.mark.slow
def test_the_rate_was_chosen_before_anybody_scored_a_test_split(tuned):
    trials = {record.run_id: record for record in tuned.records(trial=True)}
    assert {record.metrics["test"] for record in trials.values()} == {None}
    assert not any((tuned.results / "runs" / name / "items.jsonl").exists() for name in trials)
    for record in tuned.records(trial=False):
        choice = record.config["tuned"]
        chosen = [trials[name] for name in choice["trials"]]
        assert {trial.method for trial in chosen} == {record.method}
        values = {t.config["train"]["learning_rate"]: t.metrics["validation"]["loss"] for t in chosen}
        assert choice["curve"] == [[rate, values[rate], 0] for rate in sorted(values)]
        assert record.config["train"]["learning_rate"] == choice["chosen"] == min(values, key=values.get)
        begun = (tuned.results / "runs" / record.run_id / ".lock").stat().st_mtime_ns
        ends = [(tuned.results / "runs" / name / "record.json").stat().st_mtime_ns for name in choice["trials"]]
        assert max(ends) < begun
        assert record.metrics["test"]["loss"] > 0


@pytest.mark.slow
def test_a_control_has_the_ranks_of_its_source_in_another_order(tuned):
    _, source, control = tuned.records(trial=False)
    assert control.config["method"]["source_run"] == source.run_id
    assert control.config["method"]["ranks"] == source.ranks
    assert control.ranks != source.ranks


@pytest.mark.slow
def test_what_is_typed_for_one_run_alone_is_that_run(tuned):
    tuned.edit(3, 1.0)
    for job in (tuned.sweep.jobs[0], tuned.sweep.jobs[4], tuned.sweep.jobs[-1]):
        config = build(compose([*job.overrides, f"results_dir={tuned.results}"], tuned.config_dir))
        assert run_id(config.plain()) == job.run_id


@pytest.mark.slow
def test_the_same_command_has_nothing_left_to_do(tuned, capsys):
    tuned.edit(3, 1.0)
    before = content(tuned.results)
    capsys.readouterr()
    assert start(tuned.words, tuned.config_dir) == 0
    assert printed(capsys) == "9 runs: 9 ok"
    assert content(tuned.results) == before
    again = manifest.last(tuned.results, "small")
    assert (again.sweep_id, again.order) == (tuned.sweep.sweep_id, tuned.sweep.order + 1)
    assert sorted(again.jobs, key=str) == sorted(tuned.sweep.jobs, key=str)


@pytest.mark.slow
def test_the_frozen_runs_lie_beside_the_sweep(tuned):
    place = manifest.folder(tuned.results, tuned.sweep.sweep_id)
    names = {file.name for file in place.iterdir() if file.is_file()}
    assert names == {"sweep.json", *(f"{job.run_id}.json" for job in tuned.sweep.jobs)}
    for job in tuned.sweep.jobs:
        frozen = json.loads((place / f"{job.run_id}.json").read_text())
        assert frozen["config"] == RunFolder(tuned.results, job.run_id).record().config


# ----------------------------------------------------------------------------------------------------------- failures


@pytest.mark.slow
def test_a_failed_run_is_told_left_alone_and_done_again_on_request(installed, tmp_path, capsys):
    words = [*SHORT, "method=faulty", "method.fault='raise once',none", f"method.target={tmp_path / 'mark'}"]
    words += ["hydra.launcher.slots=1", f"results_dir={tmp_path}"]
    assert start(words) == 1
    said = printed(capsys)
    assert "2 runs, 1 at a time" in said
    assert "[1/2] error" in said
    assert "ZeroDivisionError: as told" in said
    assert f"log: {tmp_path}/runs/" in said
    assert "2 runs: 1 ok, 1 error" in said
    assert "rankbench status says which and why; retry=failed does failed runs again" in said
    before = content(tmp_path)
    assert start(words) == 1
    assert printed(capsys).startswith("2 runs: 1 ok, 1 error")
    assert content(tmp_path) == before
    assert start([*words, "retry=failed"]) == 0
    assert "2 runs: 2 ok" in printed(capsys)
    assert len([name for name, text in content(tmp_path).items() if before[name] != text]) == 1


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(monkeypatch, tmp_path, capsys):
    words = [*SHORT, "hydra.launcher.slots=1", "method=lora", "seed=0,1,2", f"results_dir={tmp_path}"]
    show = SweepProgress.show

    def interrupting(progress, *what) -> None:
        show(progress, *what)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(SweepProgress, "show", interrupting)
        assert main(["-m", *words]) == 130
    out, err = capsys.readouterr()
    assert "no more runs are started; those that run are finished" in " ".join(out.split())
    assert err == "rankbench: interrupted; the same command goes on from the last checkpoint\n"
    first = content(tmp_path)
    assert len(first) == 1
    assert main(["sweep", *words]) == 0
    assert "3 runs: 3 ok" in printed(capsys)
    assert first.items() <= content(tmp_path).items()


@pytest.mark.slow
def test_a_sweep_that_is_started_again_and_interrupted_forgets_no_run(tuned, monkeypatch):
    """Its first batch are the trials: the runs that they choose for are there all the same."""
    tuned.edit(3, 1.0)
    trial = next(job for job in tuned.sweep.jobs if job.trial)
    file = tuned.results / "runs" / trial.run_id / "record.json"
    before = file.read_bytes()
    record = json.loads(before)
    file.write_text(json.dumps({**record, "status": "nan", "reason": "made up", "metrics": None}))

    def stop(*what):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rankbench.launching.local_pool.launch", stop)
        with pytest.raises(KeyboardInterrupt):
            start([*tuned.words, "retry=failed"], tuned.config_dir)
    file.write_bytes(before)
    assert sorted(manifest.last(tuned.results, "small").jobs, key=str) == sorted(tuned.sweep.jobs, key=str)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["hydra.launcher.slots=-1"], r"hydra.launcher.slots=-1: expected a number > 0, or null"),
        (
            ["hydra.launcher.slot=1"],
            r"hydra/launcher=local hydra.launcher.slot=1: Could not override 'hydra.launcher.slot'",
        ),
        (["hydra/launcher=lokal"], r"hydra/launcher=lokal: unknown; did you mean local\?"),
        (["results_dir=a,b"], r"results_dir: one for all runs of a sweep, not a, b"),
    ],
)
def test_a_launcher_that_cannot_be_had_is_told_before_any_run(monkeypatch, tmp_path, words, problem):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=problem):
        start(["method=lora", *SHORT, *words])
    assert list(tmp_path.glob("*/runs")) == []


def test_a_sweep_is_no_run_of_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = "-m: starts its own processes; under accelerate launch give one run at a time"
    with pytest.raises(ConfigError, match=said):
        start(["method=lora", *SHORT])
