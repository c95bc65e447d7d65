"""rankbench: rank-allocation methods for LoRA, compared at one matched budget.

The Python interface: `run`, `sweep`, `load` and `report` do what the commands of these names do. Importing rankbench is
light; each of them imports what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from rankbench.records.record import RunRecord

__version__ = "0.1.0"
__all__ = ["RankbenchError", "load", "report", "run", "sweep"]


class RankbenchError(Exception):
    """Base of the errors that a user can act on; the message names the value, the place and the way out.

    Every other exception is a fault of rankbench.
    """


def run(overrides: Sequence[str], config_dir: Path | None = None) -> RunRecord:
    """Do one run, or find it done: `run(["method=igu", "model=tiny", "task=planted"])`.

    Args:
        overrides: words of the command line; the record has the status, whatever it is.
        config_dir: a folder with more configuration files (--config-dir).

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
        StoreError: the run's folder cannot be used, so that it left no record.
    """
    from rankbench.cli.run import folder_of, perform
    from rankbench.config.overrides import one_run
    from rankbench.records.run_folder import StoreError

    config = one_run(overrides, config_dir).config
    perform(config)
    folder = folder_of(config)
    record = folder.record()
    if record is None:
        raise StoreError(f"{folder.path}: the run left no record; what it printed says why")
    return record


def sweep(overrides: Sequence[str]) -> int:
    """Do every run of a sweep that is not done; 0 if all have status ok, else 1.

    Args:
        overrides: words of the command line after `-m`.

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
    """
    from rankbench.launching.driver import start

    return start(overrides)


def load(results: str | Path = "results") -> pd.DataFrame:
    """The records of a results folder, or of a file of records: one row per run (see rankbench.analysis.frame)."""
    from rankbench.analysis.frame import frame
    from rankbench.records.run_folder import records

    return frame(records(Path(results))[0])


def report(study: str | Path, results: str | Path = "results") -> Path:
    """Write the report of an experiment; the path of its page.

    Args:
        study: name of an experiment with a sweep in `results`, or the folder of an earlier report.
        results: folder with runs/ and sweeps/.

    Raises:
        SweepError: there is no such sweep.
        SelectionError: its records are no comparison.
    """
    from rankbench.cli.report import written

    words = [str(study)] if Path(study).is_dir() else [f"experiment={study}", f"results_dir={results}"]
    return written(words)[0]
