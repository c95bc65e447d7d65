"""The command line as a whole: the command that a word names, help, the error line, the results folder."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.records import record

from rankbench.cli import COMMANDS, exit_codes, main
from rankbench.config.yaml_files import CONF_DIR
from rankbench.launching.local_pool import LaunchError
from rankbench.records import run_folder

GROUPS = sorted({file.parent.name for file in CONF_DIR.glob("*/*.yaml")})
HEAVY = {"torch", "hydra", "transformers", "peft", "pandas", "scipy", "matplotlib"}


def imported(*arguments: str) -> tuple[str, set[str]]:
    """What a command prints, and the packages that it imports."""
    command = [sys.executable, "-X", "importtime", "-m", "rankbench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_help_names_every_command_and_group_without_torch_and_hydra() -> None:
    text, modules = imported("--help")
    assert set(COMMANDS) <= set(text.split())
    assert {f"{group}=" for group in GROUPS} <= set(text.split())
    for part in ("*igu,", "*smollm2-135m,", "*arithmetic,", "*r8,", "seed=", "results_dir=", "HYDRA_FULL_ERROR"):
        assert part in text
    assert not modules & HEAVY


@pytest.mark.parametrize("group", GROUPS)
def test_the_second_level_of_help_names_every_choice(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", group]) == 0
    text = capsys.readouterr().out
    assert {file.stem for file in (CONF_DIR / group).glob("*.yaml")} <= set(text.replace("*", " ").split())
    assert group != "budget" or text.index(" r2 ") < text.index(" r16 ")


def test_the_overview_is_one_screen_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 56
    assert all(any(line.startswith(f"  {command} ") for line in lines) for command in COMMANDS)


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
@pytest.mark.parametrize(
    "words", [["--help"], ["--help", "method"], ["--help", "experiment"], ["records", "--help"], ["sweep", "--help"]]
)
def test_help_fits_the_terminal(
    words: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(words) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_help_of_its_own_that_loads_little(command: str) -> None:
    text, modules = imported(command, "--help")
    assert "rankbench" in text
    assert not modules & {"torch", "transformers", "peft", "pandas", "matplotlib"}


def test_the_second_level_says_what_each_choice_is_and_the_third_shows_its_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help", "method"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "* igu IGU-LoRA: the paper's method, corrected." in text
    assert main(["--help", "method=fim"]) == 0
    assert (CONF_DIR / "method" / "fim.yaml").read_text().rstrip() in capsys.readouterr().out
    assert main(["--help", "metod"]) == 2
    assert "--help metod: no command or group; did you mean method" in capsys.readouterr().err
    assert main(["help", "method=fm"]) == 2
    assert "unknown method; did you mean fim" in capsys.readouterr().err
    assert main(["--help", "budget=r3"]) == 0
    shown = capsys.readouterr().out
    assert "as uniform rank 3." in shown
    assert "name: r3\nreference_rank: 3\nunit: params\n" in shown
    assert main(["--help", "budget=r0"]) == 2
    assert "--help budget=r0: unknown budget" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "near"), [("reprot", "report"), ("stauts", "status"), ("method", "methods")])
def test_a_mistyped_command_comes_with_the_one_that_is_near(
    word: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "experiment=igu_ablation"]) == 2
    assert f"rankbench: unknown command {word!r}; did you mean rankbench {near}? settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["method", "igu"], "method: settings are written key=value: method=igu"),
        (["train.steps", "5"], "train.steps: settings are written key=value: train.steps=5"),
        (["--seed", "1"], "--seed: settings have no dashes and are written key=value: seed=1"),
        (
            ["sweep", "method=lora", "--results-dir=x"],
            "settings have no dashes and are written key=value: results_dir=x",
        ),
    ],
)
def test_a_setting_that_is_written_otherwise_comes_with_its_spelling(
    words: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["sweep", "--help"], ["experiment=", "retry=", "tune.widen=", "hydra.launcher.slots=", "hydra/launcher="]),
        (["-m", "--help"], ["tune.learning_rate="]),
        (["help", "sweep"], ["arms="]),
        (["run", "--help"], ["--cfg job", "--config-dir", "-m, --multirun", "method="]),
    ],
)
def test_run_and_sweep_have_a_help_of_their_own(
    words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert [part for part in parts if part not in text] == []


def test_a_mistyped_action_of_records_comes_with_the_one_that_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["records", "tabel", "--metric", "test/kl"]) == 2
    assert "records tabel: neither an action nor a folder or file; did you mean table?" in capsys.readouterr().err
    assert main(["records", "--help"]) == 0
    assert "records [runs|rates|table|maps|merge]" in capsys.readouterr().out


def test_a_word_that_is_like_no_command_is_no_command_either(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyzzy"]) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--bogus"], ["report", "--bogus"], ["records", "table"]])
def test_an_unknown_flag_or_a_missing_one_is_a_mistake(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage: rankbench" in capsys.readouterr().err


def test_the_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "rankbench 0.1.0\n"


def test_exit_codes_of_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_codes.complain(run_folder.RecordError("no record")) == 2
    assert exit_codes.complain(LaunchError("no process")) == 1
    assert exit_codes.complain(PermissionError(13, "Permission denied", "/x")) == 1
    assert exit_codes.complain(KeyError("name")) == 1
    assert capsys.readouterr().err.splitlines() == [
        "rankbench: no record",
        "rankbench: no process",
        "rankbench: PermissionError: [Errno 13] Permission denied: '/x'; HYDRA_FULL_ERROR=1 shows where",
        "rankbench: unexpected KeyError: 'name' "
        "(this is a fault of rankbench, not of your command; HYDRA_FULL_ERROR=1 shows where)",
    ]


@pytest.mark.parametrize("words", ["methods", "--help", "verify --published"])
def test_a_reader_that_has_seen_enough_gets_no_traceback(words: str) -> None:
    command = f"{sys.executable} -m rankbench {words} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_command_goes_on_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as with >&-
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["records", "--results", "{}"],
        ["records", "{}"],
        ["records", "runs", "--results", "{}/records.jsonl"],
        ["records", "rates", "--results", "{}"],
        ["records", "--results", "{}", "rates"],
        ["records", "--metric", "test/kl", "--results={}", "table"],
        ["records", "--best", "validation/loss", "{}/records.jsonl"],
        ["records", "table", "--results", "{}", "--metric", "test/kl"],
        ["records", "table", "{}/records.jsonl", "--metric", "test/kl"],
    ],
)
def test_records_are_read_from_a_folder_or_a_file_however_it_is_said(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {split: {"step": 60, "kl": 0.25, "loss": 0.5} for split in ("validation", "test")}
    finished = record("lora", 0, metrics=metrics, config={"train": {"learning_rate": 0.01}})
    folder = run_folder.RunFolder(tmp_path, finished.run_id)
    folder.path.mkdir(parents=True)
    folder.write_record(finished)
    run_folder.save([finished], tmp_path / "records.jsonl")
    assert main([word.format(tmp_path) for word in words]) == 0
    assert "budget r1: 1 runs" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "report", "verify"])
@pytest.mark.parametrize("spelling", [["--results", "{}"], ["results_dir={}"]])
def test_readers_of_a_sweep_take_both_spellings(
    command: str, spelling: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "experiment=none", *(word.format(tmp_path) for word in spelling)]) == 2
    assert f"rankbench: {tmp_path} holds no sweep of experiment=none" in capsys.readouterr().err


def test_results_are_in_results_where_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["records"], ["status"], ["report"], ["verify"], ["compare", "a", "b"]):
        assert main(words) == 2
        assert "results" in capsys.readouterr().err.replace("--results", "")


@pytest.mark.parametrize(
    "words",
    [
        ["records"],
        ["records", "rates"],
        ["records", "table", "--metric", "test/kl"],
        ["records", "maps", "--out", "out"],
        ["records", "merge", "--into", "out"],
        ["report"],
        ["report", "--wandb"],
        ["verify"],
        ["maps", "--into", "out"],
        ["export", "--out", "out"],
        ["status", "--results"],
    ],
)
def test_a_folder_that_is_not_there_is_said_and_no_success(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "nowhere"]) == 2
    said = capsys.readouterr()
    assert "nowhere" in said.err
    assert said.out == ""
    assert not (tmp_path / "out").exists()


def test_an_error_is_filled_to_the_width_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["records", "tabel"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 50
