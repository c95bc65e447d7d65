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

from rankbench.config.sections import ModelConfig
from rankbench.core.seeding import Streams
from rankbench.models.errors import ModelError

Problem = Literal["classification", "regression", "span"]  # what an encoder's head answers
PROBLEM_TYPES = {"classification": "single_label_classification", "regression": "regression"}


def class_of(architecture: str, problem: Problem | None) -> tuple[Any, str]:
    """The class of transformers for a model, and PEFT's name for what it does.

    Args:
        architecture: "decoder", "encoder" or "encoder_decoder".
        problem: what the head of an encoder answers; None is taken for classification.
    """
    if architecture == "decoder":
        return AutoModelForCausalLM, "CAUSAL_LM"
    if architecture == "encoder_decoder":
        return AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM"
    if problem == "span":
        return AutoModelForQuestionAnswering, "QUESTION_ANS"
    return AutoModelForSequenceClassification, "SEQ_CLS"


def head_of(config: ModelConfig, problem: Problem | None) -> tuple[str, ...]:
    """Names of the modules that an encoder trains in full beside the adapter; () for all but encoders.

    `model.head` names those that classify, which differ from architecture to architecture. A span is marked by one
    layer on top of the encoder, which transformers and PEFT call `qa_outputs` in all of them.
    """
    if config.architecture != "encoder":
        return ()
    return ("qa_outputs",) if problem == "span" else tuple(config.head)


def draw_head(model: Any, head: Sequence[str], streams: Streams) -> None:
    """Draw the head's matrices from N(0, initializer_range^2), biases 0 (Devlin et al. 2019), whatever the files had.

    Drawn in fp32 and rounded to the model's dtype, so that the head does not depend on it beyond rounding.
    """
    modules = dict(model.named_modules())
    generator = streams.torch("init", "head")
    for top in head:
        if top not in modules:
            tops = ", ".join(name for name, _ in model.named_children())
            raise ModelError(f"model.head: there is no module {top!r}; at the top are {tops}")
        for linear in (module for module in modules[top].modules() if isinstance(module, nn.Linear)):
            draw = torch.randn(linear.weight.shape, generator=generator)
            linear.weight.data.copy_(draw * model.config.initializer_range)
            if linear.bias is not None:
                linear.bias.data.zero_()
