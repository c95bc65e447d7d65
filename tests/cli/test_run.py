"""`python -m rankbench`: help, exit codes, one run and a sweep, messages."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import DictConfig

from rankbench.cli.run import main
from rankbench.config.yaml_files import CONF_DIR

BASE = ["model=tiny", "task=planted", "train=smoke"]


def call(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-X", "importtime", "-m", "rankbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[DictConfig]:
    """Replaces the run: seed 1 raises, seed 2 ends with exit code 3, the rest with 0; gives what was run."""
    configs: list[DictConfig] = []

    def execute(config: DictConfig) -> int:
        configs.append(config)
        if config.seed == 1:
            raise RuntimeError("the disk is full")
        return 3 if config.seed == 2 else 0

    fake = ModuleType("rankbench.training.run")
    fake.execute = execute  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rankbench.training.run", fake)
    monkeypatch.chdir(tmp_path)
    return configs


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rankbench", *arguments])
    return main()


def test_help_lists_every_choice_fast_and_without_torch() -> None:
    start = time.perf_counter()
    done = call("--help")
    seconds = time.perf_counter() - start
    assert done.returncode == 0
    for file in CONF_DIR.glob("*/*.yaml"):
        assert f" {file.stem} " in done.stdout
    for text in ("* igu ", "* smollm2-135m ", "* arithmetic ", "* r8 ", "seed=", "results_dir=", "HYDRA_FULL_ERROR"):
        assert text in done.stdout
    assert done.stdout.index(" r2 ") < done.stdout.index(" r16 ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "omegaconf" in imported
    assert not imported & {"torch", "hydra", "transformers", "pandas"}
    assert seconds < 5  # 0.3 s on an idle machine; torch alone takes longer than this on a busy one


def test_one_run_gets_the_built_configuration(monkeypatch: pytest.MonkeyPatch, ran: list[DictConfig]) -> None:
    assert run(monkeypatch, "method=lora", *BASE, "budget=r2", "train.learning_rate=1", "seed=7") == 0
    (config,) = ran
    assert (config.method.name, config.budget.reference_rank, config.seed) == ("lora", 2, 7)
    assert type(config.train.learning_rate) is float
    assert "hydra" not in config


def test_hydra_leaves_no_files_of_a_run(monkeypatch: pytest.MonkeyPatch, ran: list[DictConfig], tmp_path: Path) -> None:
    run(monkeypatch, "method=lora", *BASE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seed", "code"), [(0, 0), (1, 1), (2, 3)])
def test_the_exit_code_is_the_runs(
    monkeypatch: pytest.MonkeyPatch, ran: list[DictConfig], seed: int, code: int
) -> None:
    assert run(monkeypatch, "method=lora", *BASE, f"seed={seed}") == code


def test_a_failure_is_one_paragraph(
    monkeypatch: pytest.MonkeyPatch, ran: list[DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "method=lora", *BASE, "seed=1")
    assert capsys.readouterr().err == "rankbench: RuntimeError: the disk is full\n"
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    run(monkeypatch, "method=lora", *BASE, "seed=1")
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_mistakes_stop_everything_before_any_run(
    monkeypatch: pytest.MonkeyPatch, ran: list[DictConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "-m", "method=lora", *BASE, "seed=0,x", "train.stps=1", "results_dir=out") == 2
    assert ran == []
    assert list(tmp_path.iterdir()) == []
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "rankbench: 2 mistakes in the configuration, nothing was run:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  train.stps=1", "  seed=x"]


def test_an_interrupt_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, ran: list[DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: DictConfig) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["rankbench.training.run"], "execute", interrupt)
    assert run(monkeypatch, "method=lora", *BASE) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_configuration_can_be_printed(
    monkeypatch: pytest.MonkeyPatch, ran: list[DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "method=adalora", *BASE, "--cfg", "job") == 0
    assert "  name: adalora" in capsys.readouterr().out
    assert ran == []


@pytest.mark.parametrize(
    "word", ["experiment=igu_ablation", "scale=small", "arms=[lora]", "retry=failed", "tune.widen=0"]
)
def test_words_of_a_sweep_need_m(
    monkeypatch: pytest.MonkeyPatch, ran: list[DictConfig], capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert run(monkeypatch, "method=lora", *BASE, word) == 2
    assert capsys.readouterr().err == (
        f"rankbench: 1 mistake in the configuration, nothing was run:\n  {word}: is of a sweep; add -m\n"
    )
    assert ran == []
