"""A task whose true ranks are known: fit a teacher that is the base model plus low-rank updates at chosen sites."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.seeding import Streams
from rankbench.tasks.base import Batch, DataError, Evaluation, Example, Task
from rankbench.tasks.text.tokens import length_groups


class PlantedConfig(Settings):
    """Settings of the planted task.

    Attributes:
        kind: name of these settings in tables and on an axis, where a study has many of them; it changes no number.
        map: where the updates are: "few" random sites at `rank`; "type" every site of some module kinds; "depth" every
            site, rank rising linearly with depth; "falling" every site, rank falling with it.
        sites: how many sites (few) or kinds (type) get an update.
        rank: true rank of an update (the largest, for depth and falling).
        strength: Frobenius norm of the update over that of the weight.
        weight_scale: factor on the matrices (embeddings included) of a model with random weights first, so that its
            outputs are not flat; trained weights, which come from a file, are left as they are.
        label_noise: weight of the uniform distribution mixed into the teacher's, in [0, 1).
        train_size, validation_size, test_size: random sequences.
        length: tokens per sequence.
        map_seed: seed of map and updates; null takes the run's, so that seeds differ in their truth as well.
    """

    kind: str | None = None  # configurations of older versions have none
    map: Literal["few", "type", "depth", "falling"]
    sites: int = Field(ge=1)
    rank: int = Field(ge=1)
    strength: float = Field(ge=0)
    weight_scale: float = Field(ge=0)
    label_noise: float = Field(ge=0, le=1)
    train_size: int = Field(ge=1)
    validation_size: int = Field(ge=1)
    test_size: int = Field(ge=1)
    length: int = Field(ge=1)
    map_seed: int | None


@register("task", "planted")
class Planted(Task[PlantedConfig]):
    """Random tokens; the loss is KL(teacher || student) per position, so its floor is 0 whatever the noise.

    The distributions are over the vocabulary: a decoder's own, and of an encoder those of its hidden states against its
    input embeddings, as if the two were tied (Press and Wolf 2017). A head of classes would see all updates through one
    vector per sequence, and would be trained itself; as things are, an encoder's head is neither read nor moved.
    """

    source = "generated"
    knows_true_ranks = True

    def num_labels(self) -> int:
        """Two outputs for the head that an encoder has; the task does not read them."""
        return 2

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """Draw the sequences; the splits are disjoint streams."""
        if architecture == "encoder_decoder":
            raise DataError(
                "task=planted reads one sequence of tokens: use a decoder or an encoder, such as model=tiny"
            )
        self._encoder = architecture == "encoder"
        sizes = {split: getattr(self.config, f"{split}_size") for split in ("train", "validation", "test")}
        vocabulary = len(tokenizer)
        self.splits = {}
        for split, size in sizes.items():
            tokens = streams.numpy("task", "tokens", split).integers(0, vocabulary, (size, self.config.length))
            self.splits[split] = [
                Example(tuple(row), 0, {"id": i, "gold": None}) for i, row in enumerate(tokens.tolist())
            ]
        self.revision = {"data": "generated", "prompt": hashlib.sha256(b"").hexdigest()}

    def prepare(self, model: nn.Module, sites: Sequence[Any], streams: Streams) -> None:
        """Scale a random model's matrices, embeddings included; the teacher is a copy of it plus the true updates."""
        from transformers.pytorch_utils import Conv1D  # transformers takes seconds to import

        streams = self._streams(streams)
        self._truth = self.truth(sites, streams)
        base: Any = model
        with torch.no_grad():
            for parameter in () if base.name_or_path else base.parameters():  # of a random model: ""
                if parameter.ndim > 1:
                    parameter.mul_(self.config.weight_scale)
            teacher = copy.deepcopy(model).eval().requires_grad_(False)
            modules: dict[str, Any] = dict(teacher.named_modules())
            for site in sites:
                if self._truth[site.name]:
                    layer = modules[site.name]
                    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight  # (d_out, d_in), a view
                    update = _update(site, self._truth[site.name], streams.torch("task", "update", site.name))
                    update = update.to(weight.device)
                    weight += (update * (self.config.strength * weight.float().norm() / update.norm())).to(weight)
        self._teacher = [teacher]  # in a list: not a submodule of anything
        self._embeddings = base.get_input_embeddings().weight.detach() if self._encoder else None

    def _streams(self, streams: Streams) -> Streams:
        """Random streams of the map and the updates."""
        return streams if self.config.map_seed is None else Streams(self.config.map_seed)

    def truth(self, sites: Sequence[Any], streams: Streams) -> dict[str, int]:
        """The rank map that is planted."""
        return true_map(self.config, sites, self._streams(streams).numpy("task", "map"))

    def true_ranks(self) -> dict[str, int]:
        """The planted map, all sites, 0 where nothing was planted."""
        return dict(self._truth)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Batch without padding: sequences have one length."""
        input_ids = torch.tensor([example.input_ids for example in examples])
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}

    def units(self, batch: Batch) -> int:
        """Number of positions."""
        return batch["input_ids"].numel()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed KL over positions."""
        return self._divergence(model, batch).sum()

    def _divergence(self, model: nn.Module, batch: Batch) -> Tensor:
        """KL per position: (batch, length)."""
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        with torch.no_grad():
            target = F.softmax(self._logits(self._teacher[0], inputs), dim=-1)
            target = (1 - self.config.label_noise) * target + self.config.label_noise / target.shape[-1]
        student = F.log_softmax(self._logits(model, inputs), dim=-1)
        return F.kl_div(student, target, reduction="none").sum(-1)

    def _logits(self, model: nn.Module, inputs: Batch) -> Tensor:
        """Scores of the tokens of the vocabulary: (batch, length, vocabulary)."""
        if self._embeddings is None:
            return model(**inputs).logits.float()  # type: ignore[no-any-return]
        hidden = model(**inputs, output_hidden_states=True).hidden_states[-1]
        return (hidden @ self._embeddings.T).float()  # type: ignore[no-any-return]

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Mean KL of all sequences, and of each one in the items."""
        device = next(model.parameters()).device
        losses: list[float] = []
        for group in length_groups([self.config.length] * len(examples), batch_size):
            batch = {k: v.to(device) for k, v in self.collate([examples[index] for index in group]).items()}
            losses += self._divergence(model, batch).mean(1).tolist()
        items = [
            {**example.item, "prediction": None, "correct": None, "loss": loss}
            for example, loss in zip(examples, losses, strict=True)
        ]
        return Evaluation({"loss": float(np.mean(losses)), "kl": float(np.mean(losses))}, items)

    def judge(self, ranks: dict[str, int]) -> dict[str, float]:
        """Agreement of the final ranks with the true map.

        `map_overlap`: sum of min(rank, true rank) over the sum of true ranks, in [0, 1]. `map_correlation`: Spearman's
        rank correlation over sites; left out where either map is constant.
        """
        names = list(self._truth)
        true, final = (np.array([rank_map[name] for name in names]) for rank_map in (self._truth, ranks))
        metrics = {"map_overlap": float(np.minimum(true, final).sum() / true.sum())}
        if true.std() and final.std():
            metrics["map_correlation"] = float(np.corrcoef(_positions(true), _positions(final))[1, 0])
        return metrics


def _positions(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Place of each value in sorted order, from 1; equal values share their mean place.

    scipy.stats has it too (rankdata), and takes a tenth of this task's whole run to import.
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count - 1) / 2)[place]


def true_map(config: PlantedConfig, sites: Sequence[Any], rng: np.random.Generator) -> dict[str, int]:
    """True rank per site name.

    Raises:
        DataError: more sites or kinds asked for than there are, or a rank above the full rank.
    """
    full = min(min(site.d_out, site.d_in) for site in sites)
    if config.rank > full:
        raise DataError(f"task.rank={config.rank} is above the full rank {full} of a site: use <= {full}")
    kinds = sorted({site.kind for site in sites})
    for pattern, available, things in (("few", len(sites), "sites"), ("type", len(kinds), "kinds")):
        if config.map == pattern and config.sites > available:
            raise DataError(f"task.sites={config.sites}: the model has {available} {things}")
    if config.map == "few":
        chosen = set(rng.choice(len(sites), config.sites, replace=False).tolist())
        return {site.name: config.rank if index in chosen else 0 for index, site in enumerate(sites)}
    if config.map == "type":
        chosen_kinds = {kinds[index] for index in rng.choice(len(kinds), config.sites, replace=False)}
        return {site.name: config.rank if site.kind in chosen_kinds else 0 for site in sites}
    depth = max(site.layer or 0 for site in sites) + 1
    places = {site.name: (site.layer or 0) + 1 for site in sites}  # from 1
    if config.map == "falling":
        places = {name: depth + 1 - place for name, place in places.items()}
    return {name: max(1, round(config.rank * place / depth)) for name, place in places.items()}


def _update(site: Any, rank: int, generator: torch.Generator) -> Tensor:
    """A random matrix of given rank: (d_out, d_in)."""
    left = torch.randn(site.d_out, rank, generator=generator)
    return left @ torch.randn(rank, site.d_in, generator=generator)
