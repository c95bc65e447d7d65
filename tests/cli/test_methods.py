"""The method table."""

import re
from pathlib import Path

from rankbench.cli import main, methods
from rankbench.config import registry
from rankbench.config.registry import get

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> int:
    return main(["methods", *arguments])


def test_every_method_has_a_row(capsys):
    assert run() == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["name", *methods.COLUMNS.values()]
    assert {row[0] for row in rows} >= set(registry.names("method"))


def test_methods_that_are_named_come_with_their_deviations(capsys):
    assert run("igu") == 0
    out = capsys.readouterr().out
    assert "adalora" not in out
    text = " ".join(out.split())
    assert all(" ".join(sentence.split()) in text for sentence in get("method", "igu").deviations)


def test_all_deviations_on_demand(capsys):
    assert run("--deviations") == 0
    assert get("method", "fim").deviations[0] in " ".join(capsys.readouterr().out.split())


def test_an_unknown_name_is_an_error_with_near_names(capsys):
    assert run("igo") == 2
    assert "did you mean igu" in capsys.readouterr().err


def test_markdown_is_a_table(capsys):
    assert run("--markdown", "lora") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| name | what it does | ranks are decided |")
    assert lines[2].startswith("| `lora` | uniform rank")


def test_the_readme_names_every_method():
    section = (ROOT / "README.md").read_text().partition("## Methods")[2].partition("\n## ")[0]
    own = [name for names in registry.BUILT_IN["method"].values() for name in names]
    assert sorted(re.findall(r"`(\w+)`", section)) == sorted(own)
