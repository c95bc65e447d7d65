"""How much of a reference text a generated one has: BLEU by sacrebleu, ROUGE by rouge-score."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

ROUGE = ("rouge1", "rouge2", "rougeL")


def bleu4(references: Sequence[str], predictions: Sequence[str]) -> float:
    """Corpus BLEU up to 4-grams, in [0, 1] (Papineni et al. 2002): case kept, tokenised by "13a" (Post 2018).

    A value of the corpus, not a mean over items: n-grams are counted over all texts before they are divided.
    """
    import sacrebleu  # takes a moment to import

    return float(sacrebleu.corpus_bleu(list(predictions), [list(references)]).score) / 100


def rouge(reference: str, prediction: str) -> dict[str, float]:
    """F1 of common words, word pairs and the longest common subsequence, stemmed, each in [0, 1] (Lin 2004).

    Words are made of English letters and digits: a text in another script has none, and 0.
    """
    scores = _scorer().score(reference, prediction)
    return {name: float(scores[name].fmeasure) for name in ROUGE}


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import

    return RougeScorer(ROUGE, use_stemmer=True)
