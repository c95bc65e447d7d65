"""Losses, option scores and greedy answers of an encoder-decoder, which reads the prompt and writes the target."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import pad as pad_columns
from transformers.modeling_outputs import BaseModelOutput

from rankbench.tasks.base import IGNORE, Batch, Example
from rankbench.tasks.text.decoder import collate, positions, sum_by_row
from rankbench.tasks.text.generation import Stop
from rankbench.tasks.text.reading import base_of, same_row, trial_rows
from rankbench.tasks.text.tokens import Tokens, length_groups, pad, scoring_groups, tokenize


@dataclass(frozen=True)
class EncoderDecoder:
    """A model that reads the prompt as a whole and writes the target from left to right; see `LanguageModel`.

    Attributes:
        before, after: special tokens around a target, as the tokenizer puts them (BART: <s>, </s>; T5: none, </s>).
            They are learned and scored as parts of it, as in transformers' own recipes.
    """

    pad_id: int
    before: Tokens
    after: Tokens
    joins = False

    @classmethod
    def of(cls, tokenizer: Any) -> EncoderDecoder:
        """What the tokenizer says about targets; an end token stands behind each even where it adds none."""
        (bare,), (dressed,) = (tokenize(tokenizer, ["a"], specials) for specials in (False, True))
        start = next(i for i in range(len(dressed)) if dressed[i : i + len(bare)] == bare)
        after = dressed[start + len(bare) :]
        if not after and tokenizer.eos_token_id is not None:
            after = (tokenizer.eos_token_id,)
        return cls(tokenizer.pad_token_id, dressed[:start], after)

    def example(self, prompt: Tokens, target: Tokens, item: dict[str, Any]) -> Example:
        """The prompt as input, the target in its special tokens as labels."""
        return Example(prompt, self._dressed(target), item, prompt_length=len(prompt))

    def _dressed(self, target: Tokens) -> Tokens:
        return self.before + target + self.after

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Batch of right-padded input_ids, attention_mask: (examples, longest prompt), labels: (.., longest target).

        And positions: (2, targets), rows and columns of the labels.
        """
        batch = collate(examples, self.pad_id)
        return {**batch, "positions": positions(batch["labels"] != IGNORE)}

    def units(self, batch: Batch) -> int:
        """Number of target tokens, special ones included."""
        return int((batch["labels"] != IGNORE).sum())

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed negative log-likelihood of each example's target tokens: (examples,), fp32."""
        labels = batch["labels"]
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        output = model(**inputs, **decoder_inputs(model, labels), use_cache=False)
        return _label_losses(output, labels, batch["positions"])

    def option_scores(
        self, model: nn.Module, prompts: Sequence[Tokens], options: Sequence[Sequence[Tokens]], batch_size: int
    ) -> list[list[float]]:
        """Log-likelihood of each prompt's options, summed over their tokens; the model's encoder reads it once."""
        device = next(model.parameters()).device
        scores: list[list[float]] = [[] for _ in prompts]
        for group in scoring_groups([len(prompt) for prompt in prompts], batch_size, device):
            inputs = self._encoder_inputs([prompts[index] for index in group], device)
            for choice in range(max(len(options[index]) for index in group)):
                read = [options[index][min(choice, len(options[index]) - 1)] for index in group]
                labels = pad([self._dressed(option) for option in read], IGNORE)
                targets, labels = positions(labels != IGNORE).to(device), labels.to(device)
                output = model(**inputs, **decoder_inputs(model, labels), use_cache=False)
                if goes_on(model):
                    inputs = _encoded(output, inputs["attention_mask"])
                for index, loss in zip(group, _label_losses(output, labels, targets).tolist(), strict=True):
                    scores[index].append(-loss)
        return [row[: len(choices)] for row, choices in zip(scores, options, strict=True)]

    def _encoder_inputs(self, prompts: Sequence[Tokens], device: torch.device) -> dict[str, Any]:
        mask = pad([[1] * len(prompt) for prompt in prompts], 0)
        return {"input_ids": pad(prompts, self.pad_id).to(device), "attention_mask": mask.to(device)}

    @torch.no_grad()
    def generate(
        self,
        model: nn.Module,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        ends: Collection[int],
        stop: Stop | None,
        batch_size: int,
    ) -> list[list[int]]:
        """Greedy answers to all prompts, each begun with the special tokens before a target."""
        answers: list[list[int]] = [[] for _ in prompts]
        for group in length_groups([len(prompt) for prompt in prompts], batch_size):
            batch = [prompts[index] for index in group]
            for index, answer in zip(group, self._answers(model, batch, max_new_tokens, ends, stop), strict=True):
                answers[index] = answer
        return answers

    def _answers(
        self, model: nn.Module, prompts: Sequence[Tokens], limit: int, ends: Collection[int], stop: Stop | None
    ) -> list[list[int]]:
        """Answers to a batch; the encoder reads it once if it can, and rows whose answer is complete stay in it."""
        device = next(model.parameters()).device
        inputs = self._encoder_inputs(prompts, device)
        empty = torch.tensor([self._dressed(())] * len(prompts), device=device)
        ids = decoder_inputs(model, empty)["decoder_input_ids"][:, : 1 + len(self.before)]
        answers: list[list[int]] = [[] for _ in prompts]
        live = set(range(len(prompts)))
        cached, cache = goes_on(model), None
        for _ in range(limit):
            former = {"past_key_values": cache, "use_cache": True} if cached else {"use_cache": False}
            output = model(**inputs, decoder_input_ids=ids, **former)
            if cached:
                cache, inputs = output.past_key_values, _encoded(output, inputs["attention_mask"])
            tokens = output.logits[:, -1].argmax(-1)
            for row, token in enumerate(tokens.tolist()):
                if row in live:
                    if token not in ends:
                        answers[row].append(token)
                    if token in ends or (stop is not None and stop(answers[row])):
                        live.remove(row)
            if not live:
                break
            ids = tokens[:, None] if cached else torch.cat([ids, tokens[:, None]], dim=1)
        return answers


