"""Runs started with `rankbench`: exit codes, messages, the composed configuration, output for finished runs."""

import gc
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.records import record

from rankbench.cli import main
from rankbench.cli.run import folder_of, importing
from rankbench.config import overrides
from rankbench.config.overrides import one_run
from rankbench.config.sections import Config
from rankbench.tasks.base import DataError

BASE = ["model=tiny", "task=planted", "train=smoke"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """Replaces the run: seeds 1 and 4 raise, seed 2 ends with exit code 3, the rest with 0; gives what was run."""
    configs: list[Config] = []

    def execute(config: Config) -> int:
        configs.append(config)
        if config.seed == 1:
            raise TypeError("None is no number")
        if config.seed == 4:
            raise DataError("no data at DIR; give task.data_dir=DIR")
        return 3 if config.seed == 2 else 0

    fake = ModuleType("rankbench.training.run")
    fake.execute = execute  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rankbench.training.run", fake)
    monkeypatch.chdir(tmp_path)
    return configs


def test_one_run_gets_the_built_configuration(ran: list[Config]) -> None:
    assert main(["method=lora", *BASE, "budget=r2", "train.learning_rate=1", "seed=7"]) == 0
    assert main(["run", "method=lora", *BASE, "budget=r2", "train.learning_rate=1", "seed=7"]) == 0
    config, again = ran
    assert config == again
    assert (config.method.name, config.budget.reference_rank, config.seed) == ("lora", 2, 7)
    assert type(config.train.learning_rate) is float
    assert "hydra" not in config.plain()


def test_a_run_is_composed_and_examined_once(monkeypatch: pytest.MonkeyPatch, ran: list[Config]) -> None:
    calls = []
    compose, examine = overrides._compose, overrides.validation.examine
    monkeypatch.setattr(overrides, "_compose", lambda *words: calls.append("composed") or compose(*words))
    monkeypatch.setattr(overrides.validation, "examine", lambda *what: calls.append("examined") or examine(*what))
    assert main(["method=lora", *BASE]) == 0
    assert calls == ["composed", "examined"]


def test_words_of_hydra_and_another_primary_file_run_the_configuration_that_was_checked(
    ran: list[Config], tmp_path: Path
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text("defaults: [config, _self_]\nseed: 5\n")
    assert main(["method=lora", *BASE, "hydra.verbose=false"]) == 0
    assert main(["method=lora", *BASE, "--config-dir", str(tmp_path / "conf"), "--config-name", "mine"]) == 0
    assert [(config.method.name, config.seed) for config in ran] == [("lora", 0), ("lora", 5)]


def test_of_two_values_of_a_key_the_last_one_wins(ran: list[Config]) -> None:
    assert main(["method=igu", *BASE, "seed=3", "method=lora", "seed=0"]) == 0
    assert (ran[0].method.name, ran[0].seed) == ("lora", 0)


def test_a_run_logs_as_conf_declares_it(ran: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        assert main(["method=lora", *BASE]) == 0
        assert root.level == logging.WARNING
        (handler,) = [kept for kept in root.handlers if type(kept) is logging.StreamHandler]
        assert handler.stream is sys.stderr
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_hydra_leaves_no_files_of_a_run(ran: list[Config], tmp_path: Path) -> None:
    main(["method=lora", *BASE])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seed", "code"), [(0, 0), (1, 1), (2, 3), (4, 2)])
def test_the_exit_code_is_the_runs(ran: list[Config], seed: int, code: int) -> None:
    assert main(["method=lora", *BASE, f"seed={seed}"]) == code


def test_a_failure_is_one_line_and_a_fault_of_ours_is_told_from_advice(
    monkeypatch: pytest.MonkeyPatch, ran: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["method=lora", *BASE, "seed=4"])
    assert capsys.readouterr().err == "rankbench: no data at DIR; give task.data_dir=DIR\n"
    main(["method=lora", *BASE, "seed=1"])
    assert capsys.readouterr().err == (
        "rankbench: unexpected TypeError: None is no number "
        "(this is a fault of rankbench, not of your command; HYDRA_FULL_ERROR=1 shows where)\n"
    )
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    main(["method=lora", *BASE, "seed=1"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_mistakes_stop_everything_before_any_run(
    ran: list[Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["-m", "method=lora", *BASE, "seed=0,x", "train.stps=1", "results_dir=out"]) == 2
    assert ran == []
    assert list(tmp_path.iterdir()) == []
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rankbench: 2 mistakes in the configuration, nothing was run:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  train.stps=1", "  seed=x"]


def test_an_interrupt_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, ran: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: Config) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["rankbench.training.run"], "execute", interrupt)
    assert main(["method=lora", *BASE]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["-m"], ["run"], ["sweep"]])
def test_a_configuration_can_be_printed(
    ran: list[Config], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main([*words, "method=adalora", *BASE, "--cfg", "job"]) == 0
    assert "  name: adalora" in capsys.readouterr().out
    assert ran == []


@pytest.mark.parametrize("word", ["seed=0,1", "experiment=igu_ablation"])
def test_a_sweep_has_no_configuration_to_be_printed(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main(["-m", "method=lora", *BASE, word, "--cfg", "job"]) == 2
    assert f"{word}: --cfg, --info and the like show one run; take rankbench plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    "word", ["experiment=igu_ablation", "scale=small", "arms=[lora]", "retry=failed", "tune.widen=0"]
)
def test_words_of_a_sweep_need_m(ran: list[Config], capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main(["method=lora", *BASE, word]) == 2
    assert capsys.readouterr().err == (
        f"rankbench: 1 mistake in the configuration, nothing was run:\n  {word}: belongs to a sweep; add -m\n"
    )
    assert ran == []


def test_an_unknown_root_key_is_told_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "rankbench", "metod=igu", "model=tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "metod=igu: unknown key; did you mean method" in done.stderr
    assert "trial" not in done.stderr.partition("unknown key")[2]
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize("flag", [[], ["-m"]])
def test_a_mistyped_choice_is_told_without_torch_and_with_what_needs_no_torch(flag: list[str], tmp_path: Path) -> None:
    words = ["method=iguu", "model=tiny", "task=planted", "budget=r3", "train.stps=1", "method.beta1=0.5"]
    command = [sys.executable, "-X", "importtime", "-m", "rankbench", *flag, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "2 mistakes" in done.stderr
    assert "method=iguu: unknown method; did you mean igu" in done.stderr
    assert "train.stps=1: unknown key; did you mean steps" in done.stderr
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "loading torch" not in done.stdout


def test_a_choice_of_a_folder_of_ones_own_is_no_mistake(ran: list[Config], tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "mine.yaml").write_text("defaults: [smoke]\nsteps: 3\n")
    assert (
        main(["method=lora", "model=tiny", "task=planted", "train=mine", "--config-dir", str(tmp_path / "conf")]) == 0
    )
    assert ran[0].train.steps == 3


def test_other_mistakes_come_together_with_an_unknown_root_key(
    ran: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metod=igu", *BASE, "train.stps=1"]) == 2
    told = capsys.readouterr().err
    assert "2 mistakes" in told
    assert "tuned" not in told


def test_a_finished_run_is_shown_again_without_what_trains(tmp_path: Path) -> None:
    words = ["method=lora", *BASE, f"results_dir={tmp_path}"]
    folder = folder_of(one_run(words).config)
    folder.path.mkdir(parents=True)
    folder.write_record(record("lora", 0, run_id=folder.run_id))
    command = [sys.executable, "-X", "importtime", "-m", "rankbench", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert "done already" in " ".join(done.stdout.split())
    assert done.stdout.startswith("loading torch ...\n")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported
    assert not imported & {"peft", "transformers", "datasets", "accelerate", "pandas", "scipy", "matplotlib", "wandb"}


def test_a_run_says_what_it_loads(ran: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    main(["method=lora", *BASE])
    assert "loading transformers, PEFT, tiny in float32, planted ...\n" in capsys.readouterr().out


def test_what_is_imported_is_left_out_of_garbage_collection_once() -> None:
    gc.unfreeze()  # what commands of other tests left in this process
    gc.enable()
    try:
        with importing("json"):  # it is there already
            assert gc.isenabled()
        assert gc.get_freeze_count() == 0
        with importing("no.such.module"):
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
