"""Passes through the model on one or several processes: losses and gradients over the whole batch.

A global batch is dealt to the processes, summed losses are divided by the global count of units, and gradients are
added up over processes; so micro-batches and processes change nothing but rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn

from rankbench.core.seeding import Streams
from rankbench.tasks.base import Batch, Example, Task
from rankbench.training import precision
from rankbench.training.cost_meter import Meter

# What `accelerate launch` and its configuration file say about numbers; where a run computes is theirs to say.
ACCELERATE = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_")
PLACE = ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE", "ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE")


def make_accelerator(settings: str) -> Accelerator:
    """Make the process group and mixed precision of one run; a former run in this process leaves nothing behind.

    Nor do the process's own settings: those of Accelerate are taken out of its environment, where transformers reads
    them too, and kernels are those that the precision asks for (rankbench.training.precision).
    """
    for name in list(os.environ):
        if name.startswith(ACCELERATE) and name not in PLACE:
            del os.environ[name]
    precision.set_kernels(settings)
    AcceleratorState._reset_state()
    GradientState._reset_state()
    return Accelerator(
        mixed_precision=precision.autocast_of(settings),
        dynamo_backend="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


@dataclass
class Engine:
    """Model, task and processes of one run.

    Attributes:
        micro_batch_size: examples per forward pass over all processes; None takes the whole batch at once.
    """

    accelerator: Accelerator
    model: nn.Module
    task: Task
    meter: Meter
    batch_size: int
    micro_batch_size: int | None
    streams: Streams

    def micro_batches(self, examples: Sequence[Example]) -> tuple[list[Batch], int]:
        """This process's share of a global batch, collated, and the units of the whole batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        size = self.micro_batch_size or len(examples)
        chunks = [examples[start : start + size] for start in range(0, len(examples), size)]
        shares = [chunk[rank::world] for chunk in chunks]
        batches = [self.task.collate(share) for share in shares if share]
        units = torch.tensor([float(sum(self.task.units(batch) for batch in batches))])
        return [self.to_device(batch) for batch in batches], round(self.sum(units)[0].item())

    def to_device(self, batch: Batch) -> Batch:
        """The batch on this process's device; it goes to a GPU from pinned memory, and the host does not wait."""
        device = self.accelerator.device
        if device.type == "cuda":
            batch = {key: value.pin_memory() for key, value in batch.items()}
        return {key: value.to(device, non_blocking=True) for key, value in batch.items()}

    def loss(self, batch: Batch) -> Tensor:
        """Summed loss of a micro-batch: one forward pass."""
        with self.accelerator.autocast():
            return self.task.loss(self.model, batch)

    def count_passes(self) -> None:
        """Count every forward pass of the model from now on, whoever makes it, and the tokens read in it."""

        def count(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            self.meter.count(forward=1)
            for side in ("", "decoder_"):  # an encoder-decoder reads two texts, or one that is encoded already
                ids, mask = named.get(f"{side}input_ids"), named.get(f"{side}attention_mask")
                if ids is not None:
                    self.meter.count(tokens=_read(ids, mask))

        self.model.register_forward_hook(count, with_kwargs=True)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over processes."""
        if self.accelerator.num_processes == 1:
            return tensor
        return self.accelerator.reduce(tensor.to(self.accelerator.device), "sum")  # type: ignore[no-any-return]

    def sum_gradients(self, gradients: list[Tensor]) -> list[Tensor]:
        """Sum over processes, in one message."""
        if self.accelerator.num_processes == 1:
            return gradients
        flat = self.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        return [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]

    def inert(self) -> AbstractContextManager[None]:
        """Evaluation mode inside, the former mode afterwards."""
        return self.mode(training=False)

    @contextmanager
    def mode(self, training: bool) -> Iterator[None]:
        """Training or evaluation mode inside, the former mode afterwards."""
        before = self.model.training
        self.model.train(training)
        try:
            yield
        finally:
            self.model.train(before)


def _read(ids: Tensor, mask: Tensor | None) -> int | Tensor:
    """Tokens that are no padding, on their device; a step with a key-value cache comes without their mask."""
    return ids.numel() if mask is None or mask.shape != ids.shape else mask.sum(dtype=torch.long)


def predictions(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """What the model puts out on the way to the loss of a batch: its logits, or the first of a head with several.

    The first pass counts where a loss makes more than one.
    """
    outputs: list[Tensor] = []

    def see(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs.append(output.logits if hasattr(output, "logits") else output[0])

    hook = model.register_forward_hook(see)
    try:
        task.loss(model, batch)
    finally:
        hook.remove()
    return outputs[0]
