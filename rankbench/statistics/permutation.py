"""Sign-flip tests and their correction for multiplicity."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rankbench.statistics.estimates import Array, finite

SIGN_DRAWS = 2**16  # all sign patterns of 16 differences


def sign_flip_test(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the mean difference under random signs (Fisher 1935): share of patterns with a mean as far from 0.

    Up to 16 differences every pattern is counted and the smallest p is 2 / 2^n; beyond, SIGN_DRAWS patterns are drawn
    and counted together with the one observed, so that p is never 0. scipy.stats.permutation_test gives the same p
    up to 16 differences, a list at a time, with 50 to 200 times the CPU; beyond, it draws other patterns.

    Args:
        differences: (n,), of the pairs; under the null hypothesis each is as likely to have the other sign.
        seed: seed of the draw's own generator; without effect up to 16 differences.

    Raises:
        ValueError: no difference, or one that is not finite.
    """
    return sign_flip_tests([differences], seed)[0]


def sign_flip_tests(several: Sequence[ArrayLike], seed: int = 0) -> list[float]:
    """`sign_flip_test` of several lists; lists of one length are counted together."""
    lists = [finite(differences, "differences") for differences in several]
    p_values: dict[int, float] = {}
    for size in {values.size for values in lists}:
        indices = [index for index, values in enumerate(lists) if values.size == size]
        stacked = np.stack([lists[index] for index in indices], axis=1)
        p_values |= dict(zip(indices, _sign_flips(stacked, seed), strict=True))
    return [p_values[index] for index in range(len(lists))]


def _sign_flips(stacked: Array, seed: int) -> list[float]:
    """The p of each column of differences, (n, columns)."""
    if len(stacked) == 1:
        return [1.0] * stacked.shape[1]  # two patterns, both as far from 0
    signs = _signs(len(stacked), seed)
    far = np.abs(stacked.sum(axis=0)) * (1 - 1e-12)  # sums of other order may differ in the last digit
    counts = (np.abs(signs @ stacked) >= far).sum(axis=0)
    sampled = 2 ** len(stacked) > SIGN_DRAWS
    return [float((count + sampled) / (len(signs) + sampled)) for count in counts]


@functools.lru_cache(maxsize=16)  # sizes differ where arms lack some seeds; about 10 MB each
def _signs(n: int, seed: int) -> Array:
    """Patterns of signs, (patterns, n): all there are, or SIGN_DRAWS drawn."""
    if 2**n <= SIGN_DRAWS:
        flipped = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        flipped = np.random.default_rng(seed).integers(2, size=(SIGN_DRAWS, n))
    return np.where(flipped, -1.0, 1.0)


def smallest_p(n: int) -> float:
    """Smallest p that `sign_flip_test` can give for n differences: both patterns of equal signs."""
    return min(1.0, 2 / 2**n) if 2**n <= SIGN_DRAWS else 1 / (SIGN_DRAWS + 1)


def holm(p_values: ArrayLike) -> Array:
    """p-values corrected for their number, (n,) in the order given (Holm 1979): below alpha, one error at most alpha.

    The i-th smallest of n is multiplied by n - i + 1, raised to its predecessor, and at most 1.

    Raises:
        ValueError: a value that is no probability.
    """
    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"p_values are to be probabilities in a list, not {p_values!r}")
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(values.size, 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected
