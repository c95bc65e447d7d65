"""Problems that a model answers in words: trained on worked solutions, scored by the answer it generates."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import TypeVar

from rankbench.config.schema import Settings
from rankbench.core.seeding import Streams
from rankbench.tasks.base import Batch, DataError, Evaluation, Example, Task
from rankbench.tasks.text.language_model import language_model, losses_and_answers, target_length
from rankbench.tasks.text.tokens import Tokens, fitted, prompt_hash

END = "\n"  # closes a solution, in training and in generation
FINAL = re.compile(r"####\s*\$?\s*(-?[\d,]*\.?\d+)")  # "#### 1,250": GSM8K's mark of the final number
# What may follow the mark in a gold: the number as a whole, then at most a unit ("$1,250.50", "40 %", "12 km/h").
GOLD = re.compile(r"\s*\$?\s*-?(?=\.?\d)(\d{1,3}(,\d{3})+|\d*)(\.\d+)?\.?\s*(?P<unit>%|[^\W\d_][^\d\n]*)?\s*")
# Words that make another number of the one before them ("3 million", "5k", "2 and a half"): they are no unit.
FACTOR = re.compile(r"(k|hundred|thousand|million|billion|trillion|dozen|half|halve|third|quarter)s?", re.IGNORECASE)
FINAL_LINE = re.compile(r"####[^\n]*\n")


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        id: name of the item.
        question: text that the prompt asks.
        solution: text that is learned, without the blank before it and the newline after it.
        gold: the right answer.
    """

    id: str
    question: str
    solution: str
    gold: str


def final_number(text: str) -> str | None:
    """The number after the first `####`, in one spelling ("1,250.0" -> "1250"); None if there is none."""
    match = FINAL.search(text)
    if match is None:
        return None
    number = f"{Decimal(match[1].replace(',', '')):f}"
    shortest = number.rstrip("0").rstrip(".") if "." in number else number
    return "0" if shortest == "-0" else shortest


def gold_number(text: str) -> str | None:
    """The number after the only `####`, as `final_number` spells it; None unless it is all that stands on that line.

    A fraction ("1/2", "1½"), a power ("1e3"), a decimal comma ("1.250,00") or a factor ("3 million") would be read as
    another number.
    """
    _, _, rest = text.partition("####")
    match = GOLD.fullmatch(rest.partition("\n")[0])
    if match is None or "####" in rest:
        return None
    unit = match["unit"] or "%"
    if (unit != "%" and not unit[0].isalpha()) or any(map(FACTOR.fullmatch, re.findall(r"\w+", unit))):
        return None
    return final_number(text)


def has_final_line(text: str) -> bool:
    """Whether a line with `####` is complete."""
    return FINAL_LINE.search(text) is not None


class AnswerConfig(Settings):
    """Settings of every task whose answers are generated.

    Attributes:
        max_length: tokens of prompt and solution; a question too long loses its beginning.
        generation_size: how many problems of a split are answered, the first ones; null: all.
        max_new_tokens: largest length of an answer, in tokens.
    """

    max_length: int = Field(ge=8)
    generation_size: int | None = Field(ge=0)
    max_new_tokens: int = Field(ge=1)


class GeneratedConfig(AnswerConfig):
    """Settings of a task whose problems are made on the spot.

    Attributes:
        data_seed: seed of the problems, which do not depend on the run's seed.
        train_size, validation_size, test_size: problems; none is in two splits or twice in one.
    """

    data_seed: int
    train_size: int = Field(ge=1)
    validation_size: int = Field(ge=1)
    test_size: int = Field(ge=1)


AnswerConfigT = TypeVar("AnswerConfigT", bound=AnswerConfig, default=Any)


