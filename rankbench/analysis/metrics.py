"""The table of metrics: what each is called, which direction is better, and in what unit it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VALIDATION = "validation/"
# share: of the items of a split, in [0, 1]; score: a coefficient that is at most 1; nats: >= 0, without an upper end;
# factor: >= 1, without an upper end.
Unit = Literal["share", "score", "nats", "factor"]


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        title: display name.
        higher_is_better: direction.
        unit: what its values are, which says whether a single run is a share of items.
    """

    title: str
    higher_is_better: bool
    unit: Unit


METRICS = {
    "kl": Metric("KL divergence", higher_is_better=False, unit="nats"),
    "loss": Metric("loss", higher_is_better=False, unit="nats"),
    "perplexity": Metric("perplexity", higher_is_better=False, unit="factor"),
    "accuracy": Metric("accuracy", higher_is_better=True, unit="share"),
    "exact_match": Metric("exact match", higher_is_better=True, unit="share"),
    "accuracy_norm": Metric("accuracy per character", higher_is_better=True, unit="share"),
    "mean_accuracy": Metric("mean accuracy of the sets", higher_is_better=True, unit="score"),
    "f1": Metric("F1", higher_is_better=True, unit="score"),
    "bleu4": Metric("BLEU-4", higher_is_better=True, unit="score"),
    "rouge1": Metric("ROUGE-1", higher_is_better=True, unit="score"),
    "rouge2": Metric("ROUGE-2", higher_is_better=True, unit="score"),
    "rougeL": Metric("ROUGE-L", higher_is_better=True, unit="score"),
    "map_correlation": Metric("correlation with the true ranks", higher_is_better=True, unit="score"),
    "map_overlap": Metric("overlap with the true ranks", higher_is_better=True, unit="score"),
    "matthews": Metric("Matthews correlation", higher_is_better=True, unit="score"),
    "pearson": Metric("Pearson correlation", higher_is_better=True, unit="score"),
    "spearman": Metric("Spearman correlation", higher_is_better=True, unit="score"),
}
PER_ITEM = ("f1", "rouge1", "rouge2", "rougeL")  # scores that an item of a split may have; theirs is the items' mean
# Parts of a test split with metrics of their own: accuracy_mismatched (MNLI), those of MMLU and of `commonsense`.
PARTS = (
    *("mismatched", "stem", "humanities", "social_sciences", "other"),
    *("arc-challenge", "arc-easy", "boolq", "hellaswag", "openbookqa", "piqa", "siqa", "winogrande", "commonsense-qa"),
)


def metric_of(name: str) -> Metric | None:
    """The metric that a column or a record names ("validation/accuracy", "kl", "accuracy_mismatched").

    None: the table does not have it, so nothing is known of its direction.
    """
    return METRICS.get(_plain(name))


def higher_is_better(name: str) -> bool | None:
    """Whether more of a metric is better; None where that is not known."""
    metric = metric_of(name)
    return None if metric is None else metric.higher_is_better


def is_share(name: str) -> bool:
    """Whether a metric is a share of the main part's items, so that their number gives one run an interval."""
    metric = METRICS.get(name.rpartition("/")[2])
    return metric is not None and metric.unit == "share"


def directions() -> str:
    """A clause for messages: "higher is better of accuracy, ..., lower of kl, loss"."""
    higher = ", ".join(name for name, metric in METRICS.items() if metric.higher_is_better)
    lower = ", ".join(name for name, metric in METRICS.items() if not metric.higher_is_better)
    return f"higher is better of {higher}, lower of {lower}"


def title_of(column: str) -> str:
    """How a figure names a column: "test accuracy" for "test/accuracy", with the unit where it is not 1."""
    split, _, name = column.rpartition("/")
    metric, part = metric_of(name), name.removeprefix(_plain(name)).strip("_")
    if metric is None:
        return column
    words = " ".join(filter(None, [split, metric.title, part]))
    return f"{words}, nats" if metric.unit == "nats" else words


def _plain(name: str) -> str:
    """The name in the table: without the split and without a part of it."""
    plain = name.rpartition("/")[2]
    return next((plain.removesuffix(f"_{part}") for part in PARTS if plain.endswith(f"_{part}")), plain)
