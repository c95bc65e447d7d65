"""The page with the table of architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version


@dataclass
class Table:
    """Rows of the page, and the sentences that they refer to.

    Attributes:
        tolerance: how far a loss may be from that of plain PEFT.
        rows: cells of each architecture, its name first, by kind of model.
        sentences: reasons and notes, in the order of their first use; a cell names one by its number.
    """

    tolerance: float
    rows: dict[str, list[list[str]]] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)

    def number(self, sentence: str) -> int:
        """The number of a sentence, from 1."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)
        return self.sentences.index(sentence) + 1

    def write(self, methods: Sequence[str]) -> str:
        """The page, in Markdown."""
        packages = ", ".join(f"{name} {version(name)}" for name in ("transformers", "peft", "torch"))
        titles = {"decoder": "Decoders", "encoder_decoder": "Encoder-decoders", "encoder": "Encoders"}
        counts = {kind: len(rows) for kind, rows in self.rows.items()}
        works = sum(cell == "works" for rows in self.rows.values() for row in rows for cell in row[2:-1])
        lines = [
            "# Architectures",
            "",
            f"Written by `python benchmarks/architectures.py --out docs/architectures.md` with {packages}.",
            "",
            f"{sum(counts.values())} architectures, each a tiny random model with `model.targets=[all-linear]` on a "
            f"small task; {works} runs work. *Works* means that a run of six steps ended ok and that its exported "
            "adapter, read by plain PEFT on the plain transformers model, has the same loss on every test item (within "
            f"{self.tolerance:g}) and generates the same answers, one item at a time and without a cache; with `lora`, "
            "a plain training loop from the same factors also has the same loss at every step. Numbers refer to the "
            "sentences below the tables: why a run is refused or fails, or what it says in its notes.",
        ]
        for kind, rows in self.rows.items():
            header = [titles[kind], "sites", *methods, "notes"]
            lines += ["", f"| {' | '.join(header)} |", "|" + " --- |" * len(header)]
            lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", "## Reasons and notes", ""]
        lines += [f"{number}. {sentence}" for number, sentence in enumerate(self.sentences, 1)]
        return "\n".join(lines) + "\n"
