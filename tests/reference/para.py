"""Re-implementation of PARA: dense updates, their singular values in one list, taken one by one."""

from collections.abc import Sequence

import numpy as np


def ranks(updates: Sequence[np.ndarray], most: Sequence[int], costs: Sequence[int], total: int) -> list[int]:
    """From the updates s B A (d_out, d_in) of rank at most `most`."""
    entries = []
    for site, (update, limit) in enumerate(zip(updates, most, strict=True)):
        values = np.linalg.svd(update, compute_uv=False)[:limit]
        entries += [(-float(value), site) for value in values]
    kept, left = [0] * len(updates), total
    for _, site in sorted(entries):
        if costs[site] <= left:
            kept[site] += 1
            left -= costs[site]
    return kept


def truncated(update: np.ndarray, rank: int) -> np.ndarray:
    U, values, V = np.linalg.svd(update, full_matrices=False)
    return (U[:, :rank] * values[:rank]) @ V[:rank]
