"""How a text-to-text model is trained and read, whatever its architecture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from rankbench.tasks.base import IGNORE, Batch, DataError, Example
from rankbench.tasks.text.decoder import Decoder
from rankbench.tasks.text.encoder_decoder import EncoderDecoder
from rankbench.tasks.text.generation import Stop
from rankbench.tasks.text.reading import keeps_every_token
from rankbench.tasks.text.tokens import Tokens, scoring_groups


class LanguageModel(Protocol):
    """How a task trains and reads a model that answers in text."""

    @property
    def joins(self) -> bool:
        """Whether prompt and target are one sequence, tokenised as one text (decoders).

        Else each is a text by itself (encoder-decoders): a prompt comes with the special tokens that the tokenizer puts
        around a text, a target without; `example` adds its own.
        """

    def example(self, prompt: Tokens, target: Tokens, item: dict[str, Any]) -> Example:
        """Example that is trained on the target given the prompt; `prompt_of` and `target_length` read it."""

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Right-padded batch of input_ids, attention_mask and labels."""

    def units(self, batch: Batch) -> int:
        """Number of target tokens."""

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed negative log-likelihood of each example's target tokens: (examples,), fp32. One forward pass."""

    def option_scores(
        self, model: nn.Module, prompts: Sequence[Tokens], options: Sequence[Sequence[Tokens]], batch_size: int
    ) -> list[list[float]]:
        """Log-likelihood of each prompt's options after it, summed over the option's tokens: [prompt][option].

        That of the gold option is minus its example's loss.
        """

    def generate(
        self,
        model: nn.Module,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        ends: Collection[int],
        stop: Stop | None,
        batch_size: int,
    ) -> list[list[int]]:
        """Greedy answers to all prompts; the same as for each prompt alone, up to rounding.

        Args:
            model: plain or inside PEFT's, in evaluation mode.
            prompts: token ids, none empty.
            max_new_tokens: largest length of an answer.
            ends: tokens that end an answer.
            stop: tells from the tokens so far whether the answer is complete; None: only `ends` and `max_new_tokens`
                end it.
            batch_size: prompts per batch; batches are of like length.

        Returns:
            The new tokens of each prompt, in the prompts' order, without special tokens around them.
        """


def language_model(architecture: str, tokenizer: Any, task: str) -> LanguageModel:
    """The way to train and read models of this architecture.

    Args:
        architecture: of the model, as in its configuration.
        tokenizer: of the model, with a pad token.
        task: name of the task, for the message.

    Raises:
        DataError: the architecture does not answer in text.
    """
    if architecture == "decoder":
        return Decoder(tokenizer.pad_token_id)
    if architecture == "encoder_decoder":
        return EncoderDecoder.of(tokenizer)
    raise DataError(f"task={task} is answered in words: use a decoder or an encoder_decoder, not an {architecture}")


def evaluate_losses(
    language_model: LanguageModel, model: nn.Module, examples: Sequence[Example], batch_size: int
) -> list[float]:
    """Summed negative log-likelihood of each example's target, in the examples' order.

    Batches hold at most batch_size examples and the tokens of as many examples of mean length: logits are large.
    """
    device = next(model.parameters()).device
    sums = [0.0] * len(examples)
    lengths = [len(item.input_ids) for item in examples]
    for group in scoring_groups(lengths, batch_size, device, batch_size * sum(lengths) // len(lengths)):
        batch = language_model.collate([examples[index] for index in group])
        values = language_model.losses(model, {key: value.to(device) for key, value in batch.items()}).tolist()
        for index, value in zip(group, values, strict=True):
            sums[index] = value
    return sums


def losses_and_answers(
    language_model: LanguageModel,
    model: nn.Module,
    examples: Sequence[Example],
    answered: int | None,
    max_new_tokens: int,
    ends: Collection[int],
    stop: Stop | None,
    batch_size: int,
) -> tuple[list[float], list[list[int]]]:
    """`evaluate_losses` of all examples and `generate` for the first `answered`, None: all; (losses, answers).

    A prompt is read once for both where the model's cache allows it.
    """
    asked = examples[:answered]
    prompts = [prompt_of(example) for example in asked]
    writing = max_new_tokens, ends, stop, batch_size
    if asked and isinstance(language_model, Decoder) and keeps_every_token(model):
        targets = [example.input_ids[example.prompt_length :] for example in asked]
        losses, answers = language_model.losses_and_answers(model, prompts, targets, *writing)
        rest = examples[len(asked) :]
        return losses + (evaluate_losses(language_model, model, rest, batch_size) if rest else []), answers
    losses = evaluate_losses(language_model, model, examples, batch_size)
    return losses, language_model.generate(model, prompts, *writing)


def prompt_of(example: Example) -> Tokens:
    """The prompt of an example, as `generate` and `option_scores` take it."""
    return example.input_ids[: example.prompt_length]


def target_length(example: Example) -> int:
    """Number of target tokens: the units of the example."""
    assert isinstance(example.labels, tuple), "an example of a language model"
    return sum(label != IGNORE for label in example.labels)
