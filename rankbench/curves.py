"""Lines of a report: learning rates tried on validation, the rank total over the steps, settings that were varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from rankbench.ablations import Ablation
from rankbench.collect import frame
from rankbench.drawing import GREY, TEXT, Drawing, Look, facets, few_ticks, legend, legend_rows, logarithmic
from rankbench.evidence import link
from rankbench.panels import Panel
from rankbench.rates import rate_curves
from rankbench.sheet import Cell, Sheet
from rankbench.stats import paired_difference
from rankbench.study import Curve

TUNED = ("arm", "rate", "mean", "missing", "chosen", "edge", "metric", "seeds")


def learning_rates(panel: Panel, own: Sequence[str]) -> pd.DataFrame:
    """What each arm tried, TUNED: from the choice in its records, or from the trials where no run was made yet.

    Args:
        panel: of a study.
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
    facts = (bool(tuned.get("edge")), tuned.get("metric", ""), ", ".join(map(str, tuned.get("seeds", []))))
    return [
        (arm, float(rate), mean, missing, rate == tuned.get("chosen"), *facts)
        for rate, mean, missing in tuned.get("curve", [])
    ]


def _undecided(panel: Panel, arms: set[str]) -> list[tuple[Any, ...]]:
    """Of trials without a choice: means of the first validation metric there is, nothing chosen."""
    runs = [run for run in panel.trials if run.arm in arms and run.record is not None]
    if not runs:
        return []
    data = frame([run.record for run in runs if run.record], names=[run.arm for run in runs])
    metric = next((str(name) for name in data if str(name).startswith("validation/") and name != "validation/step"), "")
    seeds = sorted(set(data["seed"]))
    curves = rate_curves(data, metric, seeds).to_dict("records") if metric else []
    told = ", ".join(map(str, seeds))
    return [
        (row["label"], row["learning_rate"], row["mean"], row["missing"], False, False, metric, told) for row in curves
    ]


def draw_learning_rates(shown: Sequence[tuple[Panel, pd.DataFrame]], style: Mapping[str, Look], name: str) -> Drawing:
    """A line for each arm, the rate chosen with a ring around it; at a rate without all seeds there is no point."""
    arms = list(dict.fromkeys(arm for _, data in shown for arm in data["arm"]))
    figure, places = facets([panel.title for panel, _ in shown], legend_rows(arms, len(shown)))
    for axes, (_, data) in zip(places, shown, strict=True):
        for arm, line in data.groupby("arm", sort=False):
            look, whole = style[str(arm)], line[line["missing"] == 0]
            axes.plot(whole["rate"], whole["mean"], color=look.colour, ls=look.dash, marker=look.marker, ms=3, lw=1.1)
            best = whole[whole["chosen"]]
            axes.plot(best["rate"], best["mean"], "o", ms=9, mfc="none", mec=look.colour, mew=1.1, ls="none")
        logarithmic(axes, data["rate"].tolist())
        few_ticks(axes)
        axes.set_ylabel(data["metric"].iloc[0], fontsize=TEXT - 1)
        axes.set_xlabel("learning rate", fontsize=TEXT - 1)
    legend(figure, arms, style, len(shown))
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in shown])
    note = "Means over the tuning seeds on validation; ring: the rate chosen. A rate at which a seed is missing has no point."
    return Drawing(name, "Learning rates tried on validation", figure, numbers, note)


def rank_totals(panel: Panel, curves: Mapping[str, Curve], arms: Sequence[str]) -> pd.DataFrame:
    """arm, step, mean, low, high (over seeds) and n of the rank total, of runs that are ok."""
    rows = []
    for arm in arms:
        runs = [
            curves[run.job.run_id]
            for run in panel.runs
            if run.arm == arm and run.status == "ok" and curves.get(run.job.run_id)
        ]
        if runs:
            steps = sorted({step for run in runs for step, _ in run})
            held = pd.DataFrame([dict(run) for run in runs], columns=steps).ffill(axis=1).bfill(axis=1)
            rows += [
                (arm, step, float(held[step].mean()), int(held[step].min()), int(held[step].max()), len(runs))
                for step in steps
            ]
    return pd.DataFrame(rows, columns=["arm", "step", "mean", "low", "high", "n"])


def draw_rank_totals(found: Sequence[tuple[Panel, pd.DataFrame]], style: Mapping[str, Look], name: str) -> Drawing:
    """Steps of the mean over seeds, with the range of the seeds behind it."""
    arms = list(dict.fromkeys(arm for _, data in found for arm in data["arm"]))
    figure, places = facets([panel.title for panel, _ in found], legend_rows(arms, len(found)))
    for axes, (_, data) in zip(places, found, strict=True):
        for arm, line in data.groupby("arm", sort=False):
            look, every = style[str(arm)], max(1, len(line) // 6)
            axes.fill_between(line["step"], line["low"], line["high"], step="post", color=look.colour, alpha=0.15, lw=0)
            axes.plot(
                line["step"],
                line["mean"],
                drawstyle="steps-post",
                color=look.colour,
                ls=look.dash,
                lw=1.2,
                marker=look.marker,
                ms=3,
                markevery=every,
            )
        axes.set_ylim(0, data["high"].max() * 1.08)
        few_ticks(axes)
        axes.set_xlabel("step", fontsize=TEXT - 1)
        axes.set_ylabel("rank total", fontsize=TEXT - 1)
    legend(figure, arms, style, len(found))
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in found])
    return Drawing(name, "Rank total over the steps", figure, numbers, "Mean over seeds; band: their range.")


