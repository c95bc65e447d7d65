"""Text in LaTeX: escaped, and as wide as Times sets it."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import matplotlib

MATH = 778  # thousandths of the size: a sign that is not of the text's type, at most
LONG = 14  # letters: a longer word, such as a setting, may be broken after a sign

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "-": r"{-}",  # no ligature of two
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "\N{NO-BREAK SPACE}": "~",
    "\N{MINUS SIGN}": r"\textminus{}",
    "\N{EN DASH}": "--",
    "±": r"\textpm{}",
    "×": r"\texttimes{}",  # noqa: RUF001
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "√": r"$\surd$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "α": r"$\alpha$",  # noqa: RUF001
    "β": r"$\beta$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",  # noqa: RUF001
    **{chr(ord("₀") + digit): f"$_{digit}$" for digit in range(10)},
}
APOSTROPHE = re.compile(r"(?<=\w)\\textquotesingle\{\}(?=\w)")
BREAK = re.compile(r"([=/,:+]|\.(?!\d)|\\_|\{-\})(?=[\w\\{\[])")  # in an escaped word, not in a number


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands; a letter that no plain installation has is given by its code point."""
    return " ".join(map(_word, text.split(" ")))


def _word(word: str) -> str:
    escaped = "".join(ESCAPES.get(letter, letter if letter.isascii() else f"[U+{ord(letter):04X}]") for letter in word)
    escaped = APOSTROPHE.sub("'", escaped)
    is_breakable = len(word) > LONG and "\N{NO-BREAK SPACE}" not in word
    return BREAK.sub(r"\1\\allowbreak{}", escaped) if is_breakable else escaped


def measure(text: str, size: float, bold: bool = False) -> float:
    """Width in points of a text, not escaped, on one line, in a type of `size` points."""
    letters = _letters("ptmb8a" if bold else "ptmr8a")
    return size / 1000 * sum(letters.get(letter, MATH) for letter in text)


def wrap(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """Lines of a text that are no wider than `width` points; a single word may be."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or measure(longer, size, bold) <= width + 0.01:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@functools.cache
def _letters(font: str) -> dict[str, int]:
    """Letter -> width in thousandths of the size, from the metrics that matplotlib brings."""
    metrics = (Path(matplotlib.get_data_path()) / "fonts" / "afm" / f"{font}.afm").read_text(errors="replace")
    widths = {chr(int(code)): int(width) for code, width in re.findall(r"^C (\d+) ; WX (\d+)", metrics, re.MULTILINE)}
    plain = {letter: width for letter, width in widths.items() if letter.isascii()}
    return {**plain, "\N{NO-BREAK SPACE}": plain[" "]}
