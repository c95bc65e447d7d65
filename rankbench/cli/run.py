"""`rankbench [run] [group=choice ...] [key=value ...]`: one run."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rankbench.cli.exit_codes import OK
from rankbench.cli.help import groups
from rankbench.config.budget_names import is_numbered
from rankbench.config.schema import ConfigError, near
from rankbench.interface.run_result import finished_record, folder_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rankbench.config.overrides import CheckedRun
    from rankbench.config.sections import Config

SWEEP_WORDS = ("experiment", "scale", "arms", "retry", "futile", "tune", "ladder")
HYDRA_WORDS = ("hydra.", "hydra/", "+hydra", "~hydra")


def main(words: Sequence[str]) -> int:
    """Do one run.

    Returns:
        0 if it ended with status ok, else the exit code of the run.

    Raises:
        ConfigError: every mistake in the configuration; nothing was run.
    """
    flags = parse(words)
    if inspects(flags):
        return hydra_run(flags, lambda composed: OK)
    stray = [word for word in flags.overrides if word.partition("=")[0].partition(".")[0] in SWEEP_WORDS]
    if stray:
        raise ConfigError([f"{word}: belongs to a sweep; add -m" for word in stray])
    if not flags.config_name:
        refuse_unknown_names(flags.overrides, config_dir_of(flags))
    if "torch" not in sys.modules:
        say("loading torch ...")
    with importing("torch"):  # and Hydra, and the classes of the method and the task
        from rankbench.config.overrides import one_run

        checked = one_run(flags.overrides, config_dir_of(flags), flags.config_name or "config")
    if flags.config_name or any(word.startswith(HYDRA_WORDS) for word in flags.overrides):
        return hydra_run(flags, lambda composed: perform(checked.config))
    set_up_logging(checked)
    return perform(checked.config)


def refuse_unknown_names(overrides: Sequence[str], config_dir: Path | None = None) -> None:
    """Refuse choices that no group has, and keys at the root that no run has, before torch is loaded.

    Beside a choice that is not there, everything is checked that needs no class of a method or task. Beside an unknown
    key, what else there is must be a choice that conf/ has; all other words are left to the whole check, which says
    every mistake at once.

    Args:
        overrides, config_dir: as in `run`.

    Raises:
        ConfigError: with every such name.
    """
    from rankbench.config.sections import Config

    keys, files, unknown = set(Config.model_fields), groups(config_dir), []
    pairs = {word: word.partition("=")[::2] for word in overrides}
    if any(key in files and not _exists(key, value, files[key]) for key, value in pairs.values()):
        _refuse_mistakes(overrides, config_dir)
        return
    for word, (key, _) in pairs.items():
        if key in files:
            continue
        if config_dir is not None or not ("=" in word and key.isidentifier()) or key in keys:
            return
        unknown.append(f"{word}: unknown key; {near(key, keys - Config.filled_in)}")
    if unknown:
        raise ConfigError(unknown)


def _exists(group: str, choice: str, files: Collection[Path]) -> bool:
    return any(file.stem == choice for file in files) or is_numbered(group, choice)


def _refuse_mistakes(overrides: Sequence[str], config_dir: Path | None) -> None:
    from rankbench.config.overrides import mistakes

    if problems := mistakes(overrides, config_dir=config_dir):
        raise ConfigError(problems)


def perform(config: Config) -> int:
    """Do a run, or show it if it is done; its exit code.

    A finished run is looked for before anything heavy is imported.

    Args:
        config: frozen configuration.
    """
    folder = folder_of(config)
    record = finished_record(folder)
    if record is not None:
        from rankbench.training.progress import DONE_ALREADY, summarize

        summarize(record, str(folder.path), DONE_ALREADY)
        return OK
    say(f"loading transformers, PEFT, {config.model.name} in {config.model.dtype}, {config.task.name} ...")
    with importing("rankbench.training.run"):
        from rankbench.training.run import execute
    return execute(config)


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Import without garbage collection, and leave what is there then out of collections to come, also the last ones.

    A million objects of modules stay until the process ends; looking through them again and again would take a quarter
    of a short run.

    Args:
        module: what the block imports; nothing is changed where that has been done before.
    """
    if module in sys.modules:
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def say(sentence: str) -> None:
    """Print what comes next, at once; the first process alone."""
    if os.environ.get("RANK", "0") == "0":
        print(sentence, flush=True)


def set_up_logging(checked: CheckedRun) -> None:
    """Configure logging as conf/ declares it for a run (hydra/job_logging)."""
    from hydra.core.utils import configure_log

    configure_log(checked.job_logging)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Overrides and Hydra's flags; ends the process where a flag is none of them."""
    from hydra._internal.utils import get_args_parser  # Hydra takes a moment to import

    parser: argparse.ArgumentParser = get_args_parser()
    parser.prog = "rankbench"
    flags = parser.parse_args(list(words))
    if flags.config_path:
        raise ConfigError([f"--config-path {flags.config_path}: replaces all of conf/; add a folder with --config-dir"])
    return flags


def config_dir_of(flags: argparse.Namespace) -> Path | None:
    """The folder with more configuration files (--config-dir)."""
    return Path(flags.config_dir) if flags.config_dir else None


def inspects(flags: argparse.Namespace) -> bool:
    """Whether a flag asks Hydra to show something, and nothing is run."""
    return bool(flags.cfg or flags.info or flags.hydra_help or flags.shell_completion)


def hydra_run(flags: argparse.Namespace, task: Callable[[DictConfig], int]) -> int:
    """Let Hydra act on its flags: show what they ask for, or call the task in the surroundings that they describe."""
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from rankbench.config import overrides
    from rankbench.config.yaml_files import CONF_DIR

    overrides.extend()
    version.setbase("1.3")
    codes: list[int] = []

    def call(composed: DictConfig) -> None:
        codes.append(task(composed))

    _run_hydra(flags, get_args_parser(), call, str(CONF_DIR), "config")
    return max(codes, default=OK)
