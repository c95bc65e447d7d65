"""`rankbench -m ...` or `rankbench sweep ...`: a run for each combination of values, or those of an experiment."""

from __future__ import annotations

from collections.abc import Sequence

from rankbench.cli.exit_codes import OK
from rankbench.cli.run import SWEEP_WORDS, config_dir_of, hydra_run, inspects, parse, say
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
        if several := [word for word in flags.overrides if _means_several_runs(word)]:
            advice = "--cfg, --info and the like show one run; take rankbench plan for a sweep"
            raise ConfigError([f"{word}: {advice}" for word in several])
        flags.multirun = False  # Hydra shows the one run
        return hydra_run(flags, lambda composed: OK)
    say("loading the configuration of every run ...")
    from rankbench.cli.sweep_results import show
    from rankbench.launching.driver import start

    return start(flags.overrides, config_dir_of(flags), flags.config_name or "config", show)


def _means_several_runs(word: str) -> bool:
    """Whether only a sweep reads the word, or it is an override with several values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if word.partition("=")[0].partition(".")[0] in SWEEP_WORDS:
        return True
    return bool(OverridesParser.create().parse_override(word).is_sweep_override())


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
