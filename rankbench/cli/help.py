"""`rankbench --help [TOPIC]`: all commands and groups; the choices of a group; the file of a choice.

Read from conf/ and from the conf/ folders of installed packages; imports neither torch nor Hydra.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankbench import RankbenchError
from rankbench.cli import COMMANDS, command
from rankbench.cli.arguments import width
from rankbench.cli.exit_codes import OK
from rankbench.config.budget_names import MODEL_FILE, is_numbered
from rankbench.config.budget_names import text as numbered_text
from rankbench.config.registry import conf_folders
from rankbench.config.schema import near
from rankbench.config.yaml_files import CONF_DIR, content

GROUP_ORDER = ["method", "model", "task", "budget", "train", "tracking", "experiment", "scale"]
OF_SWEEPS = ("experiment", "scale")
NUMBERED = "; rN for any N"  # budgets that no file is needed for

USAGE = [
    ("rankbench [group=choice ...] [key=value ...]", "one run"),
    ("rankbench -m method=lora,igu seed=0,1 ...", "a sweep: one run for each combination"),
    ("rankbench COMMAND ...", "another command"),
]
SETTINGS = [
    ("seed=", "seed of every random stream ({seed})"),
    ("results_dir=", "folder for runs/<run_id>/ ({results_dir}); commands that read it take --results DIR"),
    ("<group>.<key>=", "any setting of the chosen files: train.steps=200 method.beta1=0.9 model.path=DIR"),
    ("adapter.<key>=", "scale rule, alpha and dropout of the adapter that all methods share"),
]
EXAMPLES = [
    ("rankbench", "the default run"),
    ("rankbench method=lora model=tiny task=planted", "a run of seconds"),
    ("rankbench method=adalora budget=r4 --cfg job", "print the whole configuration, run nothing"),
    ("rankbench task=gsm8k task.data_dir=DIR", "data from a folder"),
    ("rankbench --hydra-help", "Hydra's own flags"),
]
ENDING = (
    "Exit code: 0 all is well, 1 a run failed or is missing, 2 a mistake in the command line (nothing was run), "
    "75 the folder of the run is in use or its disk is full (the run itself did not fail), "
    "130 interrupted. HYDRA_FULL_ERROR=1 shows the traceback of a failure."
)
RUN_USAGE = [
    ("rankbench [run] [group=choice ...] [key=value ...]", "one run; the word run may be left out"),
]
FLAGS = [
    ("--cfg job", "print the whole configuration, run nothing"),
    ("--config-dir DIR", "a folder with more configuration files: DIR/method/mine.yaml is method=mine"),
    ("-m, --multirun", "a sweep instead of one run; rankbench sweep --help says more"),
    ("--hydra-help", "all flags of Hydra"),
]
SWEEP_USAGE = [
    ("rankbench sweep key=a,b group=x,y ...", "a run for each combination"),
    ("rankbench sweep experiment=NAME [key=value ...]", "the runs of an experiment"),
    ("rankbench -m ...", "the same as rankbench sweep ..."),
]
SWEEP_SETTINGS = [
    ("experiment=", "an experiment of conf/experiment/; rankbench --help experiment says what each one is"),
    ("scale=", "the scale of the experiment: full (the file itself), or one of rankbench --help scale"),
    ("arms=", "some arms of the experiment alone: arms=lora,igu"),
    ("retry=", "failed does failed runs again; none leaves them (none)"),
    ("futile=", "allow starts a design that can show nothing; refuse does not (refuse)"),
    ("ladder.gate=", "false runs panels where more budget does not help, too"),
    ("results_dir=", "folder for runs/ and sweeps/ ({results_dir}); a run that is done there is not done again"),
]
TUNE = [
    ("tune.learning_rate=", "rates that each arm tries: tune.learning_rate=1e-4,3e-4,1e-3"),
    ("tune.seeds=", "seeds of the tuning trials, other than the reported ones (100)"),
    ("tune.metric=", "validation metric that chooses the rate (validation/loss)"),
    ("tune.widen=", "how often the grid may grow where the best rate is at its edge (2)"),
]
LAUNCHER = [
    (
        "hydra.launcher.slots=",
        "runs at a time (one for each GPU; on CPUs one, or as many as train.threads leaves room)",
    ),
    ("hydra.launcher.timeout=", "seconds that a run may take (no limit)"),
    ("hydra.launcher.memory=", "GiB that a run may hold (no limit)"),
    ("hydra/launcher=", "another launcher: joblib, submitit_local, submitit_slurm, ray; each comes with an extra"),
]
SWEEP_EXAMPLES = [
    ("rankbench sweep method=lora,igu seed=0,1", "four runs"),
    ("rankbench plan experiment=igu_ablation", "what a sweep would do; nothing is run"),
    ("rankbench status", "what became of the runs of the last sweep"),
]


def show_help(topics: Sequence[str]) -> int:
    """Print the help on each topic (a command, a group, group=choice); without one, the overview.

    Raises:
        RankbenchError: a topic that there is no help on.
    """
    for topic in topics or [""]:
        if topic in TEXTS:
            print(TEXTS[topic]())
        elif topic in COMMANDS:
            command(topic)(["--help"])
        else:
            print(text_on(topic))
    return OK


def text_on(topic: str) -> str:
    """The help on a topic.

    Raises:
        RankbenchError: there is none.
    """
    if not topic:
        return overview()
    name, _, choice = topic.partition("=")
    files = groups()
    if name not in files:
        raise RankbenchError(f"--help {topic}: no command or group; {near(name, [*COMMANDS, *files])}")
    if not choice:
        return group_help(name, files[name])
    file = next((file for file in files[name] if file.stem == choice), None)
    if file is None and is_numbered(name, choice):
        return f"{MODEL_FILE}, at uniform rank {choice[1:]}\n\n{numbered_text(choice).rstrip()}"
    if file is None:
        stems = [file.stem for file in files[name]]
        raise RankbenchError(f"--help {topic}: unknown {name}; {near(choice, stems)}")
    return f"{file}\n\n{file.read_text().rstrip()}"


def groups(config_dir: Path | None = None) -> dict[str, dict[Path, str]]:
    """Group -> its files, sorted, each with the package that brings it ("" for rankbench and for `config_dir`)."""
    files: dict[str, dict[Path, str]] = {}
    own = {CONF_DIR: "", **({config_dir: ""} if config_dir else {})}
    for folder, package in {**own, **conf_folders()}.items():
        for file in folder.glob("*/*.yaml"):
            files.setdefault(file.parent.name, {}).setdefault(file, package)
    ordered = sorted(sorted(files), key=lambda group: GROUP_ORDER.index(group) if group in GROUP_ORDER else 99)
    return {group: {file: files[group][file] for file in sorted(files[group], key=_numeric)} for group in ordered}


def _numeric(file: Path) -> list[tuple[int, str]]:
    """A sort key that puts r2 before r16."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.stem)]


