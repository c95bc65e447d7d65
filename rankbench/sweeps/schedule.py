"""Scheduling of a sweep: which runs have everything they need.

Tuning trials come first; the runs whose learning rate they choose follow; a control that takes another arm's ranks
waits for that arm's run. All follows from the layout and from records, so a sweep that was killed goes on the same way.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rankbench.config import matched_runs
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import STOPPED, RunRecord, run_id
from rankbench.records.run_folder import RunFolder
from rankbench.sweeps import ladder, manifest, tuning
from rankbench.sweeps.composition import FrozenCell, Layout
from rankbench.sweeps.experiment import Tune
from rankbench.sweeps.grid import spell
from rankbench.sweeps.ladder import Declared, PanelLadder
from rankbench.sweeps.manifest import Job, Sweep
from rankbench.sweeps.tuning import Choice, Group, TuningFamily

RATE = "train.learning_rate"

Part = TypeVar("Part", Group, TuningFamily, PanelLadder)


class NotFrozen(Exception):
    """A run cannot be frozen; the message says why."""


class NotReady(NotFrozen):
    """What the run takes from other runs is not there, mostly because they have not finished."""


class CannotChoose(NotFrozen):
    """The tuning trials have finished, and choose no learning rate; waiting does not help."""


@dataclass(eq=False)
class Stage:
    """The runs of one cell of an experiment (without cells, all): tuned, declared and reported before the next one's.

    Attributes:
        groups: runs that share a learning rate.
        families: their tuning.
        ladders: of their panels.
        declared: what the ladders show; None until all are settled.
    """

    groups: list[Group]
    families: list[TuningFamily]
    ladders: list[PanelLadder]
    declared: Declared | None = None

    @property
    def started(self) -> list[Group]:
        """Groups of panels that are not kept back."""
        declared = self.declared
        return [group for group in self.groups if declared is None or group.panel not in declared.held]

    @property
    def given_up(self) -> list[str]:
        """Why some groups and rungs have no learning rate."""
        tuned = [*self.groups, *(rung for each in self.ladders for rung in each.rungs.values())]
        return [group.given_up for group in tuned if group.given_up is not None]


class SweepSchedule:
    """Freezes the runs of a sweep, batch by batch and cell by cell.

    Args:
        layout: what the sweep is made of.
        sweep: its manifest; each batch is added to its jobs.
        results_dir: folder of every run.
        retry: whether failed runs are done again.
    """

    def __init__(self, layout: Layout, sweep: Sweep, results_dir: Path, retry: bool = False) -> None:
        self.sweep, self._results_dir, self._retry = sweep, results_dir, retry
        self._experiment = layout.experiment
        of_cell: dict[str | None, list[Group]] = {}
        for group in tuning.groups_of(layout):
            of_cell.setdefault(group.cells[0].cell, []).append(group)
        self._stages = [
            Stage(groups, tuning.families_of(groups), ladder.ladders_of(groups, layout.experiment))
            for groups in of_cell.values()
        ]
        sweep.changes = []
        self._configs: dict[str, dict[str, Any]] = {}
        self._final: set[int] = set()  # ids of the cells whose configuration is final

    def advance(self) -> list[Job]:
        """The jobs that can be done now and were not handed out before; [] where nothing more can be done."""
        self.sweep.waiting, self.sweep.kept_back = [], []
        handed_out = {job.run_id for job in self.sweep.jobs}
        for stage in self._stages:
            first = {job.run_id: job for job in reversed(self._jobs(stage))}  # one run may stand for several arms
            batch = [job for job in first.values() if job.run_id not in handed_out][::-1]
            if batch:
                self.sweep.jobs += batch
                return batch
        return []

    def _jobs(self, stage: Stage) -> list[Job]:
        """All jobs of a stage that can be frozen now; the sweep says what the others wait for."""
        waiting, self.sweep.waiting = self.sweep.waiting, []
        jobs = [job for family in stage.families for job in self._jobs_or_wait(self._trials, family)]
        jobs += [job for each in stage.ladders for job in self._jobs_or_wait(self._rungs, each)]
        jobs += self._reported(stage)
        self.sweep.waiting = [*waiting, *stage.given_up, *self.sweep.waiting]
        return jobs

    def left(self) -> list[FrozenCell]:
        """The cells whose runs could not be frozen yet; their configurations lack what they wait for.

        Those of panels that are kept back wait for nothing.
        """
        groups = [group for stage in self._stages for group in stage.started]
        return [cell for group in groups for cell in group.cells if id(cell) not in self._final]

    def trials_of_ladders(self) -> int:
        """Fewest trials of the ladders whose rates are not known yet."""
        ladders = [each for stage in self._stages for each in stage.ladders]
        return sum(each.least_trials for each in ladders if each.family is None and not each.settled)

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

    def _rungs(self, each: PanelLadder) -> list[Job]:
        """Trials of a ladder, once the reference has its learning rate."""
        if each.settled:
            return []
        choice = self._choice(each.base)
        assert choice is not None
        return self._trials(each.tuned(choice))

    def _reported(self, stage: Stage) -> list[Job]:
        """The runs of a stage to be reported, once all its ladders are settled and what they show is declared."""
        if waiting := [each.title for each in stage.ladders if not each.settled]:
            self.sweep.waiting.append(f"the reported runs wait for the {waiting[0]}")
            return []
        first = stage.declared is None
        if stage.declared is None:
            stage.declared = ladder.declare(self._experiment, stage.groups, stage.ladders, self._record)
        self.sweep.kept_back += stage.declared.kept_back.values()
        self.sweep.waiting += stage.declared.broken.values()
        of_group = [(group, self._jobs_or_wait(self._finals, group)) for group in stage.started]
        if first and stage.declared.declaration is not None:
            done: Counter[tuple[str, ...]] = Counter()
            for group, jobs in of_group:
                done[group.panel] += sum(self._record(job.run_id) is not None for job in jobs)
            references = ladder.references_of(stage.groups, self._experiment)
            places = [reference.panel for reference in references if reference.panel not in stage.declared.broken]
            declared = zip(places, stage.declared.declaration.panels, strict=True)
            panels = [replace(panel, done=done[place]) for place, panel in declared]
            manifest.stamp(self.sweep, replace(stage.declared.declaration, panels=panels), self._results_dir)
        return [job for _, jobs in of_group for job in jobs]

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
        for cells, seed, rate in itertools.product(group.points, tune.seeds, grid):
            yield self._job(group, cells[0], seed, rate, trial=True)

    def _choose(self, group: Group, trials: list[Job], tune: Tune) -> Choice:
        records = [self._record(job.run_id) for job in trials]
        done = [record for record in records if record is not None and record.status not in STOPPED]
        if len(done) < len(records):
            raise NotReady(f"{group.title}: {len(records) - len(done)} of {len(records)} trials have not finished")
        if not any(record.status == "ok" for record in done):
            raise CannotChoose(f"{group.title}: all {len(done)} trials failed: no learning rate can be chosen")
        from rankbench.analysis.frame import SelectionError  # pandas takes a moment to import

        size = len(done) // len(group.points)
        try:
            points = [done[start : start + size] for start in range(0, len(done), size)]
            return tuning.choose(points, tune.metric, tune.seeds, tune.pooled)
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
            source = self._source_run(group, group.source, cell, seed, trial)
            changed |= {key: spell(key, source) for key in matched_runs.awaited(config)}
            config = self._with_run(group, config, source)
        name = run_id(config)
        self._configs[name] = config
        rung = group.factor if group.factor != 1 else None
        return Job(group.arm, name, trial, tuple({**cell.settings, **changed}.values()), cell.cell, rung)

    def _source_run(self, group: Group, source: Group, cell: FrozenCell, seed: int, trial: bool) -> str:
        """The run whose ranks a control takes: of its point and seed; for a trial, the source's at its chosen rate."""
        choice = self._choice(source)
        rate = choice.chosen if choice else None
        at_point = [other for other in source.cells if tuning.point_of(other) == tuning.point_of(cell)]
        if trial and at_point:
            return self._job(source, at_point[0], seed, rate, trial=True).run_id
        of_seed = [other for other in at_point if other.config["seed"] == seed]
        if not of_seed:
            raise NotReady(f"{group.title}: {source.title} has no run of seed {seed}")
        return self._job(source, of_seed[0], seed, rate, choice=choice).run_id

    def _with_run(self, group: Group, config: dict[str, Any], source: str) -> dict[str, Any]:
        try:
            return matched_runs.with_run(config, source, self._results_dir)
        except FileNotFoundError:
            raise NotReady(f"{group.title}: waits for the ranks of run {source}") from None
        except ValueError as error:
            raise NotReady(f"{group.title}: {error}") from error

    def _record(self, name: str) -> RunRecord | None:
        return RunFolder(self._results_dir, name).readable_record()
