"""`rankbench -m ...` or `rankbench sweep ...`: a run for each combination of values, or those of an experiment."""

from __future__ import annotations

from collections.abc import Sequence

from rankbench.cli.run import config_dir_of, inspects, parse, say
from rankbench.config.schema import ConfigError


def main(words: Sequence[str]) -> int:
    """Do every run of the sweep that is not done.

    Returns:
        0 if every run ended with status ok, else 1.

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
    """
    flags = parse(words)
    if inspects(flags):
        raise ConfigError(
            [
                "-m: --cfg, --info and Hydra's other inspecting flags show one run; leave out -m and give one "
                "value for each key, or take rankbench plan"
            ]
        )
    say("loading the configuration of every run ...")
    from rankbench.launching.driver import start

    return start(flags.overrides, config_dir_of(flags), flags.config_name or "config")


def sweep(overrides: Sequence[str]) -> int:
    """Do every run of a sweep that is not done: `rankbench.sweep(["method=lora,igu", "seed=0,1"])`.

    Args:
        overrides: words of the command line after -m.

    Returns:
        0 if every run ended with status ok, else 1.

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
    """
    from rankbench.launching.driver import start

    return start(overrides)
