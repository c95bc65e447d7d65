"""What the arms cost: seconds, passes and memory, the method's own decisions charged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from rankbench.drawing import TEXT, Drawing, Look, draw_frame, facets
from rankbench.evidence import Evidence, links
from rankbench.panels import Panel
from rankbench.sheet import Cell, Sheet
from rankbench.tables import OWN, Column, linked, numbers

# In the order they are charged; greys, since colours are those of methods.
PHASES = {"training": ("#d0d0d0", ""), "calibration": ("#8f8f8f", "////"), "allocation": ("#222222", "")}
SECONDS = [f"{phase}/seconds" for phase in PHASES]
HEIGHT = 0.19  # inches, of a bar


def sheet(evidence: Evidence, panel: Panel) -> Sheet | None:
    """Means over the runs that are ok; None without one."""
    means = _means(panel, evidence.arms)
    if means.empty:
        return None
    total = means[SECONDS].sum(axis=1, skipna=False)
    own = means[["calibration/seconds", "allocation/seconds"]].sum(axis=1, skipna=False)
    columns: dict[str, Column] = {"arm": {arm: Cell(arm) for arm in means.index}}
    columns |= {f"{phase} s": numbers(means[f"{phase}/seconds"], "{:,.1f}") for phase in PHASES}
    columns["total s"] = numbers(total, "{:,.1f}")
    columns["own / total"] = numbers(100 * own / total, "{:.1f} %")
    reference = evidence.report.reference
    if reference in means.index:
        columns[f"total / {reference}"] = numbers(total / total[reference], "{:.2f}")
    columns["own passes"] = numbers(means[OWN].sum(axis=1, skipna=False), "{:,.0f}")
    columns["evaluation s"] = numbers(means["evaluation/seconds"], "{:,.1f}")
    columns["peak memory MiB"] = numbers(means["peak_memory_bytes"] / 2**20, "{:,.0f}")
    columns["start params"] = numbers(means["start/params"], "{:,.0f}")
    columns["peak params"] = numbers(means["peak/params"], "{:,.0f}")
    columns["final params"] = numbers(means["final/params"], "{:,.0f}")
    rows = linked(columns, list(means.index), links(panel))
    note = (
        "Means over the runs that are ok. Total: training, calibration and allocation; own: calibration and the method's "
        "decisions, in seconds and in passes (forward + backward). Seconds of runs that shared a machine are not exact."
    )
    return Sheet(f"cost-{panel.name}", f"Cost: {panel.title}", list(columns), rows, [note])


def _means(panel: Panel, arms: Sequence[str]) -> pd.DataFrame:
    wanted = [*SECONDS, "evaluation/seconds", *OWN, "peak_memory_bytes", "start/params", "peak/params", "final/params"]
    done = panel.data[panel.data["status"] == "ok"].reindex(columns=["label", *wanted])
    means = done.astype({name: float for name in wanted}).groupby("label")[wanted].mean()
    return means.reindex([arm for arm in arms if arm in means.index])


def draw(panels: Sequence[Panel], arms: Sequence[str], style: Mapping[str, Look]) -> Drawing | None:
    """A bar for each arm: training, calibration and the method's own decisions, in seconds."""
    shown = [
        (panel, means) for panel in panels for means in [_means(panel, arms)[SECONDS]] if means.notna().any(axis=None)
    ]
    if not shown:
        return None
    most = max(len(data) for _, data in shown)
    letters = max(len(str(arm)) for _, data in shown for arm in data.index)
    cell = (2.2, HEIGHT * most + 0.2)
    figure, places = facets([panel.title for panel, _ in shown], None, cell, 0.062 * letters + 0.15)
    for axes, (_, data) in zip(places, shown, strict=True):
        left = pd.Series(0.0, index=data.index)
        for phase, (shade, hatch) in PHASES.items():
            values = data[f"{phase}/seconds"].fillna(0.0)
            axes.barh(
                range(len(data)), values, left=left, color=shade, hatch=hatch, edgecolor="white", lw=0, label=phase
            )
            left += values
        axes.set_ylim(len(data) - 0.4, -0.6)
        for place, arm in enumerate(data.index):
            axes.text(
                -0.02,
                place,
                arm,
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center",
                fontsize=TEXT - 1,
                color=style[str(arm)].colour,
            )
        draw_frame(axes, "seconds", "", y={})
    handles, titles = places[0].get_legend_handles_labels()
    places[0].legend(
        handles, titles, loc="lower left", bbox_to_anchor=(0, 1.1), ncols=3, fontsize=TEXT - 1, frameon=False
    )
    values = pd.concat([data.rename_axis("arm").reset_index().assign(panel=panel.title) for panel, data in shown])
    note = (
        "Mean seconds of the runs that are ok. Calibration and allocation are the method's own; evaluation is left out."
    )
    return Drawing("cost", "Where the seconds went", figure, values, note)
