"""Learning rates on equal terms: every arm tries the same rates on the same seeds, and validation alone chooses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankbench.config import matched_runs
from rankbench.records.record import RunRecord
from rankbench.sweeps import experiment as experiments
from rankbench.sweeps.composition import FrozenCell, Layout
from rankbench.sweeps.experiment import Tune


@dataclass(frozen=True)
class Choice:
    """The learning rate of an arm, and what it was chosen from; it goes into the record of each run it is used in.

    Attributes:
        chosen: the rate with the best mean; where no rate has all its seeds, the one that lacks the fewest.
        metric: metric of the validation split that chose.
        seeds: seeds of the trials.
        curve: [rate, mean of the metric (None: no run), trials missing] of each rate tried, ascending.
        edge: whether the chosen rate is the lowest or the highest tried.
        missing: trials of the chosen rate that failed; above 0 the choice is no choice.
        trials: run_ids of the trials.
        pooled: axes over which the rate is one, and the mean goes (`learning_rates.pooled_curves`).
    """

    chosen: float
    metric: str
    seeds: list[int]
    curve: list[list[float | None]]
    edge: bool
    missing: int
    trials: list[str]
    pooled: list[str] = field(default_factory=list)


def choose(
    points: Sequence[Sequence[RunRecord]], metric: str, seeds: Sequence[int], pooled: Sequence[str] = ()
) -> Choice:
    """The best rate of one arm at one point of the axes, or over several.

    Args:
        points: for each point, the finished runs at every rate and seed, whatever their status.
        metric: metric of the validation split ("validation/loss").
        seeds: seeds of the trials.
        pooled: axes in which the points differ.

    Raises:
        SelectionError: the metric is not one of validation, its direction is not known, or no trial has it.
    """
    from rankbench.analysis.frame import frame  # pandas takes a moment to import
    from rankbench.analysis.learning_rates import best_of, pooled_curves

    frames = [frame(trials, names=["tuned"] * len(trials)) for trials in points]
    curves = pooled_curves(frames, metric, seeds)
    (best,), curve = best_of(curves, metric).to_dict("records"), curves.to_dict("records")
    return Choice(
        float(best["learning_rate"]),
        metric,
        [int(seed) for seed in seeds],
        [[float(point["learning_rate"]), _mean(point), int(point["missing"])] for point in curve],
        bool(best["edge"]),
        int(best["missing"]),
        [record.run_id for trials in points for record in trials],
        list(pooled),
    )


def _mean(point: dict[Any, Any]) -> float | None:
    return float(point["mean"]) if point["n"] else None


def widened(grid: Sequence[float], choices: Sequence[Choice]) -> list[float] | None:
    """The grid with one more rate at each end where a choice lies; None where none lies at an end.

    The new rate keeps the ratio of its two neighbours, to three digits. A grid of one rate has no ends.

    Args:
        grid: rates, ascending.
        choices: choices made on this grid.
    """
    if len(grid) < 2:
        return None
    at_edge = {choice.chosen for choice in choices if choice.edge and not choice.missing}
    below = [_rounded(grid[0] ** 2 / grid[1])] if grid[0] in at_edge else []
    above = [_rounded(grid[-1] ** 2 / grid[-2])] if grid[-1] in at_edge else []
    return [*below, *grid, *above] if below or above else None


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


@dataclass(eq=False)
class Group:
    """Runs that share a learning rate: one arm at one point of the axes, all seeds; all points of axes that are pooled.

    Attributes:
        arm: label of the arm; None in a sweep without an experiment.
        cells: the runs.
        tune: how the rate is chosen; None where it is given.
        takes: group whose chosen rate is taken; None where this one has trials.
        source: group whose ranks, peak or passes are taken; None where none are needed.
        choice: choice of the learning rate; None until it is made.
        given_up: why no choice can be made; None while one may be.
        factor: of the budget; another than 1 for a rung of a ladder (rankbench.sweeps.ladder).
    """

    arm: str | None
    cells: list[FrozenCell]
    tune: Tune | None = None
    takes: Group | None = None
    source: Group | None = None
    choice: Choice | None = None
    given_up: str | None = None
    factor: float = 1.0

    @property
    def open(self) -> bool:
        """Whether the rate is still looked for."""
        return self.choice is None and self.given_up is None

    @property
    def point(self) -> tuple[str, ...]:
        """Where the runs stand on the axes, seeds and pooled axes left out."""
        return point_of(self.cells[0], self.tune.pooled if self.tune else ())

    @property
    def panel(self) -> tuple[str, ...]:
        """The same without what is typed of methods: that of all arms that are compared."""
        return tuple(override for override in self.point if not override.startswith("method"))

    @property
    def title(self) -> str:
        """Arm and point of the axes, for sentences."""
        rung = [f"{self.factor:g} x the budget"] if self.factor != 1 else []
        return ", ".join([*([self.arm] if self.arm else []), *self.point, *rung]) or "the run"

    @property
    def points(self) -> list[list[FrozenCell]]:
        """The runs at each point of the axes, which differ in their seeds; several where axes are pooled."""
        at: dict[tuple[str, ...], list[FrozenCell]] = {}
        for cell in self.cells:
            at.setdefault(point_of(cell), []).append(cell)
        return list(at.values())


@dataclass
class TuningFamily:
    """Groups that are tuned together: the same rates for all, so that all have the same number of trials.

    Attributes:
        groups: groups with trials.
        tune: how their rates are chosen.
        grid: learning rates tried so far, ascending.
        widened: how often the grid grew.
        after: family at the same point whose last grid this one begins with; None once it has begun.
    """

    groups: list[Group]
    tune: Tune
    grid: list[float]
    widened: int = 0
    after: TuningFamily | None = None


def groups_of(layout: Layout) -> list[Group]:
    """The runs of a sweep, grouped by what shares a learning rate, each group linked to those it takes from."""
    groups: dict[tuple[Any, ...], Group] = {}
    tunes = layout.tunes
    for cell in layout.cells:
        tune = tunes[cell.cell]
        place = point_of(cell, tune.pooled if tune else ())
        groups.setdefault((cell.arm, *place), Group(cell.arm, [], tune)).cells.append(cell)
    rates = experiments.rates_of(layout.experiment) if layout.experiment else {}
    for (arm, *point), group in groups.items():
        source = next(iter(matched_runs.awaited(group.cells[0].config).values()), None)
        group.source = groups[(source, *point)] if source is not None else None
        group.takes = groups.get((rates[arm], *point)) if arm in rates else None  # where that arm is run, too
    return list(groups.values())


def families_of(groups: list[Group]) -> list[TuningFamily]:
    """Groups with trials, by point of the axes; those that need another's ranks are tuned after the others.

    They begin with the rates that the others ended with: a control has no fewer trials than what it controls.
    """
    together: defaultdict[tuple[Any, ...], list[Group]] = defaultdict(list)
    for group in groups:
        if group.tune is not None and group.takes is None:
            together[_depth(group), *group.panel].append(group)
    last: dict[tuple[Any, ...], TuningFamily] = {}
    families = []
    for (_, *point), members in sorted(together.items(), key=lambda item: item[0][0]):
        tune = members[0].tune
        assert tune is not None
        families.append(TuningFamily(members, tune, sorted(set(tune.learning_rate)), after=last.get(tuple(point))))
        last[tuple(point)] = families[-1]
    return families


def _depth(group: Group) -> int:
    """How many arms have to be run before this one, each for the ranks of the next."""
    chain = [group]
    while chain[-1].source is not None and chain[-1].source not in chain:
        chain.append(chain[-1].source)
    return len(chain) - 1


def point_of(cell: FrozenCell, pooled: Collection[str] = ()) -> tuple[str, ...]:
    """Where a cell stands on the axes, seeds and those of `pooled` left out."""
    return tuple(override for key, override in cell.point.items() if key != "seed" and key not in pooled)
