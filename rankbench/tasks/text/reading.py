"""How a decoder can be read: what it sees, where its rows may be padded, and whether it has a cache to go on from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankbench.tasks.text.tokens import pad

LONG, SHORT, STEPS = 6, 3, 3  # tokens of the prompts that a model is tried with, and tokens that follow
LENGTH = LONG + STEPS
KEYS, STATE = "past_key_values", "cache_params"  # what models call their cache; Mamba's needs no mask once it is there


@dataclass(frozen=True)
class Reading:
    """How the answers to several prompts are the same as to each alone.

    Attributes:
        causal: whether logits are those of the tokens up to theirs, whatever follows.
        padding: side on which shorter prompts may be padded; None: only prompts of one length share a batch.
        cache: "cut": rows that are complete leave the batch and its cache; "kept": they stay to the end; None: every
            pass reads all tokens again.
    """

    causal: bool
    padding: Literal["left", "right"] | None
    cache: Literal["cut", "kept"] | None


CHOICES: tuple[tuple[Literal["left", "right"] | None, Literal["cut", "kept"] | None], ...] = (
    ("left", "cut"),
    ("left", "kept"),
    (None, "cut"),
    (None, "kept"),
    ("right", None),
)  # the fastest first
_READINGS: WeakKeyDictionary[nn.Module, Reading] = WeakKeyDictionary()


def base_of(model: nn.Module) -> nn.Module:
    """The transformers model, inside PEFT's or plain."""
    base: nn.Module = getattr(model, "get_base_model", lambda: model)()
    return base


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether a forward pass of the model has an argument of this name; one that **kwargs would swallow is none."""
    return argument in inspect.signature(base_of(model).forward).parameters


@torch.no_grad()
def reading_of(model: nn.Module) -> Reading:
    """How a model can be read: the first of `CHOICES` whose logits are those of each row read alone and as a whole.

    It is tried on a few tokens, once per model, in passes that no meter sees.

    Args:
        model: a transformers decoder, plain or inside PEFT's, in evaluation mode.
    """
    base = base_of(model)
    if base not in _READINGS:
        _READINGS[base] = _try(base)
    return _READINGS[base]


def _try(base: nn.Module) -> Reading:
    rows = trial_rows(base)
    ids = torch.tensor(rows, device=next(base.parameters()).device)
    whole = base(input_ids=ids, attention_mask=torch.ones_like(ids), **switch(base, "use_cache", False)).logits
    causal = same_row(whole[0, :-1], whole[1, :-1])
    choices = (Reading(causal, padding, cache) for padding, cache in CHOICES)
    return next((choice for choice in choices if _holds(base, choice, rows, whole)), Reading(causal, None, None))


def _holds(base: nn.Module, reading: Reading, rows: Sequence[Sequence[int]], whole: Tensor) -> bool:
    """Whether the first three tokens after two prompts, the first of which is then complete, are as in `whole`."""
    texts = [(0, LONG), (0, SHORT) if reading.padding else (1, LONG)]  # row of `rows`, and how much of it is read
    reader = reader_of(base, reading, [rows[row][:length] for row, length in texts], pad_id=rows[0][0])
    for _ in range(STEPS):
        expected = torch.stack([whole[row, length - 1] for row, length in texts])
        try:
            if not agree(reader.logits(), expected):
                return False
            left = reader.go_on([rows[row][length] for row, length in texts], going=[len(texts) - 1])
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever a model or a cache that cannot do this raises
            return False
        texts = [(row, length + 1) for row, length in (texts[row] for row in left)]
    return True


def trial_rows(model: nn.Module) -> tuple[list[int], list[int]]:
    """Two rows of token ids, all different, that are no special tokens of the model; the rows differ in the last."""
    base: Any = base_of(model)
    count = base.get_input_embeddings().num_embeddings
    special = {getattr(base.config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "decoder_start")}
    tokens = [token for token in range(count // 3, count) if token not in special][: LENGTH + 1]
    return tokens[:LENGTH], [*tokens[: LENGTH - 1], tokens[LENGTH]]


def rounding(dtype: torch.dtype) -> float:
    """Root mean square difference that rounding may make in a model's output, as a share of the output's."""
    return 0.05 if dtype in (torch.bfloat16, torch.float16) else 1e-4


def agree(values: Tensor, expected: Tensor, share: float = 1.0) -> bool:
    """Whether logits are equal up to this share of what rounding may do, as measured by their spread: (..., words)."""
    tolerance = share * rounding(values.dtype)
    values, expected = values.float(), expected.float()
    spread = (expected - expected.mean(-1, keepdim=True)).square().mean().sqrt()
    return bool((values - expected).square().mean().sqrt() <= tolerance * spread)  # never where a value is NaN


def same_row(first: Tensor, second: Tensor) -> bool:
    """Whether logits of one pass, of the same tokens in two rows, are equal: (length, words); kernels round alike."""
    return agree(first, second, share=0.1)


_WHOLE: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@torch.no_grad()
def keeps_every_token(model: nn.Module) -> bool:
    """Whether the cache is keys and values of every token, which can be cut at any token and joined with another's.

    Else it has a window, a state or a layout of its own. Looked up once per model, in a short pass that no meter sees.

    Args:
        model: a transformers decoder, plain or inside PEFT's, in evaluation mode.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer  # transformers takes seconds to import

    base = base_of(model)
    if base not in _WHOLE:
        reading = reading_of(model)
        _WHOLE[base] = reading.causal and (reading.padding, reading.cache) == ("left", "cut")
        if _WHOLE[base]:
            ids = torch.tensor([trial_rows(base)[0]], device=next(base.parameters()).device)
            cache = getattr(base(input_ids=ids, use_cache=True), KEYS, None)
            layers = cache.layers if type(cache) is DynamicCache else [None]
            _WHOLE[base] = all(type(layer) is DynamicLayer and layer.is_initialized for layer in layers)
    return _WHOLE[base]


