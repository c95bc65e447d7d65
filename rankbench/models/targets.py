"""The matrices of a model that are adapted: what model.targets and model.exclude name, and what `all-linear` means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rankbench.core.sites import Site, parse_site, within
from rankbench.models.errors import ModelError

ALL_LINEAR = "all-linear"
SHOWN = 8  # names in a message
# Model type -> layer to which no adapter can be added: transformers 5.23 multiplies with its weight by itself, or it
# gives the choice of experts instead of a product.
READ_PAST = {
    **dict.fromkeys(("mamba", "falcon_mamba", "jamba"), "dt_proj"),
    **dict.fromkeys(("llama4_text", "phimoe"), "router"),
}


def find_sites(
    model: nn.Module, targets: Sequence[str], head: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Site]:
    """The linear layers (torch's, and the Conv1D of GPT-2) that `targets` name, in model order.

    Left out are those within the modules of `head`, those that `exclude` names, and those of full rank 1, where there
    is no rank to choose.

    Args:
        model: base model.
        targets: regular expressions for the end of a layer's name, from a dot on; "all-linear" means what it means to
            PEFT: every linear layer but the output embedding, as far as PEFT can adapt it.
        head: names of modules that are trained in full.
        exclude: regular expressions for the end of the name of a layer, or of a module that it lies in.

    Raises:
        ModelError: no target, or a target or exclusion that is no regular expression or matches nothing; the kinds
            there are.
    """
    if not targets:
        raise ModelError(f"model.targets is empty: there is nothing to adapt; [{ALL_LINEAR}] takes every linear layer")
    linears = _linears(model, head)
    if not linears:
        raise ModelError(
            f"{type(model).__name__} has no linear layer that an adapter could be put on; take another model"
        )
    chosen: set[str] = set()
    for target in targets:
        if target == ALL_LINEAR:
            matching = _all_linear(model, linears)
        else:
            matching = [name for name in linears if _ends_with(name, target, "targets")]
        if not matching:
            raise ModelError(
                f"model.targets: {target!r} matches no linear layer; the kinds here are {_kinds(linears)}; "
                f"{ALL_LINEAR!r} takes every one but the output head"
            )
        chosen.update(matching)
    for pattern in exclude:
        excluded = {name for name in linears if any(_ends_with(part, pattern, "exclude") for part in _path(name))}
        if not excluded:
            raise ModelError(
                f"model.exclude: {pattern!r} matches no linear layer and no module that one lies in; "
                f"the kinds here are {_kinds(linears)}"
            )
        chosen -= excluded
    sites = [_site(name, module) for name, module in linears.items() if name in chosen]
    sites = [site for site in sites if min(site.d_out, site.d_in) > 1]
    if not sites:
        raise ModelError(
            f"model.targets={list(targets)} with model.exclude={list(exclude)} leaves no matrix of full rank 2 or more "
            "to adapt; name others"
        )
    return sites


def left_out(model: nn.Module, sites: Sequence[Site], head: Sequence[str] = ()) -> str | None:
    """A sentence on the matrices that the sites of `all-linear` leave out, and their share; None if there is none.

    Counted are all weights of two dimensions and more, fused experts among them, but embeddings and what is trained in
    full.
    """
    adapted = {f"{site.name}.weight": site.d_out * site.d_in for site in sites}
    linears = {f"{name}.weight" for name in _linears(model, ())}
    output = _output(model)
    aside = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding) or module is output}
    left: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name in adapted or id(parameter) in aside or within(name, head):
            continue
        if name in linears or sum(size > 1 for size in parameter.shape) > 1:
            left.setdefault(parse_site(name.removesuffix(".weight"))[1], []).append(parameter)
    if not left:
        return None
    share = sum(adapted.values()) / (sum(adapted.values()) + sum(p.numel() for many in left.values() for p in many))
    return f"all-linear adapts {share:.1%} of the weights in the model's matrices; it leaves out " + first_few(
        [f"{kind} ({len(many)} of shape {tuple(many[0].shape)})" for kind, many in left.items()]
    )


def _linears(model: nn.Module, head: Sequence[str]) -> dict[str, nn.Module]:
    """Linear layers outside the modules of `head`, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not within(name, head)
    }


def _all_linear(model: nn.Module, linears: dict[str, nn.Module]) -> list[str]:
    output, passed = _output(model), READ_PAST.get(getattr(getattr(model, "config", None), "model_type", ""))
    names = [name for name, module in linears.items() if module is not output and name.rpartition(".")[2] != passed]
    if all(parameter.dim() < 3 for parameter in model.parameters()):
        return names
    from rankbench.core.peft_names import unreachable  # PEFT takes seconds to import

    beyond = unreachable(model, names)  # in mixtures of experts and state-space models
    return [name for name in names if name not in beyond]


def _output(model: nn.Module) -> nn.Module | None:
    hugging: Any = model
    return hugging.get_output_embeddings() if isinstance(model, PreTrainedModel) else None


def _path(name: str) -> list[str]:
    """The name of a module and of every module that it lies in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _kinds(linears: dict[str, nn.Module]) -> str:
    return first_few(sorted({_site(name, module).kind for name, module in linears.items()}))


def first_few(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _ends_with(name: str, pattern: str, setting: str) -> bool:
    try:
        return re.search(rf"(?:^|\.)(?:{pattern})$", name) is not None
    except re.error as error:
        raise ModelError(f"model.{setting}: {pattern!r} is no regular expression ({error}); mend it") from error


def _site(name: str, module: Any) -> Site:
    if isinstance(module, Conv1D):
        return Site(name, *parse_site(name), module.nf, module.nx)
    return Site(name, *parse_site(name), module.out_features, module.in_features)
