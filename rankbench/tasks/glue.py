"""GLUE (Wang et al. 2019, arXiv:1804.07461): eight tasks, each with its official metric, on the official dev split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rankbench.config.registry import register
from rankbench.tasks.text import answer_scoring
from rankbench.tasks.text_classification import Classification

HUB = "nyu-mll/glue"


@register("task", "glue-sst2")
class Sst2(Classification):
    """Sentiment of a film review's sentence."""

    source = f"{HUB} sst2"
    texts = ("sentence",)
    labels = ("negative", "positive")
    template = "{sentence}\nQuestion: Is this sentence positive or negative?\nAnswer:"
    options = (" negative", " positive")
    cut = "sentence"
    measure = staticmethod(answer_scoring.accuracy)


@register("task", "glue-cola")
class Cola(Classification):
    """Is the sentence grammatical English?"""

    source = f"{HUB} cola"
    texts = ("sentence",)
    labels = ("unacceptable", "acceptable")
    template = "{sentence}\nQuestion: Does this sentence make sense?\nAnswer:"
    options = (" no", " yes")
    cut = "sentence"
    measure = staticmethod(answer_scoring.matthews)


@register("task", "glue-rte")
class Rte(Classification):
    """Does the first text entail the second?"""

    source = f"{HUB} rte"
    texts = ("sentence1", "sentence2")
    labels = ("entailment", "not_entailment")
    template = "{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:"
    options = (" True", " False")
    cut = "sentence1"
    measure = staticmethod(answer_scoring.accuracy)


@register("task", "glue-mrpc")
class Mrpc(Classification):
    """Are two sentences of the news paraphrases?"""

    source = f"{HUB} mrpc"
    texts = ("sentence1", "sentence2")
    labels = ("not_equivalent", "equivalent")
    template = (
        "Sentence 1: {sentence1}\nSentence 2: {sentence2}\nQuestion: Do both sentences mean the same thing?\nAnswer:"
    )
    options = (" no", " yes")
    cut = "sentence1"
    measure = staticmethod(answer_scoring.accuracy_and_f1)


@register("task", "glue-qqp")
class Qqp(Classification):
    """Are two questions duplicates?"""

    source = f"{HUB} qqp"
    texts = ("question1", "question2")
    labels = ("not_duplicate", "duplicate")
    template = (
        "Question 1: {question1}\nQuestion 2: {question2}\nQuestion: Do both questions ask the same thing?\nAnswer:"
    )
    options = (" no", " yes")
    cut = "question1"
    measure = staticmethod(answer_scoring.accuracy_and_f1)


@register("task", "glue-qnli")
class Qnli(Classification):
    """Does the sentence hold the answer to the question?"""

    source = f"{HUB} qnli"
    texts = ("question", "sentence")
    labels = ("entailment", "not_entailment")
    template = "{question}\n{sentence}\nQuestion: Does this response answer the question?\nAnswer:"
    options = (" yes", " no")
    cut = "sentence"
    measure = staticmethod(answer_scoring.accuracy)


@register("task", "glue-mnli")
class Mnli(Classification):
    """Entailment across genres; matched genres are the test, mismatched ones give metrics with that suffix."""

    source = f"{HUB} mnli"
    texts = ("premise", "hypothesis")
    labels = ("entailment", "neutral", "contradiction")
    template = "{premise}\nQuestion: {hypothesis} True, False or Neither?\nAnswer:"
    options = (" True", " Neither", " False")
    cut = "premise"
    test = "validation_matched"
    extra_test: ClassVar[Mapping[str, str]] = {"mismatched": "validation_mismatched"}
    measure = staticmethod(answer_scoring.accuracy)


@register("task", "glue-stsb")
class Stsb(Classification):
    """How alike two sentences are, 0 to 5; squared error in training, encoders only."""

    source = f"{HUB} stsb"
    texts = ("sentence1", "sentence2")
    labels = ()
    template = ""
    options = ()
    cut = ""
    measure = staticmethod(answer_scoring.correlations)
