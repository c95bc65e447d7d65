"""The pages of docs/ that follow from the code: methods.md and commands.md.

`python docs/generated_pages.py` writes them; tests/docs/test_pages.py fails where they are out of date.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from rankbench import cli
from rankbench.cli import methods
from rankbench.cli.records import ACTIONS
from rankbench.config import registry

FOLDER = Path(__file__).resolve().parent
COLUMNS = "100"  # width of the help texts, in characters
NOTE = "<!-- Written by `python docs/generated_pages.py`; do not edit. -->"

METHODS = f"""{NOTE}

# Methods

`rankbench methods` prints this table with the signal and the budget of each method. The YAML file of a method in
[conf/method](../conf/method) holds its default settings, each with its source. A *reference arm* or a *control* is no
method that somebody proposed: it shows what another arm's score is worth.

"""

DEVIATIONS = """

## Differences from the sources

Each list holds for the settings of the method's YAML file. `rankbench methods NAME` prints one of them.
"""

COMMANDS = f"""{NOTE}

# Commands

`python -m rankbench` is the same program as `rankbench`. A word `key=value` is a setting, `group=choice` takes a file
of [conf](../conf), and a word without `=` is a command.

## rankbench
"""


def method_page() -> str:
    """The method table and the deviations of each method, without methods of other packages."""
    entries = [methods.entry(name) for name in registry.names("method")]
    own = [entry for entry in entries if not entry.package]
    sections = [
        f"\n### {entry.name}\n\nSource: {entry.facts['source']}.\n\n"
        + "\n".join(f"- {sentence}" for sentence in entry.deviations)
        for entry in own
        if entry.deviations
    ]
    return METHODS + methods.markdown(own) + DEVIATIONS + "\n".join(sections) + "\n"


def command_page() -> str:
    """The help text of the program and of each command, 100 columns wide."""
    texts = [COMMANDS + _block(_help_on())]
    for name in cli.COMMANDS:
        texts.append(f"## rankbench {name}\n{_block(_help_on(name))}")
        if name == "records":
            texts += [f"### rankbench records {action}\n{_block(_help_on(name, action))}" for action in ACTIONS]
    return "\n".join(texts)


def _help_on(*words: str) -> str:
    """What `rankbench WORDS --help` prints where the terminal has COLUMNS columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        with redirect_stdout(io.StringIO()) as printed:
            cli.main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return printed.getvalue()


def _block(text: str) -> str:
    return f"\n```text\n{text.rstrip()}\n```\n"


def pages() -> dict[Path, str]:
    """File -> its text."""
    return {FOLDER / "methods.md": method_page(), FOLDER / "commands.md": command_page()}


def main(arguments: Sequence[str] = ()) -> None:
    """Write the pages."""
    for file, text in pages().items():
        file.write_text(text)


if __name__ == "__main__":
    main()
