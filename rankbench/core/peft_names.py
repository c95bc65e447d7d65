"""Names of sites as PEFT matches them (peft 0.21): by the end of a name, and some not at all.

Imported when a run has its model: PEFT takes seconds to import.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from peft import LoraConfig
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers


def unreachable(model: Any, names: Iterable[str]) -> set[str]:
    """Names of linear layers that PEFT does not wrap, whoever asks for them.

    In some mixtures of experts it takes their names for those of the fused experts; in state-space models it refuses
    layers whose weights go straight into a kernel.
    """
    refused = set()
    for name in names:
        alone = LoraConfig(target_modules=[name])
        try:
            convert_peft_config_for_transformers(alone, model, None)
            _check_lora_target_modules_mamba(alone, model, name.rpartition(".")[2])
        except ValueError:  # so it says of a kernel's layer, and of one of two that are fused
            refused.add(name)
        else:
            if name not in (alone.target_modules or ()):
                refused.add(name)
    return refused


def exact_targets(sites: Sequence[str], modules: Collection[str]) -> list[str] | str:
    """What to give PEFT as `target_modules` so that it wraps these sites and nothing else.

    Args:
        sites: names of the sites.
        modules: names of all modules of the model.

    Returns:
        The names; a regular expression where one of them is also the end of another module's name.
    """
    ends = tuple(f".{site}" for site in sites)
    if any(module.endswith(ends) for module in modules if module not in sites):
        return "|".join(re.escape(site) for site in sites)
    return list(sites)


def exact_keys(sites: Collection[str]) -> dict[str, str]:
    """Site -> the key of `rank_pattern` and `alpha_pattern` that means it alone.

    That is its name, from the start of the name on where it is also the end of another site's.
    """
    return {
        site: f"^{re.escape(site)}" if any(other.endswith(f".{site}") for other in sites) else site for site in sites
    }
