"""A task and a model small enough for hundreds of runs, and a rig that performs one run without Hydra or a run folder.

The model is a stack of residual blocks over an embedding, position by position. Each block has layers of two shapes and
a smooth nonlinearity, so that ranks, costs and paths all matter. The task is to fit a teacher, which is the same model
with low-rank updates at some sites; the loss is the mean squared error, summed over outputs and averaged over
positions.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from rankbench.config import registry, schema
from rankbench.config.sections import BudgetConfig, TrainConfig
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Budget, Ledger
from rankbench.core.gated_lora import Scale
from rankbench.core.peft_injection import attach
from rankbench.core.seeding import Streams
from rankbench.methods.base import Allocator, RunContext, Step
from rankbench.models.targets import find_sites
from rankbench.tasks.base import Batch, Evaluation, Example, Task
from rankbench.training.cost_meter import Meter
from rankbench.training.engine import Engine, make_accelerator
from rankbench.training.trainer import Trainer

CONF = Path(__file__).parents[2] / "conf"
WIDTH, LAYERS, VOCABULARY, OUTPUTS, LENGTH = 8, 2, 16, 4, 3


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.tanh(self.mix(x))
        return x + self.down(torch.tanh(self.up(x)))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Block(WIDTH) for _ in range(LAYERS))
        self.score = nn.Linear(WIDTH, OUTPUTS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> CausalLMOutput:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return CausalLMOutput(logits=self.score(x))


def toy_model() -> Toy:
    with Streams(0).ambient("init", "base"):
        return Toy()


class ToyTask(Task):
    """The task of fitting a teacher; `loss_scale` multiplies the loss."""

    source = "generated"

    def __init__(self, model: nn.Module, sites: Sequence[Any], size: int = 64, loss_scale: float = 1.0) -> None:
        super().__init__(None)
        self.loss_scale = loss_scale
        self._teacher = [copy.deepcopy(model).eval().requires_grad_(False)]
        modules = dict(self._teacher[0].named_modules())
        for index, site in enumerate(sites):
            if index % 2 == 0:
                generator = Streams(0).torch("task", site.name)
                left, right = (torch.randn(n, 2, generator=generator) for n in (site.d_out, site.d_in))
                update = left @ right.T
                modules[site.name].weight += 0.6 * modules[site.name].weight.norm() * update / update.norm()
        tokens = Streams(0).numpy("task", "tokens").integers(0, VOCABULARY, (size, LENGTH)).tolist()
        self.splits = {"train": [Example(tuple(row), 0, {"id": i, "gold": None}) for i, row in enumerate(tokens)]}
        self.revision = {}

    def num_labels(self) -> None:
        return None

    def load(self, tokenizer: Any, architecture: str, streams: Streams) -> None:
        raise NotImplementedError("built whole")

    def collate(self, examples: Sequence[Example]) -> Batch:
        ids = torch.tensor([example.input_ids for example in examples])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def units(self, batch: Batch) -> int:
        return batch["input_ids"].numel()

    def target(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            return self._teacher[0](input_ids=ids).logits

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return self.loss_scale * 0.5 * (logits - self.target(batch["input_ids"])).square().sum()

    def evaluate(self, model: nn.Module, examples: Sequence[Example], batch_size: int) -> Evaluation:
        batch = self.collate(examples)
        return Evaluation({"loss": float(self.loss(model, batch)) / self.units(batch)}, [])


@dataclass
class Rig:
    """The parts of one run before its first step."""

    trainer: Trainer
    adapters: AdapterSet
    allocator: Allocator
    engine: Engine
    budget: Budget
    streams: Streams
    logs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def settings(self) -> Any:
        return self.trainer.settings

    def step(self, index: int) -> dict[str, Any]:
        """Take one step of the trainer."""
        self.logs.append(self.trainer.step(index, self.settings.steps))
        return self.logs[-1]

    def run(self) -> "Rig":
        """Take all steps, then let the method finish."""
        self.trainer.run()
        return self

    def moment(self, index: int) -> Step:
        """The `Step` that the trainer would pass to a hook at step `index`."""
        rng = self.streams.numpy("allocator", index)
        return Step(index, self.settings.steps, 0.0, rng, self.trainer.probe(index))

    def gates(self) -> dict[str, list[float]]:
        return {site.name: self.adapters.gates(site.name).tolist() for site in self.adapters.sites}

    def factors(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.adapters.parameters()]

    def logits(self) -> Tensor:
        """Logits of the whole train split, in evaluation mode."""
        batch = self.engine.to_device(self.engine.task.collate(self.trainer.train))
        with torch.no_grad(), self.engine.inert():
            return self.engine.model(**batch).logits


def section(schema_class: type, file: Path, changes: dict[str, Any]) -> Any:
    """A section of the configuration: its YAML with changes, checked against its schema."""
    data = OmegaConf.to_container(OmegaConf.load(file))
    data.pop("defaults", None)
    data.pop("display", None)
    values, mistakes = schema.conform(schema_class, {**data, **changes})
    assert not mistakes, mistakes
    return values


def method_config(name: str, **changes: Any) -> Any:
    cls = registry.get("method", name)
    config = section(cls.Config, CONF / "method" / f"{name}.yaml", changes)
    assert cls.check(config) == []
    return config


def rig(
    method: str,
    *,
    steps: int = 24,
    seed: int = 0,
    unit: str = "params",
    match: str = "final",
    reference_rank: int = 2,
    alpha: float = 4.0,
    scale_rule: str = "fixed",
    head: tuple[str, ...] = (),
    loss_scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    train: dict[str, Any] | None = None,
    model: nn.Module | None = None,
    task: Task | None = None,
    **changes: Any,
) -> Rig:
    """Prepare a run of `method` on the toy (or on `model` and `task`); other keywords change the method's settings."""
    model = model or toy_model()
    sites = find_sites(model, ["all-linear"], ("score", "lm_head"))
    task = task or ToyTask(model.to(dtype), sites, loss_scale=loss_scale)
    shape = {"reference_rank": reference_rank, "unit": unit, "match": match}
    budget = Budget.of(section(BudgetConfig, CONF / "budget" / "r8.yaml", shape), sites, None)
    streams = Streams(seed)
    config = method_config(method, **changes)
    context = RunContext(sites, budget, steps, streams.numpy("allocator", "start"))
    allocator = registry.get("method", method)(config, context)
    ledger = Ledger(budget.unit, budget.target)
    adapters = attach(
        model,
        sites,
        allocator.initial_ranks(),
        scale=Scale(scale_rule, alpha, budget.reference_rank),
        streams=streams,
        ledger=ledger,
        gate=allocator.gate(),
        path="path" in allocator.needs,
        head=head,
    )
    accelerator = make_accelerator("fp32")
    adapters.model.to(accelerator.device, dtype)
    defaults = {"steps": steps, "batch_size": 16, "learning_rate": 0.02, "precision": "fp32", "checkpoint_every": 0}
    settings = section(TrainConfig, CONF / "train" / "default.yaml", {**defaults, **(train or {})})
    engine = Engine(accelerator, adapters.model, task, Meter(), settings.batch_size, settings.micro_batch_size, streams)
    engine.count_passes()
    logs: list[dict[str, Any]] = []
    trainer = Trainer(
        engine,
        adapters,
        allocator,
        method,
        task.splits["train"],
        settings,
        log=logs.append,
        checkpoint=lambda done: None,
    )
    trainer.calibrate()
    trainer.build_optimizer()
    engine.model.train()
    return Rig(trainer, adapters, allocator, engine, budget, streams, logs)
