"""The report of an experiment: `rankbench report experiment=X`, or the folder of one.

results/X/ gets the tables (Markdown, LaTeX, CSV), the figures (PDF, PNG, CSV), the records, and index.html, the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

from rankbench.analysis.labels import with_titles
from rankbench.reporting.headline import make_headline
from rankbench.reporting.pages import page, study_index
from rankbench.reporting.paper_tables import write_tables
from rankbench.reporting.parallel import calling
from rankbench.reporting.plotting import finish
from rankbench.reporting.report_data import ReportData, gather
from rankbench.reporting.section import Section
from rankbench.reporting.sections import (
    ablations,
    costs,
    frontier,
    item_gains,
    learning_rates,
    map_effects,
    missing_runs,
    positive_control,
    published,
    ranks,
    results,
    setup,
    verdict,
)
from rankbench.reporting.table import markdown_section
from rankbench.studies.study import Study, records_file
from rankbench.studies.study import save as save_study
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import SweepError

# In the order of the page; their interface: rankbench.reporting.section.
SECTIONS: tuple[ModuleType, ...] = (
    verdict,
    positive_control,
    map_effects,
    missing_runs,
    results,
    item_gains,
    published,
    frontier,
    costs,
    ranks,
    learning_rates,
    ablations,
    setup,
)
WRITTEN = (".csv", ".tex", ".pdf", ".png")  # what a report leaves in tables/ and figures/


def build(study: Study, folder: Path, allowed: Sequence[str] = (), venue: str = "neurips") -> list[str]:
    """Write the whole report of a study, and refresh the index beside it; return the sentences that it says first.

    Args:
        folder: folder; what an earlier report left in its tables/ and figures/ and this one does not have is removed.
        allowed: names of what may differ within a table.
        venue: key of paper_tables.WIDTHS, for which the LaTeX tables are set.

    Raises:
        SweepError: records alone would replace the report of a sweep.
        SelectionError: records that may not stand in one table.
    """
    if study.source is not None and (folder / manifest.FILE).exists():
        raise SweepError(f"{folder} holds the report of a sweep; name another folder with --out")
    report_data = gather(study, allowed)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    sections = make_sections(report_data)
    sketches = [sketch for section in sections for sketch in section.sketches]
    with calling([partial(finish, sketch, folder / "figures") for sketch in sketches]) as drawings:
        gains, histories = report_data.item_gains, report_data.rank_histories
        save_study(replace(study, item_gains=gains, rank_histories=histories), folder)
        tables = [table for section in sections for table in section.tables]
        files = write_tables(tables, folder, study.sweep.name, venue)
        pictures = dict(zip(sketches, drawings(), strict=True))
    headline = make_headline(report_data)
    drawn = [section.with_figures(pictures) for section in sections]
    drawn = [section for section in drawn if not section.is_empty]
    (folder / "tables.md").write_text(_markdown(drawn))
    (folder / "index.html").write_text(page.render(report_data, drawn, headline, records_file(folder).name))
    _remove_stale_files(folder, [*files, *(file for picture in pictures.values() if picture for file in picture.files)])
    study_index.refresh(folder.resolve().parent)
    return [headline.sentence, *headline.certainty, *(" ".join(step).strip() for step in headline.next_steps)]


def make_sections(report_data: ReportData) -> list[Section]:
    """Sections of the page, their figures not drawn yet: what is resolved and what is missing first."""
    sections = (module.make(report_data) for module in SECTIONS)
    return [
        replace(section, sentences=[with_titles(sentence, report_data.styles) for sentence in section.sentences])
        for section in sections
        if section is not None
    ]


def _markdown(sections: Sequence[Section]) -> str:
    texts = []
    for section in sections:
        texts += [f"# {section.title}", *(f"- {sentence}" for sentence in section.sentences)]
        texts += [markdown_section(table) for table in section.tables if not table.filed]
    return "\n\n".join(texts) + "\n"


def _remove_stale_files(folder: Path, written: Sequence[Path]) -> None:
    """Remove the tables and figures of an earlier report that this one did not write."""
    for name in ("tables", "figures"):
        for file in (folder / name).iterdir():
            if file.suffix in WRITTEN and file not in written:
                file.unlink()
