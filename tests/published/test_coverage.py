"""What of the published numbers the experiments run for: the tables of docs/coverage.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankbench.cli import main
from rankbench.published.coverage import coverage, markdown, summary
from rankbench.published.verification import is_of_hardware

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables():
    return coverage()


def test_the_docs_say_what_is_covered(tables):
    """`rankbench verify --published --coverage`."""
    page = (ROOT / "docs" / "coverage.md").read_text()
    assert summary(tables) in page
    assert markdown(tables) in page


def test_a_number_is_covered_or_left_out_for_a_reason(tables):
    of = {(table.file, table.table, table.model): table for table in tables}
    glue = of["adalora", "Table 1", "DeBERTa-v3-base"]
    assert (glue.experiments, glue.total) == (["adalora_glue"], 132)
    assert glue.left_out == {"no such method here": ["HAdapter", "PAdapter"]}
    assert glue.covered == 132 - 66  # 2 adapters x 3 sizes x 11 numbers
    cost = of["igu", "cost", "Qwen2.5-0.5B"]
    assert cost.covered == 0
    assert list(cost.left_out) == ["measured on other hardware"]
    assert all(table.left_out or table.covered == table.total for table in tables)
    assert "no experiment" in of["sensitivity", "Table 9", "Qwen2.5-32B"].left_out


def test_hardware_is_told_by_words():
    assert is_of_hardware("training time")
    assert is_of_hardware("peak memory")
    assert not is_of_hardware("Kendall tau, Sentiment140 / LexGLUE")


def test_the_command_prints_both(tables, capsys, monkeypatch):
    monkeypatch.setattr("rankbench.published.coverage.coverage", lambda: tables)
    assert main(["verify", "--published", "--coverage"]) == 0
    assert capsys.readouterr().out == f"{summary(tables)}\n\n{markdown(tables)}\n"