def ablation_points(panel: Panel, ablation: Ablation) -> pd.DataFrame:
    """A row for each arm with a run that is ok: its values of the keys, mean, low, high and n of the panel's metric."""
    rows = []
    for arm in ablation.arms:
        values = ablation.values(panel, arm)
        done = panel.data[(panel.data["label"] == arm) & (panel.data["status"] == "ok")]
        measured = done[panel.metric].dropna() if panel.metric in done else done["seed"].iloc[:0]
        if values is None or measured.empty:
            continue
        found = paired_difference(measured, [0.0] * len(measured))
        rows.append((arm, *values, arm == ablation.base, found.mean, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=["arm", *ablation.keys, "base", "mean", "low", "high", "n"])


def draw_ablation(
    found: Sequence[tuple[Panel, pd.DataFrame]],
    ablation: Ablation,
    reference: str,
    style: Mapping[str, Look],
    name: str,
) -> Drawing:
    """The metric over one setting, with 95 % intervals of the mean; the reference as a band."""
    (key,) = ablation.keys
    figure, places = facets([panel.title for panel, _ in found])
    for axes, (panel, data) in zip(places, found, strict=True):
        look = style[ablation.base or ablation.arms[0]]
        places_of = _along(axes, data[key].tolist())
        _band(axes, panel, reference)
        points = data.assign(x=[places_of[value] for value in data[key]]).sort_values("x")
        points = points.drop_duplicates("x")  # the base and an arm that names the same value
        errors = [points["mean"] - points["low"], points["high"] - points["mean"]]
        axes.errorbar(
            points["x"],
            points["mean"],
            yerr=errors,
            color=look.colour,
            marker="o",
            ms=4,
            lw=1.2,
            elinewidth=0.9,
            capsize=2,
        )
        base = points[points["base"]]
        axes.plot(base["x"], base["mean"], "o", ms=9, mfc="none", mec=look.colour, mew=1.1)
        few_ticks(axes)
        axes.set_xlabel(key.rpartition(".")[2].replace("_", " "), fontsize=TEXT - 1)
        axes.set_ylabel(panel.metric or "", fontsize=TEXT - 1)
    note = (
        f"Mean over seeds and its 95 % interval; ring: {ablation.base or 'none'}, as it is by default; grey: {reference} "
        "and its interval. Seeds are shared, so differences are seen more finely than these intervals: see the table."
    )
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in found])
    return Drawing(name, ablation.title, figure, numbers, note)


def _along(axes: Axes, values: Sequence[str]) -> dict[str, float]:
    """Where each value stands on x: numbers as numbers (a log axis where they span more than 8), words in a row."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        there = list(dict.fromkeys(values))
        axes.set_xticks(range(len(there)), there)
        return {value: float(place) for place, value in enumerate(there)}
    if min(numbers.values()) > 0 and max(numbers.values()) > 8 * min(numbers.values()):
        logarithmic(axes, list(numbers.values()))
    elif len(numbers) <= 8:
        axes.set_xticks(sorted(set(numbers.values())))
    return numbers


def _band(axes: Axes, panel: Panel, reference: str) -> None:
    done = panel.data[(panel.data["label"] == reference) & (panel.data["status"] == "ok")]
    measured = done[panel.metric].dropna() if panel.metric in done else done["seed"].iloc[:0]
    if measured.empty:
        return
    found = paired_difference(measured, [0.0] * len(measured))
    axes.axhline(found.mean, color=GREY, lw=1)
    if found.low is not None and found.high is not None:
        axes.axhspan(found.low, found.high, color=GREY, alpha=0.15, lw=0)


def rates_sheet(found: Sequence[tuple[Panel, str, pd.DataFrame]]) -> Sheet:
    """A row for each arm of each panel: what was tried, what was chosen, whether it is at the edge.

    Args:
        found: panel, its short title, and its `learning_rates`.
    """
    rows = [
        [Cell(title), *_rates_of(str(arm), line, link(panel, str(arm)))]
        for panel, title, data in found
        for arm, line in data.groupby("arm", sort=False)
    ]
    metrics = ", ".join(sorted({metric for _, _, data in found for metric in data["metric"]}))
    columns = ["where", "arm", "chosen", "at the edge", f"rate: {metrics}", "tuning seeds"]
    return Sheet("learning-rates", "Learning rates tried and chosen", columns, rows)


def _rates_of(arm: str, line: pd.DataFrame, where: str) -> list[Cell]:
    chosen = line[line["chosen"]]
    edge = bool(line["edge"].iloc[0])
    points = "; ".join(_point(point) for point in line.to_dict("records"))
    choice = (
        Cell("not chosen yet") if chosen.empty else Cell(f"{chosen['rate'].iloc[0]:g}", float(chosen["rate"].iloc[0]))
    )
    note = Cell("yes: the best may lie beyond" if edge else "no", kind="unresolved" if edge else "")
    return [Cell(arm, link=where), choice, note, Cell(points), Cell(line["seeds"].iloc[0])]


def _point(point: dict[Any, Any]) -> str:
    mean = "no run" if point["mean"] is None or pd.isna(point["mean"]) else f"{point['mean']:.4f}"
    return f"{point['rate']:g}: {mean}" + (f" ({point['missing']} missing)" if point["missing"] else "")
