"""Peak memory of a run, predicted without its weights.

The sum of what lies there all the time and of the largest pass. Passes are traced on tensors that have a shape and no
content, at the heaviest batch among the first training steps: what an architecture, a loss, a longer text or gradient
checkpointing keeps is counted, not assumed. On a GPU the figure is the allocator's peak; on a CPU it is resident
memory, which holds Python and its libraries, too. Not counted is what a method keeps for itself: GoRA's weight
gradients are another copy of the base in fp32.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rankbench.config import registry
from rankbench.config.sections import Config
from rankbench.core.peft_injection import OF_BASE
from rankbench.core.seeding import Streams
from rankbench.core.sites import Site
from rankbench.models import loading
from rankbench.tasks.base import Task
from rankbench.training.trainer import examples_of_step

TRAINED = 12  # bytes of a trained parameter: value and AdamW's two moments in fp32; gradients belong to a pass
# Bits of a quantised weight with its scales: NF4 has one of 8 bits for 64 weights, and one of 32 for 256 of those.
BITS = {"nf4": 4 + 8 / 64 + 32 / (64 * 256), "int8": 8}
# Of what all layers keep in a pass, the share that glibc's heap holds beyond it on a CPU, in pieces that it does not
# give back: without and with gradient checkpointing. Fitted to thirteen runs of tiny, minilm-l6 and smollm2-135m on
# one machine (docs/large_models.md).
FRAGMENTS = {False: 0.85, True: 0.6}
LOOKED_AT = 50  # training steps whose batches are compared


@dataclass(frozen=True)
class Memory:
    """Bytes of a run at its peak.

    Attributes:
        libraries: resident size of Python with everything that a run imports; 0 on a GPU.
        base: weights of the base as they are stored.
        adapter: factors, gates and head, with the moments of the optimizer.
        passes: what the largest pass keeps and makes on its way: activations, logits, loss and gradients.
        fragments: freed memory that the process does not give back; 0 on a GPU.
    """

    libraries: int
    base: int
    adapter: int
    passes: int
    fragments: int

    @property
    def peak(self) -> int:
        """Their sum."""
        return self.libraries + self.base + self.adapter + self.passes + self.fragments


@dataclass(frozen=True)
class Shape:
    """Shape of a batch: examples, tokens of the longest one, and positions whose prediction counts, for each."""

    examples: int
    length: int
    scored: int


def predict(config: Config, sites: list[Site], ranks: Mapping[str, int], gates: bool) -> Memory:
    """The peak of a run.

    Args:
        config: of the run; its data can be read here.
        sites, ranks: the adapter that the run starts with.
        gates: whether its components have gates.

    Raises:
        ModelError, DataError: files of the model or of the data are not on this machine.
    """
    on_cpu = not torch.cuda.is_available()
    libraries = resident() if on_cpu else 0
    train, model = config.train, config.model
    batch = heaviest_batch(config)
    tracer = Tracer(config, sites, ranks, gates)
    kept = tracer.peak(batch, training=True)
    passes = tracer.peak(batch, training=True, again=True) if train.gradient_checkpointing else kept
    evaluation = tracer.peak(Shape(train.eval_batch_size, batch.length, batch.scored), training=False)
    passes = max(passes, evaluation + _folded(config, sites, ranks))
    per_rank = {site.name: site.d_in + site.d_out + gates for site in sites}
    trained = sum(rank * per_rank[name] for name, rank in ranks.items()) + tracer.head
    dequantised = [site.d_out * site.d_in * tracer.itemsize for site in sites] if model.quantization else [0]
    passes += max(dequantised)  # one weight at a time is brought back to the dtype of the passes
    fragments = round(FRAGMENTS[train.gradient_checkpointing] * (kept + sum(dequantised))) if on_cpu else 0
    return Memory(libraries, tracer.base(model.quantization), TRAINED * trained, passes, fragments)


def _folded(config: Config, sites: list[Site], ranks: Mapping[str, int]) -> int:
    """Bytes of the weights that an evaluation folds the adapter into (rankbench.core.folding)."""
    if config.train.precision != "fp32" or config.model.dtype != "float32" or config.model.quantization:
        return 0
    return sum(4 * site.d_out * site.d_in for site in sites if ranks[site.name])


@functools.cache
def resident() -> int:
    """Resident bytes of this process with everything imported that a run imports, as first asked for."""
    import rankbench.core.peft_injection
    import rankbench.training.run  # noqa: F401

    lines = Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def heaviest_batch(config: Config) -> Shape:
    """Shape of the largest micro-batch of the first training steps, counted in tokens with padding."""
    task: Task = registry.get("task", config.task.name)(config.task)
    streams = Streams(config.seed)
    task.load(loading.tokenizer_of(config.model), config.model.architecture, streams)
    examples, train = task.splits["train"], config.train
    size = train.micro_batch_size or train.batch_size
    batches = []
    for step in range(1, min(train.steps, LOOKED_AT) + 1):
        chosen = examples_of_step(len(examples), train.batch_size, step, lambda epoch: streams.numpy("data", epoch))
        batches += [
            [examples[index] for index in chosen[start : start + size]] for start in range(0, len(chosen), size)
        ]
    heaviest = max(batches, key=lambda batch: len(batch) * max(len(example.input_ids) for example in batch))
    collated = task.collate(heaviest)
    rows, length = collated["input_ids"].shape
    return Shape(rows, length, math.ceil(task.units(collated) / rows))


class Tracer:
    """The model of a run without content, with an adapter of the same shapes."""

    def __init__(self, config: Config, sites: list[Site], ranks: Mapping[str, int], gates: bool) -> None:
        self.config = config
        self.model: Any
        self.trains = registry.get("method", config.method.name).trains
        stored = config.model.replace(dtype="float32") if self.trains in OF_BASE else config.model
        with FakeTensorMode(allow_non_fake_inputs=True) as self.mode:
            self.model = loading.without_weights(stored)
            self.model.requires_grad_(False)
            for site in sites:
                if ranks[site.name]:
                    self._adapt(site, ranks[site.name], gates)
            heads = [self.model.get_submodule(name) for name in self._head_names()]
            trained = [*self._of_base(), *(parameter for head in heads for parameter in head.parameters())]
            trained = list({id(parameter): parameter for parameter in trained}.values())
            for parameter in trained:
                parameter.requires_grad_(True)
        self.head = sum(parameter.numel() for parameter in trained)
        self.itemsize = loading.DTYPES[config.model.dtype].itemsize
        self.sites = {f"{site.name}.weight" for site in sites}

    def _of_base(self) -> list[nn.Parameter]:
        """What a reference arm trains of the base, which is then in float32."""
        whole = self.trains == "base"
        named = self.model.named_parameters() if self.trains in OF_BASE else ()
        return [parameter for name, parameter in named if whole or name.rpartition(".")[2] == "bias"]

    def _head_names(self) -> list[str]:
        return list(self.config.model.head) if self.config.model.architecture == "encoder" else []

    def _adapt(self, site: Site, rank: int, gates: bool) -> None:
        """Add an update to the output of a layer, as PEFT does and rankbench.core.gated_lora where there are gates."""
        A, B = nn.Parameter(torch.empty(rank, site.d_in)), nn.Parameter(torch.empty(site.d_out, rank))
        gate = nn.Parameter(torch.empty(rank, 1)) if gates else None
        dropout = self.config.adapter.dropout

        def update(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0] if torch.is_autocast_enabled("cpu") else inputs[0].to(A.dtype)  # precision.spare_casts
            x = F.dropout(x, dropout, module.training and dropout > 0)
            if gate is not None:
                return output + F.linear(F.linear(x, A * gate), B).to(output.dtype)
            return output + (F.linear(F.linear(x, A), B) * 2.0).to(output.dtype)

        layer = self.model.get_submodule(site.name)
        layer.register_forward_hook(update)
        layer.adapter = nn.ParameterList([A, B] if gate is None else [A, B, gate])

    def base(self, quantization: str | None) -> int:
        """Bytes of the weights as they are stored."""
        frozen = [p for p in self.model.parameters() if not p.requires_grad]
        total = sum(p.numel() * p.element_size() for p in frozen)
        if quantization:
            quantised = sum(p.numel() for name, p in self.model.named_parameters() if name in self.sites)
            total += round(quantised * (BITS[quantization] / 8 - self.itemsize))
        return int(total)

    def peak(self, shape: Shape, training: bool, again: bool = False) -> int:
        """Most bytes alive at a time in a pass over a batch, forward alone or with the backward pass.

        Args:
            shape: of the batch.
            training: whether there is a backward pass.
            again: whether it computes the activations again (gradient checkpointing).
        """
        model, architecture = self.model, self.config.model.architecture
        model.train(training)
        if again:
            model.activation_checkpointing_enable({"use_reentrant": False})
        with ExitStack() as stack:
            stack.enter_context(self.mode)
            if self.config.train.precision == "bf16":
                stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            ids = torch.ones(shape.examples, shape.length, dtype=torch.long)
            inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if architecture == "encoder_decoder":
                inputs["decoder_input_ids"] = ids[:, : shape.scored]
            if architecture == "decoder":
                inputs |= {"use_cache": False, "logits_to_keep": shape.scored}
            with (
                Living([*model.state_dict().values(), ids, inputs["attention_mask"]]) as living,
                torch.set_grad_enabled(training),
            ):
                output = model(**inputs)
                logits = getattr(output, "logits", None)
                logits = output[0] if logits is None else logits
                loss = logits.float().log_softmax(-1).sum()
                if training:
                    loss.backward()
        if again:
            model.activation_checkpointing_disable()
        for parameter in model.parameters():
            parameter.grad = None
        return int(living.peak)


class Living(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts the bytes of the tensors that are made inside the block and not yet gone.

    Args:
        earlier: tensors that were there before.

    Attributes:
        peak: most of them at a time.
    """

    def __init__(self, earlier: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in earlier}  # views of them are nothing new

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation, and count the storages that it made."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    self._now += storage.nbytes()
                    self.peak = max(self.peak, self._now)
                    weakref.finalize(storage, self._gone, storage._cdata)
        return result

    def _gone(self, identity: int) -> None:
        self._now -= self._sizes.pop(identity)
