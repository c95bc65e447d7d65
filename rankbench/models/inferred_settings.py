"""What model=auto says about a model that nobody has written a file for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModelForMaskedLM

from rankbench.config.sections import ModelConfig
from rankbench.models.errors import ModelError, quiet, readable
from rankbench.models.loading import LoadedModel
from rankbench.models.model_files import locate
from rankbench.models.reading import has_class, read_config
from rankbench.models.targets import first_few

HEADED = ("ForSequenceClassification", "ForQuestionAnswering", "ForTokenClassification", "ForMultipleChoice")
GENERATING = ("ForCausalLM", "LMHeadModel")


def resolve(config: ModelConfig, cache_dir: Path | None = None, download: bool = True) -> ModelConfig:
    """The settings of a model with the architecture that its files have, where they leave it to be inferred.

    Args:
        config: the model's section.
        cache_dir: folder for converted GGUF files; None is the user's.
        download: whether files that the hub's local cache lacks are fetched.

    Raises:
        ModelError: the model is not to be had, or is no text model that transformers knows.
    """
    if config.architecture != "auto":
        return config
    folder, _ = locate(config, cache_dir, download)
    with quiet(), readable(folder):
        return config.replace(architecture=_architecture(folder, read_config(folder)))


def describe(loaded: LoadedModel) -> str:
    """A sentence on what was inferred."""
    kinds = first_few(list(dict.fromkeys(site.kind for site in loaded.sites)))
    return (
        f"{loaded.model.config.model_type} model read as {loaded.architecture.replace('_', '-')}; adapted are its "
        f"{len(loaded.sites)} matrices {kinds}; trained in full: {', '.join(loaded.head) or 'nothing'}"
    )


def _architecture(folder: Path, config: Any) -> str:
    """What a model is, by the class that its files were saved from, else by the classes that transformers has for it.

    A model that fills in masked words is an encoder, although transformers has a decoder's class for many of them.
    """
    saved = tuple(getattr(config, "architectures", None) or ())
    masked: Any = AutoModelForMaskedLM
    if any(name.endswith(HEADED) for name in saved):
        order = ["encoder"]
    elif getattr(config, "is_encoder_decoder", False):
        order = ["encoder_decoder"]
    elif any(name.endswith(GENERATING) for name in saved):
        order = ["decoder"]
    else:
        order = ["encoder", "decoder"] if type(config) in masked._model_mapping else ["decoder", "encoder"]
    for architecture in order:
        if has_class(config, architecture, None):
            return architecture
    raise ModelError(
        f"{folder} holds a model of type {config.model_type}, which transformers has neither as a language model nor "
        "as a classifier of texts; take a text model"
    )
