"""One table in four formats that always agree."""

from __future__ import annotations

from rankbench.reporting.page import table_element as html
from rankbench.reporting.plotting import ArmStyle
from rankbench.reporting.table import (
    Cell,
    Table,
    csv_frame,
    is_numeric,
    latex_document,
    latex_escape,
    latex_table,
    markdown_section,
    markdown_table,
    without_first_column,
)

SHEET = Table(
    "results",
    "tiny, 100 % of it",
    ["arm", "test/kl", "test/kl - lora", "finding"],
    [
        [Cell("lora"), Cell("0.30 ± 0.16", 0.3), Cell(), Cell("reference", kind="reference")],
        [
            Cell("igu_code | x", link="runs-1"),
            Cell("0.25", 0.25, strong=True),
            Cell("-0.05 [-0.06, -0.04]", -0.05, -0.06, -0.04, link="runs-1"),
            Cell("better", strong=True, kind="no worthwhile gain"),
        ],
        [Cell("fim"), Cell("no run"), Cell(), Cell("not run")],
    ],
    ["A note & more."],
    strip=2,
    margin=0.01,
)
STYLES = {"lora": ArmStyle("LoRA", "#000000", "o", "-")}


def test_markdown_is_bold_where_a_cell_is_strong_and_escapes_pipes():
    rows = markdown_table(SHEET).splitlines()
    assert rows[0] == "| arm | test/kl | test/kl - lora | finding |"
    assert rows[3] == "| igu_code \\| x | **0.25** | -0.05 [-0.06, -0.04] | **better** |"
    assert markdown_section(SHEET).startswith("## tiny, 100 % of it\n\n| arm |")
    assert markdown_section(SHEET).endswith("\n\nA note & more.")


def test_a_csv_has_numbers_and_the_ends_of_intervals():
    found = csv_frame(SHEET)
    assert found.columns.tolist() == [
        "arm",
        "test/kl",
        "test/kl - lora",
        "test/kl - lora, low",
        "test/kl - lora, high",
        "finding",
    ]
    assert found["test/kl"].tolist()[:2] == [0.3, 0.25]
    assert found.loc[1, "test/kl - lora, low"] == -0.06
    assert found["test/kl"].isna().tolist() == [False, False, True]
    assert found["finding"].tolist() == ["reference", "better", "not run"]


def test_a_column_is_numeric_where_it_holds_a_number():
    assert [is_numeric(SHEET, place) for place in range(4)] == [False, True, True, False]


def test_the_first_column_goes_and_the_strip_moves_with_it():
    shorter = without_first_column(SHEET)
    assert (shorter.columns, shorter.strip, len(shorter.rows[0])) == (["test/kl", "test/kl - lora", "finding"], 1, 3)


def test_latex_escapes_all_that_means_something_to_it():
    assert latex_escape(r"a_b & 50% of $x^2$ #1 {~} \n") == (
        r"a\_b \& 50\% of \$x\textasciicircum{}2\$ \#1 \{\textasciitilde{}\} \textbackslash{}n"
    )
    assert latex_escape("0.1 ± 0.2, β") == r"0.1 $\pm$ 0.2, [U+03B2]"
    assert all(letter.isascii() for letter in latex_escape("".join(map(chr, range(32, 0x3000)))))


def test_latex_is_booktabs_with_as_many_cells_as_columns():
    text = latex_table(SHEET)
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [line.count(" & ") for line in rows] == [3, 3, 3, 3]
    assert r"\begin{tabular}{lrrl}" in text
    assert r"\caption{tiny, 100 \% of it}" in text
    assert r"\textbf{0.25}" in text
    assert r"$-$0.05 [$-$0.06, $-$0.04]" in text
    assert r"A note \& more." in text
    assert text.count("{") == text.count("}")


def test_the_document_reads_every_table():
    text = latex_document(["results", "cost"])
    assert r"\input{tables/results}" in text
    assert r"\input{tables/cost}" in text
    assert text.rstrip().endswith(r"\end{document}")


def test_html_is_escaped_leads_to_records_and_draws_the_interval():
    text = html(SHEET, STYLES)
    assert '<a href="#runs-1">igu_code | x</a>' in text
    assert "A note &amp; more." in text
    assert '<span class="finding no-worthwhile-gain"><strong>better</strong></span>' in text
    assert "\N{MINUS SIGN}0.05 [\N{MINUS SIGN}0.06, \N{MINUS SIGN}0.04]" in text
    assert text.count("<svg") == 3
    assert text.count("<circle") == 1
    assert 'style="background:#000000"' in text


def test_a_title_cannot_leave_its_place():
    hostile = Table("x", "<script>alert(1)</script>", ['"><b>'], [[Cell("<i>", link='"onclick="')]])
    text = html(hostile, {})
    assert "<script" not in text
    assert "<i>" not in text
    assert "<b>" not in text
    assert 'href="#&quot;onclick=&quot;"' in text
