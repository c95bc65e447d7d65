"""What the arms cost: passes through the model, which are the same on every machine."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from rankbench.reporting.figures.layout import arm_labels, chosen, draw_frame, labelled_rows, panel_titles
from rankbench.reporting.figures.panel_groups import panel_groups
from rankbench.reporting.plotting import ReportFigure
from rankbench.reporting.report_data import ReportData

# Phases in the order in which they are charged; greys, since colours belong to methods.
PHASES = {"training": ("#cfcfcf", ""), "calibration": ("#8f8f8f", "////"), "allocation": ("#222222", "")}
WAYS = ("forward_passes", "backward_passes")


def passes(report_data: ReportData) -> list[tuple[str, str | None, pd.DataFrame]]:
    """Title, cell and frame arm x phase of mean passes, forward and backward, of each group of panels that has runs."""
    per_group = []
    for title, panels in panel_groups(report_data, report_data.panels).items():
        runs = pd.concat([panel.data[panel.data["status"] == "ok"] for panel in panels])
        columns = {phase: [f"{phase}/{way}" for way in WAYS] for phase in PHASES}
        counts = pd.DataFrame(
            {phase: runs.reindex(columns=ways).sum(axis=1, min_count=1) for phase, ways in columns.items()}
        )
        means = counts.astype(float).groupby(runs["label"]).mean()
        means = means.reindex([arm for arm in report_data.arms if arm in means.index]).rename_axis("arm")
        if means.notna().any(axis=None):
            per_group.append((title, panels[0].cell, means))
    return per_group


def draw_costs(report_data: ReportData) -> ReportFigure | None:
    """A bar for each arm: passes of training, calibration and the method's own decisions; None where none ran."""
    groups = passes(report_data)
    if not groups:
        return None
    drawn, left_out = chosen(groups, [cell for _, cell, _ in groups])
    arms = [arm for arm in report_data.arms if any(arm in means.index for _, _, means in drawn)]
    handles = [
        Patch(facecolor=shade, hatch=hatch, edgecolor="white", lw=0, label=phase)
        for phase, (shade, hatch) in PHASES.items()
    ]
    titles = panel_titles([title for title, _, _ in drawn])
    figure, all_axes = labelled_rows(titles, arm_labels(arms), handles=handles)
    for axes, (_, _, means) in zip(all_axes, drawn, strict=True):
        _bars(axes, means.reindex(arms).fillna(0.0))
    numbers = pd.concat([means.reset_index().assign(panel=title) for title, _, means in groups])
    note = (
        "Mean forward and backward passes of the runs that are ok. Calibration and allocation are the method's own; "
        f"evaluation is left out.{left_out}"
    )
    return ReportFigure("cost", "Where the passes went", figure, numbers, note)


def _bars(axes: Axes, means: pd.DataFrame) -> None:
    left = pd.Series(0.0, index=means.index)
    for phase, (shade, hatch) in PHASES.items():
        values = means[phase]
        axes.barh(range(len(means)), values, 0.72, left=left, color=shade, hatch=hatch, edgecolor="white", lw=0)
        left += values
    draw_frame(axes, "passes")
