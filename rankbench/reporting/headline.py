"""What a study answers in one sentence, what stands behind it, and what would come next: the first screen of its page.

All words are those of `rankbench.statistics.decision`, whose outcomes are only counted here.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rankbench.analysis.comparison import KIND_OF, SHOWN, Comparison, Kind
from rankbench.analysis.labels import arm_title, display, listed, metric_title, panel_title, with_titles
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.amounts import amount_of, rough
from rankbench.reporting.decisions import Sample, decide
from rankbench.reporting.report_data import ReportData, span
from rankbench.statistics.decision import Decision
from rankbench.statistics.family import MOST, POWER
from rankbench.studies.panels import methods_of

NAMED = 3  # arms that a sentence names
KINDS: tuple[Kind, ...] = tuple(KIND_OF.values())


@dataclass(frozen=True)
class Claim:
    """What is said of an arm in a place.

    Attributes:
        arm: label.
        place: short display name of a panel, or of panels that are taken together.
        decision: by the reference, and by the arm's controls where it has any.
        comparisons: of the panels that it rests on.
        family: number of comparisons whose intervals hold together with its own.
        sample: the panels as one; None for a single panel.
    """

    arm: str
    place: str
    decision: Decision
    comparisons: Sequence[Comparison]
    family: int
    sample: Sample | None = None

    @property
    def unit(self) -> str:
        """What its pairs are."""
        return "seeds" if self.sample is None else "panels"

    @property
    def kind(self) -> Kind:
        """The word for the outcome."""
        return KIND_OF[self.decision.outcome]

    @property
    def pairs(self) -> int:
        """Number of its pairs with the reference."""
        first = self.comparisons[0]
        return len(first.pairs(first.metrics[0], self.arm) if self.sample is None else self.sample.means(self.arm))

    @property
    def detectable(self) -> float | None:
        """Smallest gain over the reference that its pairs would have shown, as it is printed; None with too few."""
        first, sample = self.comparisons[0], self.sample
        metric = first.metrics[0]
        size = sample.detectable(self.arm) if sample else first.detectable(metric, self.arm)
        terms = sample.terms if sample else first.terms
        return None if size is None else amount_of(terms, size, bool(higher_is_better(metric)))

    @property
    def measure(self) -> str:
        """What stands behind the number of a gain: " % in KL"."""
        if self.sample is not None and not self.sample.together.one_unit:
            return " smallest effects of interest"
        first = self.comparisons[0]
        return f"{' %' * first.terms.log} in {metric_title(first.metrics[0], short=True)}"


@dataclass(frozen=True)
class Headline:
    """The first screen of a page.

    Attributes:
        sentence: answers the question of the study.
        certainty: sentences on what the answer rests on.
        next_steps: sentences on what would come next, each with the command for it, or "".
        badges: kind -> arm -> in how many of how many places, "" for a single one.
        beside: display names of what the arms of the badges are compared with.
        is_on_settings: whether the sentence is on settings that are varied, not on methods.
    """

    sentence: str
    certainty: list[str]
    next_steps: list[tuple[str, str]]
    badges: dict[Kind, dict[str, str]]
    beside: str
    is_on_settings: bool


def make_headline(report_data: ReportData) -> Headline:
    """Return what the first screen says."""
    every = list(claims(report_data))
    controlled = [claim for claim in every if claim.arm in report_data.report.controls]
    settings = "" if controlled else _settings(report_data)
    if settings:
        every = list(_claims_on_settings(report_data))
    return Headline(
        settings or _sentence(report_data, controlled or every),
        list(_certainty(report_data, every)),
        list(_next_steps(report_data, controlled or every)),
        _badges(every),
        _references(every),
        bool(settings),
    )


def claims(report_data: ReportData) -> Iterator[Claim]:
    """Every claim: of panels that are taken together as one, else panel by panel."""
    for sample in report_data.samples:
        place, together = f"{sample.title}: {panel_title(sample.shared)}", sample.together
        for arm, pooled in sample.pools.items():
            if sample.is_off(arm):
                continue
            yield Claim(arm, place, pooled.decision, together.comparisons, together.family, sample)
    silent = {report_data.report.reference, *report_data.report.without_claim}
    for panel, comparison in report_data.alone():
        for arm in report_data.arms:
            controlled = arm in report_data.report.controls
            if arm in silent or not (controlled or arm in comparison.rows):
                continue
            decision = decide(report_data.report, comparison, arm) if controlled else comparison.decide(arm)
            if decision is not None:
                yield Claim(arm, panel_title(panel.short), decision, [comparison], comparison.family)


def _claims_on_settings(report_data: ReportData) -> Iterator[Claim]:
    """The claims on arms that vary a setting, each beside the arm that leaves it at its default."""
    for ablation in report_data.ablations:
        for panel, comparison in report_data.varied[ablation.name] if ablation.base else ():
            for arm in comparison.rows:
                decision = None if arm == comparison.reference else comparison.decide(arm)
                if decision is not None:
                    yield Claim(arm, panel_title(panel.short), decision, [comparison], comparison.family)


def _references(every: Sequence[Claim]) -> str:
    """Display names of the arms that claims compare with."""
    names = dict.fromkeys(arm_title(str(each.reference)) for claim in every for each in claim.comparisons)
    return listed(list(names)) if names else ""


def _badges(every: Sequence[Claim]) -> dict[Kind, dict[str, str]]:
    places = Counter(claim.arm for claim in every)
    badges: dict[Kind, dict[str, str]] = {}
    for kind in KINDS:
        counts = Counter(claim.arm for claim in every if claim.kind == kind)
        if counts:
            badges[kind] = {
                arm: f"{count} of {places[arm]}" if places[arm] > 1 else "" for arm, count in counts.most_common()
            }
    return badges


def _sentence(report_data: ReportData, every: Sequence[Claim]) -> str:
    """The answer: what is shown to be better, else that nothing is, else what could have been found."""
    reference = arm_title(report_data.report.reference)
    kinds = Counter(claim.kind for claim in every)
    if not every:
        runs = [run for panel in report_data.panels for run in panel.runs]
        done = sum(run.status == "ok" for run in runs)
        return f"Nothing can be compared with {reference} yet: {done:,} of {len(runs):,} runs are done."
    if wins := [claim for claim in every if claim.kind in SHOWN]:
        return _who_wins(wins, every)
    if kinds["withheld"] == len(every):
        reasons = Counter(claim.decision.reason for claim in every)
        return f"No verdict: {with_titles(reasons.most_common(1)[0][0], report_data.styles)}."
    rest = listed([f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind]])
    others = f" ({rest})" * (len(kinds) > 1)
    open_claims = [claim for claim in every if claim.kind == "open"]
    if not open_claims:
        return f"No arm beats {reference} by more than {_smallest(every)}{others}."
    return f"Open: {_what_could_be_found(open_claims, reference)}{others}."


def _settings(report_data: ReportData) -> str:
    """What varied settings are worth, for a study that asks nothing else; "" where none is compared with a base."""
    titles: dict[tuple[str, str], list[str]] = {}
    for ablation in report_data.ablations:
        findings = [each.findings[arm] for _, each in report_data.varied[ablation.name] for arm in each.rows]
        kinds = Counter(finding.kind for finding in findings if finding.kind in KINDS)
        if kinds and ablation.base:
            counts = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
            words = counts if len(kinds) > 1 else next(iter(kinds))
            titles.setdefault((arm_title(ablation.base), words), []).append(ablation.title)
    bases = dict.fromkeys(base for base, _ in titles)
    parts = {base: [f"{words}: {listed(each)}" for (of, words), each in titles.items() if of == base] for base in bases}
    return " ".join(f"Against {base}, {'; '.join(texts)}." for base, texts in parts.items())


def _who_wins(wins: Sequence[Claim], every: Sequence[Claim]) -> str:
    """Which arms beat what, and in how many places each."""
    counts = Counter(claim.arm for claim in wins)
    places = Counter(claim.arm for claim in every)
    first = counts.most_common(NAMED)
    several = max(places.values()) > 1
    alike = len({(count, places[arm]) for arm, count in counts.items()}) == 1
    names = [arm_title(arm) + f" ({count} of {places[arm]})" * (several and not alike) for arm, count in first]
    more = len(counts) - NAMED
    names += [f"{more} other arm{'s' * (more > 1)}"] * (more > 0)
    by_all = set.intersection(*(set(claim.decision.intervals) for claim in wins))  # arms may have different controls
    over = listed([_control(name) for name in wins[0].decision.intervals if name in by_all])
    where = f" on {first[0][1]} of {places[first[0][0]]} panels" if several and alike else ""
    rest = len(places) - len(counts)
    tail = f"; {rest} other arm{'s do' if rest > 1 else ' does'} not" if rest else ""
    return f"{listed(names)} beat{'s' * (len(counts) == 1)} {over}{where}{tail}{_who_loses_too(counts, every)}."


def _who_loses_too(winners: Collection[str], every: Sequence[Claim]) -> str:
    """Arms that win somewhere and are worse than the reference elsewhere, and in how many places; "" if none."""
    losses = Counter(claim.arm for claim in every if claim.kind == "worse" and claim.arm in winners)
    names = [f"{arm_title(arm)} ({count})" for arm, count in losses.most_common()]
    return f"; elsewhere {listed(names)} {'are' if len(names) > 1 else 'is'} worse" if names else ""


def _control(name: str) -> str:
    """Display name of the reference; the others are in words already."""
    return name if " " in name else arm_title(name)


def _smallest(every: Sequence[Claim]) -> str:
    """The smallest effect of interest, with its origin where it is one for all."""
    terms = {comparison.terms.smallest: comparison.terms.source for claim in every for comparison in claim.comparisons}
    if len(terms) > 1:
        return "the smallest effect of interest"
    ((smallest, source),) = terms.items()
    return f"{smallest}, {source}" if source.startswith("what") else f"{smallest}, the smallest effect of interest"


def _what_could_be_found(every: Sequence[Claim], reference: str) -> str:
    """The range of gains over the reference that the pairs could have shown."""
    sizes: dict[str, list[float]] = {}
    capable = [claim for claim in every if claim.detectable is not None]
    for claim in capable:
        sizes.setdefault(claim.measure, []).append(claim.detectable or 0.0)
    if not sizes:
        return f"there are too few pairs with {reference} to say what could have been found"
    ranges = [
        f"{' to '.join(dict.fromkeys(rough(end(each)) for end in (min, max)))}{measure}"
        for measure, each in sizes.items()
    ]
    arms = {claim.arm for claim in every}
    of_whom = f" of {arm_title(arms.pop())}" if len(arms) == 1 else ""
    numbers, units = span(claim.pairs for claim in capable), dict.fromkeys(claim.unit for claim in capable)
    return (
        f"with {numbers} {' or '.join(units)}, no gain{of_whom} over {reference} below {listed(ranges)} would have "
        "been found reliably"
    )


def _certainty(report_data: ReportData, every: Sequence[Claim]) -> Iterator[str]:
    """Whether anything was declared, number of pairs, family and level, and the smallest effect of interest."""
    if not every:
        return
    if report_data.study.sweep.experiment is None:
        yield "Exploratory: nothing was declared before the runs."
    units = {claim.unit for claim in every}
    n = span(pairs.n for claim in every for pairs in claim.decision.intervals.values())
    families = {claim.family for claim in every}
    level = f"{report_data.report.level * 100:g} %"
    yield f"n = {n} {' or '.join(sorted(units))}, paired with {_references(every)}."
    one = families == {1}
    yield f"Intervals at {level}." if one else f"Intervals of {span(families)} comparisons hold together with {level}."
    sizes = sorted({comparison.terms.smallest for claim in every for comparison in claim.comparisons})
    metrics = {comparison.metrics[0] for claim in every for comparison in claim.comparisons}
    what = listed(sorted(metric_title(metric, arrow=True, short=True) for metric in metrics))
    if len(sizes) == 1:
        yield f"Smallest effect of interest: {sizes[0]} of {what}."
    else:
        yield f"{len(sizes)} smallest effects of interest, of {what}: see the results."


def _next_steps(report_data: ReportData, every: Sequence[Claim]) -> Iterator[tuple[str, str]]:
    """What is missing, and how many seeds would close what is open; of controls nobody asks that."""
    runs = [run for panel in report_data.panels for run in panel.runs]
    missing = sum(run.record is None for run in runs)
    sweep = report_data.study.sweep
    if missing:
        yield f"{missing:,} of {len(runs):,} runs are still to be made:", f"rankbench -m {shlex.join(sweep.words)}"
    methods, judged = methods_of(report_data.panels), report_data.report.controls
    asked = [claim for claim in every if claim.arm in judged or not display(methods.get(claim.arm, claim.arm)).control]
    open_claims = [claim for claim in asked if claim.kind == "open"]
    for claim in open_claims[:NAMED]:
        number = f"{claim.decision.seeds}" if claim.decision.seeds else f"More than {MOST}"
        where = f" on {claim.place}" if len({each.place for each in every}) > 1 else ""
        yield f"{number} {claim.unit} would tell {arm_title(claim.arm)}{where} with {POWER * 100:g} % probability.", ""
    if more := open_claims[NAMED:]:
        yield f"{len(more)} more {'is' if len(more) == 1 else 'are'} open: see the verdict.", ""
    if not missing and not open_claims and asked:
        yield "Nothing is open.", ""