def decoder_inputs(model: nn.Module, labels: Tensor) -> dict[str, Tensor]:
    """What the decoder reads to predict the labels, shifted as the model itself does it for training.

    Args:
        model: a transformers encoder-decoder, plain or inside PEFT's.
        labels: (rows, length) token ids, IGNORE behind a row's end.
    """
    base: Any = base_of(model)
    if hasattr(base, "prepare_decoder_input_ids_from_labels"):
        ids = base.prepare_decoder_input_ids_from_labels(labels.clone())  # some write into the labels
    else:
        start = labels.new_full((len(labels), 1), base.config.decoder_start_token_id)
        ids = torch.cat([start, labels[:, :-1]], dim=1)
        ids = ids.masked_fill(ids == IGNORE, base.config.pad_token_id)
    return {"decoder_input_ids": ids, "decoder_attention_mask": (labels != IGNORE).long()}


def apart(model: nn.Module, batch: Batch) -> tuple[Batch, list[Tensor]]:
    """The batch with its texts in unlike shapes, which tell them apart inside the model, and the mask of each text.

    Returns:
        The batch, whose labels may have a column without loss more, and (rows, length) bool, true for tokens, of the
        source and, where an encoder-decoder writes a text, of that.
    """
    masks, labels = [batch["attention_mask"].bool()], batch.get("labels")
    config = getattr(base_of(model), "config", None)
    if labels is None or labels.dim() == 1 or not getattr(config, "is_encoder_decoder", False):
        return batch, masks
    if labels.shape == masks[0].shape:
        labels = pad_columns(labels, (0, 1), value=IGNORE)
    return {**batch, "labels": labels}, [*masks, labels != IGNORE]


_GOES_ON: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@torch.no_grad()
def goes_on(model: nn.Module) -> bool:
    """Whether a pass can go on from a former one: from the encoder's output and the decoder's cache.

    Tried once per model, in two short passes that no meter sees.
    """
    base = base_of(model)
    if base not in _GOES_ON:
        rows = torch.tensor(trial_rows(base), device=next(base.parameters()).device)
        try:
            first = base(input_ids=rows, decoder_input_ids=rows, use_cache=True)
            inputs = _encoded(first, torch.ones_like(rows))
            base(**inputs, decoder_input_ids=rows[:, :1], past_key_values=first.past_key_values, use_cache=True)
            _GOES_ON[base] = first.past_key_values is not None
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever a model that cannot do this raises
            _GOES_ON[base] = False
    return _GOES_ON[base]


def decoder_sees_future(model: nn.Module) -> bool:
    """Whether what the decoder predicts for a token changes with a later one; one pass over two short rows."""
    rows = torch.tensor(trial_rows(model), device=next(model.parameters()).device)
    inputs = {"input_ids": rows[:1].expand(2, -1), "attention_mask": torch.ones_like(rows)}
    logits = model(
        **inputs, decoder_input_ids=rows, decoder_attention_mask=torch.ones_like(rows), use_cache=False
    ).logits
    return not same_row(logits[0, :-1], logits[1, :-1])


def _label_losses(output: Any, labels: Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood of each row's labels at `targets`, (2, n) rows and columns: (rows,), fp32."""
    rows, columns = targets
    return sum_by_row(output.logits[rows, columns], labels[rows, columns], rows, len(labels))


def _encoded(output: Any, mask: Tensor) -> dict[str, Any]:
    """Inputs of a further pass over the same prompts: the encoder's output instead of tokens."""
    encoded = BaseModelOutput(last_hidden_state=output.encoder_last_hidden_state)
    return {"encoder_outputs": encoded, "attention_mask": mask}
