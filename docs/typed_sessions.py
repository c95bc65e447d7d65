"""The console blocks of README and quick start: what is typed there, and what is really printed.

`python docs/typed_sessions.py` types the commands again and writes down what comes; tests/docs/test_typed_sessions.py
fails where the form of the output is another one. A block that has `...` below a command shows the last lines alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "quick_start.md")
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (rankbench.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
LEFT_OUT = "..."
ENVIRONMENT = {"COLUMNS": "100", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
TIME_LEFT = re.compile(r" *\(about .* left\)")
RUN_ID = re.compile(r"\b[0-9a-f]{12}\b")
NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
UNIT_OF_TIME = re.compile(r"(?<=# )(?:s|min|h)\b")


def typed(text: str) -> dict[str, str]:
    """Command -> what a page says that it prints, for each `$ rankbench ...` in its console blocks."""
    return {command: output for block in BLOCK.findall(text) for command, output in COMMAND.findall(block)}


def printed(commands: Iterable[str], folder: Path) -> dict[str, str]:
    """Command -> what it prints to both streams, typed one after the other in one folder.

    Raises:
        CalledProcessError: a command failed.
    """
    outputs = {}
    for command in commands:
        words = [sys.executable, "-m", *command.split()]
        done = subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        outputs[command] = re.sub(r" +$", "", done.stdout, flags=re.MULTILINE)
    return outputs


def shown(output: str, before: str) -> str:
    """The part of an output that a page shows: all of it, or as many last lines as stood there below `...`."""
    if not before.startswith(LEFT_OUT):
        return output
    last = "\n".join(output.splitlines()[1 - len(before.splitlines()) :])
    return f"{LEFT_OUT}\n{last.strip()}\n"


def form(output: str) -> Counter[str]:
    """The words of an output without what differs between two runs: numbers, names of runs, line breaks, order."""
    text = NUMBER.sub("#", RUN_ID.sub("RUN", TIME_LEFT.sub("", output)))
    return Counter(UNIT_OF_TIME.sub("s", re.sub(r"([-─━])\1+", r"\1", text)).split())


def agrees(text: str, output: str) -> bool:
    """Whether a page says in form what is printed: all of it, or below `...` nothing else."""
    if text.startswith(LEFT_OUT):
        return form(text.removeprefix(LEFT_OUT)) <= form(output)
    return form(text) == form(output)


def renewed(text: str, outputs: Mapping[str, str]) -> str:
    """A page with its console blocks filled anew."""
    for block in BLOCK.findall(text):
        filled = COMMAND.sub(lambda each: f"$ {each[1]}\n{shown(outputs[each[1]], each[2])}", block)
        text = text.replace(block, filled)
    return text


def main() -> None:
    """Type every command of the pages in an empty folder and write down what is printed."""
    texts = {page: page.read_text() for page in PAGES}
    with tempfile.TemporaryDirectory() as folder:
        outputs = printed(dict.fromkeys(command for text in texts.values() for command in typed(text)), Path(folder))
    for page, text in texts.items():
        page.write_text(renewed(text, outputs))


if __name__ == "__main__":
    main()
