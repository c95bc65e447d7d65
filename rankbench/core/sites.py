"""Sites: the adapted matrices of a model, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """One adapted matrix of the base model.

    Attributes:
        name: plain module name in the base model, "model.layers.0.self_attn.q_proj".
        layer: index of the layer, None outside the stack.
        kind: the name after the layer index, "self_attn.q_proj".
        d_out, d_in: shape of the weight.
    """

    name: str
    layer: int | None
    kind: str
    d_out: int
    d_in: int


def parse_site(name: str) -> tuple[int | None, str]:
    """Layer and kind of a site, by the rule that found it in the model: the first integer part, and what follows it.

    "model.layers.0.self_attn.q_proj" is (0, "self_attn.q_proj"); a name without an integer is (None, name).
    """
    parts = name.split(".")
    index = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return (None, name) if index is None else (int(parts[index]), ".".join(parts[index + 1 :]))


@dataclass(frozen=True)
class RankGrid(Generic[T]):
    """Values of sites as kinds x layers: rows and columns of a rank map's picture.

    Attributes:
        kinds: rows, in the order of the map's sites.
        layers: columns, rising; None, the column of sites outside the layers, comes last.
        cells: (layer, kind), as `parse_site` returns them -> value; a kind that a layer lacks has no cell.
    """

    kinds: list[str]
    layers: list[int | None]
    cells: dict[tuple[int | None, str], T]


def rank_grid(ranks: Mapping[str, T]) -> RankGrid[T]:
    """Arrange the values of sites (a rank map, or anything else per site) as kinds x layers.

    Args:
        ranks: site -> value, sites by plain module name.
    """
    cells = {parse_site(name): value for name, value in ranks.items()}
    layers = sorted({layer for layer, _ in cells}, key=lambda layer: (layer is None, layer))
    return RankGrid(list(dict.fromkeys(kind for _, kind in cells)), layers, cells)
