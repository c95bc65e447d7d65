"""Texts to be written: the loss of a reference, and how near generated texts come to it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import TypeVar

from rankbench.core.seeding import Streams
from rankbench.tasks.base import Batch, DataError, Evaluation, Example, Task
from rankbench.tasks.text.dataset_config import HubConfig, refuse_test_from_train
from rankbench.tasks.text.language_model import (
    LanguageModel,
    language_model,
    losses_and_answers,
    target_length,
)
from rankbench.tasks.text.overlap import ROUGE, bleu4, rouge
from rankbench.tasks.text.tokens import Tokens, prompt_hash, seam, tokenize


@dataclass(frozen=True)
class Writing:
    """A text to be written.

    Attributes:
        id: name of the item.
        ask: the prompt around a text.
        text: what the prompt asks about; it is shortened where the prompt is too long.
        target: what is learned, as it follows the prompt; the end token is added where it does not end in one.
        gold: the reference without what a prompt's form puts around it.
    """

    id: str
    ask: Callable[[str], str]
    text: str
    target: str
    gold: str


class GenerationConfig(HubConfig):
    """Settings of every task whose texts are compared with a reference.

    Attributes:
        generation_size: how many texts of a split are written, the first ones; null: all.
        max_new_tokens: largest length of a written text, in tokens.
    """

    generation_size: int | None = Field(ge=0)
    max_new_tokens: int = Field(ge=1)


GenerationConfigT = TypeVar("GenerationConfigT", bound=GenerationConfig, default=Any)


class TextGeneration(Task[GenerationConfigT]):
    """Loss and perplexity on the target's tokens; BLEU and ROUGE of greedily generated texts.

    Class facts:
        keeps: which end of the text is kept where the prompt is too long.
    """

    keeps: ClassVar[Literal["start", "end"]] = "end"
    _tokenizer: Any
    _language: LanguageModel
    check = staticmethod(refuse_test_from_train)

    @abstractmethod
    def writings(self) -> tuple[dict[str, list[Writing]], str]:
        """Texts per split, and the revision of the data."""

    @abstractmethod
    def wording(self) -> tuple[str, ...]:
        """What the prompts are made from, for their hash."""

    @abstractmethod
    def target_limit(self, prompt_length: int) -> int:
        """Largest number of a target's tokens after a prompt of this many; a longer target loses its end."""

    def num_labels(self) -> None:
        """None: the task is language modelling."""
        return None

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Read the texts; the splits do not depend on the run's streams."""
        self._language = language_model(architecture, tokenizer, self.config.name)
        if tokenizer.eos_token_id is None:
            raise DataError(f"task={self.config.name}: the tokenizer has no eos_token, with which a text could end")
        self._tokenizer, self._ends = tokenizer, {int(tokenizer.eos_token_id)}
        writings, data = self.writings()
        tokenised = {split: self._examples(of_split) for split, of_split in writings.items()}
        self.splits = {split: examples for split, (examples, _) in tokenised.items()}
        truncated = ", ".join(f"{split} {count}" for split, (_, count) in tokenised.items())
        self.revision = {"data": data, "prompt": prompt_hash(*self.wording()), "truncated": truncated}

    def _examples(self, writings: Sequence[Writing]) -> tuple[list[Example], int]:
        """Tokenised texts, and how many were shortened, in the prompt or in the target."""
        rows = self._encode([writing.ask(writing.text) for writing in writings], writings)
        examples, shortened = [], 0
        for writing, (prompt, target) in zip(writings, rows, strict=True):
            whole = prompt, target
            prompt, target = self._fit(writing, prompt, target)
            examples.append(self._language.example(prompt, target, {"id": writing.id, "gold": writing.gold}))
            shortened += (prompt, target) != whole
        return examples, shortened

    def _encode(self, prompts: Sequence[str], writings: Sequence[Writing]) -> list[tuple[Tokens, Tokens]]:
        """Tokens of prompts and targets; each target of a decoder has an end token."""
        joins = self._language.joins
        rows = seam(self._tokenizer, prompts, [[writing.target] for writing in writings], joins)
        return [(prompt, self._ended(target) if joins else target) for prompt, (target,) in rows]

    def _ended(self, target: Tokens) -> Tokens:
        special = self._tokenizer.added_tokens_decoder.get(target[-1]) if target else None
        if special is None or not special.special or target[-1] == self._tokenizer.unk_token_id:
            return (*target, int(self._tokenizer.eos_token_id))
        self._ends.add(target[-1])
        return target

    def _fit(self, writing: Writing, prompt: Tokens, target: Tokens) -> tuple[Tokens, Tokens]:
        """Prompt and target within the limits: the prompt's text loses one of its ends, then the target its last."""
        text = writing.text
        while (excess := len(prompt) - self._room(len(target))) > 0:
            if not text:
                raise DataError(
                    f"{writing.id} is too long for task.max_length={self.config.max_length}, make that larger: its "
                    f"prompt has {len(prompt)} tokens without the text, room is for {self._room(len(target))}"
                )
            text = self._shorten(text, excess)
            ((prompt, target),) = self._encode([writing.ask(text)], [writing])
        return prompt, target[: self.target_limit(len(prompt))]

    def _room(self, target_length: int) -> int:
        """Tokens that a prompt may have beside a target that long."""
        if not self._language.joins:
            return self.config.max_length
        return self.config.max_length - min(target_length, self.target_limit(self.config.max_length))

    def _shorten(self, text: str, excess: int) -> str:
        """The text without `excess` tokens at one end, or more, so that it is shorter by a character at least."""
        (ids,) = tokenize(self._tokenizer, [text], specials=False)
        kept = ids[excess:] if self.keeps == "end" else ids[: max(0, len(ids) - excess)]
        shorter: str = self._tokenizer.decode(kept).strip("\ufffd") if kept else ""  # half a character would grow again
        if len(shorter) < len(text):
            return shorter
        return text[1:] if self.keeps == "end" else text[:-1]

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Right-padded batch."""
        return self._language.collate(examples)

    def units(self, batch: Batch) -> int:
        """Number of tokens of the targets."""
        return self._language.units(batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed cross-entropy of the targets' tokens."""
        return self._language.losses(model, batch).sum()

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Loss and perplexity of all examples; BLEU and ROUGE of the first generation_size, if not 0."""
        limits = self.config.generation_size, self.config.max_new_tokens
        losses, answers = losses_and_answers(self._language, model, examples, *limits, self._ends, None, batch_size)
        texts = [self._tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]
        units = [target_length(example) for example in examples]
        items = []
        for index, example in enumerate(examples):
            text = texts[index] if index < len(texts) else None
            scores = dict.fromkeys(ROUGE) if text is None else rouge(example.item["gold"], text)
            loss = {"loss": losses[index] / units[index], "units": units[index]}
            items.append({**example.item, "prediction": text, "correct": None, **loss, **scores})
        mean = sum(losses) / sum(units)
        metrics = {"loss": mean, "perplexity": math.exp(mean) if mean < 700 else math.inf}
        if texts:
            metrics["bleu4"] = bleu4([example.item["gold"] for example in examples[: len(texts)]], texts)
            metrics |= {name: float(np.mean([item[name] for item in items[: len(texts)]])) for name in ROUGE}
        return Evaluation(metrics, items)
