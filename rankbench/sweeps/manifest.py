"""A sweep on disk: its runs, frozen when it starts, in results_dir/sweeps/<sweep_id>/.

sweep.json says what was typed, what the experiment declares, and which run stands for which arm; <run_id>.json beside
it holds the configuration of one run (rankbench.records.frozen_run), read by the process that does the run. Nothing of
conf/ is read after the start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from rankbench import RankbenchError
from rankbench.files import write_atomically
from rankbench.records.record import run_id
from rankbench.sweeps import declaration, experiment_files
from rankbench.sweeps.declaration import SweepDeclaration
from rankbench.sweeps.experiment import Experiment, Tune

SWEEPS = "sweeps"
FILE = "sweep.json"
LOCK = ".lock"  # of all sweeps of a results folder: a report notes its look while the sweep goes on
LATER = ("kept_back", "declaration", "changes", "looks")  # sweeps of older versions have none; left out where empty
TITLE = (
    "model",
    "task",
    "task.kind",
    "method",
    "budget",
    "budget.factor",
    "seed",
    "train.learning_rate",
)  # settings in the title of a run


class SweepError(RankbenchError, ValueError):
    """A sweep that cannot be found or read; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep, as sweep.json lists it.

    Attributes:
        arm: label of the arm; None in a sweep without an experiment.
        run_id: name of the run and its record.
        trial: whether this is a tuning trial.
        overrides: command line that does this run alone.
        cell: name of the cell of the experiment; None in one without cells.
        rung: factor of the budget of a trial that belongs to a ladder; None for all other runs.
    """

    arm: str | None
    run_id: str
    trial: bool
    overrides: tuple[str, ...]
    cell: str | None = None
    rung: float | None = None

    @property
    def method(self) -> str:
        """Name of the method, where the overrides have one."""
        named = (override.partition("=") for override in self.overrides)
        return next((value for key, _, value in named if key == "method"), "default method")

    @property
    def row(self) -> str:
        """Label of its arm in tables of runs, tuning trials and those of a ladder apart."""
        kind = " (ladder)" if self.rung else " (trials)" if self.trial else ""
        return (self.arm or self.method) + kind

    @property
    def title(self) -> str:
        """Arm and settings of TITLE, in one line."""
        by_key = {override.partition("=")[0]: override for override in self.overrides}
        kept = [by_key[key] for key in TITLE if key in by_key]
        return " ".join(filter(None, [self.arm, self.cell, *kept, "(trial)" if self.trial else ""]))

    def plain(self) -> dict[str, Any]:
        """As in sweep.json."""
        return {key: value for key, value in vars(self).items() if (key, value) != ("rung", None)}


@dataclass
class Sweep:
    """What one command asked for.

    Attributes:
        sweep_id: name and hash of the cells (`identity`).
        name: name of the experiment; "sweep" without one.
        order: number of the sweep in its results folder; the last one started has the largest.
        words: arguments of the command, as typed.
        experiment: the experiment at its scale, with the arms chosen; None without one.
        tune: how learning rates are chosen, where a cell says nothing else; None where they are given.
        jobs: runs frozen so far, in the order they are done in; trials come before the runs they choose for.
        waiting: sentences on runs that cannot be frozen yet, or not at all.
        kept_back: sentences on panels whose reported runs are not started, as more budget does not help there.
        declaration: what was declared before the first reported run; None without an experiment, and in sweeps of older
            versions.
        changes: sentences on what this start had otherwise than it was declared.
        looks: sweep_id -> date of the first report of its runs, of this sweep and those that it adds seeds to.
    """

    sweep_id: str
    name: str
    order: int
    words: list[str]
    experiment: Experiment | None
    tune: Tune | None
    jobs: list[Job] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    kept_back: list[str] = field(default_factory=list)
    declaration: SweepDeclaration | None = None
    changes: list[str] = field(default_factory=list)
    looks: dict[str, str] = field(default_factory=dict)

    @property
    def tuned(self) -> bool:
        """Whether any learning rate is chosen by trials."""
        cells = self.experiment.cells.values() if self.experiment else ()
        return self.tune is not None or any(part.tune is not None for part in cells)

    def to_json(self) -> str:
        """Readable JSON."""
        content = {
            **{key: value for key, value in vars(self).items() if value or key not in LATER},
            "experiment": self.experiment and self.experiment.plain(),
            "tune": self.tune and self.tune.plain(),
            "jobs": [job.plain() for job in self.jobs],
        }
        if self.declaration is not None:
            content["declaration"] = self.declaration.plain()
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> Sweep:
        """Inverse of `to_json`.

        Raises:
            SweepError: the text is no sweep.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            content["jobs"] = [Job(**{**job, "overrides": tuple(job["overrides"])}) for job in content["jobs"]]
            if content["experiment"] is not None:
                content["experiment"] = experiment_files.read_kept(content["experiment"], source)
            content["tune"] = Tune(**content["tune"]) if content["tune"] else None
            if content.get("declaration") is not None:
                content["declaration"] = SweepDeclaration.from_plain(content["declaration"])
            return cls(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise SweepError(f"{source}: not a sweep of this version ({error}); start it again") from error


def identity(name: str, configs: Iterable[dict[str, Any]], tunes: Iterable[Tune | None]) -> str:
    """Name of a sweep, with 8 hexadecimal digits that tell its runs and their tuning, cell by cell, from others."""
    content = [[run_id(config) for config in configs], *(tune.plain() if tune else None for tune in tunes)]
    return f"{name}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]}"


def folder(results_dir: Path, sweep_id: str) -> Path:
    """Folder of a sweep and of the configurations of its runs."""
    return results_dir / SWEEPS / sweep_id


def frozen_file(place: Path, run_id: str) -> Path:
    """File of a frozen run.

    Args:
        place: folder of the sweep.
        run_id: name of the run.
    """
    return place / f"{run_id}.json"


def save(sweep: Sweep, results_dir: Path) -> Path:
    """Write sweep.json, whole or not at all, with the looks that were noted in it since, and return its folder."""
    place = folder(results_dir, sweep.sweep_id)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place.parent / LOCK):
        if (place / FILE).is_file():
            with suppress(SweepError):
                sweep.looks = read(place).looks | sweep.looks
        write_atomically(place / FILE, sweep.to_json().encode())
    return place


