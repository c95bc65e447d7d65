"""What the arms cost: seconds, passes and memory, the method's own decisions charged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from rankbench.analysis.frame import OWN
from rankbench.analysis.labels import arm_title, panel_title
from rankbench.reporting.figures.costs import PHASES, draw_costs
from rankbench.reporting.figures.panel_groups import panel_groups
from rankbench.reporting.report_data import ReportData, links
from rankbench.reporting.section import Section, present, rows_of_panels
from rankbench.reporting.table import Cell, Column, Table, arm_cell, linked_rows, number_cell, number_column
from rankbench.studies.panels import Panel

SECONDS = [f"{phase}/seconds" for phase in PHASES]
PASSES = [f"{phase}/{what}" for what in ("forward_passes", "backward_passes") for phase in PHASES]
FAR_APART = 1.25  # times: runs of one arm do the same work, and take so different seconds on a shared machine alone
NOTE = (
    "Means over runs that are ok. Passes, forward and backward: of training, calibration and allocation together; own: "
    "of calibration and the method's decisions. Seconds are of the same phases, with their least and most."
)
SHARED = f"Grey: machine was shared: seconds not comparable, as runs of the arm differ by more than {FAR_APART:g} x."
ROWS = 12  # a longer table is folded on the page


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where no run is ok."""
    return Section("cost", "Cost", (), present([partial(draw_costs, report_data), cost_table(report_data)]))


def cost_table(report_data: ReportData) -> Table | None:
    """A row for each arm of each panel, means over its runs that are ok; None where there is none."""
    rows, columns, is_shared = [], ["where"], False
    groups = panel_groups(report_data, report_data.panels)
    sheets = [_costs(panels, report_data.arms) for panels in groups.values()]
    per_panel = [_columns(costs, report_data.report.reference) for costs in sheets]
    empty = {name for name in per_panel[0] if not any(cell.text for each in per_panel for cell in each[name].values())}
    for (title, panels), costs, every_column in zip(groups.items(), sheets, per_panel, strict=True):
        per_column = {name: cells for name, cells in every_column.items() if name not in empty}
        where = Cell(panel_title(panels[0].short if len(panels) == 1 else title))
        rows += [[where, *cells] for cells in linked_rows(per_column, list(costs.index), links(panels[0]))]
        columns = ["where", *per_column]
        is_shared = is_shared or bool(costs["shared"].any())
    notes = [NOTE, *([SHARED] if is_shared else [])]
    table = Table("cost", "Passes, seconds, memory and parameters", columns, rows, notes, folded=len(rows) > ROWS)
    return rows_of_panels(report_data, table)


def _columns(costs: pd.DataFrame, reference: str) -> dict[str, Column]:
    """Cells of a panel: what is counted first, then what is measured."""
    base = costs.loc[reference] if reference in costs.index else pd.Series(float("nan"), index=costs.columns)
    ratio = (costs["seconds"] / base["seconds"]).mask(costs["shared"] | (base["shared"] == 1))
    against = arm_title(reference)
    return {
        "method": {arm: arm_cell(arm) for arm in costs.index},
        "passes": number_column(costs["passes"], "{:,.0f}"),
        f"passes / {against}": number_column(costs["passes"] / base["passes"], "{:.2f}"),
        "own passes": number_column(costs["own passes"], "{:,.0f}"),
        "seconds [min, max]": {arm: _seconds_cell(row) for arm, row in costs.iterrows()},
        f"seconds / {against}": number_column(ratio, "{:.2f}"),
        "own seconds": number_column(costs["own seconds"], "{:,.1f}"),
        "peak MiB": number_column(costs["peak_memory_bytes"] / 2**20, "{:,.0f}"),
        "start params": number_column(costs["start/params"], "{:,.0f}"),
        "peak params": number_column(costs["peak/params"], "{:,.0f}"),
        "final params": number_column(costs["final/params"], "{:,.0f}"),
    }


def _seconds_cell(row: pd.Series) -> Cell:
    """Mean, least and most seconds of an arm; grey where its runs shared the machine."""
    cell = number_cell(row["seconds"], "{:,.1f}")
    if cell.value is None:
        return cell
    return replace(cell, text=f"{cell.text} [{row['least']:,.1f}, {row['most']:,.1f}]", muted=bool(row["shared"]))


def _costs(panels: Sequence[Panel], arms: Sequence[str]) -> pd.DataFrame:
    """A row for each arm that has runs that are ok: means, the range of their seconds, and whether it is too wide."""
    wanted = [*SECONDS, *PASSES, *OWN, "peak_memory_bytes", "start/params", "peak/params", "final/params"]
    data = pd.concat([panel.data for panel in panels], ignore_index=True)
    done = data[data["status"] == "ok"].reindex(columns=["label", *dict.fromkeys(wanted)])
    done = done.astype({name: float for name in dict.fromkeys(wanted)})
    done["seconds"] = done[SECONDS].sum(axis=1, skipna=False)
    done["passes"] = done[PASSES].sum(axis=1, skipna=False)
    done["own passes"] = done[OWN].sum(axis=1, skipna=False)
    done["own seconds"] = done[["calibration/seconds", "allocation/seconds"]].sum(axis=1, skipna=False)
    by_arm = done.groupby("label")
    ends = by_arm["seconds"].agg(least="min", most="max")
    costs = by_arm.mean().join(ends).assign(shared=ends["most"] > FAR_APART * ends["least"])
    return costs.reindex([arm for arm in arms if arm in costs.index])
