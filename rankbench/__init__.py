"""rankbench: rank-allocation methods for LoRA, compared at one matched budget.

The Python interface; each of these is imported when it is asked for:

    import rankbench as rb

    run = rb.run("method=igu", "model=tiny", "task=planted")  # a RunResult: .metrics, .ranks, .steps, .adapter
    study = rb.sweep("method=lora,igu,fim", "seed=0,1,2", "model=tiny", "task=planted")  # a StudyView
    study = rb.load("igu_ablation")  # by name, or a folder or file of records: .runs, .table(), .forest(), .verdict
    page = rb.report("igu_ablation")  # writes the page of a study, and returns its path
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankbench.interface.run_result import RunResult, run
    from rankbench.interface.study_sources import load, report, sweep
    from rankbench.interface.study_view import StudyView

__version__ = "0.1.0"
__all__ = ["RankbenchError", "RunResult", "StudyView", "load", "report", "run", "sweep"]

INTERFACE = {  # name -> module of rankbench.interface
    "RunResult": "run_result",
    "StudyView": "study_view",
    "load": "study_sources",
    "report": "study_sources",
    "run": "run_result",
    "sweep": "study_sources",
}


class RankbenchError(Exception):
    """Base of the errors that a user can act on; the message names the value, the place and the way out.

    Every other exception is a fault of rankbench.
    """


def __getattr__(name: str) -> Any:
    if name not in INTERFACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rankbench.interface.{INTERFACE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *INTERFACE})
