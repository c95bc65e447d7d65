"""The only training loop. It knows steps, hooks and assertions; it knows no method by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import Allocator, Step
from rankbench.tasks.base import Example
from rankbench.training.engine import Engine, predictions
from rankbench.training.observer import Observer
from rankbench.training.probe import Probe


class NotFiniteError(RuntimeError):
    """The loss, its gradient or a score became NaN or infinite."""


class NotIdentityError(RuntimeError):
    """The adapted model differs from the base model although the method says it starts there."""


def rate(schedule: str, warmup_share: float, stages: Sequence[int], step: int) -> float:
    """Factor on the learning rate at step `step` (from 1): warm-up, then decay, once per stage.

    Args:
        schedule: "linear" or "cosine" to (nearly) zero at the stage's last step, or "constant".
        warmup_share: share of the stage over which the factor rises linearly.
        stages: steps per stage.
        step: number of the step, from 1.
    """
    start = 0
    for length in stages:
        if step <= start + length:
            break
        start += length
    position, warmup = step - start, round(warmup_share * length)
    if position <= warmup:
        return position / warmup
    remaining = (length - position + 1) / (length - warmup)
    return {"linear": remaining, "cosine": 0.5 * (1 - math.cos(math.pi * remaining)), "constant": 1.0}[schedule]


def examples_of_step(count: int, batch_size: int, step: int, rng: Callable[[int], np.random.Generator]) -> list[int]:
    """Indices of the training examples of step `step` (from 1): a new permutation per epoch, nothing dropped.

    A function of the step alone, so a resumed run needs no sampler state.

    Args:
        count: training examples.
        batch_size: examples per step.
        step: number of the step, from 1.
        rng: epoch -> generator.
    """
    first = (step - 1) * batch_size
    epochs: dict[int, Any] = {}
    for position in range(first, first + batch_size):
        epoch = position // count
        if epoch not in epochs:
            epochs[epoch] = rng(epoch).permutation(count)
    return [int(epochs[position // count][position % count]) for position in range(first, first + batch_size)]


def _ignore(value: Any) -> None:
    """Do nothing."""


@dataclass
class Trainer:
    """The loop of one run.

    Attributes:
        method: name of the method, for messages.
        train: examples of the train split.
        settings: the `train` section of the config.
        log: called with the row of each step.
        checkpoint: called with the number of steps done, where a checkpoint is due.
        observer: sees calibration and the comparison with the base model.
    """

    engine: Engine
    adapters: AdapterSet
    allocator: Allocator
    method: str
    train: Sequence[Example]
    settings: Any
    log: Callable[[dict[str, Any]], None] = _ignore
    checkpoint: Callable[[int], None] = _ignore
    observer: Observer = field(default_factory=Observer)

    def __post_init__(self) -> None:
        self.optimizer: torch.optim.Optimizer = None  # type: ignore[assignment]  # set by build_optimizer
        self.last_loss: float | None = None

    def build_optimizer(self) -> None:
        """AdamW over the adapter's groups, after calibration has set the ranks."""
        groups = self.adapters.groups(self.settings.weight_decay, self.settings.head_learning_rate)
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, fused=True)
        self.adapters.bind(self.optimizer)

    def probe(self, key: int | str) -> Probe:
        """Extra passes for the method, at a step or before the first one ("start")."""
        return Probe(self.engine, self.adapters, self.train, key)

    def calibrate(self) -> None:
        """Let the method look at the model before the first step; model state and gradients are left as found."""
        with self.engine.meter.phase("calibration"), self.adapters.deciding(self.method, "calibrate", 0):
            probe = self.probe("start")
            self.observer.calibrate(self.adapters, lambda: self.allocator.calibrate(self.adapters, probe))
        self._check_scores()
        self.adapters.begin()
        self.check_identity()

    def _check_scores(self) -> None:
        scores = self.allocator.scores or {}
        bad = [site for site, score in scores.items() if not math.isfinite(score)]
        if bad:
            raise NotFiniteError(
                f"method {self.method} scores {len(bad)} of {len(scores)} sites as NaN or infinite ({bad[0]}); "
                "the gradients or activations that it reads are not finite"
            )

    @torch.no_grad()
    def check_identity(self) -> None:
        """Output(adapted) == output(base), exactly, unless the method declares another start.

        Raises:
            NotIdentityError: it declares the identity and does not start there.
        """
        if not self.allocator.starts_at_identity:
            return
        batch = self.engine.to_device(self.engine.task.collate(self.train[:2]))
        with self.engine.inert(), self.engine.accelerator.autocast():
            adapted = predictions(self.engine.model, self.engine.task, batch)
            with self.adapters.disabled():
                base = predictions(self.engine.model, self.engine.task, batch)
        if not torch.equal(adapted, base):
            difference = float((adapted.float() - base.float()).abs().max())
            raise NotIdentityError(
                f"method {self.method} says it starts at the base model, but its output differs by {difference:.3g}; "
                "start with B = 0 or a gate of 0, or declare starts_at_identity = False"
            )
        self.observer.start_is_identical()

    def run(self, done: int = 0) -> None:
        """Train from step `done` + 1 to the end, then let the method finish.

        Raises:
            NotFiniteError: the loss or a gradient is not finite.
        """
        total = self.settings.steps
        if done == total:
            return  # the method has finished before the checkpoint
        self.engine.model.train()
        for index in range(done + 1, total + 1):
            self.log(self.step(index, total))
            due = self.settings.checkpoint_every
            if due and index % due == 0 and index < total:
                self.checkpoint(index)
        with self.engine.meter.phase("allocation"), self.adapters.deciding(self.method, "finish", total):
            self.allocator.finish(self.adapters)
        self.engine.model.eval()
        self.checkpoint(total)

    def step(self, index: int, total: int) -> dict[str, Any]:
        """Do one optimizer step and return its row of steps.jsonl."""
        settings, allocator, adapters, meter = self.settings, self.allocator, self.adapters, self.engine.meter
        factor = rate(settings.schedule, settings.warmup_share, allocator.stages(), index)
        for group in self.optimizer.param_groups:
            peak, constant = group.get("peak"), group.get("constant")
            peak = settings.learning_rate if peak is None else peak
            group["lr"] = peak * factor * group["rate"] if constant is None else constant
        rng = self.engine.streams.numpy("allocator", index)
        step = Step(index, total, settings.learning_rate * factor, rng, self.probe(index))
        with meter.phase("training"):
            summed = self._accumulate(step)
            with meter.phase("allocation"), adapters.deciding(self.method, "on_gradients", index):
                allocator.on_gradients(adapters, step)
            penalized = self._penalize(step)
            loss, norm, penalty = self._read(index, summed, self._clip(), penalized)
            self.optimizer.step()
            adapters.hold()
            with meter.phase("allocation"), adapters.deciding(self.method, "on_step_end", index):
                allocator.on_step_end(adapters, step)
            self.optimizer.zero_grad()
        self.last_loss = loss
        return {
            "step": index,
            "loss": loss,
            "penalty": penalty,
            "learning_rate": settings.learning_rate * factor,
            "gradient_norm": norm,
            "ranks": sum(adapters.ranks().values()),
            "params": adapters.param_count(),
            **allocator.diagnostics(),
        }

    def _accumulate(self, step: Step) -> Tensor:
        """Run forward and backward over the micro-batches and return the mean loss over the global batch: ()."""
        engine, index = self.engine, step.index
        chosen = examples_of_step(
            len(self.train), engine.batch_size, index, lambda epoch: engine.streams.numpy("data", epoch)
        )
        batches, units = engine.micro_batches([self.train[i] for i in chosen])
        total = torch.zeros((), device=engine.accelerator.device)
        with engine.streams.ambient("dropout", index, engine.accelerator.process_index):
            for micro, batch in enumerate(batches):
                with self.adapters.deciding(self.method, "before_forward", index):
                    self.allocator.before_forward(self.adapters, step, micro)
                loss = engine.loss(batch) / units
                engine.accelerator.backward(loss)
                engine.meter.count(backward=1)
                self.adapters.reset_path()
                total += loss.detach().float()
        self._share_gradients()
        return engine.sum(total)

    def last_good(self) -> str:
        """The last finite training loss, for messages."""
        return "none" if self.last_loss is None else f"{self.last_loss:.6g}"

    def _trained(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _share_gradients(self) -> None:
        if self.engine.accelerator.num_processes == 1:
            return
        trained = [parameter for parameter in self._trained() if parameter.numel()]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        for parameter, gradient in zip(trained, self.engine.sum_gradients(gradients), strict=True):
            parameter.grad = gradient

    def _penalize(self, step: Step) -> Tensor | None:
        """Add the gradient of the method's penalty, once per step; its value is logged apart from the loss."""
        with self.adapters.deciding(self.method, "penalty", step.index):
            penalty = self.allocator.penalty(self.adapters, step)
        if penalty is None:
            return None
        torch.autograd.backward(penalty)
        return penalty.detach()

    def _clip(self) -> Tensor:
        """Clip the gradients and return their norm before that: ()."""
        limit = self.settings.max_grad_norm
        return torch.nn.utils.clip_grad_norm_(self._trained(), math.inf if limit is None else limit)

    def _read(
        self, index: int, loss: Tensor, norm: Tensor, penalty: Tensor | None
    ) -> tuple[float, float, float | None]:
        """Loss, gradient norm and penalty as numbers: the only values of a step that its host waits for.

        Raises:
            NotFiniteError: loss or norm is not finite.
        """
        scalars = [loss, norm] if penalty is None else [loss, norm, penalty]
        values = torch.stack([scalar.to(loss.device) for scalar in scalars]).tolist()
        for name, value in zip(("loss", "gradient norm"), values, strict=False):
            if not math.isfinite(value):
                raise NotFiniteError(f"{name} is {value} at step {index}; last good loss {self.last_good()}")
        return values[0], values[1], None if penalty is None else values[2]