def stamp(sweep: Sweep, now: SweepDeclaration, results_dir: Path) -> None:
    """Declare a sweep, or more panels of it, unless that was done before, and say what has changed since.

    What was declared of a panel by a sweep that this one adds seeds to holds for this one, too, once a report has shown
    its runs; so does what another sweep of the experiment declared when it ran a cell alone.
    """
    new = now if sweep.declaration is None else sweep.declaration.new_panels_of(now)
    if new.panels:
        earlier: list[SweepDeclaration] = []
        for other in all_of(results_dir)[0]:
            seen = other.sweep_id in other.looks or new.panels[0].cell is not None
            if other.name == sweep.name and other.declaration and seen and declaration.overlap(other.declaration, new):
                earlier.append(other.declaration)
                sweep.looks |= other.looks
        new = declaration.after(earlier, new)
    sweep.declaration = new if sweep.declaration is None else sweep.declaration.joined(new)
    sweep.changes = list(dict.fromkeys([*sweep.changes, *declaration.changes(sweep.declaration, now)]))


def look(sweep: Sweep, results_dir: Path) -> None:
    """Note that a report has shown reported runs of a sweep, in sweep.json where that can be written.

    All reports of one sweep are one look: its seeds are declared together, and a comparison that lacks some is
    withheld. A sweep with more seeds is another.
    """
    sweep.looks.setdefault(sweep.sweep_id, datetime.now(UTC).date().isoformat())
    place = folder(results_dir, sweep.sweep_id)
    # The folder may be somebody else's, or on a file system that has no locks.
    with suppress(OSError, NotImplementedError, SweepError), FileLock(place.parent / LOCK):
        on_disk = read(place)
        if sweep.sweep_id not in on_disk.looks:
            write_atomically(place / FILE, replace(on_disk, looks=on_disk.looks | sweep.looks).to_json().encode())


def read(place: Path) -> Sweep:
    """The sweep in a folder.

    Raises:
        SweepError: there is none, or it cannot be read.
    """
    file = place / FILE
    if not file.is_file():
        raise SweepError(f"{place} holds no {FILE}")
    return Sweep.from_json(file.read_text(errors="replace"), str(file))


def all_of(results_dir: Path) -> tuple[list[Sweep], list[str]]:
    """The sweeps of a results folder, in the order they were started, and a sentence on each that cannot be read."""
    sweeps, problems = [], []
    for file in sorted((results_dir / SWEEPS).glob(f"*/{FILE}")):
        try:
            sweeps.append(read(file.parent))
        except SweepError as error:
            problems.append(str(error))
    return sorted(sweeps, key=lambda sweep: sweep.order), problems


def merge(sources: Iterable[Path], target: Path) -> list[str]:
    """Bring the sweeps of results folders into one, and return a sentence on each that cannot be read.

    The sweep of a file of records is the one beside it, as in the folder of a report.

    A sweep that several folders have gets the jobs of all. Those new to the target count as started after its own.
    """
    own, problems = all_of(target)
    sweeps = {sweep.sweep_id: sweep for sweep in own}
    for source in sources:
        of_source, unreadable = _beside(source) if source.is_file() else all_of(source)
        problems += unreadable
        for sweep in of_source:
            earlier = sweeps.get(sweep.sweep_id)
            order = earlier.order if earlier else 1 + max((other.order for other in sweeps.values()), default=0)
            jobs = {job.run_id: job for job in [*(earlier.jobs if earlier else []), *sweep.jobs]}
            if earlier is None or len(jobs) > len(earlier.jobs) or sweep.looks.keys() - earlier.looks.keys():
                declared = earlier.declaration if earlier and earlier.declaration else sweep.declaration
                if declared and sweep.declaration:
                    declared = declared.joined(declared.new_panels_of(sweep.declaration))
                merged = replace(sweep, order=order, jobs=list(jobs.values()), declaration=declared)
                sweeps[sweep.sweep_id] = merged
                save(merged, target)
    return problems


def _beside(records: Path) -> tuple[list[Sweep], list[str]]:
    """As `all_of`, for a file of records."""
    try:
        return ([read(records.parent)] if (records.parent / FILE).is_file() else []), []
    except SweepError as error:
        return [], [str(error)]


def last(results_dir: Path, name: str | None, words: Iterable[str] = ()) -> Sweep | None:
    """The last sweep of an experiment (with None, of all) that was typed with these words, among others.

    Raises:
        SweepError: there is none, and one that it may have been cannot be read.
    """
    wanted = set(words)
    sweeps, problems = all_of(results_dir)
    fitting = [sweep for sweep in sweeps if name in (None, sweep.name) and wanted <= set(sweep.words)]
    if problems and not fitting:
        raise SweepError("; ".join(problems))
    return fitting[-1] if fitting else None
