"""budget=rN for any whole N: what conf/budget/r8.yaml says, at uniform rank N; a file of this name goes before it.

Hydra reads them through rankbench.config.numbered_budgets; help texts need no Hydra.
"""

from __future__ import annotations

import re
from typing import Any

from rankbench.config.yaml_files import CONF_DIR, content

GROUP, MODEL = "budget", "r8"
MODEL_FILE = CONF_DIR / GROUP / f"{MODEL}.yaml"
NAME = re.compile(r"r([1-9]\d*)")


def is_numbered(group: str, option: str) -> bool:
    """Whether an option of a group is a budget of a uniform rank, whatever the rank."""
    return group == GROUP and NAME.fullmatch(option) is not None


def section(option: str) -> dict[str, Any]:
    """The budget section of rN; `option`: a name for which `is_numbered` holds."""
    return {**content(MODEL_FILE), "name": option, "reference_rank": int(option[1:])}


def text(option: str) -> str:
    """The file that rN would have; `option` as in `section`."""
    return re.sub(rf"\b(r?){MODEL[1:]}\b", rf"\g<1>{option[1:]}", MODEL_FILE.read_text())
