"""The terminal: its width, tables that fit it, what becomes of output that nobody takes, and durations in words."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2  # characters between two columns
NARROW = 24  # characters that a column of words is left with at least
NUMBER = re.compile(r"[-+<>]? ?[\d.,]+(e[-+]?\d+)?( ?[a-zA-Z%]+)?")  # "5,632", "-0.03", "12 min", "80 %"


class QuietConsole(Console):
    """A console that falls silent when its reader has gone; rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True


def console() -> Console:
    """Standard output, as wide as the terminal; 100 columns wide where it is no terminal.

    In a notebook too, where rich would show each line as an output of its own, whatever standard output is.
    """
    terminal = QuietConsole(highlight=False, force_jupyter=False)
    return terminal if terminal.is_terminal else QuietConsole(highlight=False, force_jupyter=False, width=100)


class _Unfailing(io.FileIO):
    """A file that says that it has written what the system did not take."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:  # a closed pipe, a full device, a terminal that is gone
            return len(data)


def outlive_readers() -> None:
    """Let this process go on when nobody takes what it prints: its work does not hang on its output."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            file = io.BufferedWriter(_Unfailing(stream.fileno(), "wb", closefd=False))
            buffering = stream.line_buffering or name == "stderr"
            wrapped = io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=buffering)
            setattr(sys, name, wrapped)


def duration(seconds: float) -> str:
    """A duration in words: 45 s, 12 min, 3.5 h, 2.1 days."""
    for limit, unit, size in ((100, "s", 1), (100 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{1 if size == 3600 else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def print_text(text: str, style: str = "") -> None:
    """Print sentences: on a terminal filled to its width, else as they are."""
    out = console()
    out.print(text, style=style, markup=False, soft_wrap=not out.is_terminal)


def loading(what: str) -> None:
    """Say on a terminal what takes a moment; in a pipe nothing, since its reader wants the result alone."""
    out = console()
    if out.is_terminal:
        out.print(f"loading {what} ...", style="dim", markup=False)


def print_table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    spare: Sequence[str] = (),
    colours: Mapping[str, str] = MappingProxyType({}),
    last: str = "",
) -> None:
    """Print a table: on a terminal as wide as that is, else as Markdown, which has every column.

    On a terminal that is too narrow, columns that say the same in all rows become a line above the table. If that is
    not enough, spare columns are left out and named, and words are wrapped.

    Args:
        titles: of the columns; the first one names the rows and always stays.
        rows: their texts.
        title: line above the table.
        spare: titles of the columns that may be left out, in this order.
        colours: text of a cell -> its style.
        last: style of the last row, such as "bold" for a sum.
    """
    out = console()
    if not out.is_terminal:
        out.print("\n".join([*([title, ""] if title else []), markdown(titles, rows)]), markup=False, soft_wrap=True)
        return
    kept, common, dropped = fitting(titles, rows, out.width, spare)
    if title:
        print_text(title, "bold")
    if common:
        print_text(f"in all rows: {', '.join(common)}", "dim")
    out.print(_rich_table(titles, rows, kept, colours, last))
    if dropped:
        names = ", ".join(titles[column] for column in dropped)
        print_text(f"left out at {out.width} columns: {names}", "dim")


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [
        titles,
        ["---"] * len(titles),
        *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fitting(
    titles: Sequence[str], rows: Sequence[Sequence[str]], width: int, spare: Sequence[str] = ()
) -> tuple[list[int], list[str], list[int]]:
    """The columns that are shown in `width` characters, those that say one thing ("model tiny"), those left out.

    Args:
        titles, rows, spare: as in `print_table`.
        width: of the terminal.
    """
    widest, least = [], []
    for column, head in enumerate(titles):
        texts = (head, *(row[column] for row in rows))
        natural = max(cell_len(line) for text in texts for line in text.split("\n"))
        widest.append(natural)
        least.append(natural if _is_numeric(rows, column) else min(natural, NARROW))
    kept = list(range(len(titles)))
    if _total(widest, kept) <= width:
        return kept, [], []
    same = [column for column in kept[1:] if len(rows) > 1 and len({row[column] for row in rows}) == 1]
    kept = [column for column in kept if column not in same]
    common = [f"{titles[column]} {rows[0][column]}" for column in same if rows[0][column]]
    dropped = []
    for name in spare:
        if _total(least, kept) > width and name in titles and (column := titles.index(name)) in kept:
            kept.remove(column)
            dropped.append(column)
    return kept, common, dropped


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[column] for column in kept) + GAP * (len(kept) - 1)


def _is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column has numbers, which are not to be broken; nothing but numbers where it has any text."""
    texts = [row[column] for row in rows if row[column]]
    return bool(texts) and all(NUMBER.fullmatch(text) for text in texts)


def _rich_table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    kept: Sequence[int],
    colours: Mapping[str, str],
    last: str,
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for column in kept:
        numeric = _is_numeric(rows, column)
        table.add_column(titles[column], justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for number, row in enumerate(rows, 1):
        cells = (Text(row[column], colours.get(row[column], "")) for column in kept)
        table.add_row(*cells, style=last if number == len(rows) else None)
    return table
