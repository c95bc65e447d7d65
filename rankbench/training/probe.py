"""Extra forward and backward passes for a method, charged to the current cost phase (see methods.base.Probe)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor

from rankbench.core.adapter_set import AdapterSet
from rankbench.tasks.base import IGNORE, Batch, Example
from rankbench.tasks.text.decoder import examples_of
from rankbench.tasks.text.encoder_decoder import apart
from rankbench.training.engine import Engine

Hook = Callable[..., Any]


class Probe:
    """Losses, gradients and activations on mini-batches of the calibration stream.

    A method that only looks changes nothing: mode, gradients and random state are as before.

    Args:
        examples: train split.
        key: part of the calibration stream to draw from: the step, or "start".
    """

    def __init__(self, engine: Engine, adapters: AdapterSet, examples: Sequence[Example], key: int | str) -> None:
        self._engine, self._adapters, self._examples, self._key = engine, adapters, examples, key
        self._rng = engine.streams.numpy("calibration", key)
        self._passes_made = 0

    def batches(self, count: int) -> list[list[Example]]:
        """`count` mini-batches drawn without replacement within each."""
        size = min(self._engine.batch_size, len(self._examples))
        draws = [self._rng.choice(len(self._examples), size, replace=False) for _ in range(count)]
        return [[self._examples[index] for index in draw] for draw in draws]

    def inputs(self, batch: Sequence[Example]) -> list[Batch]:
        """The model's inputs for a mini-batch, in micro-batches, all of them on every process."""
        return [self._engine.to_device(micro) for micro in self._cut(batch)]

    def _cut(self, batch: Sequence[Example]) -> list[Batch]:
        """A mini-batch, collated and cut into micro-batches."""
        whole = self._engine.task.collate(batch)
        size = self._engine.micro_batch_size or len(batch)
        return [examples_of(whole, start, start + size) for start in range(0, len(batch), size)]

    def loss(self, batch: Sequence[Example]) -> float:
        """Mean loss of a mini-batch."""
        with torch.no_grad():
            total = self._accumulate(batch, lambda micro, units: self._engine.loss(micro) / units, dropout=False)
        return float(self._engine.sum(total))

    def gradients(self, batch: Sequence[Example], parameters: Sequence[Tensor], dropout: bool = False) -> list[Tensor]:
        """Gradients of the mean loss of a mini-batch; the parameters' own .grad is left alone."""
        total: list[Tensor] = []

        def backward(micro: Batch, units: int) -> Tensor:
            loss = self._engine.loss(micro) / units
            gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
            self._engine.meter.count(backward=1)
            pairs = zip(parameters, gradients, strict=True)
            filled = [torch.zeros_like(p) if gradient is None else gradient.contiguous() for p, gradient in pairs]
            if total:
                torch._foreach_add_(total, filled)
            else:
                total.extend(torch._foreach_add(filled, 0.0))  # tensors that autograd shares with nobody
            return loss.detach()

        with torch.enable_grad():
            self._accumulate(batch, backward, dropout)
        return self._engine.sum_gradients(total or [torch.zeros_like(parameter) for parameter in parameters])

    def weight_gradients(self, batch: Sequence[Example], dropout: bool = False) -> dict[str, Tensor]:
        """Gradients of the mean loss with respect to every frozen weight: site name -> (d_out, d_in), fp32.

        From each layer's input x and the gradient of its output y as dL/dy^T x, so that frozen and quantised weights
        need no gradient.
        """
        device = self._engine.accelerator.device
        total = {site.name: torch.zeros(site.d_out, site.d_in, device=device) for site in self._adapters.sites}
        seen: list[tuple[str, Tensor, Tensor]] = []

        def hook(site: str) -> Hook:
            def capture(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                output = output if output.requires_grad else output.detach().requires_grad_()
                seen.append((site, inputs[0].detach(), output))
                return output

            return capture

        def backward(micro: Batch, units: int) -> Tensor:
            seen.clear()
            loss = self._engine.loss(micro) / units
            captured = tuple(seen)  # gradient checkpointing calls the hook again in the backward pass
            outputs = [output for _, _, output in captured]  # of which a layer that is called twice may drop one
            gradients = torch.autograd.grad(loss, outputs, allow_unused=True, materialize_grads=True)
            self._engine.meter.count(backward=1)
            for (site, x, _), gradient in zip(captured, gradients, strict=True):
                total[site] = total[site] + gradient.flatten(0, -2).float().T @ x.flatten(0, -2).float()
            return loss.detach()

        with torch.enable_grad(), self._adapters.watching(hook):
            self._accumulate(batch, backward, dropout)
        return dict(zip(total, self._engine.sum_gradients(list(total.values())), strict=True))

    def activations(self, batch: Sequence[Example], see: Callable[[str, Tensor], None], labelled: bool = False) -> None:
        """One forward pass of the base model; `see` gets each site's name and input (tokens, d_in), padding left out.

        With `labelled`, tokens without a label are left out, too, where labels are per token: the source that an
        encoder-decoder reads has none, and stays.

        Sites that read the same tensor one after the other (q, k, v) get the same object. Every process sees the whole
        mini-batch, so that what a method makes of it is equal everywhere.
        """
        engine = self._engine
        for micro in self._cut(batch):
            micro, masks = apart(engine.model, micro)
            labels = micro.get("labels")
            if labelled and labels is not None:
                masks = [mask & (labels != IGNORE) if mask.shape == labels.shape else mask for mask in masks]
            unpadded = _Unpadded(masks, engine.accelerator.device)

            def hook(site: str, unpadded: _Unpadded = unpadded) -> Hook:
                return lambda module, inputs, output: see(site, unpadded(inputs[0]))

            with torch.no_grad(), engine.inert(), self._adapters.disabled(), self._adapters.watching(hook):
                engine.loss(engine.to_device(micro))

    def _accumulate(self, batch: Sequence[Example], one: Callable[[Batch, int], Tensor], dropout: bool) -> Tensor:
        """Sum of what `one` gives for each of this process's micro-batches: ()."""
        engine = self._engine
        with self._mode(dropout):
            micros, units = engine.micro_batches(batch)
            total = torch.zeros((), device=engine.accelerator.device)  # a process may have no share of a small batch
            for micro in micros:
                total += one(micro, units).detach().float()
        return total

    def _mode(self, dropout: bool) -> AbstractContextManager[Any]:
        """Evaluation mode, or training mode with a separate random stream for dropout."""
        if not dropout:
            return self._engine.inert()
        self._passes_made += 1
        stack, rank = ExitStack(), self._engine.accelerator.process_index
        stack.enter_context(self._engine.streams.ambient("calibration", self._key, self._passes_made, rank))
        stack.enter_context(self._engine.mode(training=True))
        return stack


class _Unpadded:
    """(batch, length, d) -> (tokens, d) without padding, the same object as long as the same input is asked for.

    Some models flatten (batch, length, d) to (batch * length, d) on the way. Vectors of any other number (one per
    example, say) are all taken. An input is not kept alive: memory is used again as without anybody looking.

    Args:
        masks: (batch, length) bool, true for tokens, of each text that an input may be of, on the CPU; no two of one
            shape.
        device: of the inputs.
    """

    def __init__(self, masks: Sequence[Tensor], device: torch.device) -> None:
        self._tokens_of: dict[torch.Size, Tensor] = {}  # shape -> the tokens among its vectors, where some are padding
        for mask in masks:
            if not mask.all():
                tokens = mask.flatten().nonzero()[:, 0].to(device)
                self._tokens_of |= {mask.shape: tokens, mask.flatten().shape: tokens}
        self._input: weakref.ref[Tensor] | None = None
        self._tokens: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._tokens is None or self._input is None or self._input() is not x:
            tokens, vectors = self._tokens_of.get(x.shape[:-1]), x.flatten(0, -2)
            self._tokens = (vectors if tokens is None else vectors[tokens]).detach()
            self._input = weakref.ref(x, self._forget)
        return self._tokens

    def _forget(self, reference: weakref.ref[Tensor]) -> None:
        if reference is self._input:
            self._tokens = None
