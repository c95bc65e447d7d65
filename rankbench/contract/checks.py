"""The contract of a method, checked: `rankbench check method=NAME [method.key=value ...]`.

Some twelve runs of a few steps on a tiny model, in seconds; then an outcome per check. tests/test_contract.py holds
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
from rankbench.methods.base import BUDGET_KINDS, INSTANTS, NEEDS, TRAINS
from rankbench.training.assembly import Assembly

FACTS = ("source", "summary", "decides", "signal")
ALIVE = ("ok", "inert")  # where the budget leaves nothing to decide
ENDED = (*ALIVE, "over_budget")  # which is the affair of one check


class Failure(Exception):
    """A check does not hold; the message says what was seen."""


class Skip(Exception):
    """A check says nothing about this method; the message says why."""


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Attributes:
        check: name of the check.
        outcome: "pass", "fail" or "skip".
        seen: what the check saw.
    """

    check: str
    outcome: str
    seen: str


def expect(holds: bool, otherwise: str) -> None:
    """Let the check go on.

    Raises:
        Failure: it does not hold.
    """
    if not holds:
        raise Failure(otherwise)


def ended(run: ObservedRun) -> ObservedRun:
    """A run that got to its end.

    Raises:
        Failure: it did not.
    """
    expect(run.status in ENDED, f"{run.status}: {run.reason}")
    return run


# ------------------------------------------------------------------------------ each takes the runs, says what was seen


def configuration(runs: ShortRuns) -> str:
    """YAML, schema and the class's own check agree."""
    return f"{runs.cls.__module__}.{runs.cls.__qualname__}, {len(runs.config.method.plain())} settings"


def facts(runs: ShortRuns) -> str:
    """The class declares the facts that tables show."""
    cls = runs.cls
    missing = [fact for fact in FACTS if not isinstance(text := getattr(cls, fact, None), str) or not text.strip()]
    expect(not missing, f"{', '.join(missing)}: must be a sentence or a word")
    expect(cls.decides in INSTANTS, f"decides={cls.decides!r}: expected one of {', '.join(INSTANTS)}")
    expect(cls.trains in TRAINS, f"trains={cls.trains!r}: expected one of {', '.join(TRAINS)}")
    expect(cls.budget_kind in BUDGET_KINDS, f"budget_kind={cls.budget_kind!r}: expected {', '.join(BUDGET_KINDS)}")
    unknown = sorted(set(cls.needs) - NEEDS)
    expect(not unknown, f"needs {', '.join(unknown)}: known are {', '.join(sorted(NEEDS))}")
    deviations = cls.deviations_of(runs.config.method)
    sentences = isinstance(deviations, tuple) and all(isinstance(s, str) and s.endswith(".") for s in deviations)
    expect(sentences, f"deviations_of gave {deviations!r}: expected a tuple of sentences, each with its full stop")
    expect(bool(deviations) or cls.source == "control", "deviations_of gave (): only source='control' has none")
    passes = cls.passes_of(runs.config.method)
    expect(isinstance(passes, str) and bool(passes.strip()), f"passes_of gave {passes!r}: expected words")
    return f"{cls.decides}, {cls.budget_kind}, {len(deviations)} deviations"


def initial_ranks(runs: ShortRuns) -> str:
    """A whole number for each site, between 0 and its full rank; for a static method within the budget."""
    run = runs.main
    ranks = run.notes.initial
    expect(isinstance(ranks, dict), f"initial_ranks gave {ranks!r}; {run.reason or 'expected site name -> rank'}")
    assert ranks is not None
    names = {site.name for site in run.assembly.sites}
    expect(set(ranks) == names, f"sites missing or unknown: {', '.join(sorted(names ^ set(ranks)))}")
    for name, rank in ranks.items():
        full = run.assembly.budget.full_ranks[name]
        expect(type(rank) is int, f"{name}: {rank!r} is a {type(rank).__name__}, expected an int")
        expect(0 <= rank <= full, f"{name}: rank {rank} is not in [0, {full}]")
    spent, target = run.assembly.budget.spent(ranks), run.assembly.budget.target
    within = spent <= target * (1 + run.assembly.budget.tolerance)
    exact = run.assembly.allocator.static and run.assembly.allocator.budget_kind != "implicit"
    expect(within or not exact, f"static, and starts with {spent} of a budget of {target}")
    return f"{min(ranks.values())} to {max(ranks.values())}, {spent / target:.2f} of the budget"


