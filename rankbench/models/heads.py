"""The class of transformers that a run needs, and the random start of an encoder's head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from rankbench.core.seeding import Streams
from rankbench.models.errors import ModelError

Problem = Literal["classification", "regression", "span"]  # what an encoder's head answers
PROBLEM_TYPES = {"classification": "single_label_classification", "regression": "regression"}


LANGUAGE_MODELS: dict[str, tuple[Any, str]] = {
    "decoder": (AutoModelForCausalLM, "CAUSAL_LM"),
    "encoder_decoder": (AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM"),
}


def class_of(architecture: str, problem: Problem | None) -> tuple[Any, str]:
    """The class of transformers for a model, and PEFT's name for what it does.

    Args:
        architecture: "decoder", "encoder" or "encoder_decoder".
        problem: what the head of an encoder answers; None is taken for classification.
    """
    if architecture in LANGUAGE_MODELS:
        return LANGUAGE_MODELS[architecture]
    if problem == "span":
        return AutoModelForQuestionAnswering, "QUESTION_ANS"
    return AutoModelForSequenceClassification, "SEQ_CLS"


def head_of(model: Any) -> tuple[str, ...]:
    """Names of the modules that a head's class adds to the body of a model."""
    return tuple(
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    )


def check_head(model: Any, head: Sequence[str]) -> None:
    """Raise ModelError if a module of the head is not in the model."""
    modules = dict(model.named_modules())
    for top in head:
        if top not in modules:
            tops = ", ".join(name for name, _ in model.named_children())
            raise ModelError(f"model.head: there is no module {top!r}; at the top are {tops}")


def draw_head(model: Any, head: Sequence[str], streams: Streams) -> None:
    """Draw the head's matrices from N(0, s^2), biases 0 (Devlin et al. 2019), whatever the files had; see `_spread`.

    Drawn in fp32 and rounded to the model's dtype, so that the head does not depend on it beyond rounding.
    """
    modules = dict(model.named_modules())
    generator = streams.torch("init", "head")
    for top in head:
        for module in modules[top].modules():
            if isinstance(module, nn.Linear):
                draw = torch.randn(module.weight.shape, generator=generator)
                module.weight.data.copy_(draw * _spread(model.config))
                if module.bias is not None:
                    module.bias.data.zero_()
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()


def _spread(config: Any) -> float:
    """Standard deviation of a fresh matrix, by the name that the architecture has for it; 0.02 where it has none.

    T5 divides its factor by the root of the width (Raffel et al. 2020).
    """
    text = config.get_text_config()
    for name in ("initializer_range", "init_std", "init_range"):
        if isinstance(getattr(text, name, None), float):
            return float(getattr(text, name))
    if isinstance(getattr(text, "initializer_factor", None), float):
        return float(text.initializer_factor * text.hidden_size**-0.5)
    return 0.02
