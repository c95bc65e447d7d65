"""Tables on a terminal of any width, and as Markdown in a pipe."""

import re

import pytest

from rankbench.terminal import duration, fitting, loading, print_table

TITLES = ["method", "model", "test/kl", "finding", "peak MiB"]
ROWS = [
    ["lora", "tiny", "0.0226 ± 0.0009", "reference", "1,024"],
    ["random", "tiny", "0.0232 ± 0.0018", "open: 57 seeds would tell", "998"],
]


def on_terminal(monkeypatch, capsys, columns: int, **how) -> list[str]:
    """The lines of ROWS on a terminal, without styles."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(TITLES, ROWS, **how)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()]


def test_in_a_pipe_a_table_is_markdown_with_every_column(capsys):
    print_table(["a|b", "c"], [["x|y", "1"], ["two\nlines", ""]], "title", ["c"])
    assert capsys.readouterr().out.splitlines() == [
        *("title", "", "| a|b | c |", "| --- | --- |", "| x\\|y | 1 |", "| two lines |  |")
    ]


def test_a_wide_terminal_shows_every_column(monkeypatch, capsys):
    head, first, _ = on_terminal(monkeypatch, capsys, 120, spare=["peak MiB"])
    assert head.split() == ["method", "model", "test/kl", "finding", "peak", "MiB"]
    assert first.endswith("1,024")


def test_where_there_is_little_room_what_is_common_stands_above(monkeypatch, capsys):
    lines = on_terminal(monkeypatch, capsys, 66, title="results", spare=["peak MiB"])
    assert lines[:2] == ["results", "in all rows: model tiny"]
    assert "left out" not in lines[-1]


@pytest.mark.parametrize("columns", [40, 50, 60, 80])
def test_no_line_is_wider_than_the_terminal_and_what_is_left_out_is_named(monkeypatch, capsys, columns):
    lines = on_terminal(monkeypatch, capsys, columns, spare=["peak MiB", "finding"])
    assert max(map(len, lines)) <= columns
    shown = " ".join(" ".join(lines).split())
    for title in TITLES:
        assert title in shown
    assert any(line.startswith("left out at") for line in lines) == (columns < 60)


def test_numbers_are_never_broken_and_spare_columns_go_in_their_order():
    kept, common, dropped = fitting(TITLES, ROWS, 30, ["peak MiB", "finding"])
    assert (kept, common, dropped) == ([0, 2], ["model tiny"], [4, 3])
    assert fitting(TITLES, ROWS[:1], 30)[1] == []  # of one row, nothing is said to be common


def test_what_takes_a_moment_is_said_on_a_terminal_alone(monkeypatch, capsys):
    loading("torch")
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    loading("torch")
    assert "loading torch ..." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (16.7, "17 s"),
        (27, "27 s"),
        (730, "12 min"),
        (12_700, "3.5 h"),
        (180_000, "2.1 days"),
    ],
)
def test_a_duration_has_a_unit_in_which_it_can_be_read(seconds, words):
    assert duration(seconds) == words
