"""The report of an experiment: `python -m rankbench.report experiment=X`, or the folder of one.

results/X/ gets the tables (Markdown, LaTeX, CSV), the figures (PDF, PNG, CSV), the records, and index.html, the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rankbench import costs, holes, latex, maps, overview, page, quotes, study, tables, verdicts
from rankbench.ablations import Ablation
from rankbench.curves import ablation_points, draw_ablation, draw_rank_totals
from rankbench.design import arms_sheet
from rankbench.drawing import Picture, Sketch, finish
from rankbench.evidence import Evidence, compare_arms, gather, links
from rankbench.frontier import draw_frontier
from rankbench.labels import file_name
from rankbench.page import Part
from rankbench.rates import SelectionError
from rankbench.selection import ALLOW_MIXED, names
from rankbench.sheet import Sheet, numbers, section
from rankbench.study import Study
from rankbench.sweep import SweepError
from rankbench.trials import draw_learning_rates, learning_rates, rates_sheet
from rankbench.workers import call_all

Block = Sheet | Picture | Sketch
OPEN = 3  # tables of a kind; more are closed on the page
ALWAYS = ("verdict", "holes")  # anchors of parts that are there with nothing but sentences
WRITTEN = (".csv", ".tex", ".pdf", ".png")  # what a report leaves in tables/ and figures/


def parts(evidence: Evidence) -> list[Part]:
    """All that is shown, its figures not drawn yet: what is resolved and what is missing first."""
    frontier = partial(draw_frontier, evidence.panels, evidence.arms, evidence.looks, "frontier")
    verdict = [verdicts.verdict_sheet(evidence), verdicts.findings_sheet(evidence)]
    lost = [holes.holes_sheet(evidence), holes.failures_sheet(evidence)]
    return [
        Part("verdict", "Verdict", verdicts.sentences(evidence), _there(verdict)),
        Part("holes", "Holes and failures", holes.sentences(evidence), _there(lost)),
        Part("results", "Results", [tables.NOTE], list(_results(evidence))),
        Part("published", "Published numbers", [], [*quotes.sheets(evidence)]),
        Part("frontier", "Quality and budget", [], [frontier]),
        Part("cost", "Cost", [], [partial(costs.draw, evidence), *_there([costs.sheet(evidence)])]),
        Part("ranks", "Ranks", [], list(_ranks(evidence))),
        Part("rates", "Learning rates", [], list(_rates(evidence))),
        Part("ablations", "Settings varied", [], list(_ablations(evidence))),
        Part("setup", "What was run", [], _there([arms_sheet(evidence)])),
    ]


def _there(sheets: Sequence[Sheet | None]) -> list[Block]:
    return [sheet for sheet in sheets if sheet is not None]


def _results(evidence: Evidence) -> Iterator[Sheet]:
    means = overview.means_sheet(evidence)
    yield from [means, *overview.task_sheets(evidence)] if means else overview.task_sheets(evidence)
    yield from _folded(
        [
            tables.sheet(comparison, f"results-{panel.name}", panel.title, links(panel))
            for panel, comparison in evidence.compared()
        ]
    )


def _folded(sheets: Sequence[Sheet]) -> list[Sheet]:
    """As they are where they are few, else closed on the page."""
    return [replace(sheet, folded=len(sheets) > OPEN) for sheet in sheets]


def _ranks(evidence: Evidence) -> Iterator[Sketch]:
    yield partial(draw_rank_totals, evidence, "rank-totals")
    for panel in evidence.panels:
        yield partial(maps.draw_rank_maps, panel, evidence.arms, evidence.looks)


def _rates(evidence: Evidence) -> Iterator[Block]:
    found = [(panel, data) for panel in evidence.panels for data in [learning_rates(panel, evidence.choosing())]]
    found = [(panel, data) for panel, data in found if len(data)]
    if found:
        yield partial(draw_learning_rates, found, evidence.looks, "learning-rates")
        yield rates_sheet(found)


def _ablations(evidence: Evidence) -> Iterator[Block]:
    for place, ablation in enumerate(evidence.ablations, 1):
        points = [(panel, data) for panel in evidence.panels for data in [ablation_points(panel, ablation)]]
        points = [(panel, data) for panel, data in points if len(data)]
        name = f"{file_name(ablation.title)}-{place}"
        if points and len(ablation.keys) == 1:
            yield partial(draw_ablation, points, ablation, evidence, f"curve-{name}")
        elif points:
            yield partial(maps.draw_grid, points, ablation, f"map-{name}")
        yield from _against_base(evidence, ablation, name)


def _against_base(evidence: Evidence, ablation: Ablation, name: str) -> list[Sheet]:
    """Tables of the arms that vary a setting, against the one that leaves it at its default."""
    compared = [
        (panel, compare_arms(panel, ablation.arms, evidence.report, ablation.base)) for panel in evidence.panels
    ]
    return _folded(
        [
            tables.sheet(found, f"{name}-{panel.name}", f"{ablation.title}: {panel.title}", links(panel))
            for panel, found in compared
            if found is not None
        ]
    )


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
    made = _drawn(parts(evidence), place / "figures")
    study.save(found, place)
    files = [*_write_tables(made, place / "tables")]
    (place / "tables.md").write_text(_markdown(made))
    (place / "index.html").write_text(page.render(evidence, made))
    pictures = [file for part in made for block in part.blocks if isinstance(block, Picture) for file in block.files]
    _sweep_out(place, [*files, *pictures])
    return list(made[0].sentences)


def _drawn(made: Sequence[Part], folder: Path) -> list[Part]:
    """With the figures drawn and written; parts that say nothing and hold nothing are left out."""
    sketches = [block for part in made for block in part.blocks if not isinstance(block, Sheet | Picture)]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = iter(call_all([partial(finish, sketch, folder) for sketch in sketches]))
    found = []
    for part in made:
        blocks = [block if isinstance(block, Sheet) else next(pictures) for block in part.blocks]
        there = [block for block in blocks if block is not None]
        if there or part.anchor in ALWAYS:
            found.append(replace(part, blocks=there))
    return found


def _write_tables(made: Sequence[Part], folder: Path) -> Iterator[Path]:
    """LaTeX and CSV of each table, and the LaTeX document of all; the files of tables/."""
    folder.mkdir(parents=True, exist_ok=True)
    sheets = [block for part in made for block in part.blocks if isinstance(block, Sheet)]
    for sheet in sheets:
        tex, csv = folder / f"{sheet.name}.tex", folder / f"{sheet.name}.csv"
        tex.write_text(latex.table(sheet))
        numbers(sheet).to_csv(csv, index=False)
        yield from (tex, csv)
    (folder.parent / "tables.tex").write_text(latex.document(sheet.name for sheet in sheets))


def _markdown(made: Sequence[Part]) -> str:
    found = []
    for part in made:
        found += [f"# {part.title}", *(f"- {sentence}" for sentence in part.sentences)]
        found += [section(block) for block in part.blocks if isinstance(block, Sheet)]
    return "\n\n".join(found) + "\n"


def _sweep_out(place: Path, written: Sequence[Path]) -> None:
    """Remove the tables and figures of an earlier report."""
    for folder in ("tables", "figures"):
        for file in (place / folder).iterdir():
            if file.suffix in WRITTEN and file not in written:
                file.unlink()


def main() -> None:
    """Write the report; print where it is and what it says first."""
    parser = argparse.ArgumentParser(prog="python -m rankbench.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="experiment=X, results_dir=DIR, more words of its sweep; or the folder of a report",
    )
    parser.add_argument("--out", type=Path, help="folder to write to; by default results_dir/X, or the folder given")
    parser.add_argument("--allow-mixed", type=names, default=[], metavar="NAMES", help=ALLOW_MIXED)
    arguments = parser.parse_args()
    try:
        found = study.load(arguments.words)
        place = arguments.out or _folder(arguments.words, found)
        said = build(found, place, arguments.allow_mixed)
    except (SweepError, SelectionError) as error:
        parser.exit(2, f"{error}\n")
    print(f"{place}/index.html")
    for sentence in said:
        print(sentence)


def _folder(words: Sequence[str], found: Study) -> Path:
    if len(words) == 1 and "=" not in words[0]:
        return Path(words[0])
    name = found.sweep.name if found.sweep.experiment is not None else found.sweep.sweep_id
    return study.results_dir_of(words) / name


if __name__ == "__main__":
    main()
