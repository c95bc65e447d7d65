"""The sides that `python benchmarks/speed.py` compares: our training step, and the same step with bare PEFT."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from peft import AdaLoraConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from torch import Tensor, nn

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.config.sections import Config
from rankbench.config.validation import build
from rankbench.config.yaml_files import CONF_DIR
from rankbench.core.seeding import Streams
from rankbench.methods.base import Step
from rankbench.models import loading
from rankbench.tasks.base import Batch, Evaluation, Example, Task
from rankbench.training.assembly import assemble
from rankbench.training.engine import make_accelerator

LONG = 1_000_000  # steps of a run of which a few are timed: its budget falls at each of them, and hardly at all


@dataclass(frozen=True)
class StepShape:
    """What one step works on.

    Attributes:
        model: option of the group model.
        batch_size: examples.
        length: tokens per example, no padding.
        settings: further overrides of the configuration, such as its precision (fp32 if none says so).
    """

    model: str
    batch_size: int
    length: int
    settings: tuple[str, ...] = ()


class TokensConfig(Settings):
    """Settings of the task below: number of examples and tokens per example."""

    size: int
    length: int


class Tokens(Task[TokensConfig]):
    """Random tokens: language modelling for decoders, two classes for encoders. For timing alone."""

    source = "generated"

    def num_labels(self) -> int:
        """Two classes."""
        return 2

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        """One batch; every step takes all of it."""
        ids = Streams(0).numpy("task").integers(len(tokenizer), size=(self.config.size, self.config.length)).tolist()
        decoder = architecture == "decoder"
        examples = [Example(tuple(row), tuple(row) if decoder else index % 2) for index, row in enumerate(ids)]
        self.splits = dict.fromkeys(("train", "validation", "test"), examples)
        self.revision = {"data": "random"}

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Equal lengths: nothing to pad."""
        ids = torch.tensor([example.input_ids for example in examples])
        labels = torch.tensor([example.labels for example in examples])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def units(self, batch: Batch) -> int:
        """Tokens that have a token before them, or examples."""
        labels = batch["labels"]
        return labels.numel() - (len(labels) if labels.ndim == 2 else 0)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The model's own mean loss, as a sum."""
        mean: Tensor = model(**batch).loss
        return mean * self.units(batch)

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        """Nothing to score."""
        return Evaluation({}, [])


class Ours:
    """Our trainer on a method, ready for the first step behind the warm-up phase of the method's schedule.

    Args:
        shape: model and batch.
        method: option of the group method.
        overrides: of the configuration.
        steps: of the run.
    """

    def __init__(self, shape: StepShape, method: str, *overrides: str, steps: int = LONG) -> None:
        config = config_of(shape, f"method={method}", f"train.steps={steps}", *overrides)
        self.trainer = assemble(config).trainer
        self.calibrate()
        self.trainer.build_optimizer()
        self.trainer.engine.model.train()
        self.decay: Any = getattr(self.trainer.allocator, "decay", None)
        self._steps = steps
        self._indices = itertools.count(1 if self.decay is None else self.decay.begin + 1)

    def calibrate(self) -> None:
        """The method's calibration, from passes to ranks."""
        trainer = self.trainer
        with trainer.adapters.deciding(trainer.method, "calibrate", 0):
            trainer.allocator.calibrate(trainer.adapters, trainer.probe("start"))

    def step(self) -> None:
        """One optimizer step."""
        self.trainer.step(next(self._indices), self._steps)

    def own_work(self) -> None:
        """What the method adds to a step, gradients given: penalty and its backward pass, hooks, a cut."""
        trainer, adapters, allocator = self.trainer, self.trainer.adapters, self.trainer.allocator
        index = next(self._indices)
        rng = trainer.engine.streams.numpy("allocator", index)
        step = Step(index, self._steps, trainer.settings.learning_rate, rng, trainer.probe(index))
        with adapters.deciding(trainer.method, "on_gradients", index):
            allocator.on_gradients(adapters, step)
        penalty = allocator.penalty(adapters, step)
        assert penalty is not None, "a method whose penalty is timed has one"
        torch.autograd.backward(penalty)
        adapters.hold()
        with adapters.deciding(trainer.method, "on_step_end", index):
            allocator.on_step_end(adapters, step)


