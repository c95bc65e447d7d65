"""What a sweep declares before its first reported run, and what has changed since.

It stands in sweep.json. A report judges by it, and says what is no longer as it was declared.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import rankbench

ANALYSIS = ("analysis", "statistics")  # rooms that a decision goes through
APART = "analysis/labels.py"  # names, colours and order of arms decide nothing


@dataclass(frozen=True)
class PanelDeclaration:
    """What is declared of one panel, or of panels that are pooled (tune.pooled) and taken together.

    Attributes:
        cell: name of the cell of the experiment; None in one without cells.
        point: where it stands on the axes ("task=boolq"); overrides that all its jobs have.
        panels: how many there are: 1, or several that are pooled.
        group: `record.group_id` of its reference: tells panels that only settings of all runs part.
        arms: arms that are compared with the reference here.
        seeds: of the reported runs of the reference.
        metric: column of the frame of runs that is judged.
        log: whether gains are differences of logarithms.
        smallest_effect: smallest gain of interest, > 0, in the unit of the gains: what 25 % more budget buys, and no
            less than the report's margin.
        headroom: whether more budget helps enough for its allocation to matter; None without a ladder.
        gains: (tuning seeds, or pooled panels, budget_ladder.FACTORS), of the ladder; None without one.
        rates: learning rates of the ladder, of FACTORS; None without one.
        edge: whether one of these lies at an edge of those tried; None without a ladder.
        trials: run_ids of the ladder; None without one.
        date: of the declaration; UTC, to the second.
        done: reported runs that had left a record by then; 0 where the declaration came first.
    """

    cell: str | None
    point: list[str]
    panels: int
    group: str
    arms: list[str]
    seeds: list[int]
    metric: str
    log: bool
    smallest_effect: float
    headroom: bool | None = None
    gains: list[list[float]] | None = None
    rates: list[float] | None = None
    edge: bool | None = None
    trials: list[str] | None = None
    date: str = ""
    done: int = 0

    @property
    def title(self) -> str:
        """Cell and point in words."""
        return ", ".join([*filter(None, [self.cell]), *self.point]) or "the panel"


@dataclass(frozen=True)
class SweepDeclaration:
    """What is declared of a sweep.

    Attributes:
        code: identity of the code of the analysis.
        reference: arm that the others are compared with.
        beats: controls that an arm has to beat.
        level: probability that all intervals hold together.
        panels: one for each point of the axes.
    """

    code: str
    reference: str
    beats: list[str]
    level: float
    panels: list[PanelDeclaration]

    @property
    def date(self) -> str:
        """When its first panel was declared; UTC, to the second; "" where no panel has a run of the reference."""
        return min((panel.date for panel in self.panels), default="")

    def panel_of(self, overrides: Sequence[str], cell: str | None = None) -> PanelDeclaration | None:
        """The panel of a job with these overrides, of this cell; None where it is in none."""
        of_cell = (panel for panel in self.panels if panel.cell == cell)
        return next((panel for panel in of_cell if set(panel.point) <= set(overrides)), None)

    def new_panels_of(self, other: SweepDeclaration) -> SweepDeclaration:
        """The other one's panels that this one does not declare."""
        own = {(panel.cell, panel.group) for panel in self.panels}
        return replace(other, panels=[panel for panel in other.panels if (panel.cell, panel.group) not in own])

    def joined(self, other: SweepDeclaration) -> SweepDeclaration:
        """This, with the other one's panels behind its own."""
        return replace(self, panels=[*self.panels, *other.panels])

    def plain(self) -> dict[str, Any]:
        """As in sweep.json."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> SweepDeclaration:
        """Inverse of `plain`.

        Raises:
            TypeError, KeyError: it is none.
        """
        return cls(**{**content, "panels": [PanelDeclaration(**panel) for panel in content["panels"]]})


@functools.cache
def code_of_analysis() -> str:
    """Identity of the code that decides: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for room in ANALYSIS:
        for file in sorted((Path(rankbench.__file__).parent / room).glob("*.py")):
            if (name := f"{room}/{file.name}") != APART:
                digest.update(f"{name}\0{file.read_text()}\0".encode())
    return digest.hexdigest()[:12]


def overlap(first: SweepDeclaration, second: SweepDeclaration) -> bool:
    """Whether two sweeps have a panel in common, with seeds in common."""
    return any(_same(one, other) for one in first.panels for other in second.panels)


def _same(first: PanelDeclaration, second: PanelDeclaration) -> bool:
    """Two cells may have the same runs of the reference; an experiment may have got its cells later."""
    of_one_cell = first.cell == second.cell or None in (first.cell, second.cell)
    return of_one_cell and first.group == second.group and bool({*first.seeds} & {*second.seeds})


def after(earlier: Sequence[SweepDeclaration], now: SweepDeclaration) -> SweepDeclaration:
    """What is declared of a sweep after others: of panels that they share seeds with, what they declared first.

    Where a panel stands on the axes is told by the sweep itself: the others may have had fewer of them.

    Args:
        earlier: of sweeps whose runs have been seen, in the order of their starts.
        now: what the sweep would declare by itself.
    """
    sharing = [each for each in earlier if overlap(each, now)]
    before = [panel for each in sharing for panel in each.panels]
    first = [next((panel for panel in before if _same(panel, own)), own) for own in now.panels]
    panels = [replace(panel, cell=own.cell, point=own.point) for panel, own in zip(first, now.panels, strict=True)]
    return replace(sharing[0] if sharing else now, panels=panels)


def changes(declared: SweepDeclaration, now: SweepDeclaration) -> list[str]:
    """Sentences on what is no longer as it was declared.

    Args:
        declared: what stands in sweep.json.
        now: what the same sweep, or a cell of it, would declare today.
    """
    late = [panel for panel in declared.panels if panel.done]
    sentences = [f"{panel.title}: declared when {panel.done} reported runs had been done" for panel in late]
    for name in ("level", "reference", "beats"):
        sentences += _changed(name, getattr(declared, name), getattr(now, name))
    of_group = {panel.group: panel for panel in now.panels}
    cells = {panel.cell for panel in now.panels}
    for panel in declared.panels:
        if panel.cell not in cells:
            continue
        if panel.group in of_group:
            sentences += _changes_of_panel(panel, of_group[panel.group])
        else:
            sentences.append(f"{panel.title}: is not run, but was declared")
    known = {panel.group for panel in declared.panels}
    sentences += [f"{panel.title}: was not declared" for panel in now.panels if panel.group not in known]
    return [*sentences, *code_changes(declared)]


def code_changes(declared: SweepDeclaration) -> list[str]:
    """A sentence if the code of the analysis is another than when this was declared."""
    return _changed("code of the analysis", declared.code, code_of_analysis())


def _changes_of_panel(declared: PanelDeclaration, now: PanelDeclaration) -> Iterator[str]:
    names = {
        "arms": "arms",
        "seeds": "seeds",
        "metric": "metric",
        "log": "logarithmic scale",
        "smallest_effect": "smallest effect",
    }
    for name, title in {**names, "headroom": "headroom"}.items():
        yield from _changed(f"{declared.title}: {title}", getattr(declared, name), getattr(now, name))


def _changed(title: str, declared: Any, now: Any) -> list[str]:
    return [] if declared == now else [f"{title}: {_shown(now)}, declared was {_shown(declared)}"]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} ({', '.join(map(str, value))})"
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else {True: "yes", False: "no", None: "not measured"}.get(value, str(value))
    )
