"""rankbench: rank-allocation methods for LoRA, compared at one matched budget.

The Python interface: `run`, `sweep`, `load` and `report` do what the commands of these names do, and are imported when
they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankbench.cli.records import load
    from rankbench.cli.report import report
    from rankbench.cli.run import run
    from rankbench.cli.sweep import sweep

__version__ = "0.1.0"
__all__ = ["RankbenchError", "load", "report", "run", "sweep"]

INTERFACE = {"load": "records", "report": "report", "run": "run", "sweep": "sweep"}  # name -> module of rankbench.cli


class RankbenchError(Exception):
    """Base of the errors that a user can act on; the message names the value, the place and the way out.

    Every other exception is a fault of rankbench.
    """


def __getattr__(name: str) -> Any:
    if name not in INTERFACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rankbench.cli.{INTERFACE[name]}"), name)
