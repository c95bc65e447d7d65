"""The index of the studies in a results folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rankbench.cli import main
from rankbench.reporting.pages.page import environment, picture_of
from rankbench.reporting.pages.study_index import BEGIN, END, WIDTH, block, refresh, renew, studies
from rankbench.reporting.plotting import SavedFigure
from rankbench.reporting.section import Section

RESULTS = Path(__file__).resolve().parent.parent.parent / "results"
PAGE = """<!DOCTYPE html><html lang="en"><head><meta name="description" content="Open: a | b &amp; c.">
<meta name="question" content="Is it?"><meta name="figure" content="forest">
<meta name="runs" content="4 of 5"><meta name="date" content="2026-01-02">
<style>p {}</style></head><body><meta name="question" content="Another?"></body></html>"""


def results(place: Path, *, sweeps: bool = True) -> Path:
    (place / "one" / "figures").mkdir(parents=True)
    (place / "one" / "index.html").write_text(PAGE)
    (place / "one" / "figures" / "forest.png").write_bytes(b"")
    (place / "old").mkdir()
    (place / "old" / "index.html").write_text("<html><head><title>no report</title></head></html>")
    if sweeps:
        (place / "sweeps").mkdir()
    return place


def test_a_study_is_what_the_head_of_its_page_says(tmp_path):
    (study,) = studies(results(tmp_path))
    assert (study.name, study.question, study.description) == ("one", "Is it?", "Open: a | b & c.")
    assert (study.runs, study.date, study.thumbnail) == ("4 of 5", "2026-01-02", "one/figures/forest.png")


@pytest.mark.parametrize(
    ("arms", "figures", "is_on_settings", "picture"),
    [
        (3, ("forest", "found-against-gain", "curves"), False, "forest"),
        (3, ("forest", "found-against-gain", "curves"), True, "curves"),
        (1, ("forest", "found-against-gain", "curves"), False, "curves"),
        (2, ("forest", "found-against-gain"), False, "found-against-gain"),
        (2, ("forest", "cost"), False, "forest"),
        (0, ("cost",), False, "cost"),
        (0, (), False, ""),
    ],
)
def test_the_thumbnail_is_the_figure_that_shows_what_was_found(arms, figures, is_on_settings, picture):
    """A forest plot of one or two rows shows little; a study of settings has it beside, its finding in their curves."""
    comparison = SimpleNamespace(reference="lora", rows=["lora", *map(str, range(arms))])
    report_data = SimpleNamespace(compared=lambda: [(None, comparison)])
    sections = [
        Section("ablations" if name == "curves" else "results", "", (), [SavedFigure(name, "", "", "", [])])
        for name in figures
    ]
    assert picture_of(report_data, sections, is_on_settings) == picture


def test_the_index_links_each_study_and_keeps_what_is_written_by_hand(tmp_path):
    readme = results(tmp_path) / "README.md"
    readme.write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nMore of mine.\n")
    assert renew(tmp_path) == renew(tmp_path) == tmp_path / "index.html"
    text = readme.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("More of mine.\n")
    assert text.count("[one](one/index.html)") == 1
    assert "Is it? **Open: a \\| b & c.**" in text
    assert "old" not in text.partition(BEGIN)[2].partition(END)[0]
    page = (tmp_path / "index.html").read_text()
    assert '<a href="one/index.html">one</a>' in page
    assert "Open: a | b &amp; c." in page


def test_a_report_refreshes_the_index_of_a_folder_of_sweeps(tmp_path):
    refresh(results(tmp_path))
    assert "one/index.html" in (tmp_path / "index.html").read_text()


def test_a_folder_without_sweeps_gets_no_index(tmp_path):
    refresh(results(tmp_path, sweeps=False))
    assert not (tmp_path / "index.html").exists()


def test_a_published_index_changes_only_when_it_is_asked_for_and_lists_no_sweep_without_a_name(tmp_path):
    """Otherwise the first report in a fresh clone would leave changes that nobody wanted."""
    readme = results(tmp_path) / "README.md"
    readme.write_text(before := f"{BEGIN}\n{END}\n")
    (tmp_path / "one").rename(tmp_path / "sweep-829be1de")
    results(tmp_path / "again", sweeps=False).joinpath("one").rename(tmp_path / "one")
    refresh(tmp_path)
    assert (readme.read_text(), (tmp_path / "index.html").exists()) == (before, False)
    assert main(["report", "--index", "--results", str(tmp_path)]) == 0
    for text in (readme.read_text(), (tmp_path / "index.html").read_text()):
        assert "one/index.html" in text
        assert "sweep-" not in text


def test_the_index_is_asked_for_alone_and_of_a_folder_that_is_there(tmp_path, capsys):
    assert main(["report", "igu_ablation", "--index"]) == 2
    assert main(["report", "--index", "--results", str(tmp_path / "no")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_index_of_the_committed_studies_is_that_of_their_pages():
    """`rankbench report --index` renews it."""
    text = (RESULTS / "README.md").read_text()
    listed = studies(RESULTS)
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == block(listed).strip()
    page = environment().get_template("studies.html.j2").render(studies=listed, width=WIDTH)
    assert (RESULTS / "index.html").read_text() == page
