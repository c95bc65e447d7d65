"""A sweep with the records of its runs: what plans, states and reports are made from.

Two places hold one: a results folder (runs/ and sweeps/), and the folder of a report (sweep.json, records.jsonl,
curves.jsonl, item_gains.csv), which is complete in itself. Records alone make one, too: a file of records, a folder
with records.jsonl and no sweep.json, or a results folder as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.records import run_folder
from rankbench.records.record import RunRecord
from rankbench.records.run_folder import RunFolder
from rankbench.sweeps import manifest
from rankbench.sweeps.manifest import Job, Sweep, SweepError

if TYPE_CHECKING:
    import pandas as pd

    from rankbench.analysis.item_gains import ItemGain

STEPS = "steps.jsonl"
RECORDS, CURVES, ITEM_GAINS = "records.jsonl", "curves.jsonl", "item_gains.csv"
LARGE = 8 * 2**20  # bytes: a larger records.jsonl is kept as records.jsonl.xz, which repositories take more easily
PROBLEMS = "problems.txt"  # what could not be read when the records were put together, a line each
Curve = list[tuple[int, int]]  # step and rank total, where it changes


@dataclass(frozen=True)
class Study:
    """A sweep and what its runs left.

    Attributes:
        sweep: the runs that were asked for.
        records: run_id -> record, for the runs that left one.
        curves: run_id -> rank total over the steps, for the runs that logged steps.
        problems: files that could not be read, by name.
        results_dir: where the test items of the runs lie; None in the folder of a report.
        item_gains, rank_histories: as an earlier report had them; the second is a frame, None without one.
        source: file or results folder of the records, where no sweep names them: nothing of the study was declared.
        report_folder: folder of the report that it was read from; None where it was not.
        reference: the arm that others are compared with; None: what the experiment declares, else LoRA.
    """

    sweep: Sweep
    records: dict[str, RunRecord]
    curves: dict[str, Curve]
    problems: list[str]
    results_dir: Path | None = None
    item_gains: list[ItemGain] = field(default_factory=list)
    rank_histories: pd.DataFrame | None = None
    source: Path | None = None
    report_folder: Path | None = None
    reference: str | None = None

    @property
    def looks(self) -> int:
        """How often reports have shown its runs, this time included."""
        return len({*self.sweep.looks, self.sweep.sweep_id})

    def runs(self, trial: bool = False) -> list[tuple[Job, RunRecord | None]]:
        """The jobs that are reported, or the tuning trials, each with its record; None: missing, or still running.

        Those of a ladder are neither: what they show stands in the declaration of the sweep.
        """
        jobs = [job for job in self.sweep.jobs if job.trial == trial and job.rung is None]
        return [(job, self.records.get(job.run_id)) for job in jobs]


def results_dir_of(words: Sequence[str]) -> Path:
    """The results folder that the words of a command name (results_dir=DIR), else "results"."""
    return Path(next((word.partition("=")[2] for word in words if word.startswith("results_dir=")), "results"))


def load(words: Sequence[str], curves: bool = True) -> Study:
    """The study that words name: ["experiment=X"], more words of its sweep, or a folder or file alone (`study_at`).

    Args:
        words: of the command.
        curves: whether the steps of the runs are read; they are most of what there is to read.

    Raises:
        SweepError: no such study.
    """
    if len(words) == 1 and "=" not in words[0]:
        return study_at(Path(words[0]), curves)
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    results_dir = results_dir_of(words)
    name = typed.get("experiment")
    rest = [word for word in words if word.split("=")[0] not in ("experiment", "results_dir")]
    sweep = manifest.last(results_dir, name, rest)
    if sweep is not None:
        return study_of_sweep(sweep, results_dir, curves)
    committed = results_dir / (name or "") / manifest.FILE
    if name and committed.is_file() and not rest:
        return study_in_folder(committed.parent)
    raise SweepError(_no_sweep(words, results_dir))


def _no_sweep(words: Sequence[str], results_dir: Path) -> str:
    typed = " ".join(words)
    if not [word for word in words if not word.startswith("results_dir=")]:
        return f"no sweep in {results_dir}; start one with rankbench -m ..., or give --results DIR"
    return f"{results_dir} holds no sweep of {typed}; start it with rankbench -m {typed}, or give --results DIR"


def study_of_sweep(sweep: Sweep, results_dir: Path, with_curves: bool = True) -> Study:
    """A sweep with what its runs left in the runs/ of a results folder; `with_curves`: as in `load`."""
    records: dict[str, RunRecord] = {}
    curves, problems = {}, []
    earlier: list[ItemGain] = []
    with run_folder.without_garbage_collection():
        for name, record in run_folder.collected(results_dir, [job.run_id for job in sweep.jobs]):
            if isinstance(record, RunRecord):
                records[name] = record
            elif record is not None:
                problems.append(str(record))
        for name in records if with_curves else ():
            folder = RunFolder(results_dir, name)
            try:
                curves[name] = list(_changes(folder.lines(STEPS)))
            except (ValueError, KeyError, TypeError) as error:
                problems.append(f"{folder.path / STEPS}: not the steps of a run ({error!r})")
    if with_curves:
        from rankbench.analysis import item_gains  # pandas and scipy take a moment to import

        earlier = item_gains.load(results_dir / sweep.name / ITEM_GAINS)
    return Study(sweep, records, curves, problems, results_dir, earlier)


def study_at(path: Path, curves: bool = True) -> Study:
    """The study in the folder of a report, or that of the records of a file, a folder or a results folder alone.

    Raises:
        SweepError: it holds none.
    """
    if (path / manifest.FILE).is_file():
        return study_in_folder(path)
    file = records_file(path) if path.is_dir() else path
    if not file.is_file() and not run_folder.run_folders(path):
        raise SweepError(f"{path} holds no study: neither {manifest.FILE} nor {RECORDS} nor runs/ is there")
    return study_of_records(file if file.is_file() else path, curves)


def study_of_records(source: Path, with_curves: bool = True) -> Study:
    """The study of all records of a file or results folder; `with_curves`: as in `load`.

    Raises:
        SweepError: there is no record.
    """
    from rankbench.studies import loose_records  # with methods' YAML, which a sweep's state needs not

    records, problems = run_folder.records(source)
    if not records:
        raise SweepError(f"{source} holds no records; {'; '.join(problems) or 'it is empty'}")
    is_of_folder = source.name == records_file(source.parent).name
    stem = source.resolve().parent.name if is_of_folder else stem_of(source.resolve())
    sweep = loose_records.sweep_of(records, stem)
    if source.is_dir():
        return replace(study_of_sweep(sweep, source, with_curves), problems=problems, source=source)
    curves = _saved_curves(source.parent) if is_of_folder else {}
    return Study(sweep, {record.run_id: record for record in records}, curves, problems, source=source)


def study_in_folder(folder: Path) -> Study:
    """The study in the folder of a report that has sweep.json.

    Raises:
        SweepError: it holds none.
    """
    from rankbench.analysis import item_gains  # pandas and scipy take a moment to import
    from rankbench.studies import rank_histories

    file = records_file(folder)
    records, problems = run_folder.records(file) if file.is_file() else ([], [])
    before = (folder / PROBLEMS).read_text().splitlines() if (folder / PROBLEMS).is_file() else []
    by_id, earlier = {record.run_id: record for record in records}, item_gains.load(folder / ITEM_GAINS)
    curves = _saved_curves(folder)
    histories = rank_histories.load(folder)
    study = Study(manifest.read(folder), by_id, curves, [*before, *problems], item_gains=earlier)
    return replace(study, rank_histories=histories, report_folder=folder)


def _saved_curves(folder: Path) -> dict[str, Curve]:
    file = folder / CURVES
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return {row["run_id"]: [tuple(point) for point in row["ranks"]] for row in rows}


def save(study: Study, folder: Path) -> None:
    """Write what `study_at` reads: a study complete in itself, without the folders of the machine it ran on.

    The same study gives the same files, whatever order its records came in. The records and the sweep that it was read
    from are not written again.
    """
    from rankbench.analysis import item_gains  # pandas and scipy take a moment to import
    from rankbench.studies import rank_histories

    folder.mkdir(parents=True, exist_ok=True)
    read_from = study.source or (study.report_folder and records_file(study.report_folder))
    is_own = read_from is not None and read_from.resolve() == records_file(folder).resolve()
    if not is_own:
        save_records((study.records[name] for name in sorted(study.records)), folder)
    rows = ({"run_id": name, "ranks": study.curves[name]} for name in sorted(study.curves))
    (folder / CURVES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    if study.source is None and not is_own:
        (folder / manifest.FILE).write_text(study.sweep.to_json())
    item_gains.save(study.item_gains, folder / ITEM_GAINS)
    rank_histories.save(study.rank_histories, folder)
    (folder / PROBLEMS).unlink(missing_ok=True)
    if study.problems:
        (folder / PROBLEMS).write_text("".join(" ".join(problem.split()) + "\n" for problem in study.problems))


def records_file(folder: Path) -> Path:
    """The records in the folder of a report: records.jsonl, or records.jsonl.xz where there is only that."""
    plain, packed = folder / RECORDS, folder / f"{RECORDS}{run_folder.PACKED}"
    return packed if packed.is_file() and not plain.is_file() else plain


def stem_of(file: Path) -> str:
    """Name of a file of records without its suffixes: "mine" for mine.jsonl and mine.jsonl.xz."""
    return Path(file.name.removesuffix(run_folder.PACKED)).stem


def save_records(runs: Iterable[RunRecord], folder: Path) -> None:
    """Write the records of a study into the folder of its report, compressed where they are `LARGE`."""
    plain, packed = folder / RECORDS, folder / f"{RECORDS}{run_folder.PACKED}"
    run_folder.save(runs, plain)
    if plain.stat().st_size > LARGE:
        run_folder.pack(plain, packed)
        plain.unlink()
    else:
        packed.unlink(missing_ok=True)


def _changes(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """First step, last step, and each at which the rank total is another one."""
    before: int | None = None
    row: dict[str, Any] = {}
    changed = True
    for row in rows:
        changed = row["ranks"] != before
        if changed:
            yield row["step"], row["ranks"]
        before = row["ranks"]
    if not changed:
        yield row["step"], row["ranks"]
