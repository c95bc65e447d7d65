"""Functions called side by side, in processes forked from this one: they share what it holds."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

FEW = 6  # calls that are not worth a process

_calls: Sequence[Callable[[], Any]] = ()  # what a forked process finds by number


@contextmanager
def calling(calls: Sequence[Callable[[], Any]]) -> Iterator[Callable[[], list[Any]]]:
    """Begin to call them all; what is given waits for what they return, in their order.

    Where they are few, or forking is not to be had, they are called one after the other when they are waited for.

    Args:
        calls: without arguments; what they return can be pickled, what they hold need not be.
    """
    global _calls
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if len(calls) < FEW or workers == 1 or "fork" not in multiprocessing.get_all_start_methods():
        yield lambda: [call() for call in calls]
        return
    _calls = calls
    gc.freeze()  # or the children would copy what they only read
    try:
        with multiprocessing.get_context("fork").Pool(min(workers, len(calls))) as pool:
            yield pool.map_async(_call, range(len(calls)), chunksize=1).get
    finally:
        gc.unfreeze()
        _calls = ()


def _call(number: int) -> Any:
    return _calls[number]()
