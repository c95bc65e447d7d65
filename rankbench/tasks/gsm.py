"""GSM8K: school mathematics in words, with worked solutions (Cobbe et al. 2021, arXiv:2110.14168)."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from rankbench.config.registry import register
from rankbench.core.seeding import Streams
from rankbench.tasks.base import DataError
from rankbench.tasks.text.dataset_config import HubConfig
from rankbench.tasks.text.dataset_files import Table, carve, official, read, test_rows
from rankbench.tasks.worked_problems import (
    AnswerConfig,
    GeneratedConfig,
    Problem,
    Problems,
    final_number,
    gold_number,
    has_final_line,
)


class Gsm8kConfig(HubConfig, AnswerConfig):
    """Settings of GSM8K."""


@register("task", "gsm8k")
class Gsm8k(Problems[Gsm8kConfig]):
    """Exact match on the number after `####`; solutions as in the data, calculator notes (<<6*7=42>>) included."""

    source = "openai/gsm8k main"
    template = "Question: {question}\nAnswer:"
    answer = staticmethod(final_number)
    complete = staticmethod(has_final_line)

    def problems(self) -> tuple[dict[str, list[Problem]], str]:
        """Official test as test, or carved out of train like validation."""
        tables, data = read(self.config, ("question", "answer"), official(self.config, "test"))
        train, validation = carve(tables["train"], self.config)
        return {
            "train": _problems(tables["train"], train),
            "validation": _problems(tables["train"], validation),
            "test": _problems(*test_rows(tables, "test", self.config)),
        }, data


def _problems(table: Table, rows: Sequence[int]) -> list[Problem]:
    return [_gsm8k_problem(table, row) for row in rows]


def _gsm8k_problem(table: Table, row: int) -> Problem:
    question, solution = (table.rows[row][column].strip() for column in ("question", "answer"))
    gold = gold_number(solution)
    if gold is None:
        raise DataError(
            f"{table.at(row)}: answer has no number after #### that can be compared, such as 12, 0.5 or "
            f"1,250, with or without a unit: ...{solution[-40:]!r}"
        )
    return Problem(f"{table.split}/{row}", question, solution, gold)


@register("task", "gsm-symbolic")
class GsmSymbolic(Problems[GeneratedConfig]):
    """reasoning-gym's `gsm_symbolic` (85 of the 100 templates, in all splits), with its worked solutions."""

    source = "generated (reasoning-gym gsm_symbolic)"
    template = "Question: {question}\nAnswer:"
    answer = staticmethod(final_number)
    complete = staticmethod(has_final_line)

    def problems(self) -> tuple[dict[str, list[Problem]], str]:
        """Test first, train last, so that a larger train split leaves the others as they are."""
        gym = _reasoning_gym()
        seen: set[str] = set()
        splits = {split: self._draw(gym, split, seen) for split in ("test", "validation", "train")}
        text = "\n".join(f"{p.question}\n{p.solution}" for split in splits.values() for p in split)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return dict(reversed(splits.items())), f"reasoning-gym {version('reasoning-gym')}, sha256:{digest}"

    def _draw(self, gym: Any, split: str, seen: set[str]) -> list[Problem]:
        seed = Streams(self.config.data_seed).key("task", split)  # item i draws from Random(seed + i): far apart
        problems: list[Problem] = []
        for entry in _entries(gym, seed):
            if len(problems) == getattr(self.config, f"{split}_size"):
                return problems
            if entry["question"] not in seen:
                seen.add(entry["question"])
                problems.append(_symbolic_problem(entry, f"{split}/{len(problems)}"))
        raise AssertionError("the generator ends")


def _reasoning_gym() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise DataError(f"task=gsm-symbolic needs a package ({error}); run: pip install reasoning-gym") from error


def _entries(gym: Any, seed: int) -> Iterator[Any]:
    """Endless items of the generator: a larger data set begins with the smaller one."""
    start, size = 0, 1024
    while True:
        dataset = gym.create_dataset("gsm_symbolic", seed=seed, size=size)
        yield from (dataset[index] for index in range(start, size))
        start, size = size, 2 * size


def _symbolic_problem(entry: Any, item: str) -> Problem:
    """An entry with its final line in GSM8K's form; some templates write 36.0 for 36.

    Raises:
        DataError: the worked solution does not end in the answer.
    """
    steps, mark, _ = str(entry["metadata"].get("answer_cot", "")).rpartition("####")
    gold, solved = gold_number(f"#### {entry['answer']}"), gold_number(entry["metadata"].get("answer_cot", ""))
    if not mark or gold is None or gold != solved:
        raise DataError(
            f"{item}: reasoning-gym's worked solution ends in {solved}, its answer is {entry['answer']}; "
            "use the tested version: pip install 'reasoning-gym>=0.1.25,<0.2'"
        )
    return Problem(item, entry["question"], f"{steps}#### {gold}", gold)
