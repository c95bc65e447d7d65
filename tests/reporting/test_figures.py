"""Every figure of a report: texts that do not overlap, sizes and fonts of print, colours that everyone tells apart."""

from __future__ import annotations

import functools
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from support.studies import declared, study

from rankbench.analysis.labels import displays
from rankbench.config.yaml_files import CONF_DIR
from rankbench.reporting import report
from rankbench.reporting.figures import forest, layout, lines
from rankbench.reporting.figures.found_maps import draw_found_maps
from rankbench.reporting.figures.tuning import expected_best
from rankbench.reporting.pages import page
from rankbench.reporting.plotting import COLUMN, PAGE, WIDE, ReportFigure, drawn, own_style, write
from rankbench.reporting.report_data import ReportData, gather
from rankbench.reporting.table import Cell, Table
from rankbench.statistics.budget_ladder import budget_ladder
from rankbench.studies.rank_histories import COLUMNS

SLACK = 0.5  # pixels: neighbours may touch
KINDS = [(kind, step, rank) for kind in ("q", "up") for step, rank in ((-1, 3.0), (9, 2.0))]
LEAST, MOST = 6.4, 8.6  # points at print size


def with_truth(report_data: ReportData) -> ReportData:
    """The planted panels with a true map at every seed, an overlap with it, and a ladder."""
    ladder = budget_ladder([[0.0, 1.0, 2.0, 3.0], [0.1, 1.0, 2.2, 3.0]], True)
    panels = []
    for panel in report_data.panels:
        if panel.facts["task"] == "planted":
            for record in panel.records:
                record.config["task"]["map_seed"] = None
            panel = replace(panel, data=panel.data.assign(**{"test/map_overlap": 0.1 + panel.data["seed"] / 10}))
        panels.append(panel)
    kinds = [(panels[-1].name, arm, kind, step, rank, 3) for arm in ("igu", "l1ra") for kind, step, rank in KINDS]
    comparisons = {
        name: replace(each, terms=replace(each.terms, ladder=ladder)) for name, each in report_data.comparisons.items()
    }
    histories = pd.DataFrame(kinds, columns=COLUMNS)
    return replace(report_data, panels=panels, comparisons=comparisons, rank_histories=histories)


@functools.cache
def report_of(tasks: tuple[str, ...], budgets: tuple[str, ...]) -> ReportData:
    maps = {"map_effect": {"Maps": ["igu", "fim", "random"]}} if len(tasks) == 2 else {}
    plain = declared(tasks=tasks, budgets=budgets, seeds=range(3)).plain()["report"]
    made = study(declared(tasks=tasks, budgets=budgets, seeds=range(3), report={**plain, **maps}), lost=0.0, failed=0.0)
    for job in made.sweep.jobs if maps else ():
        if job.arm in ("igu", "fim", "random"):  # one map at all seeds
            made.records[job.run_id].ranks = {"layers.0.mlp.up_proj": len(job.arm), "pooler": 3}
    return with_truth(gather(made))


@functools.cache
def figures(tasks: tuple[str, ...], budgets: tuple[str, ...]) -> list[ReportFigure]:
    sections = report.make_sections(report_of(tasks, budgets))
    drawings = (drawn(sketch) for section in sections for sketch in section.sketches)
    return [figure for figure in drawings if figure is not None]


STUDIES = [(("planted",), ("r8",)), (("glue-rte", "planted"), ("r4", "r8"))]
ALL = {
    *("forest", "pairs", "over-tasks", "worth", "frontier", "cost", "rank-totals", "learning-rates", "expected-best"),
    *("rank-kinds", "curves", "found-against-gain", "spread-maps", "map-batches-x-power-3", "curve-smoothing-beta1-2"),
}


