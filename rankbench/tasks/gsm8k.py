"""GSM8K: school mathematics in words, with worked solutions (Cobbe et al. 2021, arXiv:2110.14168)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankbench.config.registry import register
from rankbench.config.schema import number
from rankbench.tasks.base import DataError
from rankbench.tasks.problems import Problem, Problems, final_number, has_final_line
from rankbench.tasks.reading import Table, carve, choose, read


@dataclass
class Config:
    """Settings of GSM8K.

    Attributes:
        data_dir: folder with train.jsonl and test.jsonl (or .json, .parquet, .csv); null reads the hub.
        hub, subset, revision: data set on the hub, its configuration, and its commit (null: the newest).
        train_size: training problems; null takes all that validation leaves.
        validation_size: problems carved out of the official train split.
        test_size: fixed subset of the official test split; null takes all of it.
        max_length: tokens of prompt and solution; a question too long loses its beginning.
        generation_size: how many of a split are answered, the first ones; null: all.
        max_new_tokens: of an answer.
    """

    name: str
    data_dir: str | None
    hub: str
    subset: str
    revision: str | None
    train_size: int | None = number(low=1)
    validation_size: int = number(low=1)
    test_size: int | None = number(low=1)
    max_length: int = number(low=8)
    generation_size: int | None = number(low=0)
    max_new_tokens: int = number(low=1)


@register("task", "gsm8k")
class Gsm8k(Problems):
    """Exact match on the number after `####`; solutions as in the data, calculator notes (<<6*7=42>>) included."""

    source = "openai/gsm8k main"
    Config = Config
    template = "Question: {question}\nAnswer:"
    answer = staticmethod(final_number)
    complete = staticmethod(has_final_line)

    def problems(self) -> tuple[dict[str, list[Problem]], str]:
        """Official test as test; validation carved out of train."""
        tables, data = read(self.config, ("question", "answer"), ("train", "test"))
        train, validation = carve(tables["train"], self.config)
        test = choose(tables["test"], self.config)
        return {
            "train": _problems(tables["train"], train),
            "validation": _problems(tables["train"], validation),
            "test": _problems(tables["test"], test),
        }, data


def _problems(table: Table, rows: Sequence[int]) -> list[Problem]:
    return [_problem(table, row) for row in rows]


def _problem(table: Table, row: int) -> Problem:
    question, solution = (str(table.rows[row][column]).strip() for column in ("question", "answer"))
    gold = final_number(solution)
    if gold is None:
        raise DataError(f"{table.place}, row {row + 1}: answer has no number after ####: ...{solution[-40:]!r}")
    return Problem(f"{table.split}/{row}", question, solution, gold)