def read_at(model: nn.Module, rows: Tensor, columns: Tensor, **inputs: Any) -> Any:
    """Output of a forward pass, whose logits are those of chosen positions: (chosen, vocabulary).

    The output layer sees the chosen positions alone where the model lets it see fewer than all (`logits_to_keep`); a
    vocabulary of 49152 is a fifth of SmolLM2-135M's work.

    Args:
        rows, columns: (chosen,) example and token of each position.
    """
    base: Any = base_of(model)
    head = base.get_output_embeddings() if accepts(model, "logits_to_keep") else None
    if head is None:
        output = model(**inputs)
        output.logits = output.logits[rows, columns]
        return output
    choose = head.register_forward_pre_hook(lambda module, arguments: (arguments[0][rows, columns],))
    try:
        return model(**inputs)
    finally:
        choose.remove()


class Reader(Protocol):
    """A batch of prompts that is read on, token by token."""

    def logits(self) -> Tensor:
        """Logits of each row's next token: (rows, vocabulary). One forward pass."""

    def go_on(self, tokens: Sequence[int], going: list[int]) -> list[int]:
        """Put a token behind each row; returns the rows that the next pass reads, `going` at least."""


def reader_of(model: nn.Module, reading: Reading, prompts: Sequence[Sequence[int]], pad_id: int) -> Reader:
    """A reader of prompts, which have one length unless the reading allows padding."""
    if reading.cache is None:
        return WholeRows(model, prompts, pad_id)
    return CachedRows(model, prompts, pad_id, reading.cache == "cut")


