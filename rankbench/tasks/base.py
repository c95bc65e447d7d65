"""The contract of a task: what a run learns and how it is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from rankbench import RankbenchError
from rankbench.config.schema import Settings, settings_of
from rankbench.core.seeding import Streams

IGNORE = -100  # label of a token that carries no loss

Batch = dict[str, Tensor]


class DataError(RankbenchError, ValueError):
    """Data that cannot be used; the message names the file, the line or column, and the way out."""


@dataclass(frozen=True)
class Example:
    """One tokenised item.

    Attributes:
        input_ids: (length,) token ids; prompt and target for decoders, the prompt for encoder-decoders.
        labels: (length,) token ids with IGNORE where no loss is taken (decoders), (target's length,) token ids
            (encoder-decoders); of encoders a class, a score, or the first and last token of a span.
        item: row of items.jsonl without prediction and loss: at least {"id", "gold"}.
        prompt_length: tokens of `input_ids` that are prompt (what generation and the options start from).
        segments: (length,) token type ids of a pair of texts (encoders whose tokenizer makes them); else empty.
        options: token ids of the answers to choose from (classification by a language model); else empty.
        right: number of the right one among them.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...] | int | float
    item: dict[str, Any] = field(default_factory=dict)
    prompt_length: int = 0
    segments: tuple[int, ...] = ()
    options: tuple[tuple[int, ...], ...] = ()
    right: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Result of one evaluation of a model on one split.

    Attributes:
        metrics: name -> value; "loss" (mean over units, see Task.units) always among them; accuracies in [0, 1]. A
            metric that is not defined here (a correlation with a constant, an accuracy of nothing) is left out.
        items: one dict per example, or per question where examples are windows of its text, in the split's order:
            {"id", "gold", "prediction", "correct", "loss", "units"}, and scores by their metric's name ("f1");
            `loss` is the mean over the item's `units`, so the split's is their weighted mean; None where a value was
            not computed for the item (never 0 for missing).
    """

    metrics: dict[str, float]
    items: list[dict[str, Any]]


ConfigT = TypeVar("ConfigT", bound=Settings, default=Any)


class Task(ABC, Generic[ConfigT]):
    """A task builds its splits once and scores models on them. It draws only from the streams it is given.

    A subclass names the type of its settings: `class Planted(Task[PlantedConfig])`.

    Class facts:
        source: where the data comes from (hub name, or "generated").
        knows_true_ranks: whether it plants a rank at every site, so that `true_ranks` and `truth` are not None.
        Config: type of its settings, taken from the parameter of the base; without one it has none but its name.

    Instance attributes after `load`:
        splits: {"train", "validation", "test"} -> list of Example.
        revision: {"data": hub revision or sha256 of the local files, "prompt": sha256 of the prompt template}, and
            "truncated": how many examples of each split had to be shortened, where texts are tokenised; or "windowed":
            how many texts of each split are read in several windows, so that nothing is lost.
    """

    source: ClassVar[str]
    knows_true_ranks: ClassVar[bool] = False
    Config: ClassVar[type[Settings]] = Settings

    splits: dict[str, list[Example]]
    revision: dict[str, str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.Config = settings_of(cls) or cls.Config

    @staticmethod
    def check(config: Any) -> list[str]:
        """What is wrong with the settings beyond what their types say, one sentence per mistake."""
        return []

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def num_labels(self) -> int | None:
        """Outputs of an encoder's head: k classes, 1 for regression, 2 for a span, None for language modelling only."""

    def problem(self) -> Literal["classification", "regression", "span"]:
        """What an encoder's head answers, where there is one: a class, a score, or a span of the text."""
        return "regression" if self.num_labels() == 1 else "classification"

    @abstractmethod
    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Read or generate the data, tokenise it, carve validation out of train with stream "data".

        Args:
            tokenizer: tokenizer of the model (a transformers PreTrainedTokenizerBase).
            architecture: "decoder", "encoder" or "encoder_decoder".
            streams: random streams of the run. Where the data is fixed, neither the splits nor the carving of
                validation may depend on the run's seed (paired seeds train on the same data): use Streams(0) there.

        Raises:
            DataError: missing column, empty split, broken line (file and line number), no network and no local data,
                architecture that the task does not support.
        """

    def prepare(self, model: torch.nn.Module, sites: Sequence[Any], streams: Streams) -> None:
        """Look at (or change) the base model before the adapter is injected; most tasks do nothing here."""

    def true_ranks(self) -> dict[str, int] | None:
        """The known true rank per site name, for tasks that plant one; else None."""
        return None

    def truth(self, sites: Sequence[Any], streams: Streams) -> dict[str, int] | None:
        """What `true_ranks` will be on these sites (rankbench.core.sites.Site), before model and data are there."""
        return None

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pad to the longest example (dynamic padding). Keys input_ids, attention_mask, labels, ..."""

    @abstractmethod
    def units(self, batch: Batch) -> int:
        """How many units `loss` sums over: target tokens, examples or positions. Needs no forward pass."""

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Scalar fp32: SUM of the loss over the batch's units (the trainer divides by the global count)."""

    @abstractmethod
    def evaluate(self, model: torch.nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Score `model` (already in eval mode, under no_grad and autocast) on `examples`; no side effects."""

    def judge(self, ranks: dict[str, int]) -> dict[str, float]:
        """Extra metrics of the final rank map (tasks with a known true map); else {}."""
        return {}
