"""The picture of a rank map: one cell per site, lighter for higher ranks, grey where there is no site."""

import numpy as np
import pytest
from PIL import Image

from rankbench.tracking.rank_map_image import CELL, MISSING, draw, shade

RANKS = {"layers.0.q": 0, "layers.0.k": 4, "layers.1.q": 8, "head": 3}


def luminance(colour):
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


def colours(image, of):
    """How many pixels have each of the colours."""
    pixels = np.asarray(image).reshape(-1, 3)
    return [int((pixels == colour).all(axis=1).sum()) for colour in of]


def test_a_higher_rank_is_lighter():
    lightness = [luminance(shade(rank, 16)) for rank in range(17)]
    assert lightness == sorted(lightness)
    assert len(set(lightness)) == 17


def test_each_site_is_a_cell_in_the_colour_of_its_rank():
    image = draw(RANKS, "a title")
    cell = (CELL[0] - 1) * (CELL[1] - 1)
    for count in colours(image, [shade(rank, 8) for rank in RANKS.values()]):
        assert 0.6 * cell < count <= cell  # the rest is the number in it
    missing = 3 * 3 - len(RANKS)  # layers 0, 1 and none; kinds q, k and head
    assert colours(image, [MISSING]) == [missing * cell]


def test_equal_ranks_are_equal_pictures_and_others_are_not():
    same, other = draw(dict(RANKS), "a title"), draw({**RANKS, "head": 2}, "a title")
    assert same.tobytes() == draw(RANKS, "a title").tobytes() != other.tobytes()


@pytest.mark.parametrize("ranks", [{"a": 0}, {"layers.0.a": 0, "layers.1.a": 0}])
def test_a_map_without_ranks_is_drawn(ranks):
    image = draw(ranks, "")
    assert isinstance(image, Image.Image)
    assert colours(image, [shade(0, 1)])[0] > 0


def test_a_long_title_is_not_cut():
    title = "smollm2-135m-arithmetic-igu-r8-seed0: 1688 ranks"
    wide, wider = (draw({"layers.0.a": 1}, text) for text in (title, title + " and more"))
    assert wide.width < wider.width
    assert colours(wide.crop((0, 0, wide.width, 20)), [(0, 0, 0)]) != [0]
    assert colours(wide.crop((wide.width - 4, 0, wide.width, wide.height)), [(255, 255, 255)])[0] == 4 * wide.height