def overlaps(figure) -> list[tuple[str, str]]:
    """Pairs of drawn texts that overlap, and texts that leave the figure; ticks beyond the axes are not drawn."""
    texts, plain = [], Text.draw
    with mock.patch.object(Text, "draw", lambda self, *rest: (texts.append(self), plain(self, *rest))):
        figure.draw_without_rendering()
    shown = [text for text in dict.fromkeys(texts) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), Text.get_window_extent(text).padded(-SLACK)) for text in shown]
    outside = [(text, "outside") for text, box in boxes if not _within(box, figure.bbox)]
    return outside + [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


def _within(box, whole) -> bool:
    return box.x0 >= whole.x0 and box.y0 >= whole.y0 and box.x1 <= whole.x1 and box.y1 <= whole.y1


@pytest.mark.parametrize("which", STUDIES)
def test_no_two_texts_of_a_figure_overlap(which):
    assert {figure.name: found for figure in figures(*which) if (found := overlaps(figure.figure))} == {}


def test_the_studies_here_have_every_figure_of_a_report():
    names = {figure.name for which in STUDIES for figure in figures(*which)}
    assert names >= ALL
    assert any(name.startswith("ranks-") for name in names)


@pytest.mark.parametrize("which", STUDIES)
def test_figures_have_the_width_of_a_column_or_a_page_and_small_text(which):
    for figure in figures(*which):
        assert figure.figure.get_size_inches()[0] in (COLUMN, PAGE, WIDE), figure.name
        sizes = {text.get_fontsize() for text in figure.figure.findobj(Text) if text.get_text().strip()}
        assert LEAST < min(sizes) <= max(sizes) < MOST, figure.name


def test_fonts_are_of_type_42(tmp_path):
    figure = figures(*STUDIES[0])[0]
    _, pdf, _ = write(figure.figure, figure.numbers, tmp_path / "figure")
    assert b"/Type3" not in pdf.read_bytes()
    assert b"/CIDFontType2" in pdf.read_bytes()  # what a PDF calls a Type 42 font
    own_style(figure.figure.savefig)(tmp_path / "figure.ps")
    assert b"FontType 42" in (tmp_path / "figure.ps").read_bytes()


def test_titles_that_are_too_long_are_broken_and_then_cut():
    assert (
        layout.wrapped("few-4-r16-strong, adapter.scale_rule=live", 1.2) == "few-4-r16-strong,\nadapter.scale_rule=l…"
    )
    assert layout.wrapped("one", 1.0) == "one"


def test_panels_are_chosen_from_every_cell():
    cells = ["planted"] * 24 + ["pocket", "sst2"]
    numbers, sentence = layout.chosen(range(26), cells)
    assert {24, 25} <= set(numbers)
    assert len(numbers) == layout.MOST
    assert sentence == " 12 of 26 panels are drawn, 3 cells among them; the CSV has all."


def test_lines_that_lie_on_each_other_have_one_label():
    one = [lines.Line("a", "k", [1, 2], [0.0, 1.0]), lines.Line("b", "k", [1, 2], [0.001, 1.0])]
    labels = [line.label for line in lines.merged([*one, lines.Line("c", "k", [1, 2], [1.0, 0.5])])]
    assert labels == ["a = b", "c"]


def test_expected_best_of_trials_without_replacement():
    assert expected_best(np.array([3.0, 1.0, 2.0]), higher=False) == pytest.approx([2.0, 4 / 3, 1.0])
    assert expected_best(np.array([3.0, 1.0, 2.0]), higher=True) == pytest.approx([2.0, 8 / 3, 3.0])


def test_where_the_truth_is_known_it_stands_above_what_was_found():
    report_data = report_of(*STUDIES[0])
    (panel,) = report_data.panels
    for run in panel.runs:
        if run.arm == "fim" and run.record:
            run.record.method = "oracle"
    figure = draw_found_maps("ranks", [panel], report_data)
    ranks, difference = (figure.figure.axes[place] for place in (0, 1))
    assert ranks.get_yticklabels()[0].get_text() == "true ranks"
    away = difference.images[0]
    assert away.norm.vmin == -away.norm.vmax  # white is 0
    rows = figure.numbers[figure.numbers["arm"] == "fim"]
    assert (rows["rank"] == rows["true rank"]).all()


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB; CIEDE2000 as Sharma, Wu and Dalal 2005 have it.
VISION = {
    "trichromacy": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
WHITE = (0.95047, 1.0, 1.08883)


def cielab(colour: str, vision: str) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array(XYZ) @ np.clip(np.array(VISION[vision]) @ linear, 0, 1) / WHITE
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(first: np.ndarray, second: np.ndarray) -> float:
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    g = 1.5 - 0.5 * np.sqrt(mean7 / (mean7 + 25.0**7))
    c1, c2 = np.hypot(a1 * g, b1), np.hypot(a2 * g, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1 * g)) % 360, np.degrees(np.arctan2(b2, a2 * g)) % 360
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    hue = h1 + h2 if c1 * c2 == 0 else (h1 + turn / 2) % 360
    dh, light, chroma = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)), (l1 + l2) / 2, (c1 + c2) / 2
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    t = 1 + sum(size * np.cos(np.radians(times * hue + shift)) for size, times, shift in waves)
    sl = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    sc, sh = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    bend = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    parts = ((l2 - l1) / sl, (c2 - c1) / sc, dh / sh)
    return float(np.sqrt(sum(part**2 for part in parts) + bend * parts[1] * parts[2]))


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [  # Sharma, Wu and Dalal 2005, table 1
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_of_colours_is_that_of_its_authors(first, second, distance):
    assert ciede2000(np.array(first), np.array(second)) == pytest.approx(distance, abs=1e-4)


def drawn_together() -> set[frozenset[str]]:
    """Pairs of methods that an experiment of conf/ has among its arms, or that a made-up report here draws."""
    pairs = set()
    for file in sorted((Path(CONF_DIR) / "experiment").glob("*.yaml")):
        methods = set(re.findall(r"method(?:\.source)?: \"?(\w+)", file.read_text())) & set(displays())
        pairs |= {frozenset(pair) for pair in itertools.combinations(sorted(methods), 2)}
    return pairs


def test_no_two_methods_that_are_drawn_together_look_alike_to_anybody():
    """10 apart for methods of one experiment, 6 for any two, 20 for two with one marker."""
    lab = {(name, vision): cielab(look.colour, vision) for name, look in displays().items() for vision in VISION}
    together, close = drawn_together(), {}
    for pair in itertools.combinations(sorted(displays()), 2):
        distance = min(ciede2000(lab[pair[0], vision], lab[pair[1], vision]) for vision in VISION)
        alike = displays()[pair[0]].marker == displays()[pair[1]].marker
        if distance < (20 if alike else 10 if frozenset(pair) in together else 6):
            close[pair] = round(distance, 1)
    assert close == {}
    assert len(together) > 150


def test_arms_of_one_method_are_told_apart_by_marker_dash_and_fill():
    styles = report_of(*STUDIES[0]).styles
    looks = [(style.colour, style.marker, style.dash, style.hollow) for style in styles.values()]
    assert len(set(looks)) == len(looks) > 20
    variants = [look for look in looks if look[0] == styles["igu"].colour][:6]
    assert len(variants) == 6
    for (_, *first), (_, *second) in itertools.combinations(variants, 2):
        assert first[0] != second[0]
        assert first[1:] != second[1:]


def test_an_interval_beyond_all_numbers_leaves_the_axis_finite():
    rows = pd.DataFrame([("igu", 10.0, -100.0, math.inf, 2, True)] * 3, columns=forest.COLUMNS[1:])
    assert 10 < forest._limit(forest.Forest("", None, "", rows, (-5.0, 5.0), higher=False)) < 100


def test_an_interval_beyond_all_numbers_is_drawn_to_the_end_of_its_strip():
    cells = [[Cell("", 10.0, -100.0, math.inf)], [Cell("", 0.0, -20.0, 20.0)]]
    axis = page._strip_axis(Table("", "", ["difference"], cells, strip=0))
    assert (axis.low, axis.high) == (-100, 20)
    assert axis.x(math.inf) == "96.0"
