"""Data sets of the hub: from the local cache of `datasets`, else over the network, in bounded time."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rankbench.tasks.base import DataError

NETWORK_SECONDS = 5.0  # how long the hub may take to answer at all


def prepare(config: Any) -> Any:
    """The data set, prepared: from the local cache if it has the revision asked for, else from the hub."""
    import datasets

    cached = _from_cache(config)
    if cached is not None:
        return cached
    if datasets.config.HF_HUB_OFFLINE or not reachable():
        raise DataError(_ways_out(config, "is not in the local cache and the hub cannot be reached"))
    try:
        builder = datasets.load_dataset_builder(config.hub, config.subset, revision=config.revision)
        builder.download_and_prepare()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(_ways_out(config, f"cannot be had from the hub ({type(error).__name__}: {error})")) from error
    return builder


def _from_cache(config: Any) -> Any | None:
    import datasets

    try:
        with _offline():
            builder = datasets.load_dataset_builder(config.hub, config.subset)
    except (OSError, ValueError):  # not in the cache, or another subset of it
        return None
    return builder if config.revision in (None, builder.hash) else None


def _ways_out(config: Any, problem: str) -> str:
    return (
        f"task={config.name}: the data set {config.hub} (subset {config.subset}, revision {config.revision}) "
        f"{problem}; give a folder that has its files: task.data_dir=DIR, or run once with a network and without "
        "HF_HUB_OFFLINE"
    )


def reachable() -> bool:
    """Whether the hub answers at all, found out with one question and no retries."""
    from huggingface_hub.constants import ENDPOINT

    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(_answers(ENDPOINT)), daemon=True)
    asking.start()
    asking.join(NETWORK_SECONDS)  # resolving a name knows no time limit of its own
    return answers == [True]


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=NETWORK_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """`datasets` without network, whose retries take 23 s where there is none."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and log lines of `datasets`; what goes wrong is raised."""
    import datasets

    bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
