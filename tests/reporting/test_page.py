"""The page of a report: valid HTML that loads nothing from outside, and its appearance in a browser."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.image import imread
from support.browser import AXE, BROWSER, measure, picture
from support.studies import declared, study

from rankbench.reporting import report
from rankbench.reporting.headline import Headline
from rankbench.reporting.pages.compact_drawings import DRAWING, compact
from rankbench.reporting.pages.page import Column, environment, render
from rankbench.reporting.report_data import gather
from rankbench.reporting.table import Cell

pytestmark = pytest.mark.slow

VOID = {"meta", "link", "br", "img", "hr", "input"}
WIDTHS = (1280, 390)
RUNS, TRIALS = 23 * 10 * 9, 7 * 4 * 9  # of `folder`
MOST, BYTES = 10_000, 1.5e6  # runs of a large study, and how large its page may be


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
    """Three tasks, three budgets, ten seeds."""
    place = tmp_path_factory.mktemp("report")
    made = declared(tasks=("glue-rte", "glue-cola", "planted"), budgets=("r4", "r8", "r16"), seeds=range(10))
    report.build(study(made), place)
    return place


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A single panel, in which an arm works and arms are told apart in words of all colours."""
    place = tmp_path_factory.mktemp("small")
    report.build(study(declared(seeds=range(8)), lost=0.01, failed=0.02), place)
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
    assert page.tags["table"] > 40
    assert page.tags["svg"] > 50


def test_ids_are_unique_and_every_link_leads_somewhere(page, folder):
    assert [name for name, count in page.ids.items() if count > 1] == []
    links = [value for tag, name, value in page.attributes if name == "href" and tag in ("a", "use")]
    assert len(links) > 200
    inside = {link[1:] for link in links if link.startswith("#")}
    assert inside - set(page.ids) == set()
    assert {link for link in links if not link.startswith("#") and not (folder / link).is_file()} == set()
    clips = re.findall(r"url\(#([^)]*)\)", "".join(value for _, _, value in page.attributes))
    assert set(clips) <= set(page.ids)


def test_every_table_and_figure_links_its_files(page, folder):
    links = {value for tag, name, value in page.attributes if name == "href" and tag == "a"}
    assert {f"figures/{file.name}" for file in (folder / "figures").iterdir()} <= links
    assert {f"tables/{file.name}" for file in (folder / "tables").glob("*.csv")} <= links


