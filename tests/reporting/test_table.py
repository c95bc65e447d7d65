"""One table in formats that always agree."""

from __future__ import annotations

from rankbench.reporting.amounts import rough
from rankbench.reporting.pages.page import environment, parts
from rankbench.reporting.plotting import ArmStyle
from rankbench.reporting.table import (
    Cell,
    Table,
    arm_cell,
    csv_frame,
    is_numeric,
    markdown_section,
    markdown_table,
    without_first_column,
)

SHEET = Table(
    "results",
    "tiny, 100 % of it",
    ["method", "KL ↓", "difference [95 % CI]", "finding"],
    [
        [arm_cell("lora"), Cell("0.30 ± 0.16", 0.3), Cell(), Cell("reference", kind="reference")],
        [
            Cell("igu_code | x", link="runs-1"),
            Cell("0.25", 0.25, strong=True),
            Cell("-0.05 [-0.06, -0.04]", -0.05, -0.06, -0.04, link="runs-1"),
            Cell("better", strong=True, kind="no worthwhile gain"),
        ],
        [arm_cell("fim"), Cell("no run"), Cell(), Cell("not run")],
    ],
    ["A note & more."],
    strip=2,
    margin=0.01,
)
STYLES = {"lora": ArmStyle("#000000", "o", "-")}


def test_rough_numbers_have_two_digits_and_no_exponent():
    assert [rough(value) for value in (0.354, 26.4, 99.6, 101.3, 12345.0)] == ["0.35", "26", "100", "101", "12,345"]


def test_markdown_is_bold_where_a_cell_is_strong_and_escapes_pipes():
    rows = markdown_table(SHEET).splitlines()
    assert rows[0] == "| method | KL ↓ | difference [95 % CI] | finding |"
    assert rows[3] == "| igu_code \\| x | **0.25** | -0.05 [-0.06, -0.04] | **better** |"
    assert markdown_section(SHEET).startswith("## tiny, 100 % of it\n\n| method |")
    assert markdown_section(SHEET).endswith("\n\nA note & more.")


def test_a_csv_has_numbers_and_the_ends_of_intervals():
    found = csv_frame(SHEET)
    assert found.columns.tolist() == [
        "method",
        "KL",
        "difference [95 % CI]",
        "difference [95 % CI], low",
        "difference [95 % CI], high",
        "finding",
    ]
    assert found["KL"].tolist()[:2] == [0.3, 0.25]
    assert found.loc[1, "difference [95 % CI], low"] == -0.06
    assert found["KL"].isna().tolist() == [False, False, True]
    assert found["finding"].tolist() == ["reference", "better", "not run"]


def test_an_arm_is_shown_by_its_name_and_kept_by_its_label():
    assert markdown_table(SHEET).splitlines()[2].startswith("| LoRA (uniform) | 0.30")
    assert csv_frame(SHEET)["method"].tolist() == ["lora", "igu_code | x", "fim"]


def test_a_column_is_numeric_where_it_holds_a_number():
    assert [is_numeric(SHEET, place) for place in range(4)] == [False, True, True, False]


def test_the_first_column_goes_and_the_strip_moves_with_it():
    shorter = without_first_column(SHEET)
    assert (shorter.columns, shorter.strip, len(shorter.rows[0])) == (["KL ↓", "difference [95 % CI]", "finding"], 1, 3)


def html(table: Table, styles: dict[str, ArmStyle]) -> str:
    text = "{% import 'blocks.html.j2' as blocks with context %}{{ blocks.block_of(table) }}"
    return environment().from_string(text).render(table=table, styles=styles)


def test_html_is_escaped_leads_to_records_and_draws_the_interval():
    text = html(SHEET, STYLES)
    assert '<a href="#runs-1">igu_code | x</a>' in text
    assert "A note &amp; more." in text
    assert '<span class="finding no-worthwhile-gain short">better</span>' in text
    assert "\N{MINUS SIGN}0.05 [\N{MINUS SIGN}0.06,\N{NO-BREAK SPACE}\N{MINUS SIGN}0.04]" in text
    assert 'title="-0.05 [-0.06, -0.04]"' in text
    assert text.count('<svg class="strip"') == 3
    assert text.count('class="middle"') == 1
    assert 'style="background:#000000"' in text
    assert 'href="tables/results.csv"' in text


def test_a_title_cannot_leave_its_place():
    hostile = Table("x", "<script>alert(1)</script>", ['"><b>'], [[Cell("<i>", link='"onclick="')]])
    text = html(hostile, {})
    assert "<script" not in text
    assert "<i>" not in text
    assert "<b>" not in text
    assert 'href="#&#34;onclick=&#34;"' in text


def test_a_table_that_is_too_wide_is_shown_in_parts_that_name_the_rows():
    wide = Table("x", "x", ["arm", *map(str, range(30))], [[arm_cell("lora"), *[Cell("0.30 ± 0.16", 0.3)] * 30]])
    several = parts(wide)
    assert len(several) > 1
    assert {part.columns[0].title for part in several} == {"arm"}
    assert [column.title for part in several for column in part.columns[1:]] == [*map(str, range(30))]
    assert len(parts(SHEET)) == 1
