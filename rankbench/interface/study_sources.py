"""Studies from Python: `rankbench.load("igu_ablation")`, `rankbench.sweep(...)`, `rankbench.report("igu_ablation")`.

A study may lie in a results folder by the name of its sweep, in the folder of a report, or in a file of records.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

from rankbench.interface.run_result import words_of
from rankbench.interface.study_view import StudyView
from rankbench.studies import study as studies
from rankbench.studies.study import RECORDS, Study, records_file, stem_of
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import SweepError

RESULTS = "results"
ALL_RUNS = "all_runs"  # folder of the report of a results folder as a whole


def load(
    source: str | Path,
    results: str | Path = RESULTS,
    allow_mixed: Sequence[str] = (),
    reference: str | None = None,
) -> StudyView:
    """A study: `rankbench.load("igu_ablation")`, `rankbench.load("results")`, `rankbench.load("mine/records.jsonl")`.

    What cannot be read is a warning. Records that no sweep lists are judged as conf/report.yaml says.

    Args:
        source: name of an experiment or sweep in `results`; or the folder of a report, a results folder (all its runs),
            or a file of records.
        results: results folder that names are looked up in.
        allow_mixed: names ("code", "torch", "train.steps") of what may differ between the runs of one table.
        reference: arm that the others are compared with, where no experiment declares one; None: lora.

    Raises:
        SweepError: there is no such study.
    """
    loaded = replace(study_at(source, Path(results)), reference=reference)
    for problem in loaded.problems:
        warnings.warn(f"not counted: {problem}", stacklevel=2)
    return StudyView(loaded, tuple(allow_mixed))


def sweep(*overrides: str | Sequence[str], config_dir: str | Path | None = None, show: bool = False) -> StudyView:
    """Do every run of a sweep that is not done: `rankbench.sweep("method=lora,igu", "seed=0,1", "model=tiny")`.

    Each run is a process of its own, so a method has to be importable there: in a package, not in a notebook's cell.

    Args:
        overrides: words of the command line after -m, one by one or as lists.
        config_dir: a folder with more configuration files (--config-dir).
        show: whether to print a line per run as it ends.

    Returns:
        The study of its runs; those that failed are rows of `runs` with their status.

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
        KeyboardInterrupt: the user asked to stop; the same call goes on from there.
    """
    from rankbench.launching.driver import start

    words = words_of(overrides)
    with nullcontext() if show else redirect_stdout(StringIO()):
        start(words, Path(config_dir) if config_dir else None)
    results_dir = studies.results_dir_of(words)
    started = [each for each in manifest.all_of(results_dir)[0] if each.words == words][-1]
    for sentence in (*started.kept_back, *started.waiting):
        warnings.warn(f"not run: {sentence}", stacklevel=2)
    return StudyView(studies.study_of_sweep(started, results_dir))


def report(study: str | Path, results: str | Path = RESULTS, folder: str | Path | None = None) -> Path:
    """Write the report of a study: `rankbench.report("igu_ablation")`.

    Args:
        study, results: as in `load`.
        folder: folder to write to; None: results/NAME, or where `report_folder` says.

    Returns:
        The path of its page.

    Raises:
        SweepError: there is no such study.
        SelectionError: its runs may not stand in one table.
    """
    path = Path(study)
    own = report_folder(path) if path.exists() else Path(results) / str(study)
    return load(study, results).report(folder if folder is not None else own)


def report_folder(source: Path) -> Path:
    """Where the report of a path goes: its folder; for a file of another name than records.jsonl, one of its name.

    Args:
        source: folder of a report, results folder or file of records.
    """
    if source.is_file():
        return source.parent if source.name.startswith(RECORDS) else source.with_name(stem_of(source))
    return source / ALL_RUNS if (source / "runs").is_dir() else source


def study_at(source: str | Path, results: Path) -> Study:
    """The study that a user names.

    Args:
        source, results: as in `load`.

    Raises:
        SweepError: there is none.
    """
    path = Path(source)
    return studies.study_at(path) if path.exists() else _study_named(str(source), results)


def _study_named(name: str, results: Path) -> Study:
    if manifest.folder(results, name).is_dir():
        return studies.study_of_sweep(manifest.read(manifest.folder(results, name)), results)
    try:
        return studies.load([f"experiment={name}", f"results_dir={results}"])
    except SweepError as error:
        if records_file(results / name).is_file():
            return studies.study_at(results / name)
        folders = sorted(path.parent.name for path in results.glob(f"*/{RECORDS}*"))
        there = f"; {results} has {', '.join(folders)}" if folders else ""
        raise SweepError(f"{name}: no folder or file of this name, and {error}{there}") from error
