"""Whether a design can tell anything: the size of its family, its floor, its power and the seeds that it needs.

A design is futile if an effect of EFFECT standard deviations of its paired differences, with no control to be beaten
beside the reference, would be shown in fewer than ENOUGH of such studies. That is the easiest question that there is:
at 2 standard deviations 98 of 100 pairs favour the arm, and what methods differ by is mostly 0.5 to 2. A design that
misses half of even those ends in "open" whatever is true, and its runs are spent for nothing. It is judged by its
numbers alone: no run is looked at. One seed is no design: nothing is judged of it, as it is a try or a part of a sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from rankbench.analysis.metrics import higher_is_better
from rankbench.config.schema import ConfigError
from rankbench.records.record import RunRecord
from rankbench.statistics.family import POWER, paired_gains, pairs_needed, power
from rankbench.sweeps import tuning
from rankbench.sweeps.composition import Layout
from rankbench.sweeps.declaration import PanelDeclaration
from rankbench.sweeps.experiment import Experiment
from rankbench.sweeps.ladder import references_of
from rankbench.sweeps.manifest import Sweep
from rankbench.sweeps.report_settings import UNIFORM
from rankbench.sweeps.tuning import Group

EFFECT, ENOUGH = 2.0, 0.5
LARGEST = 1e3  # effect, in standard deviations, that any two pairs show


@dataclass(frozen=True)
class Design:
    """The numbers of an experiment, or of one of its cells.

    Attributes:
        experiment: its name.
        cell: name of the cell; None without cells.
        reference: arm that the others are compared with.
        comparisons: size of the family.
        pairs: fewest pairs of any arm with the reference.
        unit: what a pair is: "seeds", or "panels" where pooled panels are taken together.
        controls: how many an arm has to beat to work, the reference among them.
        level: probability that all intervals of the family hold together.
        control_pairs: fewest pairs of any arm with any of its controls; None: as many as with the reference.
    """

    experiment: str
    cell: str | None
    reference: str
    comparisons: int
    pairs: int
    unit: str
    controls: int
    level: float
    control_pairs: int | None = None

    def power(self, deviation: float, controls: int = 1) -> float:
        """Probability that an effect of 1 is shown against so many controls; 0 with too few pairs for an interval.

        Args:
            deviation: of the paired differences, in effects; > 0.
            controls: >= 1.
        """
        pairs = self.pairs if controls == 1 or self.control_pairs is None else self.control_pairs
        if pairs <= max(1, controls):
            return 0.0
        return power(1.0, deviation, pairs, self.comparisons, controls, self.level)

    def seeds(self, deviation: float, controls: int = 1, target: float = POWER) -> int | None:
        """Pairs that are needed for this power; None where MOST are too few. Arguments as in `power`."""
        return pairs_needed(1.0, deviation, self.comparisons, controls, target, self.level)

    @property
    def floor(self) -> float:
        """Smallest effect that is shown with probability POWER, in standard deviations of the paired differences."""
        if self.pairs < 2:
            return float("inf")
        return float(optimize.brentq(lambda effect: self.power(1 / effect) - POWER, 1e-3, LARGEST))

    @property
    def _family(self) -> str:
        return "1 comparison" if self.comparisons == 1 else f"{self.comparisons} comparisons"

    @property
    def summary(self) -> str:
        """The numbers and the floor, in a sentence."""
        return (
            f"{self.cell or self.experiment}: {self._family}, {self.pairs} {self.unit}, {self.level * 100:g} % for all "
            f"together: an effect of {self.floor:.2g} standard deviations of its differences is shown with "
            f"{POWER * 100:g} % probability"
        )

    @property
    def futile(self) -> bool:
        """Whether the design can tell nothing worth its runs."""
        return self.power(1 / EFFECT) < ENOUGH

    @property
    def refusal(self) -> str:
        """Why it is futile, and the way out."""
        cell = f", cell {self.cell}" if self.cell else ""
        return (
            f"experiment={self.experiment}{cell}: {self.pairs} {self.unit} are too few for {self._family}: even an "
            f"effect of {EFFECT:g} standard deviations would be shown in {self.power(1 / EFFECT) * 100:.0f} of 100 "
            f"such studies; give {self.seeds(1 / EFFECT, target=ENOUGH)} or more (seed=0,1,2,...; "
            f"{self.seeds(1 / EFFECT)} show it in {POWER * 100:g} of 100), fewer arms (arms=[{self.reference},...]), "
            "or ask for it by name: futile=allow"
        )


def designs_of(layout: Layout) -> list[Design]:
    """The design of each cell of a layout; [] where nothing is judged: no experiment, or one seed alone.

    The errors are shared as a report shares them: equally by the cells, and by all arms and panels of a cell. Panels
    that are pooled are taken together, too, as a sample of such panels, with panels in the place of seeds; of the two
    designs the one that can tell more is returned.
    """
    experiment, groups = layout.experiment, tuning.groups_of(layout)
    if experiment is None or all(len(_seeds(group)) == 1 for group in groups):
        return []
    references = {reference.panel: reference for reference in references_of(groups, experiment)}
    claimed = [
        group
        for group in groups
        if group.panel in references
        and group.arm not in {experiment.report.reference, *experiment.report.without_claim}
    ]
    by_cell = {
        cell: [group for group in claimed if group.cells[0].cell == cell]
        for cell in dict.fromkeys(group.cells[0].cell for group in claimed)
    }
    of_arm = {(group.panel, group.arm): _seeds(group) for group in groups}
    return [_design(experiment, cell, of_cell, references, len(by_cell), of_arm) for cell, of_cell in by_cell.items()]


def _design(
    experiment: Experiment,
    cell: str | None,
    groups: Sequence[Group],
    references: Mapping[tuple[str, ...], Group],
    cells: int,
    of_arm: Mapping[tuple[tuple[str, ...], str | None], set[int]],
) -> Design:
    report = experiment.report
    controls = len({UNIFORM, *report.beats})
    by_panel = Counter(group.panel for group in groups)
    seeds = min(len(_seeds(group) & _seeds(references[group.panel])) for group in groups)
    comparisons, panels = cells * sum(len(group.points) for group in groups), min(len(group.points) for group in groups)
    with_controls = [
        len(_seeds(group).intersection(*(of_arm[group.panel, each] for each in control)))
        for group in groups
        for role, several in report.controls_of(str(group.arm)).items()
        if role in report.beats and (control := [each for each in several if (group.panel, each) in of_arm])
    ]
    least = min([seeds, *with_controls])
    by_seeds = Design(
        experiment.name, cell, report.reference, comparisons, seeds, "seeds", controls, report.level, least
    )
    together = cells * max(by_panel.values())
    pooled = Design(experiment.name, cell, report.reference, together, panels, "panels", controls, report.level)
    return max(by_seeds, pooled, key=lambda design: design.power(1 / EFFECT))


def _seeds(group: Group) -> set[int]:
    return {cell.config["seed"] for cell in group.cells}


def refuse_futile(designs: Sequence[Design], futile: str) -> None:
    """Refuse futile designs.

    Args:
        designs: of all cells.
        futile: "allow" if they were asked for by name.

    Raises:
        ConfigError: some are futile, and were not asked for.
    """
    refused = [design.refusal for design in designs if design.futile]
    if refused and futile != "allow":
        raise ConfigError(refused)


@dataclass(frozen=True)
class Scatter:
    """How far finished runs of one panel scatter; nothing is said of panels that are pooled.

    Attributes:
        cell: name of its cell; None without cells.
        title: of the panel.
        deviation: standard deviation of the paired differences, in smallest effects; the root of the mean variance of
            the arms.
    """

    cell: str | None
    title: str
    deviation: float


def scatter_of(sweep: Sweep, records: Mapping[str, RunRecord]) -> list[Scatter]:
    """What finished reported runs tell of each panel that is declared.

    Args:
        sweep: its declaration says the smallest effects.
        records: run_id -> record.
    """
    if sweep.declaration is None:
        return []
    values: dict[str, dict[str, dict[int, float]]] = {}  # panel -> arm -> seed -> value
    panels = {panel.group: panel for panel in sweep.declaration.panels if panel.panels == 1}
    for job in sweep.jobs:
        record, panel = records.get(job.run_id), sweep.declaration.panel_of(job.overrides, job.cell)
        if job.trial or job.arm is None or panel is None or record is None or record.status != "ok":
            continue
        value = ((record.metrics or {}).get("test") or {}).get(panel.metric.rpartition("/")[2])
        if value is not None:
            values.setdefault(panel.group, {}).setdefault(job.arm, {})[record.seed] = value
    scatters = (_scatter(panel, values.get(group, {}), sweep.declaration.reference) for group, panel in panels.items())
    return [scatter for scatter in scatters if scatter is not None]


def _scatter(panel: PanelDeclaration, values: Mapping[str, Mapping[int, float]], reference: str) -> Scatter | None:
    own, variances = values.get(reference, {}), []
    for arm in panel.arms:
        common = [seed for seed in values.get(arm, {}) if seed in own]
        if len(common) > 1:
            pairs = ([values[arm][seed] for seed in common], [own[seed] for seed in common])
            gains = paired_gains(*pairs, bool(higher_is_better(panel.metric)), panel.log)
            variances.append(float(gains.var(ddof=1)))
    if not variances or not max(variances) > 0:
        return None
    return Scatter(panel.cell, panel.title, float(np.sqrt(np.mean(variances))) / panel.smallest_effect)
