"""The report of an experiment: `rankbench report experiment=X`, or the folder of one.

results/X/ gets the tables (Markdown, LaTeX, CSV), the figures (PDF, PNG, CSV), the records, and index.html, the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rankbench.analysis.labels import file_name
from rankbench.reporting import comparison_table, page, table
from rankbench.reporting.page import Section
from rankbench.reporting.parallel import calling
from rankbench.reporting.plotting import SavedFigure, Sketch, finish
from rankbench.reporting.report_data import ReportData, gather, links
from rankbench.reporting.sections import ablations, costs, missing_runs, published, verdict
from rankbench.reporting.sections.ablations import draw_ablation, draw_ablations
from rankbench.reporting.sections.frontier import draw_frontier
from rankbench.reporting.sections.learning_rates import draw_learning_rates, rates_sheet
from rankbench.reporting.sections.ranks import draw_rank_maps, draw_rank_totals
from rankbench.reporting.sections.results import means_sheet, task_sheets
from rankbench.reporting.sections.setup import arms_sheet
from rankbench.reporting.table import Table, numbers, section
from rankbench.studies import study
from rankbench.studies.ablations import Ablation
from rankbench.studies.panels import Panel, families
from rankbench.studies.study import Study

TITLES = {
    "verdict": "Verdict",
    "holes": "Holes and failures",
    "results": "Results",
    "published": "Published numbers",
    "frontier": "Quality and budget",
    "cost": "Cost",
    "ranks": "Ranks",
    "rates": "Learning rates",
    "ablations": "Settings varied",
    "setup": "What was run",
}
OPEN = 3  # tables of a kind; more are closed on the page
WRITTEN = (".csv", ".tex", ".pdf", ".png")  # what a report leaves in tables/ and figures/


def build(found: Study, place: Path, allowed: Sequence[str] = ()) -> list[str]:
    """Write the whole report of a study; what it says first.

    Args:
        found: with its records.
        place: folder; what an earlier report left in its tables/ and figures/ and this one does not have is removed.
        allowed: names of what may differ within a table.

    Raises:
        SelectionError: records that may not stand in one table.
    """
    evidence = gather(found, allowed)
    (place / "figures").mkdir(parents=True, exist_ok=True)
    with calling([partial(finish, sketch, place / "figures") for sketch in sketches(evidence)]) as drawn:
        made = sheets(evidence)
        study.save(found, place)
        files = [*_write_tables(made, place / "tables")]
        pictures = [picture for picture in drawn() if picture is not None]
    shown = parts(evidence, made, {picture.name: picture for picture in pictures})
    (place / "tables.md").write_text(_markdown(shown))
    (place / "index.html").write_text(page.render(evidence, shown))
    _sweep_out(place, [*files, *(file for picture in pictures for file in picture.files)])
    return list(shown[0].sentences)


def sketches(evidence: ReportData) -> list[Sketch]:
    """Every figure, not drawn yet."""
    return [
        partial(draw_frontier, evidence),
        partial(costs.draw, evidence),
        partial(draw_rank_totals, evidence),
        *(partial(draw_rank_maps, title, panels, evidence) for title, panels in _of_ranks(evidence).items()),
        partial(draw_learning_rates, evidence),
        *_of_ablations(evidence),
    ]


def _of_ranks(evidence: ReportData) -> dict[str, list[Panel]]:
    """Title -> panels whose rank maps are one figure."""
    found = families(evidence.panels).items()
    return {title if len(panels) > 1 else panels[0].title: panels for title, panels in found}


def _of_ablations(evidence: ReportData) -> Iterator[Sketch]:
    """Curves and heat maps; the curves of a single panel are one figure."""
    for ablation in evidence.ablations:
        if len(ablation.keys) == 2:
            yield partial(ablations.draw_grid, ablation, evidence)
        elif ablation.keys and len(evidence.panels) > 1:
            yield partial(draw_ablation, ablation, evidence)
    if len(evidence.panels) == 1:
        yield partial(draw_ablations, evidence)


def sheets(evidence: ReportData) -> dict[str, list[Table]]:
    """Every table, by the part it stands in; those of an ablation by its name."""
    results = [
        comparison_table.sheet(found, f"results-{panel.name}", panel.title, links(panel))
        for panel, found in evidence.compared()
    ]
    made: dict[str, Sequence[Table | None]] = {
        "verdict": [verdict.verdict_sheet(evidence), verdict.findings_sheet(evidence)],
        "holes": [missing_runs.holes_sheet(evidence), missing_runs.failures_sheet(evidence)],
        "results": [means_sheet(evidence), *task_sheets(evidence), *_folded(results)],
        "published": published.sheets(evidence),
        "cost": [costs.sheet(evidence)],
        "rates": [rates_sheet(evidence)],
        **{ablation.name: _against_base(evidence, ablation) for ablation in evidence.ablations},
        "setup": [arms_sheet(evidence)],
    }
    return {part: [sheet for sheet in held if sheet is not None] for part, held in made.items()}


def _folded(found: Sequence[Table]) -> list[Table]:
    """As they are where they are few, else closed on the page."""
    return [replace(sheet, folded=len(found) > OPEN) for sheet in found]


def _against_base(evidence: ReportData, ablation: Ablation) -> list[Table]:
    """Tables of the arms that vary a setting, against the one that leaves it at its default."""
    return _folded(
        [
            comparison_table.sheet(
                found, f"{ablation.name}-{panel.name}", f"{ablation.title}: {panel.title}", links(panel)
            )
            for panel, found in evidence.varied[ablation.name]
        ]
    )


def parts(evidence: ReportData, made: Mapping[str, list[Table]], pictures: Mapping[str, SavedFigure]) -> list[Section]:
    """What the page shows, in its order: what is resolved and what is missing first."""
    ranks = ["rank-totals", *(f"ranks-{file_name(title)}" for title in _of_ranks(evidence))]
    drawn = {"frontier": ["frontier"], "cost": ["cost"], "ranks": ranks, "rates": ["learning-rates"]}
    drawn["ablations"] = ["curves"]
    blocks = {part: [*_there(pictures, drawn.get(part, [])), *made.get(part, [])] for part in TITLES}
    for ablation in evidence.ablations:
        blocks["ablations"] += [*_there(pictures, [ablation.name]), *made[ablation.name]]
    said = {
        "verdict": verdict.sentences(evidence),
        "holes": missing_runs.sentences(evidence),
        "results": [comparison_table.NOTE],
    }
    found = [Section(part, title, said.get(part, []), blocks[part]) for part, title in TITLES.items()]
    return [part for part in found if part.blocks or part.anchor in ("verdict", "holes")]


def _there(pictures: Mapping[str, SavedFigure], wanted: Sequence[str]) -> list[Table | SavedFigure]:
    return [pictures[name] for name in wanted if name in pictures]


def _write_tables(made: Mapping[str, list[Table]], folder: Path) -> Iterator[Path]:
    """LaTeX and CSV of each table, and the LaTeX document of all; the files of tables/."""
    folder.mkdir(parents=True, exist_ok=True)
    every = [sheet for held in made.values() for sheet in held]
    for sheet in every:
        tex, csv = folder / f"{sheet.name}.tex", folder / f"{sheet.name}.csv"
        tex.write_text(table.latex_table(sheet))
        numbers(sheet).to_csv(csv, index=False)
        yield from (tex, csv)
    (folder.parent / "tables.tex").write_text(table.latex_document(sheet.name for sheet in every))


def _markdown(made: Sequence[Section]) -> str:
    found = []
    for part in made:
        found += [f"# {part.title}", *(f"- {sentence}" for sentence in part.sentences)]
        found += [section(block) for block in part.blocks if isinstance(block, Table)]
    return "\n\n".join(found) + "\n"


def _sweep_out(place: Path, written: Sequence[Path]) -> None:
    """Remove the tables and figures of an earlier report."""
    for folder in ("tables", "figures"):
        for file in (place / folder).iterdir():
            if file.suffix in WRITTEN and file not in written:
                file.unlink()
