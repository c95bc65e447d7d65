"""Does any map matter? The spread of maps drawn alike, what the best of them could gain, and the arms among them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial

from rankbench.analysis.comparison import Comparison
from rankbench.analysis.labels import arm_title, file_name, panel_title, with_titles
from rankbench.analysis.map_spread import MapSpread, map_spread
from rankbench.analysis.metrics import higher_is_better, title_of
from rankbench.reporting.amounts import estimate_cell, smallest_cell
from rankbench.reporting.figures.map_spread import Member, draw_spread
from rankbench.reporting.plotting import ReportFigure
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.section import Block, Section, rows_of_panels
from rankbench.reporting.table import Cell, Table, interval_cell, number_cell
from rankbench.statistics.decision import Outcome
from rankbench.statistics.estimates import Estimate, PairedDifference
from rankbench.statistics.family import joint_level, pairs_needed
from rankbench.statistics.map_effect import BEST_OF
from rankbench.studies.panels import Panel

WORDS: Mapping[Outcome, str] = {
    "works": "maps matter",
    "worthwhile": "the best map would gain enough over the mean map",
    "no worthwhile gain": "not even the best map would gain enough over the mean map",
}


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where no maps can be compared."""
    figures = [partial(_draw, report_data, title) for title in report_data.report.map_effect]
    blocks: list[Block] = [*figures, *spread_tables(report_data)]
    return Section("maps", "Does any map matter?", list(sentences(report_data)), blocks)


def _draw(report_data: ReportData, title: str) -> ReportFigure | None:
    return draw_spread(figure_name(title), title, spreads(report_data, title), report_data.styles)


def figure_name(title: str) -> str:
    """Name of the figure and of the table of a title."""
    return f"spread-{file_name(title)}"