class Problems(Task[AnswerConfigT]):
    """Loss on the solution's tokens, and exact match of the generated answer.

    Class facts:
        template: the prompt; {question} loses its beginning where it is too long.
    """

    template: ClassVar[str]

    @abstractmethod
    def problems(self) -> tuple[dict[str, list[Problem]], str]:
        """Problems per split, and the revision of the data."""

    @staticmethod
    @abstractmethod
    def answer(text: str) -> str | None:
        """The answer in a generated text; None if it has none."""

    @staticmethod
    @abstractmethod
    def complete(text: str) -> bool:
        """Whether the text has its answer, so that generation may stop; asked after each newline."""

    def num_labels(self) -> None:
        """None: the task is language modelling."""
        return None

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Read or generate the problems; the splits do not depend on the run's streams."""
        self._language_model = language_model(architecture, tokenizer, self.config.name)
        self._tokenizer = tokenizer
        self._learned: set[int] = set()  # tokens of the solutions
        problems, data = self.problems()
        tokenised = {split: self._examples(of_split) for split, of_split in problems.items()}
        self.splits = {split: examples for split, (examples, _) in tokenised.items()}
        truncated = ", ".join(f"{split} {count}" for split, (_, count) in tokenised.items())
        self.revision = {"data": data, "prompt": prompt_hash(self.template, END), "truncated": truncated}

    def _examples(self, problems: Sequence[Problem]) -> tuple[list[Example], int]:
        """Tokenised problems, and how many lost the beginning of their question, being too long with the solution."""
        rows, shortened = fitted(
            self._tokenizer,
            self.template,
            [{"question": problem.question} for problem in problems],
            "question",
            [(f" {problem.solution}{END}",) for problem in problems],
            [problem.id for problem in problems],
            self.config.max_length,
            self._language_model.joins,
        )
        self._learned.update(token for _, (target,) in rows for token in target)
        pairs = [(problem, prompt, target) for problem, (prompt, (target,)) in zip(problems, rows, strict=True)]
        return [self._example(*pair) for pair in pairs], shortened

    def _example(self, problem: Problem, prompt: Tokens, target: Tokens) -> Example:
        """The problem in tokens.

        Raises:
            DataError: the tokenizer cannot write the answer, so that no output of the model could be right.
        """
        text = self._tokenizer.decode(target)
        if self.answer(text) != problem.gold:
            raise DataError(
                f"{problem.id}: the model's tokenizer writes the solution as {text[-60:]!r}, whose answer is "
                f"{self.answer(text)!r} instead of {problem.gold!r}; task={self.config.name} needs a model whose "
                "tokenizer keeps every character"
            )
        if self._language_model.joins and not text.endswith(END) and self._tokenizer.eos_token_id is not None:
            target = (*target, int(self._tokenizer.eos_token_id))  # its tokenizer writes no line break: XGLM, XLNet
        return self._language_model.example(prompt, target, {"id": problem.id, "gold": problem.gold})

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Right-padded batch."""
        return self._language_model.collate(examples)

    def units(self, batch: Batch) -> int:
        """Number of tokens of the solutions."""
        return self._language_model.units(batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of the solutions' tokens."""
        return self._language_model.losses(model, batch).sum()

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Loss of all examples; exact match of the first generation_size, left out if none is generated."""
        losses, texts = self._read(model, examples, batch_size)
        units = [target_length(example) for example in examples]
        items = []
        for index, example in enumerate(examples):
            text = texts[index] if index < len(texts) else None
            loss = {"loss": losses[index] / units[index], "units": units[index]}
            items.append({**example.item, **self._judge(text, example.item["gold"]), **loss, "output": text})
        metrics = {"loss": sum(losses) / sum(units)}
        if texts:
            metrics["exact_match"] = float(np.mean([item["correct"] for item in items[: len(texts)]]))
        return Evaluation(metrics, items)

    def _judge(self, text: str | None, gold: str) -> dict[str, Any]:
        """Prediction and correctness: None if nothing was generated; "" and wrong if the text has no answer."""
        if text is None:
            return {"prediction": None, "correct": None}
        prediction = self.answer(text) or ""
        return {"prediction": prediction, "correct": prediction == gold}

    def _read(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> tuple[list[float], list[str]]:
        """Losses of all examples, and texts of the first generation_size."""
        tokenizer = self._tokenizer

        def stop(answer: list[int]) -> bool:
            return "\n" in tokenizer.decode(answer[-1:]) and self.complete(tokenizer.decode(answer))

        ends = [token for token in tokenizer.all_special_ids if token not in self._learned]  # answers may hold <unk>
        limits = self.config.generation_size, self.config.max_new_tokens
        losses, answers = losses_and_answers(self._language_model, model, examples, *limits, ends, stop, batch_size)
        return losses, [tokenizer.decode(answer) for answer in answers]
