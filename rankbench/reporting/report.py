"""The report of an experiment: `rankbench report experiment=X`, or the folder of one.

results/X/ gets the tables (Markdown, LaTeX, CSV), the figures (PDF, PNG, CSV), the records, and index.html, the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rankbench.analysis.labels import file_name
from rankbench.reporting import comparison_table, page
from rankbench.reporting.page import Section
from rankbench.reporting.parallel import calling
from rankbench.reporting.plotting import SavedFigure, Sketch, finish
from rankbench.reporting.report_data import ReportData, gather, links
from rankbench.reporting.sections import (
    ablations,
    costs,
    item_gains,
    map_effects,
    missing_runs,
    over_panels,
    positive_control,
    published,
    ranks,
    setup,
    verdict,
)
from rankbench.reporting.sections.ablations import draw_ablation, draw_ablations
from rankbench.reporting.sections.frontier import draw_frontier
from rankbench.reporting.sections.learning_rates import draw_learning_rates, rates_table
from rankbench.reporting.sections.results import means_table, task_tables
from rankbench.reporting.table import Table, csv_frame, latex_document, latex_table, markdown_section
from rankbench.studies.ablations import Ablation
from rankbench.studies.panels import Panel, families
from rankbench.studies.study import Study
from rankbench.studies.study import save as save_study

TITLES = {
    "verdict": "Verdict",
    "control": "Positive control",
    "maps": "Does any map matter?",
    "over": "Panels taken together",
    "holes": "Missing runs and failures",
    "results": "Results",
    "items": "Other seeds, other items",
    "published": "Published numbers",
    "frontier": "Quality and budget",
    "cost": "Cost",
    "ranks": "Ranks",
    "rates": "Learning rates",
    "ablations": "Settings varied",
    "setup": "What was run",
}
OPEN = 3  # more tables of a kind are closed on the page
WRITTEN = (".csv", ".tex", ".pdf", ".png")  # what a report leaves in tables/ and figures/


def build(study: Study, folder: Path, allowed: Sequence[str] = ()) -> list[str]:
    """Write the whole report of a study; return the sentences that it says first.

    Args:
        study: the study with its records.
        folder: folder; what an earlier report left in its tables/ and figures/ and this one does not have is removed.
        allowed: names of what may differ within a table.

    Raises:
        SelectionError: records that may not stand in one table.
    """
    report_data = gather(study, allowed)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    with calling([partial(finish, sketch, folder / "figures") for sketch in sketches(report_data)]) as drawings:
        tables = all_tables(report_data)
        save_study(replace(study, item_gains=report_data.item_gains), folder)
        files = [*_write_tables(tables, folder / "tables")]
        pictures = [picture for picture in drawings() if picture is not None]
    sections = make_sections(report_data, tables, {picture.name: picture for picture in pictures})
    (folder / "tables.md").write_text(_markdown(sections))
    (folder / "index.html").write_text(page.render(report_data, sections))
    _remove_stale_files(folder, [*files, *(file for picture in pictures for file in picture.files)])
    return list(sections[0].sentences)


def sketches(report_data: ReportData) -> list[Sketch]:
    """Every figure, not drawn yet."""
    return [
        *(partial(map_effects.draw_spread, report_data, title) for title in report_data.report.map_effect),
        partial(draw_frontier, report_data),
        partial(costs.draw_costs, report_data),
        partial(ranks.draw_rank_totals, report_data),
        *(
            partial(ranks.draw_rank_maps, title, panels, report_data)
            for title, panels in _of_ranks(report_data).items()
        ),
        partial(draw_learning_rates, report_data),
        *_of_ablations(report_data),
    ]


def _of_ranks(report_data: ReportData) -> dict[str, list[Panel]]:
    """Title -> panels whose rank maps are one figure."""
    groups = families(report_data.panels).items()
    return {title if len(panels) > 1 else panels[0].title: panels for title, panels in groups}


def _of_ablations(report_data: ReportData) -> Iterator[Sketch]:
    """Curves and heat maps; the curves of a single panel are one figure."""
    for ablation in report_data.ablations:
        if len(ablation.keys) == 2:
            yield partial(ablations.draw_grid, ablation, report_data)
        elif ablation.keys and len(report_data.panels) > 1:
            yield partial(draw_ablation, ablation, report_data)
    if len(report_data.panels) == 1:
        yield partial(draw_ablations, report_data)


def all_tables(report_data: ReportData) -> dict[str, list[Table]]:
    """Return every table, by the anchor of its section; those of an ablation by its name."""
    results = [
        comparison_table.make_table(comparison, f"results-{panel.name}", panel.title, links(panel))
        for panel, comparison in report_data.compared()
    ]
    tables: dict[str, Sequence[Table | None]] = {
        "verdict": [verdict.verdict_table(report_data), verdict.findings_table(report_data)],
        "control": [positive_control.control_table(report_data)],
        "maps": map_effects.spread_tables(report_data),
        "over": over_panels.pooled_tables(report_data),
        "holes": [missing_runs.missing_runs_table(report_data), missing_runs.failures_table(report_data)],
        "results": [means_table(report_data), *task_tables(report_data), *_folded(results)],
        "items": [item_gains.item_table(report_data)],
        "published": published.published_tables(report_data),
        "cost": [costs.cost_table(report_data)],
        "rates": [rates_table(report_data)],
        **{ablation.name: _ablation_tables(report_data, ablation) for ablation in report_data.ablations},
        "setup": [setup.arms_table(report_data), setup.deviations_table(report_data)],
    }
    return {anchor: [table for table in several if table is not None] for anchor, several in tables.items()}


def _folded(tables: Sequence[Table]) -> list[Table]:
    """The tables, closed on the page where they are many."""
    return [replace(table, folded=len(tables) > OPEN) for table in tables]


def _ablation_tables(report_data: ReportData, ablation: Ablation) -> list[Table]:
    """Tables of the arms that vary a setting, against the one that leaves it at its default."""
    tables = [
        comparison_table.make_table(
            comparison, f"{ablation.name}-{panel.name}", f"{ablation.title}: {panel.title}", links(panel)
        )
        for panel, comparison in report_data.varied[ablation.name]
    ]
    return _folded([replace(table, notes=[*table.notes, comparison_table.EXPLORATORY]) for table in tables])


def make_sections(
    report_data: ReportData, tables: Mapping[str, list[Table]], pictures: Mapping[str, SavedFigure]
) -> list[Section]:
    """Sections of the page, in order: what is resolved and what is missing first."""
    figures = {"frontier": ["frontier"], "cost": ["cost"], "rates": ["learning-rates"], "ablations": ["curves"]}
    figures["maps"] = [f"spread-{file_name(title)}" for title in report_data.report.map_effect]
    figures["ranks"] = ["rank-totals", *(f"ranks-{file_name(title)}" for title in _of_ranks(report_data))]
    blocks = {anchor: [*_named(pictures, figures.get(anchor, [])), *tables.get(anchor, [])] for anchor in TITLES}
    for ablation in report_data.ablations:
        blocks["ablations"] += [*_named(pictures, [ablation.name]), *tables[ablation.name]]
    sentences = {
        "verdict": verdict.sentences(
            report_data, list(over_panels.sentences(report_data, tables["over"])), over_panels.pooled_names(report_data)
        ),
        "control": list(positive_control.sentences(report_data)),
        "maps": list(map_effects.sentences(report_data)),
        "holes": missing_runs.sentences(report_data),
        "results": [comparison_table.NOTE] if blocks["results"] else [],
        "ranks": ranks.sentences(report_data),
        "setup": setup.sentences(report_data),
    }
    sections = [Section(anchor, title, sentences.get(anchor, []), blocks[anchor]) for anchor, title in TITLES.items()]
    always = ("verdict", "holes")
    return [section for section in sections if section.blocks or section.sentences or section.anchor in always]


def _named(pictures: Mapping[str, SavedFigure], wanted: Sequence[str]) -> list[Table | SavedFigure]:
    return [pictures[name] for name in wanted if name in pictures]


def _write_tables(tables: Mapping[str, list[Table]], folder: Path) -> Iterator[Path]:
    """LaTeX and CSV of each table, and the LaTeX document of all; the files of tables/."""
    folder.mkdir(parents=True, exist_ok=True)
    every = [table for several in tables.values() for table in several]
    for table in every:
        tex, csv = folder / f"{table.name}.tex", folder / f"{table.name}.csv"
        tex.write_text(latex_table(table))
        csv_frame(table).to_csv(csv, index=False)
        yield from (tex, csv)
    (folder.parent / "tables.tex").write_text(latex_document(table.name for table in every))


def _markdown(sections: Sequence[Section]) -> str:
    texts = []
    for section in sections:
        texts += [f"# {section.title}", *(f"- {sentence}" for sentence in section.sentences)]
        texts += [markdown_section(block) for block in section.blocks if isinstance(block, Table)]
    return "\n\n".join(texts) + "\n"


def _remove_stale_files(folder: Path, written: Sequence[Path]) -> None:
    """Remove the tables and figures of an earlier report that this one did not write."""
    for name in ("tables", "figures"):
        for file in (folder / name).iterdir():
            if file.suffix in WRITTEN and file not in written:
                file.unlink()
