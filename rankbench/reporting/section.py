"""A section of a report, and what a module of rankbench.reporting.sections offers.

The modules have one interface; `report.SECTIONS` lists them in the order of the page:

    make(report_data) -> Section | None      sentences, tables and figures, in order; the figures are not drawn yet

A figure that is not drawn yet is a function that returns a `ReportFigure` with a name of its own, or None where there
is nothing to draw: then it leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from rankbench.reporting.plotting import SavedFigure, Sketch
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.table import Table, without_first_column


@dataclass(frozen=True)
class PanelTables:
    """Tables of one form by the short titles of their panels: the page shows one at a time."""

    title: str
    tables: Mapping[str, Table]

    @property
    def is_filed(self) -> bool:
        """Whether all of them are files alone."""
        return all(table.filed for table in self.tables.values())


Block: TypeAlias = Table | PanelTables | Sketch | SavedFigure


@dataclass(frozen=True)
class Section:
    """A section of a report: sentences, then tables and figures; one that is folded is closed until it is asked for."""

    anchor: str
    title: str
    sentences: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    folded: bool = True

    @property
    def tables(self) -> list[Table]:
        """Every table, in order."""
        several = (block.tables.values() if isinstance(block, PanelTables) else [block] for block in self.blocks)
        return [table for tables in several for table in tables if isinstance(table, Table)]

    @property
    def sketches(self) -> list[Sketch]:
        """Every figure that is not drawn yet, in order."""
        return [block for block in self.blocks if callable(block)]

    def with_figures(self, pictures: Mapping[Sketch, SavedFigure | None]) -> Section:
        """The section with its figures drawn; those that show nothing are left out."""
        return replace(self, blocks=present(pictures[block] if callable(block) else block for block in self.blocks))

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to say or to show."""
        return not self.sentences and not self.blocks


def present(blocks: Iterable[Block | None]) -> list[Block]:
    """The blocks that there are."""
    return [block for block in blocks if block is not None]


def filed(table: Table | None) -> Table | None:
    """The table as a file alone; None for none."""
    return table and replace(table, filed=True)


def rows_of_panels(report_data: ReportData, table: Table) -> Table | None:
    """A table whose first column names the panel: without that column where there is one panel, None without rows."""
    if not table.rows:
        return None
    return table if len(report_data.panels) > 1 else without_first_column(table)


def panel_tables(title: str, tables: Mapping[str, Table]) -> list[Block]:
    """Tables of the panels as one block; a single one as it is, none without any."""
    return [PanelTables(title, tables)] if len(tables) > 1 else list(tables.values())
