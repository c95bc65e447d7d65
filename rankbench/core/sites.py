"""Sites: the adapted matrices of a model, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
LATER_STACKS = ("decoder", "vision_model", "vision_tower", "visual", "audio_tower")  # beside a stack without a mark
UNEVEN = "uneven allocation"  # how a note on one begins
LARGE_SHARE, MOST_SITES = 0.25, 0.9


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

    "model.layers.0.self_attn.q_proj" is (0, "self_attn.q_proj"); a name without an integer is (None, name). Of a model
    with several stacks of layers, kinds of all but the first are marked: "decoder.block.0.wi" is (0, "decoder.wi").
    """
    parts = name.split(".")
    index = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if index is None:
        return None, name
    stack = [part for part in parts[:index] if part in LATER_STACKS][:1]
    return int(parts[index]), ".".join(stack + parts[index + 1 :])


def spread(names: Iterable[str]) -> list[str]:
    """Sites in an order of which every beginning lies evenly over depth and over types.

    Site number i of kind number k stands at (v(i) + v(k)) mod 1, v the binary digits of a number mirrored at the point
    (van der Corput 1935). The first half of the order is hence every second site of each kind, and of two neighbouring
    kinds the one takes the layers that the other leaves.

    Args:
        names: sites in model order; it settles ties.
    """
    kinds: dict[str, int] = {}  # sites of each kind so far
    places = {}
    for name in names:
        kind = parse_site(name)[1]
        index = kinds.setdefault(kind, 0)
        kinds[kind] += 1
        places[name] = (_mirrored(index) + _mirrored(list(kinds).index(kind))) % 1
    return sorted(places, key=places.__getitem__)


def _mirrored(number: int) -> float:
    """1 -> 0.5, 2 -> 0.25, 3 -> 0.75, 4 -> 0.125: in [0, 1)."""
    return int(f"{number:b}"[::-1], 2) / 2 ** number.bit_length() if number else 0.0


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether a module or parameter is one of these modules, or lies in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


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


def describe_unevenness(ranks: Mapping[str, int], costs: Mapping[str, int]) -> str | None:
    """Why a rank map is so uneven that its result says little about the method; None if it is not.

    It is so uneven where one site holds LARGE_SHARE of what is spent, and twice its share at uniform rank; and where
    MOST_SITES of the sites have at most rank 1 although the mean rank is 2 or more.

    Args:
        ranks: site -> rank.
        costs: site -> price of one rank.
    """
    spent = {name: costs[name] * rank for name, rank in ranks.items()}
    if not any(spent.values()):
        return None  # no adapter
    largest = max(spent, key=spent.__getitem__)
    share = spent[largest] / sum(spent.values())
    small = sum(rank <= 1 for rank in ranks.values())
    reasons = []
    if small >= MOST_SITES * len(ranks) and sum(ranks.values()) >= 2 * len(ranks):
        reasons.append(f"{small} of {len(ranks)} sites have at most rank 1")
    if share >= max(LARGE_SHARE, 2 * costs[largest] / sum(costs[name] for name in ranks)):
        reasons.append(f"{largest} (rank {ranks[largest]}) holds {share:.0%} of what is spent")
    return f"{UNEVEN}: {', and '.join(reasons)}" if reasons else None
