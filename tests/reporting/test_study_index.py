"""The index of the studies in a results folder."""

from __future__ import annotations

from pathlib import Path

from rankbench.reporting.pages.study_index import BEGIN, END, block, refresh, studies

RESULTS = Path(__file__).resolve().parent.parent.parent / "results"
PAGE = """<!DOCTYPE html><html lang="en"><head><meta name="description" content="Open: a | b &amp; c.">
<meta name="question" content="Is it?"><meta name="runs" content="4 of 5"><meta name="date" content="2026-01-02">
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


def test_the_index_links_each_study_and_keeps_what_is_written_by_hand(tmp_path):
    readme = results(tmp_path) / "README.md"
    readme.write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nMore of mine.\n")
    refresh(tmp_path)
    refresh(tmp_path)
    text = readme.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("More of mine.\n")
    assert text.count("[one](one/index.html)") == 1
    assert "Is it? **Open: a \\| b & c.**" in text
    assert "old" not in text.partition(BEGIN)[2].partition(END)[0]
    page = (tmp_path / "index.html").read_text()
    assert '<a href="one/index.html">one</a>' in page
    assert "Open: a | b &amp; c." in page


def test_a_folder_without_sweeps_gets_no_index(tmp_path):
    refresh(results(tmp_path, sweeps=False))
    assert not (tmp_path / "index.html").exists()


def test_the_index_of_the_committed_studies_is_that_of_their_pages():
    text = (RESULTS / "README.md").read_text()
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == block(studies(RESULTS)).strip()
