"""Tuning trials: the metric over the learning rate, and the best of some trials drawn at random."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """What each arm of its own choice tried, TUNED: from the choice in its records, or from trials."""
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
    if not metric:
        return []
    curves = rate_curves(data, metric, seeds)[["label", "learning_rate", "mean", "missing"]]
    facts = (False, False, metric, ", ".join(map(str, seeds)))
    return [(*point, *facts) for point in curves.itertuples(index=False)]


def tried(report_data: ReportData) -> list[tuple[Panel, pd.DataFrame]]:
    """Panels with their `learning_rates`, where they have any."""
    own = report_data.choosing()
    trials = [(panel, learning_rates(panel, own)) for panel in report_data.panels]
    return [(panel, data) for panel, data in trials if len(data)]


def draw_learning_rates(report_data: ReportData) -> ReportFigure | None:
    """A line for each arm, the rate chosen with a ring around it; at a rate without all seeds there is no point."""
    trials = tried(report_data)
    panels = once(trials)
    if not panels:
        return None
    curves = [
        (title, panel, [Curve(arm, line["rate"], line["mean"]) for arm, line in _lines(data)])
        for title, panel, data in panels
    ]

    def finish(axes: Axes, number: int) -> None:
        _, _, data = panels[number]
        for arm, line in _lines(data):
            best = line[line["chosen"]]
            axes.plot(best["rate"], best["mean"], "o", ms=7, mfc="none", mec=report_data.styles[arm].colour, mew=0.9)
        x, y = logarithmic(axes, data["rate"].tolist()), logarithmic_up(axes)
        draw_frame(axes, "learning rate", metric_title(data["metric"].iloc[0], short=True), x, y)

    figure, left_out = draw_lines(curves, report_data.styles, finish)
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in trials])
    note = (
        f"Means over the tuning seeds on validation; ring: the rate chosen; no point where a seed is missing.{left_out}"
    )
    return ReportFigure("learning-rates", "Learning rates tried on validation", figure, numbers, note)


def _lines(data: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each arm with its rates that have all seeds, in order."""
    for arm, line in data[data["missing"] == 0].groupby("arm", sort=False):
        yield str(arm), line.sort_values("rate", kind="stable")


def once(panels: list[tuple[Panel, pd.DataFrame]]) -> list[tuple[str, Panel, pd.DataFrame]]:
    """Title, panel and trials; panels that were tuned together, and so show the same, are one: by what they share."""
    alike: dict[str, list[tuple[Panel, pd.DataFrame]]] = {}
    for panel, data in panels:
        alike.setdefault(data.to_json(), []).append((panel, data))
    once = []
    for same in alike.values():
        first, *others = [panel.short.split(", ") for panel, _ in same]
        common = [part for part in first if all(part in other for other in others)]
        once.append((panel_title(", ".join(common)) if common else f"{len(same)} panels", *same[0]))
    return once


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
            Curve(arm, range(1, len(line) + 1), expected_best(line["mean"], bool(higher))) for arm, line in _lines(data)
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
    numbers = [
        pd.DataFrame({"panel": title, "arm": line.label, "trials": line.x, "expected best": line.y})
        for title, _, lines, _ in drawn
        for line in lines
    ]
    note = (
        "What the best of so many learning rates of the grid, drawn at random, would show on validation: an arm that "
        f"needs more of them is harder to tune.{left_out}"
    )
    title = "Expected best over the number of tuning trials"
    return ReportFigure("expected-best", title, figure, pd.concat(numbers), note)