def start(runs: ShortRuns) -> str:
    """The adapted model is the base model, exactly, or the method declares another start."""
    run = runs.main
    reached = bool(run.losses) or run.notes.identical or "says it starts at the base model" in str(run.reason)
    expect(reached, f"{run.status} before the start: {run.reason}")
    if not run.assembly.allocator.starts_at_identity:
        return "another start, declared"
    expect(run.notes.identical, str(run.reason))
    return "equals the base model, bit for bit"


def calibration(runs: ShortRuns) -> str:
    """Mode, gradients, hooks and the global random states are as found after `calibrate`."""
    run = runs.main
    expect(not run.notes.disturbed, f"changed: {', '.join(run.notes.disturbed)}")
    spent = run.assembly.meter.spent["calibration"]
    expect(bool(run.losses), f"{run.status} before training: {run.reason}")
    return f"all as found; {spent['forward_passes']:.0f}+{spent['backward_passes']:.0f} passes"


def extra_passes(runs: ShortRuns) -> str:
    """The method's own passes are as many as `extra_passes` says."""
    run, train = ended(runs.main), runs.config.train
    predicted = run.assembly.allocator.extra_passes(train.batch_size)
    counts = [run.assembly.meter.spent[phase] for phase in ("calibration", "allocation")]
    passes = tuple(int(sum(count[f"{way}_passes"] for count in counts)) for way in ("forward", "backward"))
    words = runs.cls.passes_of(runs.config.method)
    if predicted is None:
        expect(words != "none", f"passes_of says none, and {passes[0]}+{passes[1]} passes were made")
        return f"{passes[0]}+{passes[1]} passes, which the data decided; said: {words}"
    if train.micro_batch_size is not None:
        raise Skip("train.micro_batch_size was chosen: a mini-batch is several passes")
    announced = f"{predicted[0]}+{predicted[1]} passes were announced"
    expect(passes == tuple(predicted), f"{announced}, {passes[0]}+{passes[1]} made")
    return f"{passes[0]}+{passes[1]} passes, as announced; said: {words}"


def training(runs: ShortRuns) -> str:
    """The run ends, its losses are finite."""
    losses = ended(runs.main).losses
    expect(len(losses) == runs.config.train.steps, f"{len(losses)} of {runs.config.train.steps} steps")
    expect(all(map(math.isfinite, losses)), f"losses {losses}")
    return f"{len(losses)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}"


def budget(runs: ShortRuns) -> str:
    """The last adapter keeps the budget, as the method's kind of budget means it."""
    run = ended(runs.main)
    kind = run.assembly.allocator.budget_kind
    broken = run.assembly.ledger.budget_violation(run.assembly.budget, kind)
    expect(broken is None, str(broken))
    figure = run.assembly.ledger.final if run.assembly.budget.match == "final" else run.assembly.ledger.peak
    assert figure is not None
    share = figure["params" if run.assembly.budget.unit == "params" else "ranks"] / run.assembly.budget.target
    return f"{kind}: {share:.3f} of it" + (", not judged" if kind == "implicit" else "")


def rank_changes(runs: ShortRuns) -> str:
    """Some event changes a rank; none does if the method calls itself static."""
    run = ended(runs.main)
    history = run.adapters.history
    if run.assembly.allocator.static:
        expect(not history, f"static, and {len(history)} events changed a rank")
        return "static"
    expect(bool(history), "no event changed a rank: inert")
    steps = {event["step"] for event in history}
    return f"{len(history)} changes, at {len(steps)} of the steps 0 to {runs.config.train.steps}"


def _same(one: ObservedRun, two: ObservedRun) -> None:
    left = {name: (value, two.left()[name]) for name, value in one.left().items()}
    different = [name for name, (a, b) in left.items() if a != b]
    expect(not different, f"different: {', '.join(different)}; {two.status}: {two.reason}")


def same_seed(runs: ShortRuns) -> str:
    """The same seed gives the same record, to the bit."""
    _same(ended(runs.main), runs.again)
    return "metrics, ranks, ledger, passes, steps and adapter equal, bit for bit"


def another_seed(runs: ShortRuns) -> str:
    """Another seed gives another record."""
    one, two = ended(runs.main), ended(runs.other)
    expect(one.losses != two.losses, f"seeds {runs.config.seed} and {runs.config.seed + 1} give the same losses")
    return f"last loss {one.losses[-1]:.4f} and {two.losses[-1]:.4f}"


