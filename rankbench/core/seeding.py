"""Named random streams: one seed, many independent generators.

A stream is a function of (seed, name, indices) alone, so a method that draws more or fewer numbers cannot move
the data order, the initialisation or the dropout of another: runs of different methods are paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

NAMES = ("data", "init", "dropout", "calibration", "allocator", "eval", "task")


@dataclass(frozen=True)
class Streams:
    """The random streams of one run.

    Args:
        seed: any int; two seeds give unrelated streams.
    """

    seed: int

    def key(self, name: str, *indices: int | str) -> int:
        """63-bit seed of stream `name`; `indices` (a step, an epoch, a site) split it further.

        Raises:
            ValueError: unknown stream name.
        """
        if name not in NAMES:
            raise ValueError(f"stream {name!r} is unknown; streams are {', '.join(NAMES)}")
        text = "/".join(str(part) for part in (self.seed, name, *indices))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def numpy(self, name: str, *indices: int | str) -> np.random.Generator:
        """A NumPy generator at the start of the stream."""
        return np.random.default_rng(self.key(name, *indices))

    def torch(self, name: str, *indices: int | str) -> torch.Generator:
        """A CPU torch generator at the start of the stream."""
        return torch.Generator().manual_seed(self.key(name, *indices))

    @contextmanager
    def ambient(self, name: str, *indices: int | str) -> Iterator[None]:
        """Run a block with torch's global generators at the start of the stream, then put them back.

        For library code that draws from the global generator (dropout, module initialisation).
        """
        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.key(name, *indices))
            yield
