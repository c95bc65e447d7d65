"""Metrics of predictions: pure functions of two lists of equal length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr


def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Share that agrees."""
    return {"accuracy": float(np.mean(np.equal(gold, predicted)))}


def accuracy_and_f1(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Accuracy, and F1 of class 1: 2 TP / (2 TP + FP + FN), by convention 0 where no example is or is called 1."""
    true_positive, false_positive, false_negative, _ = confusion(gold, predicted)
    denominator = 2 * true_positive + false_positive + false_negative
    return {**accuracy(gold, predicted), "f1": 2 * true_positive / denominator if denominator else 0.0}


def matthews(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Matthews correlation of two classes, by convention 0 where gold or prediction is constant (Matthews 1975)."""
    tp, fp, fn, tn = confusion(gold, predicted)
    denominator = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {"matthews": (tp * tn - fp * fn) / denominator if denominator else 0.0, **accuracy(gold, predicted)}


def confusion(gold: Sequence[int], predicted: Sequence[int]) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives, true negatives of class 1."""
    pairs = list(zip(gold, predicted, strict=True))
    return pairs.count((1, 1)), pairs.count((0, 1)), pairs.count((1, 0)), pairs.count((0, 0))


def correlations(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation; left out where gold or prediction is constant."""
    if len(set(gold)) < 2 or len(set(predicted)) < 2:
        return {}
    return {
        "pearson": float(pearsonr(gold, predicted).statistic),
        "spearman": float(spearmanr(gold, predicted).statistic),
    }
