"""SQuAD: the span of a Wikipedia paragraph that answers a question (Rajpurkar et al. 2016, 2018)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from rankbench.config.registry import register
from rankbench.core.seeding import Streams
from rankbench.files import expanded, fingerprint
from rankbench.tasks.base import Batch, DataError, Evaluation, Example, Task
from rankbench.tasks.text.dataset_config import HubConfig
from rankbench.tasks.text.dataset_files import Table, carve, is_text, official, read, test_rows
from rankbench.tasks.text.spans import Question, Spans, Window, exact_match, f1
from rankbench.tasks.text.tokens import prompt_hash

OFF = 2  # characters by which an official position may be off


class SquadConfig(HubConfig):
    """Settings of SQuAD; max_length is that of a window, sizes count questions.

    Attributes:
        stride: tokens of the paragraph that two windows share.
        max_answer_length: tokens of a predicted answer.
    """

    stride: int = Field(ge=0)
    max_answer_length: int = Field(ge=1)


class Squad(Task[SquadConfig]):
    """Exact match and F1 of the likeliest span, by the rule of the official script, on the official development split.

    Class facts:
        files: official names of train and development split.
        unanswerable: whether some questions have no answer in their paragraph; then [CLS] may be the likeliest.
    """

    files: ClassVar[tuple[str, str]]
    unanswerable: ClassVar[bool]

    def num_labels(self) -> int:
        """Two: first and last token."""
        return 2

    def problem(self) -> Literal["span"]:
        """An encoder's head marks a span."""
        return "span"

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Read the official splits; the streams are not used (Streams(0) carves, so that seeds are paired)."""
        if architecture != "encoder":
            raise DataError(f"task={self.config.name} marks a span of a text: use an encoder, not a {architecture}")
        config = self.config
        self._spans = Spans(tokenizer, config.max_length, config.stride, config.max_answer_length)
        tables, data = self._read()
        train, validation = carve(tables["train"], config)
        rows = {"train": (tables["train"], train), "validation": (tables["train"], validation)}
        rows["test"] = test_rows(tables, "validation", config)
        self.splits, counts = {}, []
        for split, (table, chosen) in rows.items():
            windows = self._spans.windows([self._question(table, row) for row in chosen])
            self.splits[split] = [window for of_question in windows for window in of_question]
            counts.append(f"{split} {sum(len(of_question) > 1 for of_question in windows)}")
        self.revision = {"data": data, "prompt": prompt_hash("question", "context"), "windowed": ", ".join(counts)}

    def _read(self) -> tuple[dict[str, Table], str]:
        folder = None if self.config.data_dir is None else expanded(self.config.data_dir)
        if folder is None or not any((folder / name).is_file() for name in self.files):
            return read(self.config, ("question", "context"), official(self.config, "validation"), labels=("answers",))
        tables, digest = {}, hashlib.sha256()
        for split, name in zip(official(self.config, "validation"), self.files, strict=False):
            tables[split] = _official(folder / name, split)
            digest.update(f"{split}\0{fingerprint(folder / name)}\n".encode())
        return tables, f"sha256:{digest.hexdigest()}"

    def _question(self, table: Table, row: int) -> Question:
        """A row as a question.

        Raises:
            DataError: an empty context, or an answer that does not stand where the row says.
        """
        values, place = table.rows[row], table.at(row)
        if not values["context"].strip():
            raise DataError(f"{place}, column context: there is no text; mend or remove the row")
        answers = values["answers"]
        if not _is_list(answers):
            raise DataError(
                f"{place}, column answers: expected lists text and answer_start of one length, not {answers!r}; mend "
                "the row"
            )
        pairs = zip(answers["answer_start"], answers["text"], strict=True)
        context = values["context"]
        spans = tuple((_position(context, words, start, place), words) for start, words in pairs if words)
        if not spans and not self.unanswerable:
            raise DataError(f"{place}, column answers: there is none; questions without an answer are in task=squad-v2")
        return Question(f"{table.split}/{row}", values["question"], context, spans)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Right-padded batch of windows."""
        return self._spans.collate(examples)

    def units(self, batch: Batch) -> int:
        """Number of windows."""
        return len(batch["labels"])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed mean of the cross-entropies of first and last token."""
        return self._spans.losses(model, batch).sum()

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Loss per window; exact match and F1 per question, whose answer is the best span of all its windows."""
        windows = [example for example in examples if isinstance(example, Window)]
        readings = self._spans.readings(model, windows, batch_size)
        numbers: dict[str, list[int]] = {}
        for number, window in enumerate(windows):
            numbers.setdefault(window.question.id, []).append(number)
        items = []
        for of_question in numbers.values():
            best = max(of_question, key=lambda number: readings[number].score)
            null = min(readings[number].null for number in of_question)
            silent = self.unanswerable and null > readings[best].score
            predicted = "" if silent else self._spans.text(windows[best], readings[best].span)
            gold = windows[best].question.gold
            losses = [readings[number].loss for number in of_question]
            scores = {"correct": exact_match(gold, predicted), "f1": f1(gold, predicted)}
            loss = {"loss": float(np.mean(losses)), "units": len(losses)}
            items.append({**windows[best].item, "prediction": predicted, **scores, **loss})
        metrics = {
            "loss": float(np.mean([reading.loss for reading in readings])),
            "exact_match": float(np.mean([item["correct"] for item in items])),
            "f1": float(np.mean([item["f1"] for item in items])),
        }
        return Evaluation(metrics, items)


def _is_list(answers: Any) -> bool:
    """Whether answers are texts with as many whole numbers, in two lists."""
    if not isinstance(answers, dict):
        return False
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return False
    return all(is_text(text) for text in texts) and all(type(start) is int for start in starts)


def _position(context: str, words: str, start: int, place: str) -> int:
    """Where an answer stands; official positions are off by a character or two in places."""
    position = start if context.startswith(words, start) else context.find(words, max(0, start - OFF))
    if position < 0 or abs(position - start) > OFF:
        raise DataError(f"{place}, column answers: {words!r} does not stand at {start} of the context; mend the row")
    return position


def _official(file: Path, split: str) -> Table:
    """The rows of an official file, whose questions stand under paragraphs, and those under articles.

    Raises:
        DataError: the file is missing or no JSON (with the line), or lacks a part that the format has.
    """
    try:
        articles = json.loads(file.read_bytes())["data"]
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); give a folder with both official files") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}: not JSON ({error.msg}); mend the file") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} has no list under 'data', as official files have; mend or replace it") from error
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(row for article in articles for paragraph in article["paragraphs"] for row in _rows(paragraph))
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}, after {len(rows)} questions: no {error} where the official format has one") from error
    if not rows:
        raise DataError(f"{file} is empty; every split needs rows")
    return Table(rows, str(file), split)


def _rows(paragraph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for question in paragraph["qas"]:
        answers = question["answers"]
        columns = {"text": [a["text"] for a in answers], "answer_start": [a["answer_start"] for a in answers]}
        yield {"question": question["question"], "context": paragraph["context"], "answers": columns}


@register("task", "squad-v1")
class SquadV1(Squad):
    """Every question has an answer in its paragraph (version 1.1)."""

    source = "rajpurkar/squad"
    files = ("train-v1.1.json", "dev-v1.1.json")
    unanswerable = False


@register("task", "squad-v2")
class SquadV2(Squad):
    """A third of the questions of the training set have no answer (version 2.0)."""

    source = "rajpurkar/squad_v2"
    files = ("train-v2.0.json", "dev-v2.0.json")
    unanswerable = True
