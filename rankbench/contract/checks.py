"""The contract of a method, checked: `rankbench check method=NAME [method.key=value ...]`.

Some twelve runs of a few steps on a tiny model, in seconds; then a verdict per check. tests/test_contract.py holds
every registered method to the same checks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from rankbench.config.registry import RegistryError
from rankbench.config.schema import ConfigError
from rankbench.contract.observed_run import STOP, ObservedRun
from rankbench.contract.short_runs import ShortRuns
from rankbench.core.seeding import Streams
from rankbench.methods.base import BUDGET_KINDS, INSTANTS, NEEDS

FACTS = ("source", "summary", "decides", "signal", "passes")
ALIVE = ("ok", "inert")  # where the budget leaves nothing to decide
ENDED = (*ALIVE, "over_budget")  # which is the affair of one check


class Failure(Exception):
    """A check does not hold; the message says what was seen."""


class Skip(Exception):
    """A check says nothing about this method; the message says why."""


@dataclass(frozen=True)
class CheckResult:
    """Of one check.

    Attributes:
        check: its name.
        verdict: "pass", "fail" or "skip".
        seen: what was.
    """

    check: str
    verdict: str
    seen: str


def expect(holds: bool, otherwise: str) -> None:
    """Let the check go on.

    Raises:
        Failure: it does not hold.
    """
    if not holds:
        raise Failure(otherwise)


def ended(trial: ObservedRun) -> ObservedRun:
    """A run that got to its end.

    Raises:
        Failure: it did not.
    """
    expect(trial.status in ENDED, f"{trial.status}: {trial.reason}")
    return trial


# ------------------------------------------------------------------------------ each takes the runs, says what was seen


def configuration(exam: ShortRuns) -> str:
    """YAML, schema and the class's own check agree."""
    return f"{exam.cls.__module__}.{exam.cls.__qualname__}, {len(exam.config.method.plain())} settings"


def facts(exam: ShortRuns) -> str:
    """The class says what it is, so that tables can."""
    cls = exam.cls
    missing = [fact for fact in FACTS if not isinstance(said := getattr(cls, fact, None), str) or not said.strip()]
    expect(not missing, f"{', '.join(missing)}: must be a sentence or a word")
    expect(cls.decides in INSTANTS, f"decides={cls.decides!r}: expected one of {', '.join(INSTANTS)}")
    expect(cls.budget_kind in BUDGET_KINDS, f"budget_kind={cls.budget_kind!r}: expected {', '.join(BUDGET_KINDS)}")
    unknown = sorted(set(cls.needs) - NEEDS)
    expect(not unknown, f"needs {', '.join(unknown)}: known are {', '.join(sorted(NEEDS))}")
    deviations = cls.deviations
    sentences = isinstance(deviations, tuple) and all(isinstance(s, str) and s.endswith(".") for s in deviations)
    expect(sentences, f"deviations={deviations!r}: expected a tuple of sentences, each with its full stop")
    expect(bool(deviations) or cls.source == "control", "deviations=(): only source='control' has none")
    return f"{cls.decides}, {cls.budget_kind}, {len(deviations)} deviations"


def initial_ranks(exam: ShortRuns) -> str:
    """A whole number for each site, between 0 and its full rank; for a static method within the budget."""
    trial = exam.main
    ranks = trial.initial
    expect(isinstance(ranks, dict), f"initial_ranks gave {ranks!r}; {trial.reason or 'expected site name -> rank'}")
    assert ranks is not None
    names = {site.name for site in trial.sites}
    expect(set(ranks) == names, f"sites missing or unknown: {', '.join(sorted(names ^ set(ranks)))}")
    for name, rank in ranks.items():
        full = trial.budget.full_ranks[name]
        expect(type(rank) is int, f"{name}: {rank!r} is a {type(rank).__name__}, expected an int")
        expect(0 <= rank <= full, f"{name}: rank {rank} is not in [0, {full}]")
    spent, target = trial.budget.spent(ranks), trial.budget.target
    within = spent <= target * (1 + trial.budget.tolerance)
    exact = trial.allocator.static and trial.allocator.budget_kind != "implicit"
    expect(within or not exact, f"static, and starts with {spent} of a budget of {target}")
    return f"{min(ranks.values())} to {max(ranks.values())}, {spent / target:.2f} of the budget"