def test_nothing_is_fetched_and_no_element_runs_code(page, text):
    fetched = [(tag, name, value) for tag, name, value in page.attributes if name in ("src", "srcset", "data")]
    assert {value[:5] for _, _, value in fetched} <= {"data:"}
    assert {value[:5] for tag, name, value in page.attributes if tag == "link" and name == "href"} == {"data:"}
    assert not re.search(r"url\((?!#)|@import|//\w", re.sub(r"data:image/png;base64,[\w+/=\s]*", "", text))
    assert page.tags["script"] == 1
    assert page.tags["iframe"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_the_answer_comes_first_and_the_sections_in_order(text):
    order = ["verdict", "holes", "results", "published", "frontier", "cost", "ranks", "rates", "ablations", "setup"]
    places = [text.index("<h1>"), text.index("<dd>Does IGU-LoRA deal ranks better"), text.index('id="figure-forest"')]
    places += [text.index(f'<section id="{part}"') for part in [*order, "records", "words"]]
    assert places == sorted(places)


def test_arms_and_metrics_stand_on_the_page_by_their_names(text):
    typed = re.compile(r"<style>.*?</style>|<script>.*?</script>|<svg.*?</svg>|<code>.*?</code>|<[^>]+>", re.DOTALL)
    words = typed.sub(" ", text)
    assert (
        re.findall(r"(?<![=,{\[;'])\b(?:lora|adalora|igu|fim|l1ra)\b(?![,\]}])|\b(?:test|validation)/\w+", words) == []
    )
    assert "accuracy ↑" in words
    assert "Matthews ↑" in words
    assert "KL ↓" in words


def test_many_arms_of_a_word_are_folded_and_all_are_there():
    arms = {f"igu beta1=0.{number}": "1 of 2" for number in range(1, 10)}
    headline = Headline("So.", [], [], {"worse": arms, "open": {"fim": ""}}, "LoRA", is_on_settings=False)
    html = render(gather(study(declared(seeds=range(2)))), [], headline, "records.jsonl")
    assert "<summary>4 more</summary>" in html
    assert all(f"β₁ = 0.{number}" in html for number in range(1, 10))
    assert html.count('<span class="arm">') == 10


def test_a_word_is_explained_where_it_comes_first(text):
    links = re.findall(r'<a class="term" href="#word-([\w-]+)" title="[^"]{20,}">', text)
    assert len(links) == len(set(links)) > 5
    assert "withheld" in links


def test_every_run_is_listed_with_the_command_that_does_it_again(text):
    records = text[text.index('<section id="records"') :]
    assert (
        len(re.findall(r"^(?:<span class=\"lost\">)?[\d.]+ .*\b[0-9a-f]{12}\b", records, re.MULTILINE)) == RUNS + TRIALS
    )
    command = "train.steps=100 model=minilm-l6 task=glue-rte budget=r4 seed=SEED method=lora"
    assert f"<code>python -m rankbench {command} train.learning_rate=" in records
    assert re.search(r'<span class="lost">\d+ .*(nan: nan: made up to fail at step 3|missing)</span>', records)
    assert re.search(r"Tuning trials: <code>.*LEARNING_RATE", records)
    assert re.search(r"^learning rate +run\b", records, re.MULTILINE)


def test_cells_lead_to_the_records_of_their_arm(text):
    cell = re.search(
        r'<th scope="row"><a href="#(runs-minilm-l6-glue-rte-r4-1)"><span class="swatch"[^>]*></span>', text
    )
    assert cell is not None
    start = text.index(f'id="{cell[1]}"')
    assert "<h3>IGU-LoRA <code>igu</code></h3>" in text[start : start + 200]


def test_what_a_study_says_of_itself_is_escaped(tmp_path):
    made = declared(seeds=range(2), question="Is <b>a</b> & b?", source='"x" <script>alert(1)')
    report.build(study(made), tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert "Is &lt;b&gt;a&lt;/b&gt; &amp; b?" in text
    assert "<script>alert" not in text


def test_numbers_that_are_not_to_be_compared_are_grey():
    blocks = environment().get_template("blocks.html.j2").module
    column = Column("seconds", number=True, first=False, strip=None)
    html = [str(blocks.cell_of(Cell("12", 12.0, muted=muted), column, "grey", True)) for muted in (True, False)]
    assert ["greyed" in each for each in html] == [True, False]


def test_a_page_of_many_panels_is_small_and_stays_small_with_many_runs(text):
    """Of ten thousand runs what grows with them is larger; of the same panels all else is as large."""
    parts = (r'<pre class="runs">.*?</pre>', r'<section id="holes".*?</section>', r'id="figure-pairs".*?</figure>')
    growing = sum(len(found.encode()) for part in parts for found in re.findall(part, text, re.DOTALL))
    assert growing > 1e5
    assert len(text.encode()) + growing * (MOST / RUNS - 1) < BYTES


def test_drawings_repeat_no_style_and_no_long_name(text):
    drawings = "".join(DRAWING.findall(text))
    assert len(drawings) > 1e5
    assert re.findall(r' style="|<g>|<g/>|rotate\(-?0[ )]', drawings) == []
    used, ruled = set(re.findall(r' class="(s\d+)"', drawings)), re.findall(r"^\.(s\d+)\{", text, re.MULTILINE)
    assert used == set(ruled)
    assert len(ruled) == len(set(ruled)) < 200


def test_a_drawing_is_made_small_and_stays_what_it_is():
    clip = '<clipPath id="fig-p12"><rect x="1"/></clipPath>'
    path = '<path clip-path="url(#fig-p12)" style="fill:#444444;stroke:none"/>'
    text = '<text style="fill:#444444;stroke:none" transform="rotate(-0 1 2)">a &lt; b</text>'
    turned = '<text transform="rotate(-90 1 2)">c</text>'
    before = (
        f'<style>p {{}}</style><p style="x">#fig-p12</p><svg role="img" ><g>{clip}<g/><g transform="scale(2)">{path}'
    )
    assert compact(f"{before}{text}{turned}</g></g></svg>") == (
        '<style>p {}\n.s0{fill:#444444;stroke:none}</style><p style="x">#fig-p12</p><svg role="img" >'
        '<clipPath id="d0"><rect x="1"/></clipPath><g transform="scale(2)"><path clip-path="url(#d0)" class="s0"/>'
        '<text class="s0">a &lt; b</text><text transform="rotate(-90 1 2)">c</text></g></svg>'
    )


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the page cannot be looked at")


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_of_many_panels_is_short_and_as_wide_as_the_window(folder, tmp_path, width):
    measured = measure(folder / "index.html", tmp_path, width)
    assert measured["console"] == []
    for state in ("folded", "opened"):
        assert measured[state]["client"] == measured[state]["scroll"] == width
        assert measured[state]["wide"] == []
        scrolled = [
            place for place in measured[state]["scrolled"] if width == WIDTHS[0] or ".scroll paper" not in place
        ]
        assert scrolled == []  # no table is wider than its place, nor a figure, but on a phone, where it would be tiny
    assert measured["opened"]["height"] > 3 * measured["folded"]["height"]
    if width == WIDTHS[0]:
        assert measured["first"] < 800
    assert measured["folded"]["height"] < (3000 if width == WIDTHS[0] else 4500)


@needs_browser
@pytest.mark.skipif(AXE is None, reason="axe-playwright-python, which carries axe-core, is not installed")
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_in_the_light_and_in_the_dark(small, tmp_path, width):
    measured = measure(small / "index.html", tmp_path, width, with_axe=True)
    assert measured["axe"] == {"light": [], "dark": []}


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_picture_of_the_page_is_ink_on_its_ground(small, tmp_path, theme):
    target = tmp_path / "page.png"
    picture(small / "index.html", target, WIDTHS[0], 800, theme)
    shown = imread(target)
    assert shown.shape[:2] == (800, WIDTHS[0])
    ground = shown[:, :8, :3].mean()
    assert ground == 1.0 if theme == "light" else ground < 0.15
    assert 0.02 < abs(shown[:, :, :3].mean() - ground) < 0.5
