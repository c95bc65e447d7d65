"""Ranks in a report: their total over the steps, those of each arm by site, and how much of the truth they are."""

from __future__ import annotations

from functools import partial

from rankbench.analysis.labels import panel_title
from rankbench.core.sites import LARGE_SHARE, MOST_SITES, UNEVEN
from rankbench.reporting.figures.found_maps import draw_found_against_gain
from rankbench.reporting.figures.mean_maps import draw_rank_maps, map_groups
from rankbench.reporting.figures.rank_history import draw_rank_kinds, draw_rank_totals
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.section import Section


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where no run has ranks."""
    maps = (partial(draw_rank_maps, title, panels, report_data) for title, panels in map_groups(report_data).items())
    over_steps = [partial(draw_rank_totals, report_data), partial(draw_rank_kinds, report_data)]
    figures = [partial(draw_found_against_gain, report_data), *maps, *over_steps]
    return Section("ranks", "Ranks", sentences(report_data), figures)


def sentences(report_data: ReportData) -> list[str]:
    """One sentence on the arms whose allocations are uneven, by panel; [] where none is."""
    places = []
    for panel in report_data.panels:
        for arm in report_data.arms:
            done = [record for record, name in zip(panel.records, panel.names, strict=True) if name == arm]
            uneven = [any(note.startswith(UNEVEN) for note in record.notes) for record in done if record.status == "ok"]
            if any(uneven):
                places.append(f"{arm} on {panel_title(panel.short)}, {sum(uneven)} of {len(uneven)} runs")
    share, most = f"{100 * LARGE_SHARE:g} %", f"{100 * MOST_SITES:g} %"
    what = f"one site holds {share} of what is spent, or {most} of the sites have at most rank 1"
    return [f"Uneven allocations ({what}): {'; '.join(places)}."] if places else []
