"""The ladder of a panel: its reference at FACTORS of the budget, on the tuning seeds, before the reported runs.

It says what is worth finding (what 25 % more budget buys) and whether anything can be found (headroom). Every rung
chooses a learning rate of its own on validation, from the one chosen at the budget itself and its two neighbours on: at
a fixed scale the best rate falls with the rank, and a rung at a wrong rate would make a wrong ladder. The test split is
not read. The rungs of the budget itself are the tuning trials of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from rankbench.analysis.metrics import VALIDATION, higher_is_better
from rankbench.records.record import RunRecord, group_id
from rankbench.statistics.budget_ladder import (
    FACTORS,
    HEADROOM,
    TOP,
    BudgetLadder,
    budget_ladder,
    headroom,
    smallest_effect,
)
from rankbench.sweeps.composition import FrozenCell
from rankbench.sweeps.declaration import PanelDeclaration, SweepDeclaration, code_of_analysis
from rankbench.sweeps.experiment import Experiment
from rankbench.sweeps.grid import CELL, spell
from rankbench.sweeps.report_settings import Report
from rankbench.sweeps.tuning import Choice, Group, TuningFamily

FACTOR = "budget.factor"
WIDEN = 2  # how often the rates of a ladder may grow by one, at least: they begin with three


class NoLadder(Exception):
    """A ladder that shows nothing; the message says why."""


@dataclass(eq=False)
class PanelLadder:
    """The ladder of the runs that share the learning rate of the reference: of a panel, or of panels that are pooled.

    Attributes:
        base: runs of the reference at the budget itself.
        rungs: factor -> the same at that factor of the budget: groups that have trials and no reported runs.
        family: their tuning; None until the rate of the base is chosen.
    """

    base: Group
    rungs: dict[float, Group]
    family: TuningFamily | None = None

    @property
    def title(self) -> str:
        """Arm and point of the axes."""
        return f"ladder of {self.base.title}"

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be run."""
        return self.base.given_up is not None or not any(rung.open for rung in self.rungs.values())

    @property
    def least_trials(self) -> int:
        """Trials of the rungs where no grid grows: at the chosen rate and its neighbours."""
        assert self.base.tune is not None
        rates = min(3, len(set(self.base.tune.learning_rate)))
        return len(self.rungs) * len(self.base.points) * len(self.base.tune.seeds) * rates

    def tuned(self, choice: Choice) -> TuningFamily:
        """The tuning of the rungs, which begins with the chosen rate of the base and its neighbours."""
        if self.family is None:
            assert self.base.tune is not None
            rates = sorted(point[0] for point in choice.curve if point[0] is not None)
            place = rates.index(choice.chosen)
            tune = self.base.tune.replace(widen=max(WIDEN, self.base.tune.widen))
            self.family = TuningFamily(list(self.rungs.values()), tune, rates[max(0, place - 1) : place + 2])
        return self.family


@dataclass(frozen=True)
class Measured:
    """What a ladder shows.

    Attributes:
        ladder: gains by tuning seed; of panels that are pooled, by panel, each the mean over its tuning seeds.
        rates: learning rate of each of FACTORS.
        edge: whether one of these lies at an edge of those tried, so that the ladder may be too low there.
        trials: run_ids behind the gains.
    """

    ladder: BudgetLadder
    rates: list[float]
    edge: bool
    trials: list[str]


def references_of(groups: Sequence[Group], experiment: Experiment | None) -> list[Group]:
    """The runs of the reference, a group for each panel; [] without an experiment."""
    if experiment is None:
        return []
    own = [group for group in groups if group.arm == experiment.report.reference]
    return list({group.panel: group for group in reversed(own)}.values())[::-1]


def ladders_of(groups: Sequence[Group], experiment: Experiment | None) -> list[PanelLadder]:
    """The ladder of each panel; [] where the experiment has none."""
    if experiment is None or experiment.ladder is None:
        return []
    return [PanelLadder(base, _rungs(base)) for base in references_of(groups, experiment)]


def _rungs(base: Group) -> dict[float, Group]:
    factors = [factor for factor in FACTORS if factor != 1]
    return {f: Group(base.arm, [_at(cell, f) for cell in base.cells], base.tune, factor=f) for f in factors}


def measure(ladder: PanelLadder, metric: str, log: bool, read: Callable[[str], RunRecord | None]) -> Measured:
    """The gains of a ladder that is settled.

    Args:
        ladder: with a rate chosen for each rung.
        metric: column of the frame of runs ("test/kl"); its counterpart on the validation split is read.
        log: whether gains are differences of logarithms.
        read: run_id -> record.

    Raises:
        NoLadder: trials failed, or have no such metric.
    """
    name = metric.rpartition("/")[2]
    by_factor = [ladder.rungs.get(factor, ladder.base) for factor in FACTORS]
    records = [_at_chosen_rate(group, read) for group in by_factor]
    values = [[((record.metrics or {}).get("validation") or {}).get(name) for record in rung] for rung in records]
    if any(value is None for rung in values for value in rung):
        raise NoLadder(f"some trials have no {VALIDATION}{name}")
    try:
        gains = budget_ladder(np.array(values, dtype=float).T, bool(higher_is_better(metric)), log)
    except ValueError as error:
        raise NoLadder(str(error)) from error
    panels = len(ladder.base.points)
    if panels > 1:  # seeds of one panel are no sample of panels
        gains = BudgetLadder(gains.gains.reshape(panels, -1, len(FACTORS)).mean(axis=1))
    choices = [group.choice for group in by_factor if group.choice]
    edge = any(choice.edge for choice in choices)
    trials = [record.run_id for rung in records for record in rung]
    return Measured(gains, [choice.chosen for choice in choices], edge, trials)