class CachedRows:
    """Rows padded on the left, whose keys and values, or states, are kept between passes."""

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], pad_id: int, cuts: bool) -> None:
        device = next(model.parameters()).device
        self._model, self._cuts = model, cuts
        self._ids = pad(prompts, pad_id, left=True).to(device)
        self._mask = pad([[1] * len(prompt) for prompt in prompts], 0, left=True).to(device)
        self._lengths = [len(prompt) for prompt in prompts]  # tokens of each row
        self._name = STATE if accepts(model, STATE) else KEYS
        self._cache: Any = None
        self._first: Tensor | None = None

    def read_targets(self, targets: Sequence[Sequence[int]], pad_id: int, count: int) -> Iterator[tuple[Tensor, ...]]:
        """Read a target behind each prompt, `count` rows a pass; the next `logits` cost no pass.

        For models with `keeps_every_token`. All passes have to be taken before the reader is read on.

        Yields:
            Logits (n, vocabulary) that predict the targets' tokens, these tokens (n,) and their rows (n,), by pass.
        """
        width, device = self._ids.shape[1], self._ids.device
        first, caches = [], []
        for start in range(0, len(targets), count):
            part = slice(start, start + count)
            target = pad(targets[part], pad_id)
            mask = pad([[1] * len(row) for row in targets[part]], 0)
            rows, columns = (index.to(device) for index in mask.nonzero(as_tuple=True))
            whole = torch.cat([self._mask[part], mask.to(device)], dim=1)
            positions = (whole.cumsum(1) - 1).clamp(min=0)
            output = read_at(
                self._model,
                rows,
                width - 1 + columns,
                input_ids=torch.cat([self._ids[part], target.to(device)], dim=1),
                attention_mask=whole,
                **switch(self._model, "position_ids", positions),
                use_cache=True,
            )
            output[KEYS].crop(-target.shape[1])
            first.append(output.logits[columns == 0])
            caches.append(output[KEYS])
            yield output.logits, target.to(device)[rows, columns], start + rows
        self._first, self._cache = torch.cat(first), caches[0]
        for layer, *further in zip(*(cache.layers for cache in caches), strict=True):
            layer.keys = torch.cat([layer.keys, *(other.keys for other in further)])
            layer.values = torch.cat([layer.values, *(other.values for other in further)])

    def logits(self) -> Tensor:
        """Logits of the next tokens; padding has no position."""
        if self._first is not None:
            logits, self._first = self._first, None
            return logits
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -self._ids.shape[1] :]
        needs_mask = self._cache is None or self._name == KEYS
        # by its index: a slice is a view, whose product with the output layer takes five times as long on a CPU
        last = torch.tensor([self._ids.shape[1] - 1], device=self._ids.device)
        output = self._model(
            input_ids=self._ids,
            attention_mask=self._mask if needs_mask else None,
            **switch(self._model, "position_ids", positions),
            **{self._name: self._cache},
            use_cache=True,
            **switch(self._model, "logits_to_keep", last),
        )
        self._cache = output[self._name]
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def go_on(self, tokens: Sequence[int], going: list[int]) -> list[int]:
        """Drop what is complete from the batch and the cache, where they can be cut."""
        rows = list(range(len(tokens)))
        ids = torch.tensor(tokens, device=self._ids.device)[:, None]
        if self._cuts and len(going) < len(rows):
            rows, chosen = going, torch.tensor(going, device=ids.device)
            ids, self._mask = ids[chosen], self._mask[chosen]
            self._cache.batch_select_indices(chosen)
        self._ids, self._mask = ids, torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], dim=1)
        self._lengths = [self._lengths[row] + 1 for row in rows]
        return rows

    def join(self, other: CachedRows) -> None:
        """Put the rows of another reader, which is used up, behind its own; for models with `keeps_every_token`.

        Both have been read on. They are padded to one length, and padding that no row needs any more goes.
        """
        self._lengths += other._lengths
        width = max(self._lengths)
        self._ids = torch.cat([self._ids, other._ids])
        self._mask = torch.cat([F.pad(mask, (width - mask.shape[1], 0)) for mask in (self._mask, other._mask)])
        for layer, further in zip(self._cache.layers, other._cache.layers, strict=True):
            layer.keys = torch.cat([_ending_at(width - 1, values) for values in (layer.keys, further.keys)])
            layer.values = torch.cat([_ending_at(width - 1, values) for values in (layer.values, further.values)])


def _ending_at(width: int, values: Tensor) -> Tensor:
    """Keys or values (rows, heads, length, d) with `width` tokens: padded, or without their first ones."""
    return F.pad(values, (0, 0, width - values.shape[2], 0))


class WholeRows:
    """Rows padded on the right, all of whose tokens are read in every pass."""

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], pad_id: int) -> None:
        self._model, self._pad_id = model, pad_id
        self._rows = [list(prompt) for prompt in prompts]

    def logits(self) -> Tensor:
        """Logits behind each row's last token."""
        device = next(self._model.parameters()).device
        mask = pad([[1] * len(row) for row in self._rows], 0).to(device)
        off = switch(self._model, "use_cache", False)
        logits = self._model(input_ids=pad(self._rows, self._pad_id).to(device), attention_mask=mask, **off).logits
        return logits[torch.arange(len(mask), device=device), mask.sum(1) - 1]  # type: ignore[no-any-return]

    def go_on(self, tokens: Sequence[int], going: list[int]) -> list[int]:
        """Drop what is complete."""
        self._rows = [[*self._rows[row], tokens[row]] for row in going]
        return going


def switch(model: nn.Module, argument: str, value: Any) -> dict[str, Any]:
    """The argument of a forward pass, where the model has it."""
    return {argument: value} if accepts(model, argument) else {}