def resume(runs: ShortRuns) -> str:
    """Interrupted between two checkpoints, or after its last step, a run ends as if it had not been."""
    main = ended(runs.main)
    if runs.config.train.steps < STOP:
        raise Skip(f"train.steps={runs.config.train.steps}: stops at step {STOP}")
    steps = []
    for moment in ("stopped", "ended"):
        run = runs.resumed(moment)
        expect(run.notes.resumed_at is not None, f"{run.status}: {run.reason}")
        _same(main, run)
        steps.append(run.notes.resumed_at)
    return f"from the checkpoints of steps {steps[0]} and {steps[1]}, bit for bit"


def _survives(run: ObservedRun, statuses: Sequence[str] = ALIVE) -> str:
    expect(run.status in statuses, f"{run.status}: {run.reason}")
    ranks, full = run.adapters.ranks(), run.assembly.budget.full_ranks
    empty, whole = sum(not rank for rank in ranks.values()), sum(ranks[name] == full[name] for name in ranks)
    return f"{run.status}; of {len(ranks)} sites {empty} end at rank 0, {whole} at full rank"


def smallest_budget(runs: ShortRuns) -> str:
    """One rank per site is enough to run."""
    return _survives(runs.smallest)


def full_rank(runs: ShortRuns) -> str:
    """The greatest uniform rank is not too much."""
    return _survives(runs.fullest)


def export(runs: ShortRuns) -> str:
    """Plain PEFT reads the adapter and says what the trained model said."""
    run = ended(runs.main)
    if not run.assembly.allocator.has_adapter():
        expect(not (run.folder.path / "adapter").exists(), "trains no adapter, and left one")
        raise Skip("trains no adapter")
    own = run.logits(run.adapters.model)
    fresh = Assembly(runs.config, run.assembly.accelerator)
    fresh.load()
    base = fresh.loaded.model
    without = run.logits(base)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft 0.21
        loaded = run.logits(PeftModel.from_pretrained(base, run.folder.path / "adapter"))
    # gates folded into B: the same fp32 products in another order, some 1e-7 of the largest logit per layer
    tolerance = 1e-5 * max(1.0, float(own.abs().max()))
    difference = float((loaded - own).abs().max())
    expect(difference <= tolerance, f"logits differ by {difference:.2g}, allowed {tolerance:.2g}")
    effect = float((own - without).abs().max())
    expect(effect > 100 * tolerance, f"the adapter changes no logit by more than {effect:.2g}: nothing was shown")
    return f"logits differ by {difference:.1g}, where the adapter moves them by {effect:.1g}"


def scale_rules(runs: ShortRuns) -> str:
    """Each scale rule runs (the main run has the first)."""
    for rule in ("live", "rslora"):
        run = runs.scaled(rule)
        expect(run.status in ENDED, f"{rule}: {run.status}: {run.reason}")
        expect(all(map(math.isfinite, run.losses)), f"{rule}: losses {run.losses}")
    return "fixed, live, rslora"


def encoder(runs: ShortRuns) -> str:
    """An encoder with a trained head runs, too."""
    if runs.needs("truth"):
        raise Skip("needs the truth, which only a decoder's task knows")
    if {"model", "task", "budget"} & set(runs.chosen):
        raise Skip("model, task or budget was chosen")
    return _survives(runs.encoder, ENDED)


def bf16(runs: ShortRuns) -> str:
    """The base may compute in bfloat16."""
    run = ended(runs.bf16)
    expect(all(map(math.isfinite, run.losses)), f"losses {run.losses}")
    kinds = {parameter.dtype for parameter in [*run.adapters.parameters(), *run.adapters.beside]}
    expect(kinds == {torch.float32}, f"adapter parameters are {kinds}")
    return f"{run.status}; adapter in fp32"


Check = Callable[[ShortRuns], str]
CHECKS: dict[str, Check] = {
    check.__name__.replace("_", " "): check
    for check in (
        configuration,
        facts,
        initial_ranks,
        start,
        calibration,
        extra_passes,
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


def judge(name: str, runs: ShortRuns) -> CheckResult:
    """One check; whatever it raises is a result."""
    try:
        return CheckResult(name, "pass", CHECKS[name](runs))
    except Skip as reason:
        return CheckResult(name, "skip", str(reason))
    except Failure as seen:
        return CheckResult(name, "fail", str(seen))
    except (ConfigError, RegistryError) as error:
        first = next(iter(CHECKS))
        return CheckResult(name, "fail" if name == first else "skip", str(error) if name == first else f"no {first}")
    except Exception as error:
        return CheckResult(name, "fail", f"{type(error).__name__}: {error}")
