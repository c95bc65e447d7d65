"""Functions called side by side, in processes forked from this one: they share what it holds."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

FEW = 6  # calls that are not worth a process

_calls: Sequence[Callable[[], Any]] = ()  # what a forked process finds by number


def call_all(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each returns, in their order; one after the other where they are few, or forking is not to be had.

    Args:
        calls: without arguments; what they return can be pickled, what they hold need not be.
    """
    global _calls
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if len(calls) < FEW or workers == 1 or "fork" not in multiprocessing.get_all_start_methods():
        return [call() for call in calls]
    _calls = calls
    gc.freeze()  # or the children would copy what they only read
    try:
        with multiprocessing.get_context("fork").Pool(min(workers, len(calls))) as pool:
            return pool.map(_call, range(len(calls)), chunksize=1)
    finally:
        gc.unfreeze()
        _calls = ()


def _call(place: int) -> Any:
    return _calls[place]()
