"""Where a study may lie: a sweep by name, the folder of a report, a results folder, or a file of records."""

from __future__ import annotations

from pathlib import Path

from rankbench.studies import study
from rankbench.studies.study import RECORDS, Study
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import SweepError


def study_at(source: str | Path, results: Path) -> Study:
    """The study that a user names.

    Args:
        source: name of an experiment or sweep in `results`; or the folder of a report, a results folder, or a file of
            records (records.jsonl).
        results: results folder.

    Raises:
        SweepError: there is none.
    """
    path = Path(source)
    return study.study_at(path) if path.exists() else _study_named(str(source), results)


def _study_named(name: str, results: Path) -> Study:
    if manifest.folder(results, name).is_dir():
        return study.study_of_sweep(manifest.read(manifest.folder(results, name)), results)
    try:
        return study.load([f"experiment={name}", f"results_dir={results}"])
    except SweepError as error:
        if (results / name / RECORDS).is_file():
            return study.study_at(results / name)
        folders = sorted(path.parent.name for path in results.glob(f"*/{RECORDS}"))
        there = f"; {results} has {', '.join(folders)}" if folders else ""
        raise SweepError(f"{name}: no folder or file of this name, and {error}{there}") from error
