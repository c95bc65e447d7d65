"""A rank map as a small picture, kinds x layers with the rank in each cell; without matplotlib, since runs draw it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rankbench.core.sites import rank_grid

# Lightness grows with the rank: it can be read in grey. Five points of viridis (matplotlib, CC0).
SHADES = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], float)
MISSING = (217, 217, 217)
CELL = (30, 22)  # pixels
TEXT, GAP = 12, 6  # pixels
Colour = tuple[int, int, int]


def draw(ranks: Mapping[str, int], title: str, highest: int | None = None) -> Image.Image:
    """Draw the picture; a cell without a site is grey.

    Args:
        ranks: site -> rank, sites by plain module name; at least one.
        title: the line above it.
        highest: rank of the lightest colour; None: the highest of the map.
    """
    grid, highest = rank_grid(ranks), max(ranks.values()) if highest is None else highest
    kinds, layers = sorted(grid.kinds), grid.layers  # a record read from disk has lost the model's order
    font = ImageFont.load_default(TEXT)
    left = int(max(font.getlength(kind) for kind in kinds)) + 2 * GAP
    top = 2 * (TEXT + 2 * GAP)
    width = left + max(len(layers) * CELL[0], int(font.getlength(title)) - left + GAP) + GAP
    image = Image.new("RGB", (width, top + len(kinds) * CELL[1] + GAP), "white")
    pen = ImageDraw.Draw(image)
    pen.text((GAP, GAP), title, "black", font)
    for column, layer in enumerate(layers):
        middle = left + (column + 0.5) * CELL[0]
        pen.text((middle, top - GAP / 2), "other" if layer is None else str(layer), "black", font, "mb")
    for row, kind in enumerate(kinds):
        corner = top + row * CELL[1]
        pen.text((left - GAP, corner + CELL[1] / 2), kind, "black", font, "rm")
        for column, layer in enumerate(layers):
            _cell(pen, left + column * CELL[0], corner, grid.cells.get((layer, kind)), highest, font)
    return image


def _cell(
    pen: ImageDraw.ImageDraw,
    x: int,
    y: int,
    rank: int | None,
    highest: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    fill = MISSING if rank is None else shade(rank, highest)
    pen.rectangle((x, y, x + CELL[0] - 2, y + CELL[1] - 2), fill)
    if rank is not None:
        ink = "black" if np.dot(fill, (0.299, 0.587, 0.114)) > 128 else "white"
        pen.text((x + CELL[0] / 2 - 1, y + CELL[1] / 2 - 1), str(rank), ink, font, "mm")


def shade(rank: int, highest: int) -> Colour:
    """Colour of a rank on a scale from 0 to the highest of its map."""
    position = (len(SHADES) - 1) * rank / max(1, highest)
    red, green, blue = (round(float(np.interp(position, range(len(SHADES)), SHADES[:, part]))) for part in range(3))
    return red, green, blue