def start(exam: ShortRuns) -> str:
    """The adapted model is the base model, exactly, or the method declares another start."""
    trial = exam.main
    reached = bool(trial.losses) or trial.identical or "says it starts at the base model" in str(trial.reason)
    expect(reached, f"{trial.status} before the start: {trial.reason}")
    if not trial.allocator.starts_at_identity:
        return "another start, declared"
    expect(trial.identical, str(trial.reason))
    return "equals the base model, bit for bit"


def calibration(exam: ShortRuns) -> str:
    """Mode, gradients, hooks and the global random states are as found after `calibrate`."""
    trial = exam.main
    expect(not trial.disturbed, f"changed: {', '.join(trial.disturbed)}")
    spent = trial.meter.spent["calibration"]
    expect(bool(trial.losses), f"{trial.status} before training: {trial.reason}")
    return f"all as found; {spent['forward_passes']:.0f}+{spent['backward_passes']:.0f} passes"


def training(exam: ShortRuns) -> str:
    """The run ends, its losses are finite."""
    losses = ended(exam.main).losses
    expect(len(losses) == exam.config.train.steps, f"{len(losses)} of {exam.config.train.steps} steps")
    expect(all(map(math.isfinite, losses)), f"losses {losses}")
    return f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}"


def budget(exam: ShortRuns) -> str:
    """The last adapter keeps the budget, as the method's kind of budget means it."""
    trial = ended(exam.main)
    kind = trial.allocator.budget_kind
    broken = trial.ledger.verdict(trial.budget, kind)
    expect(broken is None, str(broken))
    figure = trial.ledger.final if trial.budget.match == "final" else trial.ledger.peak
    assert figure is not None
    share = figure["params" if trial.budget.unit == "params" else "ranks"] / trial.budget.target
    return f"{kind}: {share:.3f} of it" + (", not judged" if kind == "implicit" else "")


def rank_changes(exam: ShortRuns) -> str:
    """At least one event changes a rank; none does if the method calls itself static."""
    trial = ended(exam.main)
    events = len(trial.adapters.history) if trial.adapters else 0
    if trial.allocator.static:
        expect(events == 0, f"static, and {events} events changed a rank")
        return "static"
    expect(events > 0, "no event changed a rank: inert")
    steps = {event["step"] for event in trial.adapters.history} if trial.adapters else set()
    return f"{events} changes, at {len(steps)} of the steps 0 to {exam.config.train.steps}"


def _same(one: ObservedRun, two: ObservedRun) -> None:
    left = {name: (value, two.left()[name]) for name, value in one.left().items()}
    different = [name for name, (a, b) in left.items() if a != b]
    expect(not different, f"different: {', '.join(different)}; {two.status}: {two.reason}")


def same_seed(exam: ShortRuns) -> str:
    """The same seed gives the same record, to the bit."""
    _same(ended(exam.main), exam.again)
    return "metrics, ranks, ledger, passes, steps and adapter equal, bit for bit"


def another_seed(exam: ShortRuns) -> str:
    """Another seed gives another record."""
    one, two = ended(exam.main), ended(exam.other)
    expect(one.losses != two.losses, f"seeds {exam.config.seed} and {exam.config.seed + 1} give the same losses")
    return f"last loss {one.losses[-1]:.4f} and {two.losses[-1]:.4f}"


def resume(exam: ShortRuns) -> str:
    """Interrupted between two checkpoints, or after its last step, a run ends as if it had not been."""
    main = ended(exam.main)
    if exam.config.train.steps < STOP:
        raise Skip(f"train.steps={exam.config.train.steps}: stops at step {STOP}")
    found = []
    for moment in ("stopped", "ended"):
        trial = exam.resumed(moment)
        expect(trial.resumed is not None, f"{trial.status}: {trial.reason}")
        _same(main, trial)
        found.append(trial.resumed)
    return f"from the checkpoints of steps {found[0]} and {found[1]}, bit for bit"


