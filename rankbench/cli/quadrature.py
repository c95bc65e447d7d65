"""How far the method's integrated gradients are from the integral, on a real model and one batch of its data.

`rankbench quadrature [group=choice ...] [key=value ...] [--out DIR] [--double] [--train-steps K] ...`: the run that the
overrides describe trains K steps, so that there is an update dW to walk along. Then everything is measured at that
adapter on one fixed batch, mini-batch noise apart.

Trapezoid: the error over M intervals, against Simpson's rule on a finer grid. Smooth integrands give slope -2.

Sampling: the stochastic estimators at the method's M, averaged over N independent draws of the path's node. Unbiased
ones fall with slope -1/2, a biased one ends on its bias. "printed_rescaled" is "printed" with weights that sum to 1:
what is left of it where a score is a ratio, which no factor changes.

Completeness: the attributions of each role (A, B, gate) sum to L(W0 + dW) - L(W0).

Errors and the theorem's bound are defined in rankbench.quadrature.errors, the integrand in
rankbench.quadrature.integrand.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from rich.table import Table
from torch import nn

from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import OK
from rankbench.config.overrides import one_run
from rankbench.config.schema import ConfigError
from rankbench.config.sections import Config
from rankbench.core.adapter_set import AdapterSet
from rankbench.quadrature.errors import DELTA, ErrorStudy, Point, fits
from rankbench.quadrature.integrand import ORDER, Integrand, NoPathError, float64, grids, measure
from rankbench.records.record import portable
from rankbench.terminal import console
from rankbench.training.assembly import Assembly, assemble
from rankbench.training.engine import Engine
from rankbench.training.progress import TrainingProgress
from rankbench.training.provenance import provenance
from rankbench.training.trainer import Trainer

INTERVALS = 20  # M of the sampling study where the method has no quadrature_steps; IGU-LoRA's value


def train(config: Config, steps: int) -> Assembly:
    """The configured run after its first steps; its layers follow the path, whether its method asks for that or not."""
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    assembly = assemble(config, path=True)
    trainer = assembly.trainer
    trainer.calibrate()
    trainer.build_optimizer()
    trainer.engine.model.train()
    with TrainingProgress(config.method.name, steps, 0, visible=True) as progress:
        for index in range(1, steps + 1):
            start = time.perf_counter()
            progress.show(trainer.step(index, config.train.steps), time.perf_counter() - start)
    return assembly


def relative_update(adapters: AdapterSet) -> float:
    """||dW|| / ||W0|| over all sites, Frobenius.

    Raises:
        NoPathError: the update is zero, so there is no path.
    """
    update = base = 0.0
    for site in adapters.sites:
        layer: Any = adapters.model.get_submodule(f"base_model.model.{site.name}")
        update += float(adapters.delta(site.name).double().square().sum())
        base += float(layer.get_base_layer().weight.detach().double().square().sum())
    if update == 0:
        raise NoPathError("the update is zero, so there is no path to measure on: raise --train-steps")
    return math.sqrt(update / base)


def models_of(engine: Engine) -> list[nn.Module]:
    """The adapted model, and those that the task keeps for itself (a teacher)."""
    values = vars(engine.task).values()
    kept = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [engine.model, *(item for item in kept if isinstance(item, nn.Module))]


def integrand_of(trainer: Trainer, options: argparse.Namespace, intervals: int) -> Integrand:
    """The integrand of a run at its present adapter, on a batch of a calibration stream kept for it."""
    adapters, out = trainer.adapters, console()
    probe = trainer.probe("quadrature")
    (batch,) = probe.batches(1)
    nodes = grids([*options.nodes, 1, intervals, options.reference])
    out.print(f"{len(nodes)} nodes of the path, {len(batch)} examples")
    shown = track(nodes, "nodes", console=out, disable=not out.is_terminal, transient=True)
    with float64(models_of(trainer.engine)) if options.double else nullcontext():
        return measure(adapters, probe, batch, shown, intervals)


def write(folder: Path, points: Sequence[Point], facts: dict[str, Any]) -> None:
    """quadrature.csv (a row per point), quadrature.json (what was run) and the figure as PNG and PDF."""
    from rankbench.quadrature.figure import draw  # matplotlib takes a moment to import

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "quadrature.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)
    (folder / "quadrature.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    setting = (facts["config"][group]["name"] for group in ("method", "model", "task"))
    title = f"{', '.join(setting)}: integrated gradients, ||dW|| / ||W0|| = {facts['relative_update']:.2g}"
    draw(points, fits(points), title, folder / "quadrature")


def show(points: Sequence[Point], completeness: Sequence[dict[str, Any]]) -> None:
    """Print errors against the integral, slopes (those against the trapezoid, too) and completeness."""
    errors = Table("estimator", "M", "N", "error", "rounding", "bound", box=None, pad_edge=False)
    for p in (p for p in points if p.reference == "integral"):
        number = (str(p.M), str(p.N or ""), f"{p.error:.3e}", f"{p.floor:.0e}")
        errors.add_row(p.estimator, *number, "" if p.bound is None else f"{p.bound:.3e}")
    slopes = Table("estimator", "against", "slope", "fitted over", box=None, pad_edge=False)
    for fit in fits(points):
        told = ("none", "too few points above rounding")
        if fit.slope is not None:
            told = (f"{fit.slope:.3f}", f"{'M' if fit.kind == 'trapezoid' else 'N'} {fit.first} to {fit.last}")
        slopes.add_row(fit.estimator, fit.reference, *told)
    complete = Table("rule", "role", "sum of attributions", "loss difference", "gap", box=None, pad_edge=False)
    for row in completeness:
        numbers = f"{row['sum']:.9g}", f"{row['difference']:.9g}", f"{row['gap']:.1e}"
        complete.add_row(row["rule"], row["role"], *numbers)
    for table in (errors, slopes, complete):
        console().print(table, "")


def perform(options: argparse.Namespace, config: Config) -> None:
    """Train, measure, show and write."""
    assembly = train(config, options.train_steps)
    trainer = assembly.trainer
    intervals = getattr(config.method, "quadrature_steps", INTERVALS)
    relative = relative_update(trainer.adapters)
    console().print(f"||dW|| / ||W0|| = {relative:.3g} after {options.train_steps} steps")
    f = integrand_of(trainer, options, intervals)
    study = ErrorStudy(f, intervals, options.reference)
    rng = trainer.engine.streams.numpy("allocator", "quadrature")
    points = [*study.trapezoids(options.nodes), *study.samples(options.samples, options.repeats, rng)]
    completeness = study.completeness()
    show(points, completeness)
    console().print(f"the gradient at the end alone (instantaneous) misses the integral by {study.end_error():.3e}\n")
    settings = {key: value for key, value in vars(options).items() if key not in ("overrides", "out")}
    constants = {"curvature": f.curvature, "inner_range": f.inner_range, "range": f.range, "delta": DELTA}
    facts = {
        "settings": settings,
        "relative_update": relative,
        "instantaneous_error": study.end_error(),
        "parameters": f.size,
        "losses": f.losses,
        "integral_norm": float(f.norm(study.integral)),
        "constants": constants,
        "fits": [asdict(fit) for fit in fits(points)],
        "completeness": completeness,
        "provenance": provenance(assembly),
        **portable({"config": config.plain()}),
    }
    write(options.out, points, facts)
    console().print(f"written: {options.out}/quadrature.csv, .json, .png, .pdf", markup=False, soft_wrap=True)


def configured(options: argparse.Namespace) -> Config:
    """The configuration of the run that is measured.

    Raises:
        ConfigError: with every mistake in overrides and flags.
    """
    problems = []
    if options.reference % 2 or options.reference <= max(ORDER, *options.nodes):
        problems.append(
            f"--reference {options.reference}: must be even, > {ORDER} and larger than all of --nodes "
            f"(their largest is {max(options.nodes)})"
        )
    try:
        config = one_run(options.overrides).config
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    steps, intervals = config.train.steps, getattr(config.method, "quadrature_steps", INTERVALS)
    if options.train_steps > steps:
        problems.append(f"--train-steps {options.train_steps}: the run has train.steps={steps}")
    if intervals < 2:
        problems.append(f"method.quadrature_steps={intervals}: the sampling study needs inner nodes, so >= 2")
    if options.double and config.train.precision != "fp32":
        problems.append(f"--double: needs train.precision=fp32, not {config.train.precision}")
    if problems:
        raise ConfigError(problems)
    return config


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


def _counts(text: str) -> list[int]:
    return sorted({_count(part) for part in text.split(",")})


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Flags of this command, and the overrides of a run."""
    parser = command_parser("quadrature", __doc__ or "")
    parser.add_argument("overrides", nargs="*", metavar="WORD", help="overrides of the run, as for rankbench")
    parser.add_argument("--out", type=Path, default=Path("results/quadrature"), help="folder (%(default)s)")
    parser.add_argument("--nodes", type=_counts, default="1,2,4,8,16,32", help="M of the trapezoid (%(default)s)")
    parser.add_argument("--samples", type=_counts, default="1,4,16,64", help="N of the sampling (%(default)s)")
    parser.add_argument("--reference", type=_count, default=256, help="intervals of the reference (%(default)s)")
    parser.add_argument("--repeats", type=_count, default=1000, help="estimates per point (%(default)s); no passes")
    parser.add_argument("--train-steps", type=_count, default=20, help="steps before measuring (%(default)s)")
    parser.add_argument("--double", action="store_true", help="measure in float64 (training stays as configured)")
    return parser.parse_intermixed_args(words)


def main(words: Sequence[str]) -> int:
    """Measure, show and write.

    Raises:
        ConfigError: every mistake in overrides and flags; nothing was run.
    """
    options = parse(words)
    perform(options, configured(options))
    return OK
