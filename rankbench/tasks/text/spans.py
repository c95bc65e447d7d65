"""Answers that are spans of a text: windows over long texts, the likeliest span, and the official scores of SQuAD."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankbench.tasks.base import Batch, DataError, Example
from rankbench.tasks.text.tokens import pad, scoring_groups

MISSING = float("-inf")
ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Question:
    """A question about a text.

    Attributes:
        id: name of the item.
        text: what is asked.
        context: the text that holds the answer.
        answers: (first character, words) of each right answer; () where the context has none.
    """

    id: str
    text: str
    context: str
    answers: tuple[tuple[int, str], ...]

    @property
    def gold(self) -> list[str]:
        """The different right answers, in their order."""
        return list(dict.fromkeys(words for _, words in self.answers))


@dataclass(frozen=True)
class Window(Example):
    """Question and part of its context; `labels` are the answer's first and last token, the [CLS] token's without one.

    Attributes:
        question: what is asked.
        number: place among the windows of the question.
        first, last: first and last token of the context.
        null: the [CLS] token, whose score is that of no answer.
    """

    question: Question = Question("", "", "", ())
    number: int = 0
    first: int = 0
    last: int = 0
    null: int = 0


@dataclass(frozen=True)
class Reading:
    """What a model says of one window.

    Attributes:
        span: likeliest first and last token of an answer.
        score: sum of the two logits of the span.
        null: sum of the two logits of [CLS].
        loss: mean of the cross-entropies of first and last token.
    """

    span: tuple[int, int]
    score: float
    null: float
    loss: float


class Spans:
    """Windows and readings of one tokenizer.

    Args:
        tokenizer: one that knows the characters of its tokens and has a [CLS] token.
        max_length: tokens of a window.
        stride: tokens of the context that two windows share.
        max_answer_length: tokens of a predicted answer.

    Raises:
        DataError: another tokenizer.
    """

    def __init__(self, tokenizer: Any, max_length: int, stride: int, max_answer_length: int) -> None:
        if not tokenizer.is_fast or tokenizer.cls_token_id is None or tokenizer.padding_side != "right":
            raise DataError(
                f"{type(tokenizer).__name__} cannot mark an answer in a text: that needs a [CLS] token, padding on the "
                "right, and a fast tokenizer, which knows the characters of its tokens; use an encoder such as DeBERTa"
            )
        self._tokenizer, self._max_length = tokenizer, max_length
        self._stride, self._max_answer_length = stride, max_answer_length

    def windows(self, questions: Sequence[Question]) -> list[list[Window]]:
        """The windows of each question, in the text's order.

        Raises:
            DataError: a question that leaves no room for its context.
        """
        return [self._of_question(question) for question in questions]

    def _of_question(self, question: Question) -> list[Window]:
        encodings = self._encode(question)
        return [self._window(question, number, encoding) for number, encoding in enumerate(encodings)]

    def _encode(self, question: Question) -> list[Any]:
        """An Encoding of the tokenizers library for each window."""
        asked = question.text.strip()  # blanks before a question would take the context's place
        alone = len(self._tokenizer(asked, question.context[:1], verbose=False)["input_ids"])
        if alone + self._stride > self._max_length:
            raise DataError(
                f"{question.id}: the question has {alone} tokens: no room is left for task.stride={self._stride} in "
                f"task.max_length={self._max_length}; make that larger"
            )
        settings = {"truncation": "only_second", "max_length": self._max_length, "stride": self._stride}
        encoded = self._tokenizer(
            asked, question.context, return_overflowing_tokens=True, return_offsets_mapping=True, **settings
        )
        return list(encoded.encodings)

    def _window(self, question: Question, number: int, encoding: Any) -> Window:
        ids = encoding.ids
        inside = [index for index, sequence in enumerate(encoding.sequence_ids) if sequence == 1]
        null = ids.index(self._tokenizer.cls_token_id)
        first, last = inside[0], inside[-1]
        labels = _tokens_of(question.answers[0], encoding.offsets, first, last) if question.answers else None
        segments = tuple(encoding.type_ids) if "token_type_ids" in self._tokenizer.model_input_names else ()
        item = {"id": question.id, "gold": question.gold}
        position = {"question": question, "number": number, "first": first, "last": last, "null": null}
        return Window(tuple(ids), labels or (null, null), item, segments=segments, **position)

    def text(self, window: Window, span: tuple[int, int]) -> str:
        """The characters of the context under tokens of a window, without the blank that some tokens begin with."""
        offsets = self._encode(window.question)[window.number].offsets
        return window.question.context[offsets[span[0]][0] : offsets[span[1]][1]].strip()

    def collate(self, windows: Sequence[Example]) -> Batch:
        """Right-padded batch, with token_type_ids where the tokenizer makes them; labels are (windows, 2)."""
        ids = [window.input_ids for window in windows]
        batch = {
            "input_ids": pad(ids, self._tokenizer.pad_token_id),
            "attention_mask": pad([[1] * len(row) for row in ids], 0),
            "labels": torch.tensor([window.labels for window in windows]),
        }
        if windows[0].segments:
            batch["token_type_ids"] = pad([window.segments for window in windows], 0)
        return batch

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean of the cross-entropies of first and last token: (windows,), fp32."""
        return _losses(_logits(model, batch), batch["labels"])

    def readings(self, model: nn.Module, windows: Sequence[Window], batch_size: int) -> list[Reading]:
        """What the model says of each window, in their order."""
        device = next(model.parameters()).device
        readings: dict[int, Reading] = {}
        for group in scoring_groups([len(window.input_ids) for window in windows], batch_size, device):
            chosen = [windows[index] for index in group]
            batch = {key: value.to(device) for key, value in self.collate(chosen).items()}
            logits = _logits(model, batch)
            losses = _losses(logits, batch["labels"]).tolist()
            for row, index in enumerate(group):
                readings[index] = self._reading(logits[row].cpu(), windows[index], losses[row])
        return [readings[index] for index in range(len(windows))]

    def _reading(self, logits: Tensor, window: Window, loss: float) -> Reading:
        """The best of all spans within the context that are short enough; logits: (2, tokens)."""
        starts, ends = logits[:, window.first : window.last + 1]
        length = self._max_answer_length
        allowed = torch.ones(len(starts), len(starts), dtype=torch.bool).triu().tril(length - 1)
        scores = (starts[:, None] + ends[None, :]).masked_fill(~allowed, MISSING)
        best = int(scores.argmax())
        start, end = divmod(best, len(starts))
        span = (window.first + start, window.first + end)
        return Reading(span, float(scores[start, end]), float(logits[:, window.null].sum()), loss)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """Logits of first and last token: (windows, 2, tokens), fp32, without padding."""
    output = model(**{key: value for key, value in batch.items() if key != "labels"})
    logits = torch.stack([output.start_logits, output.end_logits], dim=1).float()
    return logits.masked_fill(batch["attention_mask"][:, None] == 0, MISSING)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(-1, 2).mean(1)


