"""Templates of prompts whose {placeholders} are columns of somebody's own data."""

from __future__ import annotations

import functools
import re
from string import Formatter


class PromptTemplate(str):
    """A text with {columns}, filled in by `format(**values)`, whatever the columns are called ("meta.title").

    {{ and }} are braces.
    """

    @classmethod
    def written(cls, text: str) -> PromptTemplate:
        r"""The template that a setting spells: \n is a line break, which no command line can write otherwise.

        \\n stands for these two characters.
        """
        return cls(re.sub(r"\\(\\?n)", lambda match: "\n" if match[1] == "n" else r"\n", text))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, each once, in their order.

        Raises:
            ValueError: the braces do not match, or a placeholder is not the name of a column alone.
        """
        return tuple(dict.fromkeys(column for _, column in _pieces(self) if column is not None))

    def format(self, *unused: object, **values: object) -> str:
        """The text with a value in the place of each placeholder."""
        return "".join(text + ("" if column is None else str(values[column])) for text, column in _pieces(self))

    def split_end(self) -> tuple[PromptTemplate, str]:
        """The template without the blanks at its end, and what stands between a prompt and its answer.

        That is those blanks, which a tokenizer writes together with the answer, or one blank where there are none.
        """
        stem = self.rstrip()
        return PromptTemplate(stem), self[len(stem) :] or " "


@functools.lru_cache(maxsize=64)
def _pieces(template: str) -> tuple[tuple[str, str | None], ...]:
    """Each stretch of text with the column behind it; None at the end."""
    pieces = []
    for text, column, form, conversion in Formatter().parse(template):
        if column == "":
            raise ValueError("{} names no column; write its name between the braces, or {{ and }} for braces")
        if form or conversion:
            spelled = f"{{{column}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}}}"
            raise ValueError(
                f"{spelled} is not the name of a column alone; write {{{column}}}, or {{{{ and }}}} for braces"
            )
        pieces.append((text, column))
    return tuple(pieces)
