"""Scheduling of a sweep: which runs have everything they need.

Tuning trials come first; the runs whose learning rate they choose follow; a control that takes another arm's ranks
waits for that arm's run. All follows from the layout and from records, so a sweep that was killed goes on the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rankbench.config import control_sources
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import STOPPED, RunRecord, run_id
from rankbench.records.run_folder import RunFolder
from rankbench.sweeps import tuning
from rankbench.sweeps.composition import FrozenCell, Layout
from rankbench.sweeps.experiment import Tune
from rankbench.sweeps.grid import spell
from rankbench.sweeps.manifest import Job, Sweep
from rankbench.sweeps.tuning import Choice, Group, TuningFamily

RATE = "train.learning_rate"

Part = TypeVar("Part", Group, TuningFamily)


class NotFrozen(Exception):
    """A run cannot be frozen; the message says why."""


class NotReady(NotFrozen):
    """What the run takes from other runs is not there, mostly because they have not finished."""


class CannotChoose(NotFrozen):
    """The tuning trials have finished, and choose no learning rate; waiting does not help."""


class SweepSchedule:
    """Freezes the runs of a sweep, batch by batch.

    Args:
        layout: what the sweep is made of.
        sweep: its manifest; each batch is added to its jobs.
        results_dir: folder of every run.
        retry: whether failed runs are done again.
    """

    def __init__(self, layout: Layout, sweep: Sweep, results_dir: Path, retry: bool = False) -> None:
        self.sweep, self._results_dir, self._retry = sweep, results_dir, retry
        self._groups = tuning.groups_of(layout)
        self._families = tuning.families_of(self._groups)
        self._configs: dict[str, dict[str, Any]] = {}
        self._final: set[int] = set()  # ids of the cells whose configuration is final

    def advance(self) -> list[Job]:
        """The jobs that can be done now and were not handed out before; [] where nothing more can be done."""
        self.sweep.waiting = []
        handed_out = {job.run_id for job in self.sweep.jobs}
        jobs = [job for family in self._families for job in self._jobs_or_wait(self._trials, family)]
        jobs += [job for group in self._groups for job in self._jobs_or_wait(self._finals, group)]
        first = {job.run_id: job for job in reversed(jobs)}  # one run may stand for several arms
        batch = [job for job in first.values() if job.run_id not in handed_out][::-1]
        self.sweep.jobs += batch
        self.sweep.waiting = [*filter(None, (group.given_up for group in self._groups)), *self.sweep.waiting]
        return batch

    def left(self) -> list[FrozenCell]:
        """The cells whose runs could not be frozen yet; their configurations lack what they wait for."""
        return [cell for group in self._groups for cell in group.cells if id(cell) not in self._final]

    def frozen_run(self, job: Job) -> FrozenRun:
        """Return what a launcher is given of a job that `advance` returned."""
        record = self._record(job.run_id) if self._retry else None
        digest = None if record is None or record.status == "ok" else record.digest()
        return FrozenRun(job.run_id, self._configs[job.run_id], job.title, digest)

    def _jobs_or_wait(self, freeze: Callable[[Part], Iterable[Job]], part: Part) -> list[Job]:
        """The jobs of a family or group; where they have to wait, none, and the sweep says for what."""
        try:
            return list(freeze(part))
        except NotFrozen as reason:
            self.sweep.waiting.append(str(reason))
            return []

    def _trials(self, family: TuningFamily) -> list[Job]:
        """Trials of all groups on the present grid; once they are finished, choices are made and the grid may grow.

        A group whose trials choose nothing holds up no other.
        """
        self._take_grid(family)
        while any(group.open for group in family.groups):
            trials = self._on_grid(family)
            jobs = [job for of_group in trials.values() for job in of_group]
            if {job.run_id for job in jobs} - {job.run_id for job in self.sweep.jobs}:
                return jobs
            choices, failed = self._choices(trials, family.tune)
            wider = tuning.widened(family.grid, list(choices.values())) if family.widened < family.tune.widen else None
            if wider is not None:
                family.grid, family.widened = wider, family.widened + 1
                continue
            for group, choice in choices.items():
                group.choice = choice
            for group, reason in failed.items():
                group.given_up = reason
        return []

    def _take_grid(self, family: TuningFamily) -> None:
        """Begin with all the rates of the family before, and no more: both are to have as many trials."""
        if family.after is None:
            return
        if any(group.open for group in family.after.groups):
            raise NotReady(f"{family.groups[0].title}: waits for the learning rates of the arms tuned before it")
        family.grid, family.widened, family.after = family.after.grid, family.tune.widen, None

    def _on_grid(self, family: TuningFamily) -> dict[Group, list[Job]]:
        """Trials of the groups that are open; one that cannot have any, for want of another's ranks, is given up."""
        trials = {}
        for group in family.groups:
            if group.open:
                try:
                    trials[group] = list(self._trials_of(group, family.grid, family.tune))
                except NotFrozen as reason:
                    group.given_up = str(reason)
        return trials

    def _choices(self, trials: Mapping[Group, list[Job]], tune: Tune) -> tuple[dict[Group, Choice], dict[Group, str]]:
        """What finished trials choose, and why some choose nothing.

        Raises:
            NotReady: some have not finished.
        """
        choices, failed = {}, {}
        for group, jobs in trials.items():
            try:
                choices[group] = self._choose(group, jobs, tune)
            except CannotChoose as reason:
                failed[group] = str(reason)
        return choices, failed

    def _trials_of(self, group: Group, grid: list[float], tune: Tune) -> Iterator[Job]:
        for seed in tune.seeds:
            for rate in grid:
                yield self._job(group, group.cells[0], seed, rate, trial=True)

    def _choose(self, group: Group, trials: list[Job], tune: Tune) -> Choice:
        records = [self._record(job.run_id) for job in trials]
        done = [record for record in records if record is not None and record.status not in STOPPED]
        if len(done) < len(records):
            raise NotReady(f"{group.title}: {len(records) - len(done)} of {len(records)} trials have not finished")
        if not any(record.status == "ok" for record in done):
            raise CannotChoose(f"{group.title}: all {len(done)} trials failed: no learning rate can be chosen")
        from rankbench.analysis.frame import SelectionError  # pandas takes a moment to import

        try:
            return tuning.choose(done, tune.metric, tune.seeds)
        except SelectionError as error:
            raise CannotChoose(f"{group.title}: no learning rate can be chosen ({error})") from error

    def _finals(self, group: Group) -> Iterator[Job]:
        """The runs to be reported."""
        choice = self._choice(group)
        for cell in group.cells:
            try:
                yield self._job(group, cell, cell.config["seed"], choice.chosen if choice else None, choice=choice)
                self._final.add(id(cell))
            except NotFrozen as reason:
                self.sweep.waiting.append(str(reason))

    def _choice(self, group: Group) -> Choice | None:
        tuned = group.takes or group
        if group.tune is None:
            return None
        if tuned.choice is None:
            raise NotReady(f"{group.title}: waits for the learning rate of {tuned.title}")
        return tuned.choice

    def _job(
        self,
        group: Group,
        cell: FrozenCell,
        seed: int,
        rate: float | None,
        trial: bool = False,
        choice: Choice | None = None,
    ) -> Job:
        """Freeze a run, or say what it waits for.

        Args:
            group: the group of the cell.
            cell: the run as it is reported.
            seed: the cell's own; for a trial, one of the tuning's.
            rate: learning rate; None leaves that of the cell.
            trial: whether it is a tuning trial.
            choice: what chose the rate, for its record.

        Raises:
            NotReady: the ranks that it takes are not there yet.
        """
        changed: dict[str, str] = {}
        config = dict(cell.config)  # its sections are shared with the cell, so they are replaced, not changed
        if rate is not None:
            config["train"], changed[RATE] = {**config["train"], "learning_rate": rate}, spell(RATE, rate)
        if trial:
            config["seed"], config["trial"] = seed, True
            changed |= {"seed": spell("seed", seed), "trial": "trial=true"}
        if choice is not None:
            config["tuned"] = asdict(choice)
        if group.source is not None:
            source = self._source_run(group, group.source, seed, trial)
            config["method"] = {**config["method"], "source_run": source, **self._rank_map(group, source)}
            changed["method.source_run"] = spell("method.source_run", source)
        name = run_id(config)
        self._configs[name] = config
        return Job(group.arm, name, trial, tuple({**cell.settings, **changed}.values()), cell.cell)

    def _source_run(self, group: Group, source: Group, seed: int, trial: bool) -> str:
        """The run whose ranks a control takes: of the same seed; for a trial, the source's own at its chosen rate."""
        choice = self._choice(source)
        rate = choice.chosen if choice else None
        if trial:
            return self._job(source, source.cells[0], seed, rate, trial=True).run_id
        of_seed = [cell for cell in source.cells if cell.config["seed"] == seed]
        if not of_seed:
            raise NotReady(f"{group.title}: {source.title} has no run of seed {seed}")
        return self._job(source, of_seed[0], seed, rate, choice=choice).run_id

    def _rank_map(self, group: Group, source: str) -> dict[str, Any]:
        try:
            return control_sources.rank_map(source, self._results_dir)
        except FileNotFoundError:
            raise NotReady(f"{group.title}: waits for the ranks of run {source}") from None
        except ValueError as error:
            raise NotReady(f"{group.title}: {error}") from error

    def _record(self, name: str) -> RunRecord | None:
        return RunFolder(self._results_dir, name).readable_record()
