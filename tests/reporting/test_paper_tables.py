"""LaTeX tables: escaped, as wide as a column, and compiled where pdflatex is installed."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.studies import declared, study

from rankbench.reporting import report
from rankbench.reporting.latex_text import escape, measure, wrap
from rankbench.reporting.paper_tables import (
    POINTS,
    SEPARATION,
    WIDTHS,
    latex_document,
    latex_table,
    lay_out,
    write_tables,
)
from rankbench.reporting.report_data import gather
from rankbench.reporting.table import Cell, Table, arm_cell

SHEET = Table(
    "results",
    "Tiny, 100 % of it",
    ["method", "KL ↓", "difference [95 % CI]", "finding", "detectable", "empty"],
    [
        [arm_cell("lora"), Cell("0.30 ± 0.16", 0.3), Cell(), Cell("reference"), Cell("1"), Cell()],
        [
            Cell("igu_code | x"),
            Cell("0.25", 0.25, strong=True),
            Cell("-0.05 [-0.06, -0.04]", -0.05, -0.06, -0.04),
            Cell("better", strong=True),
            Cell("2"),
            Cell(),
        ],
        [Cell("fim"), Cell("no run"), Cell("9 s", 9.0, muted=True), Cell("not run"), Cell("3"), Cell()],
    ],
    ["A note & more."],
    legend=["Mean ± standard deviation."],
    details=["detectable"],
)


def long_table(rows: int, columns: int, words: str = "word") -> Table:
    """Numbers under heads of two words, beside a column of words."""
    heads = ["where", "method", *(f"some number {index}" for index in range(columns))]
    body = [
        [
            Cell(f"panel {row // 7}"),
            Cell(f"{words} {row}"),
            *(Cell("-0.123 [-0.45, +0.67]", 0.1) for _ in range(columns)),
        ]
        for row in range(rows)
    ]
    return Table(
        f"long-{rows}-{columns}", "Long: a_b", heads, body, ["Typed: python -m rankbench a.very.long=setting_of_it"]
    )


def test_latex_escapes_all_that_means_something_to_it():
    assert escape(r"a_b & 50% of $x^2$ #1 {~} \n") == (
        r"a\_b \& 50\% of \$x\textasciicircum{}2\$ \#1 \{\textasciitilde{}\} \textbackslash{}n"
    )
    assert escape("0.1 ± 0.2, β₁, é") == r"0.1 \textpm{} 0.2, $\beta$$_1$, [U+00E9]"
    assert escape("Student's 'x'") == r"Student's \textquotesingle{}x\textquotesingle{}"
    assert escape("train.learning_rate=0.1").count(r"\allowbreak{}") == 3
    assert "allowbreak" not in escape("+134.3\N{NO-BREAK SPACE}% [+122.7,\N{NO-BREAK SPACE}+146.6]")
    assert all(letter.isascii() for letter in escape("".join(map(chr, range(32, 0x3000)))))


def test_widths_are_those_of_times():
    """Of the font's metrics: A is 722 thousandths wide, v 500, a blank 250."""
    assert measure("Av", 10) == pytest.approx(12.22)
    assert measure("A v", 10) == pytest.approx(14.72)
    assert measure("A", 10, bold=True) == pytest.approx(7.22)
    assert wrap("A v A", 15, 10) == ["A v", "A"]
    assert wrap("AAAA v", 15, 10) == ["AAAA", "v"]


def test_a_table_is_booktabs_without_details_and_empty_columns():
    text = latex_table(SHEET)
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [line.count(" & ") for line in rows] == [3] * len(rows)
    assert r"\begin{tabular}{@{}lrrl@{}}" in text
    assert r"\caption{\textbf{Tiny, 100 \% of it.} Mean \textpm{} standard deviation. A note \& more.}" in text
    assert r"LoRA (uniform) & 0.30~\textpm{}~0.16" in text
    assert r"\textbf{0.25}" in text
    assert r"\textminus{}0.05 [\textminus{}0.06,~\textminus{}0.04]" in text
    assert r"\textcolor[gray]{0.5}{9 s}" in text
    assert "resizebox" not in text
    assert text.count("{") == text.count("}")


def test_a_document_is_as_wide_as_its_venue():
    for venue, widths in WIDTHS.items():
        text = latex_document(["results", "cost"], "a study", venue)
        assert f"textwidth={widths[-1]}in" in text
        assert ("twocolumn" in text) == (len(widths) > 1)
        assert text.index(r"\input{tables/results}") < text.index(r"\input{tables/cost}")


def widths_of(table: Table, widths: tuple[float, ...]) -> list[float]:
    layout = lay_out(table, widths)
    return [sum(layout.widths[index] for index in block) + 2 * SEPARATION * (len(block) - 1) for block in layout.blocks]


@pytest.mark.parametrize(("rows", "columns"), [(3, 1), (3, 3), (5, 9), (90, 2)])
def test_no_block_is_wider_than_there_is_room_and_every_column_is_there(rows, columns):
    for venue in WIDTHS.values():
        table = long_table(rows, columns)
        layout = lay_out(table, venue)
        assert max(widths_of(table, venue)) <= venue[-1 if layout.page else 0] * POINTS + 0.1
        assert set(itertools.chain(*layout.blocks)) == set(range(columns + 2))
        assert layout.size in (8, 9)


def test_type_is_smaller_and_words_are_broken_before_a_table_goes_over_the_page():
    column = WIDTHS["icml"][:1]
    small, broken = long_table(3, 1), long_table(3, 1, words="a method of several words with a name")
    assert (lay_out(small, column).size, lay_out(small, column).broken) == (9, frozenset())
    assert lay_out(broken, column).broken == {1}
    assert lay_out(long_table(3, 4), WIDTHS["icml"]).page


def test_rows_of_a_panel_stand_below_its_name_and_long_tables_are_continued():
    text = latex_table(long_table(90, 1))
    assert text.count(r"\emph{panel 3}") == 1
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") > 1
    assert text.count("(continued)") == text.count(r"\begin{table}") - 1
    assert text.count(r"\label{") == 1
    assert len(re.findall(r"word \d+", text)) == 90
    counts = [len(re.findall(r"word \d+", part)) for part in text.split(r"\end{table}")[:-1]]
    assert max(counts) - min(counts) <= 7  # no float is left with a row or two


def test_tables_without_rows_are_not_written(tmp_path):
    files = write_tables([SHEET, Table("nothing", "Nothing", ["a"], [])], tmp_path, "a study")
    assert sorted(file.name for file in files) == ["results.csv", "results.tex"]
    assert "nothing" not in (tmp_path / "paper.tex").read_text()


@pytest.fixture(scope="module")
def every_table() -> list[Table]:
    """The tables of a study with lost runs, and some that are too wide or too long."""
    several = declared(tasks=("glue-rte", "planted"), budgets=("r4", "r8"), seeds=range(3))
    sections = report.make_sections(gather(study(several, lost=0.1, failed=0.05)))
    tables = [table for section in sections for table in section.tables]
    return [*tables, long_table(5, 9), long_table(90, 2), SHEET]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("venue", WIDTHS)
def test_the_tables_of_a_study_compile_and_none_is_too_wide(every_table, venue, tmp_path):
    write_tables(every_table, tmp_path, "a study", venue)
    compile_document(tmp_path)


def compile_document(folder: Path) -> None:
    """Compile paper.tex; no error, nothing wider than its column or higher than its page."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "paper.log").read_text(errors="replace")
    assert [line for line in log.splitlines() if re.search(r"Overfull|too large", line)] == []
