"""Errors of models, and quiet loading."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from rankbench import RankbenchError


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn errors of reading a model inside the block into a ModelError that names the folder and the way out."""
    try:
        yield
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{folder}: the pickled weights hold more than tensors, or are damaged; "
            "pickled code is not run, so give the model as safetensors"
        ) from error
    except ImportError as error:
        raise ModelError(
            f"{folder} needs a package that is not installed here: {' '.join(str(error).split())}; install it, or "
            "give the same model in a form that needs none, such as one that is not quantised"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{folder} brings code of its own, which is not run; take a model whose architecture transformers has"
            ) from error
        raise ModelError(f"{folder} cannot be read as a model: {error}; get a whole copy of it") from error


class ModelError(RankbenchError, ValueError):
    """A model that cannot be had or used; the message names it, the place, and the way out."""


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no notes on new heads from transformers; its errors still speak."""
    log: Any = transformers_logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
