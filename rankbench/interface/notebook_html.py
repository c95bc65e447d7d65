"""HTML by which notebooks show runs and studies: plain, so that it can be read on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from rankbench.analysis.labels import arm_title

if TYPE_CHECKING:
    from rankbench.reporting.table import Table

BADGE = (
    "display: inline-block; margin: 0 .4em .3em 0; padding: 0 .5em; border: 1px solid currentColor; border-radius: .6em"
)
SHOWN_ARMS = 12  # in the badges of one kind


def paragraph(text: str, strong: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p><b>{escape(text)}</b></p>" if strong else f"<p>{escape(text)}</p>"


def badges_html(badges: Mapping[str, Mapping[str, str]]) -> str:
    """A badge per arm, a line per kind of finding."""
    return "".join(f"<div>{escape(kind)}: {_badges(arms)}</div>" for kind, arms in badges.items())


def _badges(arms: Mapping[str, str]) -> str:
    names = [arm_title(arm) + f" ({where})" * bool(where) for arm, where in arms.items()]
    rest = f" and {len(names) - SHOWN_ARMS} more" * (len(names) > SHOWN_ARMS)
    return "".join(f'<span style="{BADGE}">{escape(name)}</span>' for name in names[:SHOWN_ARMS]) + rest


def table_html(table: Table) -> str:
    """A table of a report; bold where its cells are."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = (
        "".join(f"<td>{f'<b>{escape(cell.text)}</b>' if cell.strong else escape(cell.text)}</td>" for cell in row)
        for row in table.rows
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
