"""`rankbench methods [NAME ...]`: the method table, made of the facts that each class states.

`rankbench check method=NAME ...`: does a method keep the contract?
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench import terminal
from rankbench.cli.arguments import parser as command_parser
from rankbench.cli.exit_codes import FAILED, OK
from rankbench.cli.run import importing, say
from rankbench.config import registry
from rankbench.config.control_sources import complete
from rankbench.config.schema import Settings, conform
from rankbench.config.yaml_files import defaults
from rankbench.terminal import console, loading, print_table

if TYPE_CHECKING:
    from rankbench.contract.checks import CheckResult

UNKNOWN = "?"  # a fact that the class does not give; rankbench.contract.checks says so
CHECK = """Checks that a method keeps the contract, on short runs of a tiny model.

The contract is what makes runs comparable: a run stays in its budget, repeats itself from the same seed, goes on after
an interruption as if there had been none, and leaves an adapter that plain PEFT can read."""
OUTCOMES = {"pass": "green", "fail": "bold red", "skip": "yellow"}


@dataclass(frozen=True)
class Entry:
    """One method, as tables show it.

    Attributes:
        name: what `method=` takes.
        package: the package that brings it; "" for rankbench itself.
        facts: fact -> its text (see rankbench.methods.base.Allocator), for the settings of its YAML.
        deviations: what differs from the source at these settings, a sentence each.
    """

    name: str
    package: str
    facts: dict[str, str]
    deviations: tuple[str, ...]


COLUMNS = {
    "decides": "decides",
    "signal": "signal",
    "budget_kind": "budget",
    "passes": "extra passes",
    "source": "source",
}
MARKDOWN = {"summary": "what it does", "decides": "ranks are decided", "passes": "extra passes", "source": "source"}


def entry(name: str) -> Entry:
    """The row of a method.

    Raises:
        RegistryError: no such method, or one that cannot be loaded.
    """
    cls: Any = registry.get("method", name)
    owner = next((registry.package(point) for point in registry.points("method") if point.name == name), "")
    facts = {fact: str(getattr(cls, fact, UNKNOWN)) for fact in {**COLUMNS, **MARKDOWN}}
    config = settings(cls, name)
    if config is None:
        return Entry(name, owner, facts, tuple(getattr(cls, "deviations", ())))
    return Entry(name, owner, {**facts, "passes": cls.passes_of(config)}, cls.deviations_of(config))


def settings(cls: Any, name: str) -> Settings | None:
    """The settings of a method's YAML; None where the user has to give some, or where they do not fit the class."""
    section = defaults("method", name)
    if "source" in cls.needs:
        section, _ = complete(section, Path(), lambda source: defaults("method", source))
    config: Settings | None = conform(cls.Config, section)[0]
    return config


def show_table(entries: Sequence[Entry]) -> None:
    """Print the table for a terminal."""
    rows = [
        [f"{row.name}\n({row.package})" if row.package else row.name, *(row.facts[fact] for fact in COLUMNS)]
        for row in entries
    ]
    print_table(["name", *COLUMNS.values()], rows, spare=("budget", "source"))


def markdown(entries: Sequence[Entry]) -> str:
    """The table in Markdown."""
    rows = [
        [f"`{row.name}`" + (f" ({row.package})" if row.package else ""), *(row.facts[fact] for fact in MARKDOWN)]
        for row in entries
    ]
    return terminal.markdown(["name", *MARKDOWN.values()], rows)


def deviations(entries: Sequence[Entry]) -> str:
    """How each differs from its source, a sentence a line."""
    sections = [f"{row.name}: {row.facts['source']}" + "".join(f"\n  - {s}" for s in row.deviations) for row in entries]
    return "\n\n".join(sections)


def main(words: Sequence[str]) -> int:
    """Print the table of the methods that are named, or of all.

    Raises:
        RegistryError: no such method, or one that cannot be loaded.
    """
    parser = command_parser("methods", "The methods and their facts.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only these, with their deviations at the settings of their YAML"
    )
    parser.add_argument("--deviations", action="store_true", help="how each differs from its source")
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    arguments = parser.parse_args(words)
    loading("torch")
    with importing("torch"):
        entries = [entry(name) for name in arguments.names or registry.names("method")]
    if arguments.markdown:
        print(markdown(entries))
    else:
        show_table(entries)
    if arguments.deviations or arguments.names:
        console().print("\n" + deviations(entries), markup=False)
    return OK


def show(title: str, results: Sequence[CheckResult]) -> None:
    """Print a row for each check."""
    rows = [[result.check, result.outcome, result.seen] for result in results]
    print_table(["check", "outcome", "what was seen"], rows, title, colours=OUTCOMES)


def check(words: Sequence[str]) -> int:
    """Check the method that the overrides name; 0 if no check fails, else 1."""
    parser = command_parser("check", CHECK)
    parser.add_argument("--config-dir", type=Path, help="a folder with more configuration files")
    parser.add_argument("overrides", nargs="+", metavar="WORD", help="method=NAME, method.key=value, as for a run")
    arguments = parser.parse_intermixed_args(words)
    say("loading torch, transformers, PEFT ...")
    from rankbench.contract.checks import CHECKS, judge
    from rankbench.contract.short_runs import ShortRuns

    with tempfile.TemporaryDirectory(prefix="rankbench-check-") as folder:
        runs = ShortRuns(arguments.overrides, Path(folder), arguments.config_dir)
        results = [judge(name, runs) for name in CHECKS]
    show(" ".join(arguments.overrides), results)
    failed = sum(result.outcome == "fail" for result in results)
    print(f"{failed} of {len(results)} checks failed" if failed else "every check holds")
    return FAILED if failed else OK
