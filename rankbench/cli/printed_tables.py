"""Tables of a report and frames of texts on the terminal, or as Markdown in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rankbench.terminal import print_table

if TYPE_CHECKING:  # pandas takes a moment to import
    import pandas as pd

    from rankbench.reporting.table import Table


def print_frame(frame: pd.DataFrame, spare: Sequence[str] = (), title: str = "") -> None:
    """Print a frame of texts; what is missing is empty. `spare`, `title`: as in `print_table`."""
    texts = frame.astype(object).where(frame.notna(), "").astype(str)
    print_table([str(column) for column in frame], texts.values.tolist(), title, spare)


def print_cells(table: Table) -> None:
    """Print a table of a report; what stands behind the finding is left out first where the terminal is narrow."""
    spare = [] if table.strip is None else list(table.columns)[table.strip + 2 :][::-1]
    print_table(list(table.columns), [[cell.text for cell in row] for row in table.rows], table.title, spare)
