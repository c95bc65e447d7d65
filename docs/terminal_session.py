"""Record what the commands of the quick start look like on a terminal, as an SVG picture.

`python docs/terminal_session.py` types them on a pseudo-terminal in an empty folder and writes
docs/_static/terminal_session.svg. The picture asks for no font.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text
from typed_sessions import ENVIRONMENT, PAGES, typed

PICTURE = Path(__file__).resolve().parent / "_static" / "terminal_session.svg"
COLUMNS, LINES = 100, 60
OTHER_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")  # all control sequences but colours (m)
PROGRESS = re.compile(r"^(loading|step \d|evaluating)|s/step|\d+/\d+ *$")
FONT_FACE = re.compile(r"@font-face\s*\{[^}]*\}\s*")


def on_terminal(command: str, folder: Path) -> str:
    """What a command prints on a terminal, with its colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    words = [sys.executable, "-m", *command.split()]
    environment = {**os.environ, **ENVIRONMENT, "TERM": "xterm-256color"}
    process = subprocess.Popen(words, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    pieces = []
    while piece := _read(master):
        pieces.append(piece)
    if process.wait():
        raise SystemExit(f"{command}: exit code {process.returncode}\n{b''.join(pieces).decode()}")
    return b"".join(pieces).decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the process has ended
        return b""


def last_seen(output: str) -> str:
    """The lines that stay on the screen: what a progress bar has drawn over, and the bar itself, are left out."""
    lines = []
    for line in output.replace("\r\n", "\n").split("\n"):
        line = OTHER_CODES.sub("", line).rpartition("\r")[2]
        if not PROGRESS.search(re.sub(r"\x1b\[[0-9;]*m", "", line)):
            lines.append(line)
    return "\n".join(lines).strip("\n")


def main() -> None:
    """Type the commands of the quick start and draw what is seen."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    with tempfile.TemporaryDirectory() as folder:
        for command in typed(PAGES[0].read_text()):
            console.print(Text.assemble(("$ ", "bold green"), command))
            console.print(Text.from_ansi(last_seen(on_terminal(command, Path(folder)))), end="\n\n")
    picture = FONT_FACE.sub("", console.export_svg(title="rankbench"))
    PICTURE.write_text(re.sub(r"[ \t]+$", "", picture, flags=re.MULTILINE))


if __name__ == "__main__":
    main()