def _at_chosen_rate(group: Group, read: Callable[[str], RunRecord | None]) -> list[RunRecord]:
    """Trials of a group at the rate that it chose, panel by panel, in the order of the seeds."""
    if group.choice is None or group.choice.missing:
        raise NoLadder(f"{group.title}: {group.given_up or 'trials of the best learning rate failed'}")
    records = [record for name in group.choice.trials if (record := read(name)) is not None]
    return [record for record in records if record.config["train"]["learning_rate"] == group.choice.chosen]


@dataclass(frozen=True)
class Declared:
    """What is declared once the ladders of a sweep are settled, and which panels' reported runs are not started.

    Attributes:
        declaration: None without an experiment.
        kept_back: panel -> sentence, of panels without headroom.
        broken: panel -> sentence, of panels whose ladder shows nothing.
    """

    declaration: SweepDeclaration | None = None
    kept_back: dict[tuple[str, ...], str] = field(default_factory=dict)
    broken: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def held(self) -> set[tuple[str, ...]]:
        """Panels whose reported runs are not started."""
        return {*self.kept_back, *self.broken}


def declare(
    experiment: Experiment | None,
    groups: Sequence[Group],
    ladders: Sequence[PanelLadder],
    read: Callable[[str], RunRecord | None],
) -> Declared:
    """What a sweep declares; of a panel whose ladder shows nothing and keeps its runs back, nothing yet.

    Args:
        experiment: at its scale, with the arms chosen; None: nothing.
        groups: all runs of the sweep.
        ladders: of the groups of its reference, all settled; [] where none are run.
        read: run_id -> record.
    """
    if experiment is None:
        return Declared()
    report, of_base = experiment.report, {id(each.base): each for each in ladders}
    gate = experiment.ladder is not None and experiment.ladder.gate
    panels, kept_back, broken = [], {}, {}
    for group in references_of(groups, experiment):
        others = [other.arm for other in groups if other.panel == group.panel and other.arm != group.arm]
        panel = _without_ladder(group, report, [arm for arm in dict.fromkeys(others) if arm is not None])
        if each := of_base.get(id(group)):
            try:
                panel = _with_ladder(panel, measure(each, panel.metric, panel.log, read), report.level)
            except NoLadder as reason:
                broken[group.panel] = f"{each.title} shows nothing ({reason}); its reported runs are not started"
                if gate:
                    continue  # declared once its ladder shows something, as when failed trials are done again
        if panel.headroom is False:
            kept_back[group.panel] = _no_headroom(panel)
        panels.append(panel)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    panels = [replace(panel, date=date) for panel in panels]
    declaration = SweepDeclaration(code_of_analysis(), report.reference, report.beats, report.level, panels)
    return Declared(declaration, kept_back, broken) if gate else Declared(declaration)


def _without_ladder(group: Group, report: Report, others: list[str]) -> PanelDeclaration:
    first = group.cells[0]
    task = first.config["task"]["name"]
    seeds = sorted({cell.config["seed"] for cell in group.cells})
    judged = (report.metric_of(task), report.log_of(task), report.margin_of(task))
    point = [override for key, override in first.point.items() if override in group.panel and key != CELL]
    return PanelDeclaration(first.cell, point, len(group.points), group_id(first.config), others, seeds, *judged)


def _no_headroom(panel: PanelDeclaration) -> str:
    gain = float(np.mean([row[TOP] for row in panel.gains or []]))
    return (
        f"{panel.title}: no headroom: {FACTORS[TOP]:g} x the budget gains {gain:.3g} on validation, and {HEADROOM:g} "
        f"times the smallest effect of {panel.smallest_effect:.3g} are needed, shown to lie above 0"
        f"{'; a learning rate of the ladder lies at an edge of those tried' * bool(panel.edge)}; its reported runs are "
        "not started (ladder.gate=false starts them)"
    )


def _with_ladder(panel: PanelDeclaration, measured: Measured, level: float) -> PanelDeclaration:
    smallest = smallest_effect(measured.ladder, least=panel.smallest_effect)
    return replace(
        panel,
        smallest_effect=smallest,
        headroom=headroom(measured.ladder, smallest, level),
        gains=measured.ladder.gains.tolist(),
        rates=measured.rates,
        edge=measured.edge,
        trials=measured.trials,
    )


def _at(cell: FrozenCell, factor: float) -> FrozenCell:
    """A run with a factor of its budget."""
    config = {**cell.config, "budget": {**cell.config["budget"], "factor": factor}}
    return replace(cell, settings={**cell.settings, FACTOR: spell(FACTOR, factor)}, config=config)
