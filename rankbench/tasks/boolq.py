"""BoolQ: a yes/no question about a passage (Clark et al. 2019, arXiv:1905.10044)."""

from __future__ import annotations

from rankbench.config.registry import register
from rankbench.tasks.text import answer_scoring
from rankbench.tasks.text_classification import Classification


@register("task", "boolq")
class BoolQ(Classification):
    """Accuracy on the official validation split (the test labels are not public)."""

    source = "google/boolq"
    texts = ("question", "passage")
    label = "answer"
    labels = ("no", "yes")
    template = "{passage}\nQuestion: {question}?\nAnswer:"
    options = (" no", " yes")
    cut = "passage"
    measure = staticmethod(answer_scoring.accuracy)
