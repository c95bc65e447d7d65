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
PIECES = re.compile(r"(\x1b\[[0-9;?]*[A-Za-ln-z]|\r|\n)")  # control sequences but colours (m), and ends of lines
CODE = re.compile(r"\x1b\[([0-9]*)[0-9;?]*([A-Za-z])")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
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
    """The lines that stay on the screen: what has been drawn over, and progress bars, are left out."""
    rows, row, is_new = [""], 0, False  # is_new: the next text begins its line again
    for piece in filter(None, PIECES.split(output)):
        if piece == "\n":
            row, is_new = row + 1, False
            rows += [""] * (row + 1 - len(rows))
        elif piece == "\r":
            is_new = True
        elif code := CODE.fullmatch(piece):
            row -= int(code[1] or 1) if code[2] == "A" else 0
            rows[row] = "" if code[2] == "K" else rows[row]
        else:
            rows[row] = piece if is_new else rows[row] + piece
            is_new = False
    return "\n".join(line for line in rows if not PROGRESS.search(COLOUR.sub("", line))).strip("\n")


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
