"""Studies under results/ have one layout, and each has a page; the list of pages has every page."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGES = ROOT / "results", ROOT / "experiments"
STUDIES = sorted(
    folder
    for folder in RESULTS.iterdir()
    if folder.is_dir() and folder.name not in ("published", "runs", "sweeps") and not folder.name.startswith("sweep-")
)
FOLDERS = {"figures", "tables"}
RECORDS = {"records.jsonl", "records.jsonl.xz"}
LOGS = {"curves.jsonl", "rank_histories.csv", "item_gains.csv"}
FILES = {*RECORDS, *LOGS, "sweep.json", "index.html", "tables.md", "paper.tex"}
EXPERIMENTS = {file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")}


def other_files(study: str) -> set[str]:
    """Files of a study that results/README.md names beside those of every study."""
    text = (RESULTS / "README.md").read_text()
    rows = re.findall(rf"^\| {study} \| (.*) \|$", text, re.M)
    return {name for row in rows for name in re.findall(r"`([\w.]+\.\w+)`", row)}


def test_there_are_studies():
    assert {"igu_ablation", "rte_allocators", "quadrature"} <= {folder.name for folder in STUDIES}


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_a_study_has_the_shape_of_all_studies(folder):
    entries = {entry.name: entry for entry in folder.iterdir()}
    assert {name for name, entry in entries.items() if entry.is_dir()} <= FOLDERS
    files = {name for name, entry in entries.items() if entry.is_file()}
    others = other_files(folder.name)
    assert files - FILES == others - FILES
    assert all(
        entry.suffix in (".csv", ".pdf", ".png", ".tex") for name in FOLDERS for entry in folder.glob(f"{name}/*")
    )
    assert RECORDS & files or others or "figures" in entries
    if "sweep.json" in files:
        assert RECORDS & files
        assert {"index.html", "tables.md"} <= files


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_a_study_has_a_page_that_links_it(folder):
    assert f"](../results/{folder.name}" in (PAGES / f"{folder.name}.md").read_text()


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/*.jsonl")), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_line_is_json(file):
    assert all(isinstance(json.loads(line), dict) for line in file.read_text().splitlines())


def test_every_page_is_listed_with_its_date_question_and_verdict():
    pages = {file.stem for file in PAGES.glob("*.md")} - {"README"}
    rows = re.findall(
        r"^\| \[(\w+)\]\((\w+)\.md\) \| (\S+) \| (.+\?) \| (.+\.) \|$", (PAGES / "README.md").read_text(), re.M
    )
    assert [name for name, *_ in rows] == [link for _, link, *_ in rows]
    assert {name for name, *_ in rows} == pages
    for name, _, date, *_ in rows:
        assert f"\n{date}. " in (PAGES / f"{name}.md").read_text(), name


def test_an_experiment_has_a_page_or_is_listed_as_not_run():
    listed, _, scales = (PAGES / "README.md").read_text().partition("## Declared and not run")[2].rpartition("\n\n")
    missing = {name for line in re.findall(r"^- (.*?):", listed, re.M) for name in re.findall(r"`(\w+)`", line)}
    pages = {file.stem for file in PAGES.glob("*.md")}
    assert missing == EXPERIMENTS - pages
    assert set(re.findall(r"`(\w+)`", scales)) == EXPERIMENTS & pages


@pytest.mark.parametrize("page", sorted([*PAGES.glob("*.md"), RESULTS / "README.md"]), ids=lambda page: page.stem)
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
