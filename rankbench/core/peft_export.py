"""The trained adapter as a stock PEFT LoRA adapter, for anyone who has no rankbench."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from rankbench.core.adapter_set import AdapterSet
from rankbench.core.gated_lora import MAGNITUDE, NAME

if TYPE_CHECKING:
    from peft import LoraConfig

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."  # of PEFT's names of sites


def to_plain_lora(adapters: AdapterSet) -> tuple[dict[str, Tensor], LoraConfig]:
    """The live components as a stock PEFT LoRA adapter: (state dict, config), gates folded in.

    `rank_pattern` and `alpha_pattern` reproduce rank and scale of each site; sites of rank 0 are left out.

    Raises:
        ValueError: no site has a rank left.
    """
    from peft import LoraConfig, get_peft_model_state_dict  # takes seconds to import
    from peft.utils.warning import PeftWarning

    from rankbench.core.peft_names import exact_keys, exact_targets

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*invalid shape", category=PeftWarning)  # rank 0: left out below
        tensors = get_peft_model_state_dict(adapters.model)
    state = {key: t.detach().cpu() for key, t in tensors.items() if ".lora_" not in key or MAGNITUDE in key}
    rank_pattern = {name: rank for name, rank in adapters.ranks().items() if rank}
    alpha_pattern = {name: adapters.scale(name) * rank for name, rank in rank_pattern.items()}
    if not rank_pattern:
        raise ValueError("no site has a rank left: there is no adapter to export")
    for name in rank_pattern:
        A, B = adapters.folded(name)
        state[f"{PREFIX}{name}.lora_A.weight"] = A.cpu().contiguous()
        state[f"{PREFIX}{name}.lora_B.weight"] = B.cpu().contiguous()
    keys = exact_keys(rank_pattern)
    config = adapters.model.peft_config[NAME]
    return state, LoraConfig(
        r=adapters.scale_spec.reference_rank,
        lora_alpha=adapters.scale_spec.alpha,  # type: ignore[arg-type]  # peft declares an int and divides by the rank
        lora_dropout=config.lora_dropout,
        target_modules=exact_targets(
            list(rank_pattern), [name for name, _ in adapters.model.get_base_model().named_modules()]
        ),
        rank_pattern={keys[name]: rank for name, rank in rank_pattern.items()},
        alpha_pattern={keys[name]: alpha for name, alpha in alpha_pattern.items()},
        fan_in_fan_out=config.fan_in_fan_out,
        modules_to_save=config.modules_to_save,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        use_dora=config.use_dora,
        inference_mode=True,
    )


def export(adapters: AdapterSet, folder: Path) -> None:
    """Write `to_plain_lora` as PEFT's own two files; `PeftModel.from_pretrained` needs nothing else."""
    state, config = to_plain_lora(adapters)
    content = config.to_dict()  # type: ignore[no-untyped-call]
    targets = content["target_modules"]
    content["target_modules"] = targets if isinstance(targets, str) else sorted(targets)
    write(state, content, folder)


def write(state: Mapping[str, Tensor], content: Mapping[str, Any], folder: Path) -> None:
    """Write the tensors and the configuration of an adapter into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of an adapter that `write` wrote."""
    return load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text())


def pad(state: Mapping[str, Tensor], content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An exported adapter with one rank and one alpha, for what reads no patterns; its update is the same.

    Zero components are appended up to the largest rank r; the scale of each site is folded into its B, and
    lora_alpha = r.
    """
    from rankbench.core.peft_names import exact_keys  # PEFT takes seconds to import

    ranks, alphas = content["rank_pattern"], content["alpha_pattern"]
    largest = max(ranks.values())
    padded = dict(state)
    end = ".lora_A.weight"
    names = [key.removeprefix(PREFIX).removesuffix(end) for key in state if key.endswith(end)]
    for name, key in exact_keys(names).items():
        A, B = (f"{PREFIX}{name}.lora_{role}.weight" for role in "AB")
        padded[A] = F.pad(state[A], (0, 0, 0, largest - ranks[key]))
        padded[B] = F.pad(state[B] * (alphas[key] / ranks[key]), (0, largest - ranks[key]))
    return padded, {**content, "r": largest, "lora_alpha": largest, "rank_pattern": {}, "alpha_pattern": {}}
