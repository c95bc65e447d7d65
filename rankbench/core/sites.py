"""Sites: the adapted matrices of a model, and their names."""

from __future__ import annotations

from dataclasses import dataclass


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
    place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return (None, name) if place is None else (int(parts[place]), ".".join(parts[place + 1 :]))