def _defaults(root: dict[str, Any]) -> dict[str, str]:
    """Group -> the choice that is taken where none is given."""
    return {key: str(value) for entry in root["defaults"] if isinstance(entry, dict) for key, value in entry.items()}


def overview() -> str:
    """All commands, the groups with some of their choices, other settings, examples."""
    root = content(CONF_DIR / "config.yaml")
    settings = [(key, meaning.format(**root)) for key, meaning in SETTINGS]
    choices = [(f"{group}=", _some_choices(group, list(files), _defaults(root))) for group, files in groups().items()]
    return "\n\n".join(
        [
            _columns(USAGE, indent=0),
            _block("Commands (rankbench COMMAND --help says more):", list(COMMANDS.items())),
            _block("Groups of a run (* is the default; rankbench --help GROUP names every choice):", choices),
            _block("Other settings:", settings),
            _block("Examples:", EXAMPLES),
            textwrap.fill(ENDING, width()),
        ]
    )


def _some_choices(group: str, files: Sequence[Path], defaults: Mapping[str, str]) -> str:
    """The default and as many other choices as one line has room for, and how many there are beside."""
    stems = sorted((file.stem for file in files), key=lambda stem: stem != defaults.get(group))
    names = [f"*{stem}" if stem == defaults.get(group) else stem for stem in stems]
    suffix = "  (with -m)" if group in OF_SWEEPS else NUMBERED if group == "budget" else ""
    room = width() - len(max(GROUP_ORDER, key=len)) - 5 - len(suffix)
    for shown in range(len(names), 0, -1):
        rest = f" and {len(names) - shown} more" if shown < len(names) else ""
        if len(text := ", ".join(names[:shown]) + rest) <= room:
            break
    return text + suffix