def spreads(report_data: ReportData, title: str) -> list[Member]:
    """The panels in which the maps of a title can be compared; the intervals of their spreads hold together.

    An arm that has another map at every seed, as where each seed has a truth of its own, is no map; and where most arms
    are none, the others are no sample of maps.
    """
    declared = report_data.report.map_effect[title]
    present = []
    for panel, comparison in report_data.compared():
        planned = comparison.planned(declared)
        maps = [arm for arm in planned if _is_one_map(panel, arm)]
        if len(maps) > max(1, len(planned) // 2):
            present.append((panel, comparison, maps))
    level = joint_level(max(1, len(present)) * report_data.study.looks, report_data.report.level)
    return [
        (panel, comparison, spread)
        for panel, comparison, maps in present
        if (spread := map_spread(comparison, maps, level)) is not None
    ]


def _is_one_map(panel: Panel, arm: str) -> bool:
    """Whether the runs of an arm have the same ranks at all seeds, as far as they are done."""
    runs = zip(panel.records, panel.names, strict=True)
    maps = [record.ranks for record, name in runs if name == arm and record.ranks]
    return all(ranks == maps[0] for ranks in maps)


def spread_tables(report_data: ReportData) -> list[Table]:
    """For each title a row per panel; none for titles without maps to compare."""
    tables = []
    for title in report_data.report.map_effect:
        members = spreads(report_data, title)
        notes = [_how_to_read(report_data, len(members)), *_seeds_of_later_runs(report_data, members)]
        table = Table(figure_name(title), title, COLUMNS, [_row(*member) for member in members], notes)
        tables.append(rows_of_panels(report_data, table))
    return [table for table in tables if table is not None]


COLUMNS = (
    *("where", "maps", "n", "outcome", "sigma_map", "p", "residual"),
    *(f"best of {BEST_OF}", "smallest effect", "would be found", "why"),
)


def _row(panel: Panel, comparison: Comparison, spread: MapSpread) -> list[Cell]:
    terms, effect = comparison.terms, spread.effect
    return [
        Cell(panel_title(panel.short)),
        Cell(str(len(spread.maps)), len(spread.maps)),
        Cell(str(spread.seeds), spread.seeds),
        Cell(WORDS.get(spread.outcome, spread.outcome), kind=spread.outcome),
        _deviation(effect.deviation),
        Cell(f"{effect.p:.2g}" if effect.p >= SMALL else f"< {SMALL:g}", effect.p),
        _deviation(effect.residual),
        _gain(comparison, effect.ceiling),
        smallest_cell(terms),
        number_cell(spread.detectable, "{:.2g}"),
        Cell(with_titles(spread.reason, comparison.rows)),
    ]


SMALL = 1e-4  # p below it are not told apart


def _deviation(estimate: Estimate) -> Cell:
    """A deviation with its interval, on the scale that is judged."""
    return interval_cell(estimate.value, estimate.low, estimate.high, ".2g")


def _gain(comparison: Comparison, estimate: Estimate | PairedDifference) -> Cell:
    return estimate_cell(comparison.terms, estimate, bool(higher_is_better(comparison.metrics[0])), ".2g")


def _how_to_read(report_data: ReportData, panels: int) -> str:
    level = f"{report_data.report.level * 100:g} %" + f" together over {panels} panels" * (panels > 1)
    level += f" and {report_data.study.looks} looks at the data" * (report_data.study.looks > 1)
    return (
        "sigma_map: standard deviation of the true effects of the maps, every map run at every seed (maps x seeds, "
        f"random effects; interval of Tukey and Williams, {level}); p: of F, that no map matters. Residual: deviation "
        f"of a run where map and seed are fixed. Best of {BEST_OF}: expected gain over the mean map of the best of "
        f"{BEST_OF} maps drawn like these, 2.5 sigma_map, whatever chooses it, if their effects scatter evenly to both "
        "sides; where a few maps are far worse than the rest, it is less. Would be found: the sigma_map whose "
        "interval leaves out 0 with 80 % probability. Deviations are those of natural logarithms where the metric is "
        "judged by them (0.1: about 10 %). No interval: the maps differ by less than chance nearly always makes them."
    )


def _seeds_of_later_runs(report_data: ReportData, members: list[Member]) -> list[str]:
    """What the residual says of the seeds that a comparison needs, without a look at any map."""
    controls, parts = max(1, len(report_data.report.beats)), []
    for panel, comparison, spread in members:
        rest, smallest = spread.effect.residual.value, comparison.terms.margin
        if rest > 0 and smallest is not None:
            pair, level = math.sqrt(2) * rest, comparison.terms.level  # deviation of the difference of two runs
            needed = pairs_needed(smallest, pair, comparison.family, controls, level=level)
            parts.append(f"{needed or 'more than 500'} on {panel_title(panel.short)}")
    if not parts:
        return []
    return [
        f"By the residuals alone, seeds that show a gain of the smallest effect of interest over {controls} "
        f"control{'s' * (controls > 1)} with 80 % probability, in the family of this page: {'; '.join(parts)}."
    ]


def sentences(report_data: ReportData) -> Iterator[str]:
    """For each title and panel, whether maps matter and what the best could gain."""
    for title in report_data.report.map_effect:
        for panel, comparison, spread in spreads(report_data, title):
            terms, effect = comparison.terms, spread.effect
            shown = WORDS.get(spread.outcome, spread.outcome) + f" ({spread.reason})" * bool(spread.reason)
            smallest = f"; the smallest effect of interest is {terms.smallest}" if terms.smallest else ""
            yield (
                f"{title}, {panel_title(panel.short)}: {shown}. {len(spread.maps)} maps at {spread.seeds} seeds: "
                f"sigma_map {_deviation(effect.deviation).text} in {_scale(comparison)}, the best of {BEST_OF} gains "
                f"{_gain(comparison, effect.ceiling).text} over their mean{_of_best_run(comparison, spread)}"
                f"{_of_reference(comparison, spread)}"
                f"{smallest}."
            )


def _of_best_run(comparison: Comparison, spread: MapSpread) -> str:
    """What the best of the maps that were run gains: far less than that where a few bad maps make the deviation."""
    gains = [spread.gains[arm] for arm in spread.maps if arm in spread.gains]
    best = max(gains, key=lambda gain: gain.mean, default=None)
    return "" if best is None else f", the best of these {len(gains)} {_gain(comparison, best).text}"


def _of_reference(comparison: Comparison, spread: MapSpread) -> str:
    """Where the reference stands: what the best map gains over it is less than over the mean by as much."""
    gain = spread.gains.get(str(comparison.reference))
    return "" if gain is None else f", {arm_title(str(comparison.reference))} {_gain(comparison, gain).text}"


def _scale(comparison: Comparison) -> str:
    title = title_of(comparison.metrics[0])
    return f"log {title.partition(',')[0]}" if comparison.terms.log else title