def _survives(trial: ObservedRun, statuses: Sequence[str] = ALIVE) -> str:
    expect(trial.status in statuses, f"{trial.status}: {trial.reason}")
    assert trial.adapters is not None
    ranks, full = trial.adapters.ranks(), trial.budget.full_ranks
    empty, whole = sum(not rank for rank in ranks.values()), sum(ranks[name] == full[name] for name in ranks)
    return f"{trial.status}; of {len(ranks)} sites {empty} end at rank 0, {whole} at full rank"


def smallest_budget(exam: ShortRuns) -> str:
    """One rank per site is enough to run."""
    return _survives(exam.smallest)


def full_rank(exam: ShortRuns) -> str:
    """The greatest uniform rank is not too much."""
    return _survives(exam.fullest)


def export(exam: ShortRuns) -> str:
    """Plain PEFT reads the adapter and says what the trained model said."""
    trial = ended(exam.main)
    assert trial.adapters is not None
    own = trial.logits(trial.adapters.model)
    base = trial.base(Streams(exam.config.seed)).model
    without = trial.logits(base)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft 0.21
        loaded = trial.logits(PeftModel.from_pretrained(base, trial.folder.path / "adapter"))
    # gates folded into B: the same fp32 products in another order, some 1e-7 of the largest logit per layer
    tolerance = 1e-5 * max(1.0, float(own.abs().max()))
    difference = float((loaded - own).abs().max())
    expect(difference <= tolerance, f"logits differ by {difference:.2g}, allowed {tolerance:.2g}")
    effect = float((own - without).abs().max())
    expect(effect > 100 * tolerance, f"the adapter changes no logit by more than {effect:.2g}: nothing was shown")
    return f"logits differ by {difference:.1g}, where the adapter moves them by {effect:.1g}"


def scale_rules(exam: ShortRuns) -> str:
    """Each scale rule runs (the main run has the first)."""
    for rule in ("live", "rslora"):
        trial = exam.scaled(rule)
        expect(trial.status in ENDED, f"{rule}: {trial.status}: {trial.reason}")
        expect(all(map(math.isfinite, trial.losses)), f"{rule}: losses {trial.losses}")
    return "fixed, live, rslora"


def encoder(exam: ShortRuns) -> str:
    """An encoder with a trained head runs, too."""
    if exam.needs("truth"):
        raise Skip("needs the truth, which only a decoder's task knows")
    if {"model", "task", "budget"} & set(exam.chosen):
        raise Skip("model, task or budget was chosen")
    return _survives(exam.encoder, ENDED)


def bf16(exam: ShortRuns) -> str:
    """The base may compute in bfloat16."""
    trial = ended(exam.bf16)
    expect(all(map(math.isfinite, trial.losses)), f"losses {trial.losses}")
    assert trial.adapters is not None
    kinds = {parameter.dtype for parameter in trial.adapters.parameters()}
    expect(kinds == {torch.float32}, f"adapter parameters are {kinds}")
    return f"{trial.status}; adapter in fp32"


Check = Callable[[ShortRuns], str]
CHECKS: dict[str, Check] = {
    check.__name__.replace("_", " "): check
    for check in (
        configuration,
        facts,
        initial_ranks,
        start,
        calibration,
        training,
        budget,
        rank_changes,
        same_seed,
        another_seed,
        resume,
        smallest_budget,
        full_rank,
        export,
        scale_rules,
        encoder,
        bf16,
    )
}


def judge(name: str, exam: ShortRuns) -> CheckResult:
    """One check; whatever it raises is a verdict."""
    try:
        return CheckResult(name, "pass", CHECKS[name](exam))
    except Skip as reason:
        return CheckResult(name, "skip", str(reason))
    except Failure as seen:
        return CheckResult(name, "fail", str(seen))
    except (ConfigError, RegistryError) as error:
        first = next(iter(CHECKS))
        return CheckResult(name, "fail" if name == first else "skip", str(error) if name == first else f"no {first}")
    except Exception as error:
        return CheckResult(name, "fail", f"{type(error).__name__}: {error}")
