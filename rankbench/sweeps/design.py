"""Whether a design can tell anything: the size of its family, its floor, its power and the seeds that it needs.

A design is futile if an effect of EFFECT standard deviations of its paired differences, with no control to be beaten
beside the reference, would be shown in fewer than ENOUGH of such studies. That is the easiest question that there is:
at 2 standard deviations 98 of 100 pairs favour the arm, and what methods differ by is mostly 0.5 to 2. A design that
misses half of even those ends in "open" whatever is true, and its runs are spent for nothing. It is judged by its
numbers alone: no run is looked at. One seed is no design: nothing is judged of it, as it is a try or a part of a sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from rankbench.sweeps.ladder import references_of
from rankbench.sweeps.manifest import Sweep
from rankbench.sweeps.report_settings import UNIFORM
from rankbench.sweeps.tuning import Group

EFFECT, ENOUGH = 2.0, 0.5
LARGEST = 1e3  # effect, in standard deviations, that any two pairs show


@dataclass(frozen=True)
class Design:
    """The numbers of an experiment.

    Attributes:
        name: of the experiment.
        reference: arm that the others are compared with.
        comparisons: size of the family: arms x panels; pooled panels (tune.pooled) count once.
        pairs: fewest pairs of any comparison: seeds, or pooled panels where these are more.
        controls: how many an arm has to beat to work, the reference among them.
        level: probability that all intervals of the family hold together.
    """

    name: str
    reference: str
    comparisons: int
    pairs: int
    controls: int
    level: float

    def power(self, deviation: float, controls: int = 1) -> float:
        """Probability that an effect of 1 is shown against so many controls; 0 with too few pairs for an interval.

        Args:
            deviation: of the paired differences, in effects; > 0.
            controls: >= 1.
        """
        if self.pairs <= max(1, controls):
            return 0.0
        return power(1.0, deviation, self.pairs, self.comparisons, controls, self.level)

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
    def summary(self) -> str:
        """The numbers and the floor, in a sentence."""
        return (
            f"{self.comparisons} comparisons, {self.pairs} seeds, {self.level * 100:g} % for all together: an effect "
            f"of {self.floor:.2g} standard deviations of its differences is shown with {POWER * 100:g} % probability"
        )

    @property
    def futile(self) -> bool:
        """Whether the design can tell nothing worth its runs."""
        return self.power(1 / EFFECT) < ENOUGH

    @property
    def refusal(self) -> str:
        """Why it is futile, and the way out."""
        return (
            f"experiment={self.name}: {self.pairs} seeds are too few for {self.comparisons} comparisons: even an "
            f"effect of {EFFECT:g} standard deviations would be shown in {self.power(1 / EFFECT) * 100:.0f} of 100 "
            f"such studies; give {self.seeds(1 / EFFECT, target=ENOUGH)} seeds or more (seed=0,1,2,...; "
            f"{self.seeds(1 / EFFECT)} show it in {POWER * 100:g} of 100), fewer arms (arms=[{self.reference},...]), "
            "or ask for it by name: futile=allow"
        )


def design_of(layout: Layout) -> Design | None:
    """The design of a layout; None where nothing is judged: no experiment, nothing to compare, or one seed alone."""
    experiment = layout.experiment
    groups = tuning.groups_of(layout)
    references = {reference.panel: reference for reference in references_of(groups, experiment)}
    pairs = [
        _pairs(group, references[group.panel])
        for group in groups
        if group.panel in references and group.arm != references[group.panel].arm
    ]
    if experiment is None or not pairs or max(pairs) == 1:
        return None
    report = experiment.report
    controls = len({UNIFORM, *report.beats})
    return Design(experiment.name, report.reference, len(pairs), min(pairs), controls, report.level)


def _pairs(group: Group, reference: Group) -> int:
    seeds = [{cell.config["seed"] for cell in each.cells} for each in (group, reference)]
    return max(len(group.points), len(seeds[0] & seeds[1]))


def refuse_futile(design: Design | None, futile: str) -> None:
    """Refuse a futile design.

    Args:
        design: None is never refused.
        futile: "allow" if it was asked for by name.

    Raises:
        ConfigError: it is futile, and was not asked for.
    """
    if design is not None and futile != "allow" and design.futile:
        raise ConfigError([design.refusal])


@dataclass(frozen=True)
class Scatter:
    """How far finished runs of one panel scatter; nothing is said of panels that are pooled.

    Attributes:
        title: of the panel.
        deviation: standard deviation of the paired differences, in smallest effects; the root of the mean variance of
            the arms.
        arms: how many arms it comes from.
    """

    title: str
    deviation: float
    arms: int


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
    return Scatter(panel.title, float(np.sqrt(np.mean(variances))) / panel.smallest_effect, len(variances))
