"""Tables as LaTeX: booktabs, everything escaped, no package beyond a plain installation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rankbench.sheet import Cell, Sheet, numeric

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
    "±": r"$\pm$",
    "−": r"$-$",  # noqa: RUF001  the minus sign
    "×": r"$\times$",  # noqa: RUF001
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "–": "--",  # noqa: RUF001
}
PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage[a4paper, landscape, margin=15mm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\begin{document}
"""


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands; a letter that no plain installation has is given by its code point."""
    return "".join(ESCAPES.get(letter, letter if letter.isascii() else f"[U+{ord(letter):04X}]") for letter in text)


def table(sheet: Sheet) -> str:
    """A table environment, shrunk to the width of the line where it is wider; its label is the sheet's name."""
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\small",
            rf"\caption{{{escape(sheet.title)}}}",
            rf"\label{{tab:{sheet.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            *_tabular(sheet),
            "}",
            *(rf"\par\smallskip\raggedright\footnotesize {escape(note)}" for note in sheet.notes),
            r"\end{table}",
            "",
        ]
    )


def document(names: Iterable[str]) -> str:
    """What prints all tables: a document that reads each from tables/NAME.tex."""
    return PREAMBLE + "".join(f"\\input{{tables/{name}}}\n\\clearpage\n" for name in names) + "\\end{document}\n"


def _tabular(sheet: Sheet) -> list[str]:
    alignment = "".join("r" if numeric(sheet, place) else "l" for place in range(len(sheet.columns)))
    return [
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _line([escape(title) for title in sheet.columns]),
        r"\midrule",
        *(_line([_cell(cell) for cell in row]) for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}%",
    ]


def _line(texts: Sequence[str]) -> str:
    return "{}" + " & ".join(texts) + r" \\"  # a line that begins with a bracket would be an argument of \\


def _cell(cell: Cell) -> str:
    text = _signed(escape(cell.text)) if cell.value is not None else escape(cell.text)
    return rf"\textbf{{{text}}}" if cell.strong and text else text


def _signed(text: str) -> str:
    """Hyphens of numbers as minus signs."""
    return text.replace(ESCAPES["-"], "$-$")
