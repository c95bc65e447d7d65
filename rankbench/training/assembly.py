"""Everything a run is made of, before its first pass: model, data, budget, method, adapter, trainer."""

from __future__ import annotations

from typing import Any

from rankbench.config import registry
from rankbench.config.schema import ConfigError
from rankbench.config.sections import Config
from rankbench.core import peft_injection
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Budget, Ledger
from rankbench.core.gated_lora import Scale
from rankbench.core.seeding import Streams
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, RunContext
from rankbench.models import loading
from rankbench.models.errors import ModelError
from rankbench.models.inferred_settings import describe, resolve
from rankbench.models.reading import slow_storage
from rankbench.tasks.base import Task
from rankbench.training import precision
from rankbench.training.cost_meter import Meter
from rankbench.training.engine import Engine, make_accelerator
from rankbench.training.model_checks import check_model
from rankbench.training.observer import Observer
from rankbench.training.trainer import Trainer


class Assembly:
    """The parts of one run, made in four steps of the assembly: `load`, `allocate`, `attach`, `connect`.

    A step needs those before it; what a step makes can be looked at as soon as it has made it.

    Args:
        config: checked and resolved configuration of the run.
        accelerator: the Accelerator of the run; None makes one.
        observer: sees which ranks the method chooses, and later the trainer's instants.

    Attributes:
        config: the configuration.
        streams: random streams of the run.
        accelerator: the Accelerator.
        meter: what the run spends.
        task, loaded: the task with its data read; the base model as the task wants it. From `load`.
        notes: sentences for the record on what a reader of the numbers should know; every step may add some.
        revisions: revisions or hashes of the model's weights and of the data; empty before `load`.
        budget, allocator: what may be spent; the method. From `allocate`.
        ledger, adapters: what is spent; the adapter on the model, None before. From `attach`.
        engine, trainer: passes over processes; the loop. From `connect`.
    """

    task: Task
    loaded: loading.LoadedModel
    budget: Budget
    allocator: Allocator
    ledger: Ledger
    engine: Engine
    trainer: Trainer

    def __init__(self, config: Config, accelerator: Any = None, observer: Observer | None = None) -> None:
        self.config = config
        self.accelerator = make_accelerator(config.train.precision) if accelerator is None else accelerator
        self.observer = Observer() if observer is None else observer
        self.streams = Streams(config.seed)
        self.meter = Meter()
        self.adapters: AdapterSet | None = None
        self.notes: list[str] = []
        self.revisions: tuple[dict[str, str], dict[str, str]] = ({}, {})

    @property
    def sites(self) -> list[Site]:
        """Adapted matrices, in model order."""
        return self.loaded.sites

    def load(self) -> None:
        """Read the task's data and load the base model as the task wants it."""
        config = self.config
        self.task = registry.get("task", config.task.name)(config.task)
        model = resolve(config.model)
        if problems := config.train.headless(model.architecture):
            raise ConfigError(problems)
        labels = self.task.num_labels() if model.architecture == "encoder" else None
        problem = None if labels is None else self.task.problem()
        self.loaded = loading.load(model, labels, problem, self.streams)
        self.notes += [describe(self.loaded)] if config.model.architecture == "auto" else []
        self.notes += self.loaded.notes
        device = self.accelerator.device
        self.notes += filter(None, [slow_storage(config.model.dtype, device), precision.slow_casts(config, device)])
        self.task.load(self.loaded.tokenizer, self.loaded.architecture, self.streams)
        self.loaded.model.to(self.accelerator.device)
        self.task.prepare(self.loaded.model, self.loaded.sites, self.streams)
        self.notes += check_model(self.loaded, self.task, config)
        self.revisions = (self.loaded.revision, self.task.revision)

    def allocate(self) -> None:
        """Work out the budget, and give it to the method."""
        config = self.config
        truth = self.task.true_ranks()
        self.budget = Budget.of(config.budget, self.sites, truth)
        rng = self.streams.numpy("allocator", "start")
        context = RunContext(self.sites, self.budget, config.train.steps, rng, truth)
        self.allocator = registry.get("method", config.method.name)(config.method, context)

    def attach(self, path: bool = False) -> None:
        """Put the adapter on the model, as method, budget and the `adapter` section want it.

        Args:
            path: whether its layers follow the path even where the method does not ask for that.
        """
        settings, loaded, allocator = self.config.adapter, self.loaded, self.allocator
        self.ledger = Ledger(self.budget.unit, self.budget.target, max(self.budget.costs.values()))
        ranks = allocator.initial_ranks()
        self.observer.ranks_chosen(ranks)
        self.adapters = peft_injection.attach(
            loaded.model,
            loaded.sites,
            ranks,
            scale=Scale(settings.scale_rule, settings.alpha, self.budget.reference_rank),
            streams=self.streams,
            ledger=self.ledger,
            gate=allocator.gate(),
            path=path or "path" in allocator.needs,
            dropout=settings.dropout,
            head=loaded.head,
            task_type=loaded.task_type,
            trains=allocator.trains,
        )
        if self.config.train.precision == "bf16":
            precision.spare_casts(loaded.model)
        if self.config.train.gradient_checkpointing:
            _keep_no_activations(loaded.model, self.config.model.name)
        self.ledger.head_params = sum(parameter.numel() for parameter in self.adapters.head)

    def connect(self) -> None:
        """Make the engine that does the passes, and the trainer."""
        assert self.adapters is not None, "attach() comes first"
        train = self.config.train
        self.engine = Engine(
            self.accelerator,
            self.adapters.model,
            self.task,
            self.meter,
            train.batch_size,
            train.micro_batch_size,
            self.streams,
        )
        self.engine.count_passes()
        self.trainer = Trainer(
            self.engine,
            self.adapters,
            self.allocator,
            self.config.method.name,
            self.task.splits["train"],
            train,
            observer=self.observer,
        )

    def complete(self, path: bool = False) -> None:
        """Do all steps of the assembly, one after the other."""
        self.load()
        self.allocate()
        self.attach(path)
        self.connect()


def _keep_no_activations(model: Any, name: str) -> None:
    """Compute the activations of each layer again in the backward pass of training.

    Called once PEFT has injected its layers: it would ask for the gradient of the embeddings otherwise.

    Raises:
        ModelError: the architecture has no layers that do so.
    """
    if not model.supports_gradient_checkpointing:
        raise ModelError(
            f"train.gradient_checkpointing=true: {name} is a {type(model).__name__}, which cannot compute activations "
            "again; set train.gradient_checkpointing=false"
        )
    model.config.use_cache = False  # keys and values of training passes are read by nobody
    model.activation_checkpointing_enable({"use_reentrant": False})


def assemble(config: Config, accelerator: Any = None, *, path: bool = False) -> Assembly:
    """The parts of a run that is to be driven step by step, ready for calibration.

    Args:
        config: checked and resolved configuration of the run.
        accelerator: the Accelerator of the run; None makes one.
        path: whether the layers follow the path even where the method does not ask for that.
    """
    assembly = Assembly(config, accelerator)
    assembly.complete(path)
    return assembly
