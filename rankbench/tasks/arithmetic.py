"""Sums and differences of two-digit numbers: "Calculate: 12 + 45 - 30 =" -> " 27". Generated on the spot."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from rankbench.config.registry import register
from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.worked_problems import GeneratedConfig, Problem, Problems

LOW, HIGH = 10, 99
NUMBER = re.compile(r"\s*(-?\d+)(?!\.?\d)")


class ArithmeticConfig(GeneratedConfig):
    """Settings of the arithmetic task.

    Attributes:
        terms: how many numbers an expression may have; each count is equally likely.
    """

    terms: list[int]


def leading_number(text: str) -> str | None:
    """The whole number that the text begins with ("27", "27." or "27 apples", not "27.5")."""
    match = NUMBER.match(text)
    return match[1] if match else None


def has_line(text: str) -> bool:
    """Whether a line is complete."""
    return "\n" in text


@register("task", "arithmetic")
class Arithmetic(Problems[ArithmeticConfig]):
    """The answer is the whole number that the generated line begins with."""

    source = "generated"
    template = "Calculate: {question} ="  # SmolLM2 with a bare "{question} =" learns a third as much in 60 steps
    answer = staticmethod(leading_number)
    complete = staticmethod(has_line)

    @staticmethod
    def check(config: ArithmeticConfig) -> list[str]:
        """What is wrong with the section beyond types."""
        if not config.terms or min(config.terms) < 2:
            return [f"task.terms={config.terms}: needs one count or more, each >= 2, e.g. [2, 3]"]
        wanted, possible = config.train_size + config.validation_size + config.test_size, available(config.terms)
        if wanted > possible:
            return [f"task.train_size={config.train_size}: {wanted} expressions asked for in all, there are {possible}"]
        return []

    def problems(self) -> tuple[dict[str, list[Problem]], str]:
        """Test first, train last, so that a larger train split leaves the others as they are."""
        for problem in self.check(self.config):
            raise DataError(problem)
        seen: set[str] = set()
        splits = {split: self._draw(split, seen) for split in ("test", "validation", "train")}
        text = "\n".join(problem.question for split in splits.values() for problem in split)
        return dict(reversed(splits.items())), f"generated, sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def _draw(self, split: str, seen: set[str]) -> list[Problem]:
        rng = Streams(self.config.data_seed).numpy("task", split)
        problems: list[Problem] = []
        while len(problems) < getattr(self.config, f"{split}_size"):
            question, value = expression(int(rng.choice(self.config.terms)), rng)
            if question not in seen:
                seen.add(question)
                problems.append(Problem(f"{split}/{len(problems)}", question, str(value), str(value)))
        return problems


def expression(terms: int, rng: np.random.Generator) -> tuple[str, int]:
    """A random expression like "12 + 45 - 30", and its value (which may be negative)."""
    numbers = [int(term) for term in rng.integers(LOW, HIGH + 1, terms)]
    signs = [1, *(int(sign) for sign in rng.choice((1, -1), terms - 1))]
    text = str(numbers[0])
    for term, sign in zip(numbers[1:], signs[1:], strict=True):
        text += f" {'+' if sign > 0 else '-'} {term}"
    return text, sum(term * sign for term, sign in zip(numbers, signs, strict=True))


def available(terms: list[int]) -> int:
    """Number of different expressions."""
    return sum((HIGH - LOW + 1) ** count * 2 ** (count - 1) for count in set(terms))
