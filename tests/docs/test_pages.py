"""The documentation builds without a warning, asks for nothing from elsewhere, and says what the code says."""

import re
import tomllib
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import generated_pages
import pytest
from support.harness import python

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
LONGEST = 130  # lines of the README
LOADED = {"img": "src", "link": "href", "script": "src"}  # tag -> what a browser fetches by itself


class Page(HTMLParser):
    """Addresses and anchors of an HTML page.

    Attributes:
        links: targets of its links.
        fetched: what a browser fetches to show it.
        anchors: ids in it.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if address := attributes.get(LOADED.get(tag, "")):
            self.fetched.append(address)
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages: file -> what is in it."""
    if not all(find_spec(name) for name in ("sphinx", "myst_parser", "furo")):
        pytest.skip("the extra docs is not installed")
    out = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-c", str(ROOT / "docs")]
    done = python("-m", "sphinx", *options, str(ROOT), str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return {file.resolve(): Page(file.read_text()) for file in out.rglob("*.html")}


@pytest.mark.slow
def test_every_page_of_docs_is_built(site):
    built = {file.stem for file in site if file.parent.name == "docs"}
    assert built == {file.stem for file in (ROOT / "docs").glob("*.md")}
    assert {"README", "CONTRIBUTING", "decision_rule"} <= {file.stem for file in site}


@pytest.mark.slow
def test_links_lead_to_files_and_anchors(site):
    lost = []
    for file, page in site.items():
        for link in page.links + page.fetched:
            address = urlsplit(link)
            if address.scheme or link == "#":
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            if not target.exists() or (address.fragment and address.fragment not in site[target].anchors):
                lost.append(f"{file.name}: {link}")
    assert not lost


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere(site):
    assert not [address for page in site.values() for address in page.fetched if urlsplit(address).netloc]
    (index,) = (file for file in site if file.name == "index.html" and file.parent.name == "docs")
    styles = list(index.parent.parent.glob("_static/**/*.css"))
    assert styles
    for style in styles:
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", style.read_text()), style


@pytest.mark.parametrize("file", ["methods.md", "commands.md"])
def test_generated_pages_are_current(file):
    """Run `python docs/generated_pages.py` if this fails."""
    page = ROOT / "docs" / file
    assert page.read_text() == generated_pages.pages()[page]


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= LONGEST


def rooms_of_the_readme() -> list[str]:
    section = README.read_text().partition("## Rooms")[2].partition("\n## ")[0]
    return re.findall(r"^(\w+)/ {2,}\S", section, re.M)


def layers() -> list[list[str]]:
    """Floors of the package, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    return [re.findall(r"\w+", floor) for floor in floors]


def test_the_readme_has_a_line_for_each_room_from_the_top_floor_down():
    folders = {file.parent.name for file in (ROOT / "rankbench").glob("*/__init__.py")}
    rooms = rooms_of_the_readme()
    assert sorted(rooms) == sorted(folders)
    floor_of = {room: number for number, floor in enumerate(layers()) for room in floor}
    assert [floor_of[room] for room in rooms] == sorted(floor_of[room] for room in rooms)


def test_the_floors_of_the_docs_are_those_that_are_checked():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.M)
    assert [set(re.findall(r"\w+", rooms)) for _, rooms in rows] == [set(floor) for floor in layers()]
    assert [int(number) for number, _ in rows] == list(range(len(rows), 0, -1))


def test_the_picture_of_a_terminal_asks_for_no_font():
    picture = (ROOT / "docs" / "_static" / "terminal_session.svg").read_text()
    assert "@font-face" not in picture
    assert not re.search(r"(href|src|url\()\s*=?\s*['\"]?https?:", picture)