def run_help() -> str:
    """The help on one run: its settings, and the flags that Hydra has."""
    root = content(CONF_DIR / "config.yaml")
    defaults = _defaults(root)
    rows = [(f"{group}=", f"default: {defaults[group]}") for group in groups() if group in defaults]
    settings = [(key, meaning.format(**root)) for key, meaning in SETTINGS]
    return "\n\n".join(
        [
            _columns(RUN_USAGE, indent=0),
            _block("Groups (rankbench --help GROUP says what each choice is):", rows),
            _block("Other settings:", settings),
            _block("Flags:", FLAGS),
            _block("Examples:", EXAMPLES),
            textwrap.fill(ENDING, width()),
        ]
    )


def sweep_help() -> str:
    """The help on a sweep: the settings that one run does not have."""
    settings = [(key, meaning.format(**content(CONF_DIR / "config.yaml"))) for key, meaning in SWEEP_SETTINGS]
    return "\n\n".join(
        [
            _columns(SWEEP_USAGE, indent=0),
            _block("Settings of a sweep (those of a run go with them; rankbench run --help):", settings),
            _block("Learning rates chosen on validation, before the runs that are reported:", TUNE),
            _block("Where and how the runs start:", LAUNCHER),
            _block("Examples:", SWEEP_EXAMPLES),
            textwrap.fill(ENDING, width()),
        ]
    )


TEXTS = {"run": run_help, "sweep": sweep_help}  # command -> its help, where no parser of ours prints one


def group_help(group: str, files: dict[Path, str]) -> str:
    """The choices of a group, each with the first comment of its file and the package that brings it."""
    default = _defaults(content(CONF_DIR / "config.yaml")).get(group)
    rows = []
    for file, package in files.items():
        mark = "*" if file.stem == default else " "
        rows.append((f"{mark} {file.stem}", " ".join([*([f"[{package}]"] if package else []), _first_comment(file)])))
    only = " It belongs to a sweep: add -m." if group in OF_SWEEPS else ""
    only += " rN is the budget of uniform rank N, for any N: budget=r3." if group == "budget" else ""
    title = textwrap.fill(
        f"{group}= takes one of these{' (* is the default)' if default else ''}; several, with commas, need -m.{only}",
        width(),
    )
    example = next(iter(files)).stem
    return "\n\n".join(
        [
            title,
            _columns(rows),
            textwrap.fill(f"rankbench --help {group}={example} prints the file of a choice.", width()),
        ]
    )


def _first_comment(file: Path) -> str:
    first = file.read_text().removeprefix("# @package _global_\n").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def _block(title: str, rows: Sequence[tuple[str, str]]) -> str:
    return f"{textwrap.fill(title, width())}\n{_columns(rows)}"


def _columns(rows: Sequence[tuple[str, str]], indent: int = 2) -> str:
    """Two columns; the second is filled to the width of the terminal."""
    first = max(len(left) for left, _ in rows) + 2
    lines = []
    for left, right in rows:
        start = " " * indent + left.ljust(first)
        if first > 0.7 * width():  # no room beside it
            lines += [" " * indent + left, textwrap.fill(right, width(), initial_indent=" " * 6)]
        else:
            filled = textwrap.fill(
                right, width(), initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
            )
            lines.append((filled or start).rstrip())
    return "\n".join(lines)
