"""Attach the adapter to a model: PEFT injects stock LoRA layers, each gets its `SiteAdapter`.

Imported when a run has its model: PEFT takes seconds to import.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from rankbench import RankbenchError
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Ledger
from rankbench.core.gated_lora import MAGNITUDE, NAME, Scale
from rankbench.core.peft_export import PREFIX
from rankbench.core.peft_names import exact_keys, exact_targets
from rankbench.core.seeding import Streams
from rankbench.core.site_adapter import Gate, SiteAdapter
from rankbench.core.sites import Site, within

OF_BASE = ("base", "biases")  # what `trains` may name in the base model


class InjectionError(RankbenchError, ValueError):
    """PEFT does not train what was asked for; the message names the modules and the way out."""


def attach(
    model: nn.Module,
    sites: Sequence[Site],
    ranks: Mapping[str, int],
    *,
    scale: Scale,
    streams: Streams,
    ledger: Ledger,
    gate: Gate | None = None,
    path: bool = False,
    dropout: float = 0.0,
    head: Sequence[str] = (),
    task_type: str | None = None,
    trains: str = "adapter",
) -> AdapterSet:
    """Inject the adapter into `model` and draw its factors from stream "init", site by site.

    Row k of a site's A is the same draw whatever the site's rank, so methods that start at different ranks share
    the rows they have in common.

    Args:
        model: base model; it is changed in place.
        sites: matrices to adapt.
        ranks: site name -> rank >= 0, at most the site's full rank.
        scale: rule of the factor s.
        streams: random streams of the run.
        ledger: account of the run; it is updated at every change.
        gate: how the method wants its gates; None leaves gates out.
        path: whether the method scores along a path (its layers then leave PEFT's stock forward pass).
        dropout: share of the adapter's input that is dropped, in [0, 1).
        head: modules trained in full, by name.
        task_type: PEFT's, written into the exported config.
        trains: what is trained beside the head: "adapter", "adapter and magnitudes" (DoRA), "base" or "biases"; the
            last two train parameters of `model`, which becomes float32.

    Raises:
        InjectionError: PEFT trains more or less than sites and head; nothing to train in the base model.
        ValueError: a rank that a site cannot have; gates or a path with DoRA.
    """
    for site in sites:
        if not 0 <= ranks[site.name] <= min(site.d_out, site.d_in):
            raise ValueError(f"rank {ranks[site.name]} of {site.name} is not in [0, {min(site.d_out, site.d_in)}]")
    of_base = _parameters_of_base(model, head, trains) if trains in OF_BASE else []
    dora = trains == "adapter and magnitudes"
    peft_model = _inject(model, sites, ranks, streams, dropout, head, task_type, dora)
    _check(peft_model, sites, head)
    for name in head:
        _keep_in_fp32(peft_model.get_submodule(PREFIX + name))
    for parameter in of_base:
        parameter.requires_grad_(True)
    modules = dict(peft_model.named_modules())
    variant = gate is not None or path
    if variant and dora:
        raise ValueError("DoRA has a forward pass of its own: it takes no gate and no path")
    adapters = {}
    for site in sites:
        layer = modules[PREFIX + site.name]
        adapter = adapters[site.name] = SiteAdapter(site, layer, scale, gate, streams, ranks[site.name], variant)
        if dora:  # PEFT's have the rounding of the base's dtype, and output and base would differ at the start
            layer.lora_magnitude_vector[NAME].weight.data = torch.linalg.norm(adapter.weight(), dim=1)
    magnitudes = [parameter for name, parameter in peft_model.named_parameters() if MAGNITUDE in name]
    return AdapterSet(peft_model, adapters, scale, gate, ledger, [*of_base, *magnitudes])


def _parameters_of_base(model: nn.Module, head: Sequence[str], trains: str) -> list[nn.Parameter]:
    """Parameters of the base model that are trained, in float32, those of the head left out: PEFT trains a copy."""
    packed = any(not parameter.is_floating_point() for parameter in model.parameters())
    if packed or getattr(model, "is_quantized", False):  # some kinds keep their weights in buffers
        raise InjectionError(
            "a quantised base model cannot be trained itself: give one whose files are not quantised, and leave "
            "model.quantization out"
        )
    model.float()
    parameters = [
        parameter
        for name, parameter in model.named_parameters()
        if not within(name, head) and (trains == "base" or name.endswith("bias"))
    ]
    if not parameters:
        raise InjectionError(
            "the base model has no biases, so there is nothing to train: bitfit needs one that has, as BERT"
        )
    return parameters


def _keep_in_fp32(module: nn.Module) -> None:
    """What is trained is stored in fp32, whatever the base is, and so are the inputs it gets."""
    if all(parameter.dtype == torch.float32 for parameter in module.parameters()):
        return
    module.float()
    module.register_forward_pre_hook(
        lambda module, inputs: tuple(x.float() if isinstance(x, torch.Tensor) else x for x in inputs)
    )


def _inject(
    model: nn.Module,
    sites: Sequence[Site],
    ranks: Mapping[str, int],
    streams: Streams,
    dropout: float,
    head: Sequence[str],
    task_type: str | None,
    dora: bool,
) -> PeftModel:
    """Put PEFT's stock LoRA on the sites, in the model's own mode; PEFT has no rank 0: such a site gets 1 for now."""
    keys = exact_keys({site.name for site in sites})
    config = LoraConfig(
        r=1,
        lora_alpha=1,
        lora_dropout=dropout,
        target_modules=exact_targets(list(keys), [name for name, _ in model.named_modules()]),
        rank_pattern={key: max(1, ranks[name]) for name, key in keys.items()},
        modules_to_save=list(head) or None,
        task_type=task_type,
        use_dora=dora,
    )
    with streams.ambient("init", "peft"), warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by an older name
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # it is mended by PEFT for each layer
        warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")  # see _check
        try:
            peft_model = get_peft_model(model, config)
        except TypeError as error:
            if "modules_to_save" not in str(error):
                raise
            both = {site.name for site in sites if site.name.endswith(tuple(config.modules_to_save or ()))}
            raise InjectionError(
                f"PEFT would train {_names(both)} in full, as it goes by the end of a name, and model.targets adapts "
                f"them, too; name them in model.head={list(head)} or leave them out by model.exclude"
            ) from error
    peft_model.train(model.training)  # PEFT makes its modules in training mode
    return peft_model


def _check(peft_model: PeftModel, sites: Sequence[Site], head: Sequence[str]) -> None:
    """PEFT matches the ends of names, adds modules of its own and renames some: see that it did what it was told."""
    layers = {name.removeprefix(PREFIX) for name, module in peft_model.named_modules() if isinstance(module, LoraLayer)}
    targets = {site.name for site in sites}
    if layers != targets:
        missing, more = _names(targets - layers), _names(layers - targets)
        raise InjectionError(
            f"PEFT adapts other layers than model.targets: without {missing}; also {more}; "
            "leave those that it cannot adapt out by model.exclude"
        )
    trained = {
        name.removeprefix(PREFIX) for name, parameter in peft_model.named_parameters() if parameter.requires_grad
    }
    beside = {name.partition(".modules_to_save.")[0] for name in trained if ".lora_" not in name}
    unasked = {name for name in beside if not within(name, head)}
    frozen = {top for top in head if not any(within(name, [top]) for name in beside)}
    if unasked or frozen:
        raise InjectionError(
            f"PEFT trains other modules in full than model.head={list(head)}: also {_names(unasked)}; "
            f"without {_names(frozen)}; PEFT goes by the end of a name, so name all of these modules in model.head"
        )


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) + (" ..." if len(names) > 8 else "") or "none"
