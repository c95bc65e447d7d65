"""Names of sites."""

from __future__ import annotations


def parse_site(name: str) -> tuple[int | None, str]:
    """Layer and kind of a site, by the rule that found it in the model: the first integer part, and what follows it.

    "model.layers.0.self_attn.q_proj" is (0, "self_attn.q_proj"); a name without an integer is (None, name).
    """
    parts = name.split(".")
    place = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return (None, name) if place is None else (int(parts[place]), ".".join(parts[place + 1 :]))