class Bare:
    """PEFT alone in the shortest loop that makes the same step: forward, backward, clip, fused AdamW.

    Args:
        shape: model and batch.
        kind: LoraConfig or AdaLoraConfig.
        settings: of that class.
        first: number of the first step, for AdaLoRA's schedule.
    """

    def __init__(self, shape: StepShape, kind: type[LoraConfig], first: int = 1, **settings: Any) -> None:
        config = config_of(shape)
        loaded = loading.load(config.model, 2, "classification", Streams(0))
        processes = make_accelerator(config.train.precision)
        peft_config = kind(
            lora_alpha=16,
            target_modules=[site.name for site in loaded.sites],
            modules_to_save=list(loaded.head) or None,
            task_type="CAUSAL_LM" if loaded.architecture == "decoder" else "SEQ_CLS",
            **settings,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of no concern to a timing
            self.model: Any = get_peft_model(loaded.model, peft_config).train().to(processes.device)
        assert isinstance(config.task, TokensConfig)
        task = Tokens(config.task)
        task.load(loaded.tokenizer, loaded.architecture, Streams(0))
        batch = task.collate(task.splits["train"])
        self._batch = {name: tensor.to(processes.device) for name, tensor in batch.items()}
        self._autocast = processes.autocast
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(self.trained, lr=1e-3, weight_decay=0.0, fused=True)
        self._indices = itertools.count(first) if kind is AdaLoraConfig else None

    def step(self) -> None:
        """One optimizer step."""
        with self._autocast():
            loss = self.model(**self._batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self._optimizer.step()
        self._allocate()
        self._optimizer.zero_grad()

    def own_work(self) -> None:
        """What AdaLoRA adds to a step, gradients given: its penalty with the backward pass, and update_and_allocate."""
        self.model.base_model(**self._batch).loss.backward()
        self._allocate()

    def forward_backward(self, count: int) -> None:
        """Passes alone, with adapters: what a calibration by gradients cannot do without."""
        for _ in range(count):
            self.model(**self._batch).loss.backward()
            self._optimizer.zero_grad()

    @torch.no_grad()
    def forward(self, count: int) -> None:
        """Forward passes of the base model alone."""
        with self.model.disable_adapter():
            for _ in range(count):
                self.model(**self._batch)

    def initialize_eva(self, batches: Sequence[Batch]) -> None:
        """PEFT's own EVA initialisation."""
        initialize_lora_eva_weights(self.model, list(batches), show_progress_bar=False)

    def without_model(self) -> Bare:
        """Leave the model's own forward pass out, so that what AdaLoRA's adds to it can be timed alone."""
        self.model.base_model.model.forward = lambda **_: SimpleNamespace(loss=torch.zeros(()))
        return self

    def _allocate(self) -> None:
        if self._indices is not None:
            self.model.base_model.update_and_allocate(next(self._indices))


def fill_gradients(parameters: Sequence[Tensor]) -> None:
    """Random gradients for all parameters."""
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter.grad = 1e-3 * torch.randn(parameter.shape, generator=generator)


def config_of(shape: StepShape, *overrides: str) -> Config:
    """The configuration of a run whose steps have this shape."""
    register("task", "bench-tokens")(Tokens)  # here: importing this module adds nothing to the choices of a run
    settings = [f"model={shape.model}", f"train.batch_size={shape.batch_size}", "train.checkpoint_every=0"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = compose("config", [*settings, "train.precision=fp32", *shape.settings, *overrides])
    with open_dict(composed):
        composed.task = {"name": "bench-tokens", "size": shape.batch_size, "length": shape.length}
    return build(composed)
