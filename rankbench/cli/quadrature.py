"""How far the method's integrated gradients are from the integral, on a real model and one batch of its data.

`rankbench quadrature [group=choice ...] [key=value ...] [--out DIR] [--double] [--train-steps K] ...`: the run that the
overrides describe trains K steps, so that there is an update dW to walk along. Then everything is measured at that
adapter on one fixed batch, so that mini-batch noise is left out.

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
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import OK
from rankbench.cli.run import say
from rankbench.config.schema import ConfigError
from rankbench.terminal import console

if TYPE_CHECKING:  # torch takes seconds to import: after the arguments are read
    from rankbench.config.sections import Config
    from rankbench.training.assembly import Assembly

INTERVALS = 20  # M of the sampling study where the method has no quadrature_steps; IGU-LoRA's value


def train(config: Config, steps: int) -> Assembly:
    """The configured run after its first steps; its layers follow the path, whether its method asks for that or not."""
    import torch

    from rankbench.training.assembly import assemble
    from rankbench.training.progress import TrainingProgress

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


def perform(options: argparse.Namespace, config: Config) -> None:
    """Train, measure, show and write."""
    from rankbench.quadrature.output import show, write
    from rankbench.quadrature.path_run import Settings, measure_path, models_of, relative_update
    from rankbench.records.record import portable
    from rankbench.training.provenance import provenance

    assembly = train(config, options.train_steps)
    trainer, engine = assembly.trainer, assembly.trainer.engine
    relative = relative_update(trainer.adapters)
    console().print(f"||dW|| / ||W0|| = {relative:.3g} after {options.train_steps} steps")
    intervals = getattr(config.method, "quadrature_steps", INTERVALS)
    settings = Settings(intervals, options.nodes, options.samples, options.repeats, options.reference, options.double)
    measurement = measure_path(
        trainer.adapters,
        trainer.probe("quadrature"),
        models_of(engine.model, engine.task),
        settings,
        engine.streams.numpy("allocator", "quadrature"),
    )
    show(measurement.points, measurement.completeness)
    missed = f"{measurement.end_error:.3e}"
    console().print(f"the gradient at the end alone (instantaneous) misses the integral by {missed}\n")
    facts = {
        "settings": {key: value for key, value in vars(options).items() if key not in ("overrides", "out")},
        "relative_update": relative,
        **measurement.facts,
        "provenance": provenance(assembly),
        **portable({"config": config.plain()}),
    }
    write(options.out, measurement.points, facts)
    console().print(f"written: {options.out}/quadrature.csv, .json, .png, .pdf", markup=False, soft_wrap=True)


def configured(options: argparse.Namespace) -> Config:
    """The configuration of the run that is measured.

    Raises:
        ConfigError: with every mistake in overrides and flags.
    """
    from rankbench.config import registry
    from rankbench.config.overrides import one_run
    from rankbench.quadrature.integrand import ORDER

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
    if registry.get("method", config.method.name).trains != "adapter":
        problems.append(
            f"method={config.method.name}: the path is that of an adapter alone; take a method that trains one"
        )
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
    say("loading torch ...")
    perform(options, configured(options))
    return OK
