"""The method table: `rankbench methods [NAME ...]`. It is made of the classes' own facts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from rankbench.config import registry
from rankbench.config.registry import RegistryError
from rankbench.terminal import console

WIDTH = 120  # where there is no terminal
UNKNOWN = "?"  # a fact that the class does not give; rankbench.contract.checks says so


@dataclass(frozen=True)
class Entry:
    """One method, as tables show it.

    Attributes:
        name: on the command line.
        package: that brings it; "" for rankbench itself.
        facts: class fact -> its text (see allocators.base.Allocator).
        deviations: what differs from the source.
    """

    name: str
    package: str
    facts: dict[str, str]
    deviations: tuple[str, ...]


COLUMNS = {
    "decides": "decides",
    "signal": "signal",
    "budget_kind": "budget",
    "passes": "extra passes",
    "source": "source",
}
MARKDOWN = {"summary": "what it does", "decides": "ranks are decided", "passes": "extra passes", "source": "source"}


def entry(name: str) -> Entry:
    """Of a method.

    Raises:
        RegistryError: no such method, or one that cannot be loaded.
    """
    cls: Any = registry.get("method", name)
    owner = next((registry.package(point) for point in registry.points("method") if point.name == name), "")
    facts = {fact: str(getattr(cls, fact, UNKNOWN)) for fact in {**COLUMNS, **MARKDOWN}}
    return Entry(name, owner, facts, tuple(getattr(cls, "deviations", ())))


def table(entries: Sequence[Entry]) -> Table:
    """For a terminal."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("name", no_wrap=True)
    for title in COLUMNS.values():
        made.add_column(title, overflow="fold")
    for row in entries:
        name = f"{row.name}\n({row.package})" if row.package else row.name
        made.add_row(*(Text(text) for text in (name, *(row.facts[fact] for fact in COLUMNS))))
    return made


def markdown(entries: Sequence[Entry]) -> str:
    """For the README."""
    rows = [["name", *MARKDOWN.values()], ["---"] * (len(MARKDOWN) + 1)]
    for row in entries:
        name = f"`{row.name}`" + (f" ({row.package})" if row.package else "")
        rows.append([name, *(row.facts[fact].replace("|", "\\|") for fact in MARKDOWN)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def deviations(entries: Sequence[Entry]) -> str:
    """What each does differently from its source, a sentence a line."""
    told = [f"{row.name}: {row.facts['source']}" + "".join(f"\n  - {s}" for s in row.deviations) for row in entries]
    return "\n\n".join(told)


def main() -> int:
    """Print the table of the methods asked for, or of all; 2 if there is no such method."""
    parser = argparse.ArgumentParser(prog="rankbench methods", description="The methods and their facts.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, with their deviations")
    parser.add_argument("--deviations", action="store_true", help="what each does differently from its source")
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    arguments = parser.parse_args()
    try:
        entries = [entry(name) for name in arguments.names or registry.names("method")]
    except RegistryError as error:
        print(f"rankbench.methods: {error}", file=sys.stderr)
        return 2
    out = console()
    out.width = out.width if out.is_terminal else WIDTH
    if arguments.markdown:
        print(markdown(entries))
    else:
        out.print(table(entries))
    if arguments.deviations or arguments.names:
        out.print("\n" + deviations(entries), markup=False)
    return 0
