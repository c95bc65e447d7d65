"""The matrices of a model that are adapted: what model.targets names, and what `all-linear` means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from rankbench.core.sites import Site, parse_site
from rankbench.models.errors import ModelError

ALL_LINEAR = "all-linear"


def find_sites(model: nn.Module, targets: Sequence[str], head: Sequence[str] = ()) -> list[Site]:
    """The linear layers that `targets` name, in model order; never those within the modules of `head`.

    Raises:
        ModelError: no target, or one that is no regular expression or matches no linear layer; the kinds there are.
    """
    if not targets:
        raise ModelError(f"model.targets is empty: there is nothing to adapt; [{ALL_LINEAR}] takes every linear layer")
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(name == top or name.startswith(f"{top}.") for top in head)
    }
    hugging: Any = model
    output = hugging.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    chosen: set[str] = set()
    for target in targets:
        if target == ALL_LINEAR:
            matching = [name for name, module in linears.items() if module is not output]
        else:
            matching = [name for name in linears if _ends_with(name, target)]
        if not matching:
            kinds = sorted({_site(name, module).kind for name, module in linears.items()})
            raise ModelError(
                f"model.targets: {target!r} matches no linear layer; the kinds here are {', '.join(kinds)}; "
                f"{ALL_LINEAR!r} takes every one but the output head"
            )
        chosen.update(matching)
    return [_site(name, module) for name, module in linears.items() if name in chosen]


def _ends_with(name: str, pattern: str) -> bool:
    try:
        return re.search(rf"(?:^|\.)(?:{pattern})$", name) is not None
    except re.error as error:
        raise ModelError(f"model.targets: {pattern!r} is no regular expression ({error}); mend it") from error


def _site(name: str, module: nn.Linear) -> Site:
    return Site(name, *parse_site(name), module.out_features, module.in_features)
