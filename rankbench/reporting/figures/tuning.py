"""Tuning trials: the metric over the learning rate, and the best of some trials drawn at random."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.frame import frame
from rankbench.analysis.labels import metric_title, panel_title
from rankbench.analysis.learning_rates import rate_curves
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.figures.layout import draw_frame, logarithmic, logarithmic_up
from rankbench.reporting.figures.lines import Curve, draw_lines
from rankbench.reporting.plotting import ReportFigure
from rankbench.reporting.report_data import ReportData
from rankbench.studies.panels import Panel

TUNED = ("arm", "rate", "mean", "missing", "chosen", "edge", "metric", "seeds")


def learning_rates(panel: Panel, own: Sequence[str]) -> pd.DataFrame:
    """What each arm tried, TUNED: from the choice in its records, or from the trials where no run was made yet.

    Args:
        panel: a panel of a study.
        own: arms that choose for themselves.
    """
    chosen = {
        run.arm: run.record.config["tuned"]
        for run in panel.runs
        if run.arm in own and run.record is not None and run.record.config.get("tuned")
    }
    rows = [row for arm in panel.arms if arm in chosen for row in _choice(arm, chosen[arm])]
    return pd.DataFrame([*rows, *_undecided(panel, set(own) - set(chosen))], columns=list(TUNED))


def _choice(arm: str, tuned: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    seeds = ", ".join(map(str, tuned.get("seeds", [])))
    over = f" at every {', '.join(tuned['pooled'])}" if tuned.get("pooled") else ""
    facts = (bool(tuned.get("edge")), tuned.get("metric", ""), seeds + over)
    return [
        (arm, float(rate), mean, missing, rate == tuned.get("chosen"), *facts)
        for rate, mean, missing in tuned.get("curve", [])
    ]


def _undecided(panel: Panel, arms: set[str]) -> list[tuple[Any, ...]]:
    """Rows of tuning trials without a choice yet: means of the first validation metric there is."""
    runs = [run for run in panel.trials if run.arm in arms and run.record is not None]
    if not runs:
        return []
    data = frame([run.record for run in runs if run.record], names=[run.arm for run in runs])
    metric = next((str(name) for name in data if str(name).startswith("validation/") and name != "validation/step"), "")
    seeds = sorted(set(data["seed"]))
    curves = rate_curves(data, metric, seeds).to_dict("records") if metric else []
    seeds_text = ", ".join(map(str, seeds))
    return [
        (row["label"], row["learning_rate"], row["mean"], row["missing"], False, False, metric, seeds_text)
        for row in curves
    ]


def tried(report_data: ReportData) -> list[tuple[Panel, pd.DataFrame]]:
    """Panels with their `learning_rates`, where they have any."""
    own = report_data.choosing()
    trials = [(panel, learning_rates(panel, own)) for panel in report_data.panels]
    return [(panel, data) for panel, data in trials if len(data)]


def draw_learning_rates(report_data: ReportData) -> ReportFigure | None:
    """A line for each arm, the rate chosen with a ring around it; at a rate without all seeds there is no point."""
    trials = tried(report_data)
    panels = once(trials)
    curves = [
        (
            title,
            panel,
            [Curve(str(arm), line["rate"], line["mean"]) for arm, line in _whole(data).groupby("arm", sort=False)],
        )
        for title, panel, data in panels
    ]
    if not panels:
        return None

    def finish(axes: Axes, number: int) -> None:
        _, _, data = panels[number]
        best = _whole(data)[_whole(data)["chosen"]]
        for arm, rate, mean in zip(best["arm"], best["rate"], best["mean"], strict=True):
            axes.plot(rate, mean, "o", ms=7, mfc="none", mec=report_data.styles[arm].colour, mew=0.9)
        x, y = logarithmic(axes, data["rate"].tolist()), logarithmic_up(axes)
        draw_frame(axes, "learning rate", metric_title(data["metric"].iloc[0], short=True), x, y)

    figure, left_out = draw_lines(curves, report_data.styles, finish)
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in trials])
    note = (
        f"Means over the tuning seeds on validation; ring: the rate chosen; no point where a seed is missing.{left_out}"
    )
    return ReportFigure("learning-rates", "Learning rates tried on validation", figure, numbers, note)


def _whole(data: pd.DataFrame) -> pd.DataFrame:
    return data[data["missing"] == 0].sort_values("rate", kind="stable")


def once(panels: list[tuple[Panel, pd.DataFrame]]) -> list[tuple[str, Panel, pd.DataFrame]]:
    """Title, panel and trials; panels that were tuned together, and so show the same, are one."""
    alike: dict[str, list[tuple[Panel, pd.DataFrame]]] = {}
    for panel, data in panels:
        alike.setdefault(data.to_json(), []).append((panel, data))
    return [(_shared([panel.short for panel, _ in same]), *same[0]) for same in alike.values()]


def _shared(titles: Sequence[str]) -> str:
    """What the titles of panels have in common; of many that have nothing, their number."""
    common = set.intersection(*(set(title.split(", ")) for title in titles))
    parts = [part for part in titles[0].split(", ") if part in common]
    return panel_title(", ".join(parts)) if parts else f"{len(titles)} panels"


def expected_best(values: Iterable[float], higher: bool) -> list[float]:
    """Expected best of k of some trials drawn without replacement, for k = 1 to their number (Dodge et al. 2019)."""
    ordered = sorted(values, reverse=not higher)
    count = len(ordered)
    return [
        sum(value * math.comb(place, k - 1) for place, value in enumerate(ordered)) / math.comb(count, k)
        for k in range(1, count + 1)
    ]


def draw_expected_best(report_data: ReportData) -> ReportFigure | None:
    """The best validation metric that some tuning trials find, by their number; None with fewer than three rates."""
    drawn = []
    for title, panel, data in once(tried(report_data)):
        higher = higher_is_better(data["metric"].iloc[0])
        lines = [
            Curve(str(arm), range(1, len(line) + 1), expected_best(line["mean"], bool(higher)))
            for arm, line in _whole(data).groupby("arm", sort=False)
        ]
        if higher is not None and max((len(line.x) for line in lines), default=0) > 2:
            drawn.append((title, panel, lines, data["metric"].iloc[0]))
    if not drawn:
        return None

    def finish(axes: Axes, number: int) -> None:
        y = logarithmic_up(axes)
        draw_frame(axes, "learning rates tried", f"best {metric_title(drawn[number][3], short=True)}", y=y)

    figure, left_out = draw_lines(
        [(title, panel, lines) for title, panel, lines, _ in drawn], report_data.styles, finish
    )
    rows = [
        (title, line.label, k, value)
        for title, _, lines, _ in drawn
        for line in lines
        for k, value in zip(line.x, line.y, strict=True)
    ]
    note = (
        "What the best of so many learning rates of the grid, drawn at random, would show on validation: an arm that "
        f"needs more of them is harder to tune.{left_out}"
    )
    numbers = pd.DataFrame(rows, columns=["panel", "arm", "trials", "expected best"])
    return ReportFigure("expected-best", "Expected best over the number of tuning trials", figure, numbers, note)
