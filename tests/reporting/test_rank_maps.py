"""Rank maps and their agreement: the numbers behind the figures, and readable files."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from support.records import record

from rankbench.analysis.frame import SelectionError
from rankbench.analysis.labels import arm_title
from rankbench.analysis.selection import Selection
from rankbench.cli import main
from rankbench.cli.records import draw
from rankbench.quadrature.errors import ESTIMATORS, Point, fits
from rankbench.quadrature.figure import draw as draw_quadrature
from rankbench.records import run_folder
from rankbench.reporting import plotting
from rankbench.reporting.figures import layout
from rankbench.reporting.figures import rank_maps as rank_map_figures

KINDS = ("self_attn.q_proj", "mlp.up_proj")


def mapped(method: str, seed: int, ranks: list[int], **changes):
    """A run on len(ranks) / 2 layers with two sites each."""
    names = [f"model.layers.{layer}.{kind}" for layer in range(len(ranks) // 2) for kind in KINDS]
    settings = {"method": {"name": method, **changes}, "train": {"learning_rate": 0.01}}
    return record(method, seed, ranks=dict(zip(names, ranks, strict=True)), config=settings)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.0.self_attn.q_proj", (0, "self_attn.q_proj")),
        ("bert.encoder.layer.3.attention.self.query", (3, "attention.self.query")),
        ("encoder.layer.10.output.dense", (10, "output.dense")),
        ("layers.2", (2, "")),
        ("blocks.1.experts.4.w1", (1, "experts.4.w1")),
        ("classifier.dense", (None, "classifier.dense")),
    ],
)
def test_a_name_is_layer_and_kind(name, place):
    assert rank_map_figures.parse_site(name) == place


def test_ranks_are_averaged_over_seeds():
    maps = rank_map_figures.rank_maps([mapped("igu", 0, [1, 2, 3, 4]), mapped("igu", 1, [3, 2, 5, 0])])
    means = rank_map_figures.mean_ranks(maps).set_index(["kind", "layer"])
    assert means.loc[("self_attn.q_proj", 0), "rank"] == 2
    assert means.loc[("mlp.up_proj", 1), "rank"] == 2
    assert means["seeds"].tolist() == [2, 2, 2, 2]
    assert len(means) == 4


def test_only_runs_that_are_ok_have_a_map():
    failed = mapped("igu", 1, [9, 9, 9, 9])
    failed.status = "inert"
    assert rank_map_figures.rank_maps([mapped("igu", 0, [1, 2, 3, 4]), failed])["seed"].unique().tolist() == [0]
    with pytest.raises(SelectionError, match="none of 1 runs is ok and has ranks: there is no map to draw"):
        rank_map_figures.rank_maps([failed])


def test_runs_that_are_not_drawn_are_said_and_stand_in_the_title(tmp_path, monkeypatch):
    found = [mapped(name, seed, [1, 2, 3, 4]) for name in ("lora", "igu", "permuted") for seed in range(5)]
    for run in (*found[5:7], *found[10:]):
        run.status = "inert"
    names = [run.method for run in found]
    said = ["lora: 5 of 5 runs drawn", "igu: 3 of 5 runs drawn, 2 inert", "permuted: 0 of 5 runs drawn, 5 inert"]
    assert rank_map_figures.count_drawn(found, names) == said
    shown = []
    monkeypatch.setattr(plotting, "write", lambda figure, numbers, place: shown.append(figure) or [place])
    list(draw(Selection("tiny, planted", found, names, []), tmp_path))
    for drawing in shown:
        (title,) = drawing.texts
        assert " ".join(title.get_text().split()) == f"tiny, planted {said[1]}; {said[2]}"
        drawing.draw_without_rendering()
        assert 0 <= title.get_window_extent().x0 < title.get_window_extent().x1 <= drawing.bbox.x1
        assert overlaps([title, *(axes._left_title for axes in drawing.axes)]) == []


def agreeing(*found) -> dict[tuple[str, str], tuple[float, int]]:
    table = rank_map_figures.agreement(rank_map_figures.rank_maps(found))
    return {(row["label"], row["other"]): (row["spearman"], row["pairs"]) for row in table.to_dict("records")}


def test_methods_agree_at_the_same_seed_and_with_themselves_at_others():
    """Same seed: igu 0 is fim 0 and igu 1 is fim 1 reversed: mean 0. Between seeds: igu 1234 and 1243, rho 0.8."""
    found = agreeing(
        mapped("igu", 0, [1, 2, 3, 4]),
        mapped("igu", 1, [1, 2, 4, 3]),
        mapped("fim", 0, [10, 20, 30, 40]),
        mapped("fim", 1, [4, 3, 1, 2]),
        mapped("fim", 2, [1, 2, 3, 4]),
    )
    assert found["igu", "fim"] == found["fim", "igu"] == (pytest.approx(0.0, abs=1e-12), 2)
    assert found["igu", "igu"] == (pytest.approx(0.8), 1)
    assert found["fim", "fim"][1] == 3


def test_uniform_maps_and_single_seeds_have_no_agreement():
    found = agreeing(mapped("lora", 0, [2, 2, 2, 2]), mapped("igu", 0, [1, 2, 3, 4]), mapped("fim", 7, [1, 2, 3, 4]))
    assert all(math.isnan(value) and pairs == 0 for value, pairs in found.values())
    assert len(found) == 9


def many(labels: int, layers: int) -> list:
    generator = np.random.default_rng(0)
    return [
        mapped("permuted", seed, generator.integers(0, 20, 2 * layers).tolist(), source=f"method_{label:02d}")
        for label in range(labels)
        for seed in (0, 1)
    ]


def overlaps(texts) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_visible() and text.get_text()]
    return [(a, b) for i, (a, first) in enumerate(boxes) for b, second in boxes[i + 1 :] if first.overlaps(second)]


@pytest.mark.slow
def test_texts_do_not_overlap_with_twelve_methods():
    maps = rank_map_figures.rank_maps(many(12, 30))
    drawn = rank_map_figures.draw_maps(rank_map_figures.mean_ranks(maps), "title")
    drawn.draw_without_rendering()
    titles = {axes.get_title(loc="left").replace("\n", " ") for axes in drawn.axes}
    assert {arm_title(label) for label in maps["label"]} <= titles
    assert overlaps([*drawn.texts, *(axes._left_title for axes in drawn.axes)]) == []
    matrix = rank_map_figures.draw_agreement(rank_map_figures.agreement(maps), "title")
    matrix.draw_without_rendering()
    axes = matrix.axes[0]
    assert len(axes.texts) == 144
    assert overlaps([*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), *matrix.texts]) == []


def test_panels_share_one_scale_from_zero():
    maps = rank_map_figures.rank_maps([mapped("lora", 0, [4, 4, 4, 4]), mapped("igu", 0, [0, 2, 3, 11])])
    drawn = rank_map_figures.draw_maps(rank_map_figures.mean_ranks(maps), "title")
    lora, igu, _ = drawn.axes  # the last is the colour bar
    assert {axes.images[0].get_clim() for axes in (lora, igu)} == {(0, 11)}
    assert [axes.get_title(loc="left") for axes in (lora, igu)] == ["LoRA (uniform)", "IGU-LoRA"]
    assert {"0", "2", "3", "11"} == {text.get_text() for text in igu.texts}


def test_a_place_without_a_site_is_grey_and_not_rank_zero():
    with_head = mapped("igu", 0, [1, 2, 3, 4])
    with_head.ranks["classifier"] = 5
    drawn = rank_map_figures.draw_maps(rank_map_figures.mean_ranks(rank_map_figures.rank_maps([with_head])), "title")
    assert np.ma.getmaskarray(drawn.axes[0].images[0].get_array()).sum() == 3 * 3 - 5
    assert [label.get_text() for label in drawn.axes[0].get_xticklabels()] == ["0", "1", "\N{EN DASH}"]
    kinds = ["classifier", *sorted(KINDS)]
    outside = np.ma.getdata(drawn.axes[0].images[0].get_array())[:, -1]
    assert outside[kinds.index("classifier")] == 5
    assert np.isnan(outside[1:]).all()


def test_the_command_line_writes_figures_and_numbers(tmp_path, capsys):
    found = [
        mapped(method, seed, ranks) for method, ranks in (("lora", [2] * 4), ("igu", [1, 2, 3, 4])) for seed in (0, 1)
    ]
    run_folder.save(found, tmp_path / "records.jsonl")
    out = tmp_path / "deep" / "figures"
    assert main(["records", "maps", str(tmp_path / "records.jsonl"), "--out", str(out)]) == 0
    names = [f"{what}-tiny-planted-r1.{kind}" for what in ("ranks", "agreement") for kind in ("png", "pdf", "csv")]
    assert capsys.readouterr().out.splitlines() == [
        *(str(out / name) for name in names),
        "lora: 2 of 2 runs drawn",
        "igu: 2 of 2 runs drawn",
        "learning rates, not tuned here: lora 0.01, igu 0.01",
    ]
    for name in names[0], names[3]:
        assert min(imread(out / name).shape[:2]) > 120
    assert (out / names[1]).read_bytes().startswith(b"%PDF")
    ranks, agreement = (pd.read_csv(out / name) for name in (names[2], names[5]))
    assert ranks.columns.tolist() == ["label", "kind", "layer", "rank", "seeds"]
    assert ranks["label"].unique().tolist() == ["lora", "igu"]
    assert agreement.loc[3].tolist() == ["igu", "igu", 1.0, 1]


def test_the_same_content_gives_the_same_files(tmp_path):
    first, second = (plotting.write(Figure((1, 1)), pd.DataFrame({"a": [1]}), tmp_path / name) for name in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def maps(folder):
    return draw(Selection("tiny", [mapped("lora", 0, [1, 2])], ["lora"], []), folder)


def report_figure(folder):
    def sketch():
        figure, (axes,) = layout.facets(["panel"])
        axes.plot([1, 2], [3, 4])
        layout.draw_frame(axes, "x", "y")
        return plotting.ReportFigure("figure", "Figure", figure, pd.DataFrame({"a": [1]}), "")

    saved = plotting.finish(sketch, folder)
    (folder / "page.svg").write_text(saved.svg)
    return [*saved.files, folder / "page.svg"]


def quadrature(folder):
    points = [Point("trapezoid", "trapezoid", m, None, 1 / m**2, 0.0, 1.0, "integral") for m in (1, 2)]
    points += [Point("sampling", name, 2, n, 1 / n, 0.0, 1.0, "integral") for name in ESTIMATORS for n in (1, 2)]
    draw_quadrature(points, fits(points), "title", folder / "quadrature")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("drawing", [maps, report_figure, quadrature])
def test_a_users_matplotlibrc_changes_no_figure(tmp_path, drawing):
    users = {"text.usetex": True, "font.family": ["monospace"], "axes.grid": True, "savefig.dpi": 30}
    contents = []
    for name, settings in (("plain", {}), ("users", users)):
        folder = tmp_path / name
        folder.mkdir()
        with matplotlib.rc_context(settings):
            contents.append([file.read_bytes() for file in drawing(folder)])
    assert contents[0] == contents[1]
    assert not any(b"/Type3" in content for content in contents[0])


def test_nothing_to_draw_is_an_error_of_the_command_line(tmp_path, capsys):
    run_folder.save([record("lora", 0)], tmp_path / "records.jsonl")
    assert main(["records", "maps", "--results", str(tmp_path / "records.jsonl"), "--out", str(tmp_path)]) == 2
    assert "none of 1 runs is ok and has ranks" in capsys.readouterr().err
