"""The page of a report: valid HTML that loads nothing from outside, and its appearance in a browser."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.image import imread
from support.browser import BROWSER, measure, picture
from support.studies import declared, study

from rankbench.reporting import report

pytestmark = pytest.mark.slow

VOID = {"meta", "link", "br", "img", "hr", "input"}
WIDTHS = (1280, 390)


class Page(HTMLParser):
    """Ids, links, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.attributes, self.wrong = [], Counter(), [], []
        self.tags = Counter()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids.update(value for name, value in attrs if name == "id")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("report")
    made = declared(tasks=("glue-rte", "glue-cola"), budgets=("r4", "r8"), seeds=range(8))
    report.build(study(made), place)
    return place


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "index.html").read_text()


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_elements_are_closed_in_order(page):
    assert page.wrong == []
    assert page.open == []
    assert page.tags["table"] > 20
    assert page.tags["svg"] > 50


def test_ids_are_unique_and_every_link_leads_somewhere(page):
    assert [name for name, count in page.ids.items() if count > 1] == []
    links = [value for tag, name, value in page.attributes if name == "href" and tag in ("a", "use")]
    assert len(links) > 200
    assert {link for link in links if not (link.startswith("#") and link[1:] in page.ids)} == set()
    clips = re.findall(r"url\(#([^)]*)\)", "".join(value for _, _, value in page.attributes))
    assert set(clips) <= set(page.ids)


def test_nothing_is_fetched_and_nothing_runs(page, text):
    fetched = [(tag, name, value) for tag, name, value in page.attributes if name in ("src", "href", "srcset", "data")]
    assert {value[:5] for tag, name, value in fetched if not value.startswith("#")} <= {"data:"}
    assert not re.search(r"url\((?!#)|@import|//\w", re.sub(r"data:image/png;base64,[\w+/=\s]*", "", text))
    assert page.tags["script"] == page.tags["iframe"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_what_is_resolved_and_what_is_missing_come_first(text):
    order = ["verdict", "holes", "results", "published", "frontier", "cost", "ranks", "rates", "ablations", "setup"]
    places = [text.index(f'<section id="{part}"') for part in [*order, "records"]]
    assert places == sorted(places)


def test_every_run_is_listed_with_the_command_that_does_it_again(text):
    assert text.count("<code>python -m rankbench ") == 23 * 8 * 4 + 7 * 4 * 4
    assert "python -m rankbench train.steps=100 model=minilm-l6 task=glue-rte budget=r4 seed=0 method=lora" in text
    assert re.search(r'<td class="lost">(nan: nan: made up to fail at step 3|missing)</td>', text)


def test_cells_lead_to_the_records_of_their_arm(text):
    cell = re.search(
        r'<th scope="row"><span class="swatch"[^>]*></span><a href="#(runs-minilm-l6-glue-rte-r4-1)">igu</a>', text
    )
    assert cell is not None
    start = text.index(f'id="{cell[1]}"')
    assert text[start:].startswith(f'id="{cell[1]}"><h4>igu</h4>')


def test_what_a_study_says_of_itself_is_escaped(tmp_path):
    made = declared(seeds=range(2), question="Is <b>a</b> & b?", source='"x" <script>')
    report.build(study(made), tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert "Is &lt;b&gt;a&lt;/b&gt; &amp; b?" in text
    assert "<script" not in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the page cannot be looked at")
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_as_wide_as_the_window_and_the_console_is_silent(folder, tmp_path, width):
    found = measure(folder / "index.html", tmp_path, width)
    assert found["console"] == []
    assert found["client"] == width
    assert found["scroll"] == width
    assert found["wide"] == []
    assert found["height"] > 3000


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the page cannot be looked at")
@pytest.mark.parametrize("width", WIDTHS)
def test_a_picture_of_the_page_is_kept(folder, tmp_path, width):
    target = tmp_path / f"page-{width}.png"
    picture(folder / "index.html", target, width, 3000)
    shown = imread(target)
    assert shown.shape[:2] == (3000, max(width, 500))
    assert 0.5 < shown[:, :width, :3].mean() < 0.99  # dark on light, and not empty