def _tokens_of(
    answer: tuple[int, str], offsets: Sequence[tuple[int, int]], first: int, last: int
) -> tuple[int, int] | None:
    """First and last token of an answer; None if it does not lie within the window as a whole."""
    start, end = answer[0], answer[0] + len(answer[1])
    if offsets[first][0] > start or offsets[last][1] < end:
        return None
    head = max(index for index in range(first, last + 1) if offsets[index][0] <= start)
    tail = min(index for index in range(first, last + 1) if offsets[index][1] >= end)
    return head, max(head, tail)


def normalise(answer: str) -> str:
    """Small letters without punctuation, articles and surplus blanks (Rajpurkar et al. 2016, official script)."""
    letters = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", letters).split())


def exact_match(gold: Sequence[str], predicted: str) -> bool:
    """Whether the prediction is one of the right answers, normalised; "" is right where there are none."""
    return normalise(predicted) in {normalise(answer) for answer in gold or [""]}


def f1(gold: Sequence[str], predicted: str) -> float:
    """Largest F1 of common words with one of the right answers; no words have 1 with no words, else 0."""
    return max(_f1(normalise(answer).split(), normalise(predicted).split()) for answer in gold or [""])


def _f1(gold: list[str], predicted: list[str]) -> float:
    if not gold or not predicted:
        return float(gold == predicted)
    common = (Counter(gold) & Counter(predicted)).total()
    return 2 * common / (len(gold) + len(predicted))
