"""One run or one sweep."""

from __future__ import annotations

import os
import re
import sys
import textwrap
import traceback
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

MISTAKE, FAILED, INTERRUPTED = 2, 1, 130  # exit codes; a run that ends without status ok gives its own


def main() -> int:
    """Run what the command line asks for.

    Returns:
        0 if every run ended with status ok, 2 if the configuration has a mistake (nothing was run), 130 after Ctrl-C,
        else the exit code of the worst run.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text())
        return 0
    # hydra takes a moment to import: after the help
    from hydra._internal.utils import get_args_parser

    arguments = get_args_parser().parse_args()
    inspects = arguments.cfg or arguments.info or arguments.hydra_help or arguments.shell_completion
    try:
        if arguments.multirun and not inspects:
            return _sweep(arguments)
        return _run_hydra() if inspects or _accepts(arguments) else MISTAKE
    except KeyboardInterrupt:
        print("rankbench: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED


def _sweep(arguments: Namespace) -> int:
    from rankbench.config.schema import ConfigError
    from rankbench.launching.driver import start

    try:
        return start(arguments.overrides, _extra(arguments), arguments.config_name or "config")
    except ConfigError as error:
        _complain(error)
        return MISTAKE
    except Exception as error:
        _complain(error)
        return FAILED


def _extra(arguments: Namespace) -> Path | None:
    return Path(arguments.config_dir) if arguments.config_dir else None


def _accepts(arguments: Namespace) -> bool:
    """Whether the run that the command line asks for can start; else says all that is wrong."""
    from rankbench.config.overrides import mistakes
    from rankbench.config.schema import ConfigError

    of_sweeps = [word for word in arguments.overrides if word.partition("=")[0].partition(".")[0] in SWEEP_WORDS]
    problems = [f"{word}: is of a sweep; add -m" for word in of_sweeps]
    if not problems:
        problems = mistakes(arguments.overrides, False, _extra(arguments), arguments.config_name or "config")
    if problems:
        _complain(ConfigError(problems))
    return not problems


def _run_hydra() -> int:
    """Hydra composes and calls; the exit code is taken from the job, since Hydra returns nothing."""
    import hydra

    from rankbench.config import overrides
    from rankbench.config.yaml_files import CONF_DIR

    overrides.extend()
    codes: list[int] = []
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(
        lambda composed: codes.append(_run_one(composed))
    )()
    return max(codes, default=0)


def _run_one(composed: DictConfig) -> int:
    """One run; a failure is told and returned, not raised."""
    from rankbench.config.schema import ConfigError
    from rankbench.config.validation import build

    try:
        from rankbench.training.run import execute

        return execute(build(composed))
    except Exception as error:
        _complain(error)
        return MISTAKE if isinstance(error, ConfigError) else FAILED


def _complain(error: Exception) -> None:
    if os.environ.get("HYDRA_FULL_ERROR"):
        traceback.print_exception(error)
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    print(f"rankbench: {kind}{error}", file=sys.stderr)


def help_text() -> str:
    """Groups with their choices, each with its file's first comment, and examples. Needs neither torch nor hydra."""
    from omegaconf import OmegaConf

    from rankbench.config.registry import conf_folders
    from rankbench.config.yaml_files import CONF_DIR

    root: Any = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "config.yaml"))
    defaults = {key: value for entry in root["defaults"] if isinstance(entry, dict) for key, value in entry.items()}
    groups: dict[str, dict[Path, str]] = {}
    for conf, package in {CONF_DIR: "", **conf_folders()}.items():
        for file in conf.glob("*/*.yaml"):
            groups.setdefault(file.parent.name, {}).setdefault(file, package)
    ordered = sorted(sorted(groups), key=lambda group: GROUP_ORDER.index(group) if group in GROUP_ORDER else 99)
    described = "\n".join(_describe_group(group, groups[group], str(defaults.get(group))) for group in ordered)
    return HELP.format(groups=described, seed=root["seed"], results_dir=root["results_dir"])


def _describe_group(group: str, files: dict[Path, str], default: str) -> str:
    """Its choices, sorted; those of other packages name theirs."""
    lines = [f"  {group}="]
    for file in sorted(files, key=_numbers_apart):
        first = file.read_text().partition("\n")[0]
        about = first.lstrip("# ") if first.startswith("#") and "@package" not in first else ""
        about = f"[{files[file]}] {about}" if files[file] else about
        mark = "*" if file.stem == default else " "
        lines.append(f"    {mark} {file.stem:<16} {textwrap.shorten(about, 96, placeholder=' ...')}".rstrip())
    return "\n".join(lines)


def _numbers_apart(file: Path) -> list[tuple[int, str]]:
    """Sorts r2 before r16."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.stem)]


SWEEP_WORDS = ("experiment", "scale", "arms", "retry", "tune")
GROUP_ORDER = ["method", "model", "task", "budget", "train", "tracking", "experiment"]

HELP = """\
python -m rankbench [group=choice ...] [key=value ...]      one run
python -m rankbench -m method=lora,igu seed=0,1,2 ...       one run for each combination

Groups and their choices (* is the default; several choices, with commas, need -m):

{groups}

Other settings:
  seed=              of every random stream of the run ({seed})
  results_dir=       where runs/<run_id>/ is written ({results_dir})
  <group>.<key>=     any setting of the chosen files: train.steps=200 method.beta1=0.9 model.path=DIR
  adapter.<key>=     scale rule, alpha and dropout of the adapter that all methods share

Examples:
  python -m rankbench                                                   the default run
  python -m rankbench method=lora model=tiny task=planted train=smoke   a run of seconds
  python -m rankbench method=adalora budget=r4 --cfg job                print the whole configuration, run nothing
  python -m rankbench task=gsm8k task.data_dir=DIR                      data from a folder
  python -m rankbench --hydra-help                                      Hydra's own flags

Exit code: 0 all runs ok, 2 a mistake in the configuration (nothing was run), 130 interrupted, else a run failed.
HYDRA_FULL_ERROR=1 shows the traceback of a failure.
"""
