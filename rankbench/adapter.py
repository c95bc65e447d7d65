"""The adapter every method shares, and the only writer of ranks.

At each site    y = W0 x + v * s * B diag(g * m) A dropout(x)

    W0 (d_out, d_in)  frozen          A (r, d_in), B (d_out, r)  trained
    g  (r,)           gate, trained where a method asks for one, else absent (1)
    m  (r,)           hard mask of 0 and 1, absent (1) unless set
    s                 `scale`, the only place where alpha meets a rank
    v                 value of the path coefficient, 1 except while an allocator scores along a path

PEFT does target matching, classification heads, quantised bases and merging. A method without gate and path runs
PEFT's stock layers, so the uniform arm is PEFT LoRA bit for bit; the others enter through the layer's variant slot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora.layer import LoraVariant
from safetensors.torch import save_file
from torch import Tensor, nn

from rankbench.budget import Ledger
from rankbench.seeding import Streams

NAME = "default"  # the adapter's name inside PEFT
DECIDING_HOOKS = ("calibrate", "on_step_end", "finish")


@dataclass(frozen=True)
class Site:
    """One adapted matrix of the base model.

    Attributes:
        name: plain module name in the base model, "model.layers.0.self_attn.q_proj".
        layer: index of the layer, None outside the stack.
        kind: the name after the layer index, "self_attn.q_proj".
        d_out, d_in: shape of the weight.
    """

    name: str
    layer: int | None
    kind: str
    d_out: int
    d_in: int


@dataclass(frozen=True)
class Gate:
    """How a method wants its gates.

    Attributes:
        start: initial value of every entry; 0 starts at the identity.
        factors: "gaussian" (A, B ~ N(0, 0.02^2): the SVD form of Zhang et al. 2023) or "lora" (A uniform, B = 0).
        learning_rate: factor on the run's learning rate.
        weight_decay: None takes the run's.
    """

    start: float
    factors: str = "gaussian"
    learning_rate: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class Scale:
    """The factor s, as an explicit rule.

    Attributes:
        rule: "fixed" alpha / reference_rank (a rank change is not a learning-rate change), "live" alpha / r,
            "rslora" alpha / sqrt(r) (Kalajdzievski 2023).
        alpha: lora_alpha.
        reference_rank: uniform rank of the budget.
    """

    rule: str
    alpha: float
    reference_rank: int

    def at(self, rank: int) -> float:
        """s of a site whose live rank is `rank`; 0 at rank 0."""
        if rank == 0:
            return 0.0
        return self.alpha / {"fixed": self.reference_rank, "live": rank, "rslora": rank**0.5}[self.rule]


@dataclass(frozen=True)
class Stack:
    """Tensors of all sites of one shape, stacked, so that statistics need no loop over sites.

    Attributes:
        sites: indices into AdapterSet.sites, (n,).
        A: (n, r, d_in). B: (n, d_out, r). gate: (n, r), or None for methods without gates.
    """

    sites: tuple[int, ...]
    A: Tensor
    B: Tensor
    gate: Tensor | None

    def tensors(self) -> list[Tensor]:
        """A, B and, where there is one, gate."""
        return [self.A, self.B] if self.gate is None else [self.A, self.B, self.gate]


@dataclass
class _Slot:
    """What the variant reads at each forward pass of one layer."""

    scale: float
    gate: nn.Parameter | None
    mask: Tensor | None = None
    value: float = 1.0  # path coefficient of the update
    jacobian: float = 1.0  # path coefficient of the factors' gradient
    truncate: int | None = None

    def coefficients(self, rank: int) -> Tensor | float:
        """s * g * m, truncated: (r,), or a float where nothing differs between components."""
        parts = [part for part in (self.gate, self.mask) if part is not None]
        if self.truncate is not None:
            device = self.gate.device if self.gate is not None else None
            parts.append(torch.arange(rank, device=device) < self.truncate)
        result: Tensor | float = self.scale
        for part in parts:
            result = result * part
        return result


class _SlotVariant(LoraVariant):
    """The gated, masked and path-scaled forward pass, through PEFT's variant slot (peft 0.21)."""

    @staticmethod
    def forward(module: Any, *, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        slot: _Slot = module.rankbench_slot
        A, B = module.lora_A[active_adapter].weight, module.lora_B[active_adapter].weight
        coefficients = slot.coefficients(A.shape[0])
        x = module.lora_dropout[active_adapter](x)
        if slot.value == slot.jacobian:
            return result + _update(x, A, B, coefficients, slot.value)
        # Two copies of one value: gradients reach the factors with `jacobian` and the input with `value`, so that
        # integrands are exact at every point of the path, its zero included.
        detached = coefficients.detach() if isinstance(coefficients, Tensor) else coefficients
        to_input = _update(x, A.detach(), B.detach(), detached, slot.value)
        to_factors = _update(x.detach(), A, B, coefficients, slot.jacobian)
        return result + to_input + (to_factors - to_factors.detach())


def _update(x: Tensor, A: Tensor, B: Tensor, coefficients: Tensor | float, path: float) -> Tensor:
    """path * B diag(coefficients) A x, with the factor on A: r * d_in products, not tokens * d_out."""
    if isinstance(coefficients, Tensor):
        coefficients = coefficients[:, None]
    return F.linear(F.linear(x, A * (coefficients * path)), B)


class RankChangeError(RuntimeError):
    """A rank was changed outside the hooks that may change ranks."""


class AdapterSet:
    """The adapters of one run: all sites, their factors, gates, masks and ranks.

    Lists are in site order. Ranks change only through `zero`, `set_mask`, `resize` and `restart`, inside `deciding`.

    Attributes:
        sites: adapted matrices.
        model: the PeftModel that carries the adapter.
        head: trained parameters outside the adapter (classification head).
        history: every rank change: {step, site, before, after, reason}.
    """

    def __init__(
        self, model: nn.Module, sites: Sequence[Site], scale: Scale, gate: Gate | None, streams: Streams, ledger: Ledger
    ) -> None:
        self.model = model
        self.sites = list(sites)
        self.scale_rule = scale
        self.gate_spec = gate
        self.ledger = ledger
        self.history: list[dict[str, Any]] = []
        self._streams = streams
        self._index = {site.name: index for index, site in enumerate(self.sites)}
        modules = dict(model.named_modules())
        self._layers: list[Any] = [modules[f"base_model.model.{site.name}"] for site in self.sites]
        self._live: list[Tensor] = []
        self._held: dict[int, tuple[Tensor, ...]] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._hook: tuple[str, str, int] | None = None

    @classmethod
    def attach(
        cls,
        model: nn.Module,
        sites: Sequence[Site],
        ranks: Mapping[str, int],
        *,
        scale: Scale,
        streams: Streams,
        ledger: Ledger,
        gate: Gate | None = None,
        path: bool = False,
        dropout: float = 0.0,
        head: Sequence[str] = (),
        task_type: str | None = None,
    ) -> AdapterSet:
        """Inject the adapter into `model` and draw its factors from stream "init", site by site.

        Row k of a site's A is the same draw whatever the site's rank, so methods that start at different ranks share
        the rows they have in common.

        Args:
            model: base model; it is changed in place.
            ranks: site name -> rank >= 0, at most the site's full rank.
            path: whether the method scores along a path (its layers then leave PEFT's stock forward pass).
            dropout: of the adapter's input, in [0, 1).
            head: modules trained in full, by name.
            task_type: PEFT's, written into the exported config.
        """
        for site in sites:
            if not 0 <= ranks[site.name] <= min(site.d_out, site.d_in):
                raise ValueError(f"rank {ranks[site.name]} of {site.name} is not in [0, {min(site.d_out, site.d_in)}]")
        config = LoraConfig(
            r=1,
            lora_alpha=1,
            lora_dropout=dropout,
            target_modules=[site.name for site in sites],
            rank_pattern={site.name: max(1, ranks[site.name]) for site in sites},
            modules_to_save=list(head) or None,
            task_type=task_type,
        )
        with streams.ambient("init", "peft"):
            peft_model = get_peft_model(model, config)
        adapters = cls(peft_model, sites, scale, gate, streams, ledger)
        adapters._install(ranks, variant=gate is not None or path)
        return adapters

    def _install(self, ranks: Mapping[str, int], variant: bool) -> None:
        for index, site in enumerate(self.sites):
            layer = self._layers[index]
            slot = _Slot(0.0, None)
            layer.rankbench_slot = slot
            if self.gate_spec is not None:
                layer.lora_gate = nn.Parameter(torch.ones(1))
                slot.gate = layer.lora_gate
            if variant:
                layer.lora_variant[NAME] = _SlotVariant()
            self._live.append(torch.zeros(0, dtype=torch.bool))
            self._draw(index, ranks[site.name], "start")
        self._initial_head = [parameter.detach().clone() for parameter in self.head]
        self._observe()

    def _draw(self, index: int, rank: int, name: str) -> None:
        """Give site `index` fresh factors of `rank` from its own stream."""
        site = self.sites[index]
        device = self._layers[index].lora_A[NAME].weight.device
        A, B = draw_factors(site, rank, self.gate_spec, self._streams, name)
        gate = torch.full((rank,), self.gate_spec.start) if self.gate_spec else None
        self._set_tensors(index, A.to(device), B.to(device), None if gate is None else gate.to(device))
        self._live[index] = torch.ones(rank, dtype=torch.bool)
        self._refresh(index)

    def _set_tensors(self, index: int, A: Tensor, B: Tensor, gate: Tensor | None) -> None:
        """Put new tensors into the same Parameter objects, whatever their rank: the optimizer keeps its hold."""
        layer = self._layers[index]
        linear_A, linear_B = layer.lora_A[NAME], layer.lora_B[NAME]
        linear_A.weight.data, linear_B.weight.data = A.contiguous(), B.contiguous()
        linear_A.out_features = linear_B.in_features = A.shape[0]
        if gate is not None:
            layer.lora_gate.data = gate
        layer.r[NAME] = A.shape[0]

    def _refresh(self, index: int) -> None:
        """Bring scale and activity of a layer in line with its live rank."""
        layer, rank = self._layers[index], int(self._live[index].sum())
        scale = self.scale_rule.at(rank)
        layer.scaling[NAME] = layer.rankbench_slot.scale = scale
        layer.lora_alpha[NAME] = scale * max(1, layer.r[NAME])
        layer._disable_adapters = layer.r[NAME] == 0  # a site without components costs nothing

    # -- what a method may look at --

    @property
    def head(self) -> list[nn.Parameter]:
        """Trained parameters outside the adapter."""
        own = {id(parameter) for parameter in self.parameters()}
        return [p for p in self.model.parameters() if p.requires_grad and id(p) not in own]

    def factors(self, site: str) -> tuple[nn.Parameter, nn.Parameter]:
        """A (r, d_in) and B (d_out, r) of a site."""
        layer = self._layers[self._index[site]]
        return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight

    def gates(self, site: str) -> nn.Parameter | None:
        """Gate (r,) of a site, None for methods without gates."""
        return self._layers[self._index[site]].rankbench_slot.gate

    def parameters(self) -> list[nn.Parameter]:
        """All A, then all B, then all gates, in site order."""
        A = [layer.lora_A[NAME].weight for layer in self._layers]
        B = [layer.lora_B[NAME].weight for layer in self._layers]
        gates = [layer.lora_gate for layer in self._layers] if self.gate_spec else []
        return [*A, *B, *gates]

    def stacks(self, of: Callable[[nn.Parameter], Tensor | None] = lambda p: p) -> list[Stack]:
        """`of(parameter)` for every site, stacked by shape; None (no gradient) counts as zero."""
        groups: dict[tuple[int, int, int], list[int]] = {}
        for index, (site, layer) in enumerate(zip(self.sites, self._layers, strict=True)):
            if layer.r[NAME]:
                groups.setdefault((site.d_out, site.d_in, layer.r[NAME]), []).append(index)

        def stack(parameters: list[nn.Parameter]) -> Tensor:
            return torch.stack([torch.zeros_like(p) if (value := of(p)) is None else value for p in parameters])

        return [
            Stack(
                tuple(indices),
                stack([self._layers[index].lora_A[NAME].weight for index in indices]),
                stack([self._layers[index].lora_B[NAME].weight for index in indices]),
                stack([self._layers[index].lora_gate for index in indices]) if self.gate_spec else None,
            )
            for indices in groups.values()
        ]

    def ranks(self) -> dict[str, int]:
        """Live rank per site: the last decision, not the count of non-zeros."""
        return {site.name: int(live.sum()) for site, live in zip(self.sites, self._live, strict=True)}

    rank_map = ranks

    def live(self, site: str) -> Tensor:
        """Which components of a site the last decision kept: (r,) bool."""
        return self._live[self._index[site]]

    def sizes(self) -> dict[str, int]:
        """Components present per site, live or not."""
        return {site.name: layer.r[NAME] for site, layer in zip(self.sites, self._layers, strict=True)}

    def scale(self, site: str) -> float:
        """s of a site, as the forward pass uses it."""
        value: float = self._layers[self._index[site]].scaling[NAME]
        return value

    def cost(self, site: str) -> int:
        """Factor parameters of one rank at a site."""
        found = self.sites[self._index[site]]
        return found.d_in + found.d_out

    def param_count(self) -> int:
        """Factor parameters present, gates not counted."""
        return sum(size * self.cost(name) for name, size in self.sizes().items())

    def delta(self, site: str) -> Tensor:
        """The update s * B diag(g * m) A of a site: (d_out, d_in)."""
        A, B = self._folded(self._index[site])
        return self.scale(site) * (B @ A)

    def _folded(self, index: int) -> tuple[Tensor, Tensor]:
        """A and B of the live components, with gate and mask folded into B."""
        layer, keep = self._layers[index], self._live[index]
        slot: _Slot = layer.rankbench_slot
        A, B = layer.lora_A[NAME].weight.detach()[keep], layer.lora_B[NAME].weight.detach()[:, keep]
        for factor in (slot.gate, slot.mask):
            if factor is not None:
                B = B * factor.detach()[keep]
        return A, B

    # -- transient settings of the forward pass --

    def path(self, a: float, kind: str = "delta", jacobian: str = "raw") -> None:
        """Evaluate at a point of the straight path from no adapter (a = 0) to the adapter (a = 1), until `reset_path`.

        Args:
            a: in [0, 1].
            kind: "delta" multiplies the update by a; "factor" multiplies each of B, g and A by a (the update by a^3).
            jacobian: what the factors' gradient is multiplied by: "raw" the same as the update (autograd through the
                coefficient), "exact" the derivative with respect to the point itself (1 for delta, a^2 for factor).
        """
        value = a if kind == "delta" else a**3
        factor = value if jacobian == "raw" else {"delta": 1.0, "factor": a * a}[kind]
        for layer in self._layers:
            layer.rankbench_slot.value, layer.rankbench_slot.jacobian = value, factor

    def truncate(self, components: int | None) -> None:
        """Use only the first components of each site in the coming forward passes; None uses all."""
        for layer in self._layers:
            layer.rankbench_slot.truncate = components

    def reset_path(self) -> None:
        """Back to the adapter as it is: path coefficient 1, no truncation."""
        self.path(1.0)
        self.truncate(None)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model alone, inside the block."""
        before = [layer._disable_adapters for layer in self._layers]
        for layer in self._layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, disabled in zip(self._layers, before, strict=True):
                layer._disable_adapters = disabled

    # -- rank changes --

    @contextmanager
    def deciding(self, method: str, hook: str, step: int) -> Iterator[None]:
        """Name the hook that is running; ranks may change in DECIDING_HOOKS only."""
        self._hook = (method, hook, step)
        try:
            yield
        finally:
            self._hook = None

    def _step_of_change(self, site: str) -> int:
        method, hook, step = self._hook or ("?", "no hook", 0)
        if hook not in DECIDING_HOOKS:
            raise RankChangeError(
                f"method {method} changed the rank of {site} in {hook}; "
                "ranks change only in calibrate, on_step_end and finish"
            )
        return step

    def _decide(self, index: int, live: Tensor, reason: str) -> None:
        site = self.sites[index].name
        step = self._step_of_change(site)
        before, after = int(self._live[index].sum()), int(live.sum())
        self._live[index] = live
        if before != after:
            event = {"step": step, "site": site, "before": before, "after": after, "reason": reason}
            self.history.append(event)
            self._refresh(index)

    def _observe(self) -> None:
        sizes = self.sizes()
        gates = sum(sizes.values()) if self.gate_spec else 0
        self.ledger.observe(sum(self.ranks().values()), self.param_count(), gates)

    def zero(self, keep: Mapping[str, Tensor], reason: str) -> None:
        """Set the gates of components to zero, softly: they go on receiving gradient and may regrow.

        Args:
            keep: site name -> (r,) bool, the components of this decision.
        """
        with torch.no_grad():
            for name, kept in keep.items():
                index = self._index[name]
                self._decide(index, kept, reason)
                self._layers[index].lora_gate.mul_(kept.to(self._layers[index].lora_gate.device))
        self._observe()

    def set_mask(self, site: str, keep: Tensor, reason: str) -> None:
        """Hold components at zero: out of the forward pass, and unmoved by the optimizer until unmasked.

        Args:
            keep: (r,) bool.
        """
        index = self._index[site]
        layer = self._layers[index]
        self._decide(index, keep, reason)
        whole = bool(keep.all())
        layer.rankbench_slot.mask = None if whole else keep.to(layer.lora_A[NAME].weight.device, torch.float32)
        self._held.pop(index, None)
        if not whole:
            for parameter, axis in self._roles(index):
                for moment in self._moments(parameter):
                    moment.mul_(_along(axis, keep, moment))
            self._held[index] = tuple(parameter.detach().clone() for parameter, _ in self._roles(index))
        self._observe()

    def hold(self) -> None:
        """After an optimizer step: put masked components back where they were (decay and momentum moved them)."""
        with torch.no_grad():
            for index, saved in self._held.items():
                keep = self._live[index]
                for (parameter, axis), before in zip(self._roles(index), saved, strict=True):
                    parameter.copy_(torch.where(_along(axis, keep, parameter), parameter, before))

    def resize(
        self, site: str, keep: Sequence[int] | Tensor, grow: int = 0, moments: str = "keep", reason: str = "resize"
    ) -> None:
        """Remove all components of a site but `keep`, then append `grow` fresh ones; parameters stay the same objects.

        Adam moments (and gradients) are sliced along with the parameters; fresh components have none yet. They start
        without effect: B = 0 (and the gate at its start value, or at 1 if that is 0).

        Args:
            keep: indices of components, or (r,) bool.
            grow: number of fresh components.
            moments: "keep" or "reset" for the components kept.
        """
        index = self._index[site]
        found, step = self.sites[index], self._step_of_change(site)
        device = self._layers[index].lora_A[NAME].weight.device
        keep = torch.as_tensor(keep, device=device)
        kept = keep.nonzero().flatten() if keep.dtype == torch.bool else keep.long()
        fresh = self._fresh(found, grow, step, device)
        live = torch.cat([self._live[index][kept.cpu()], torch.ones(grow, dtype=torch.bool)])
        values = []
        for (parameter, axis), new in zip(self._roles(index), fresh, strict=False):
            empty = torch.zeros_like(new)
            for name, moment in self._named_moments(parameter):
                old = moment.index_select(axis, kept)
                old = torch.zeros_like(old) if moments == "reset" else old
                self._state(parameter)[name] = torch.cat([old, empty.to(old.dtype)], axis)
            if parameter.grad is not None:
                gradient = torch.cat([parameter.grad.index_select(axis, kept), empty], axis)
                parameter.grad = None
            else:
                gradient = None
            values.append((torch.cat([parameter.detach().index_select(axis, kept), new], axis), parameter, gradient))
        self._set_tensors(index, values[0][0], values[1][0], values[2][0] if self.gate_spec else None)
        for _, parameter, gradient in values:
            parameter.grad = gradient
        self._layers[index].rankbench_slot.mask = None
        self._held.pop(index, None)
        self._decide(index, live, reason)
        self._refresh(index)
        self._observe()

    def _fresh(self, site: Site, grow: int, step: int, device: torch.device) -> list[Tensor]:
        A, B = draw_factors(site, grow, self.gate_spec, self._streams, f"grow{step}")
        start = self.gate_spec.start if self.gate_spec and self.gate_spec.start else 1.0
        return [A.to(device), torch.zeros_like(B).to(device), torch.full((grow,), start, device=device)]

    def compact(self, reason: str) -> None:
        """Remove every component that the last decision did not keep: smaller parameters, cheaper steps."""
        for site, live in zip(self.sites, self._live, strict=True):
            if not bool(live.all()):
                self.resize(site.name, live, reason=reason)

    def restart(self, ranks: Mapping[str, int], reason: str) -> None:
        """Begin again: fresh factors at `ranks`, initial head, no moments. For methods that retrain from scratch."""
        for index, site in enumerate(self.sites):
            before = int(self._live[index].sum())
            step = self._step_of_change(site.name)
            for parameter, _ in self._roles(index):
                parameter.grad = None
                self._state(parameter).clear()
            self._layers[index].rankbench_slot.mask = None
            self._held.pop(index, None)
            self._draw(index, ranks[site.name], "restart")
            if before != ranks[site.name]:
                after = ranks[site.name]
                event = {"step": step, "site": site.name, "before": before, "after": after, "reason": reason}
                self.history.append(event)
        with torch.no_grad():
            for parameter, initial in zip(self.head, self._initial_head, strict=True):
                parameter.copy_(initial)
                parameter.grad = None
                self._state(parameter).clear()
        self._observe()

    def set_factors(self, site: str, A: Tensor, B: Tensor, absorb: bool) -> None:
        """Start a site from given factors of its present rank.

        Args:
            A: (r, d_in). B: (d_out, r).
            absorb: subtract the update from W0, so that the output stays what it was (PiSSA-like starts).
        """
        index = self._index[site]
        own_A, own_B = self.factors(site)
        if A.shape != own_A.shape or B.shape != own_B.shape:
            raise ValueError(f"{site}: factors {tuple(A.shape)}, {tuple(B.shape)} do not fit rank {own_A.shape[0]}")
        with torch.no_grad():
            own_A.copy_(A)
            own_B.copy_(B)
            if absorb:
                base = self._layers[index].get_base_layer().weight
                base -= self.delta(site).to(base.dtype)

    # -- optimizer --

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups: factors, gates (their own rate and decay), head. Each trained parameter stands in one."""
        gates = [layer.lora_gate for layer in self._layers] if self.gate_spec else []
        own = {id(gate) for gate in gates}
        factors = [parameter for parameter in self.parameters() if id(parameter) not in own]
        groups = [{"name": "factors", "params": factors, "rate": 1.0, "weight_decay": weight_decay}]
        if self.gate_spec is not None:
            decay = weight_decay if self.gate_spec.weight_decay is None else self.gate_spec.weight_decay
            rate = self.gate_spec.learning_rate
            groups.append({"name": "gates", "params": gates, "rate": rate, "weight_decay": decay})
        if self.head:
            groups.append({"name": "head", "params": self.head, "rate": 1.0, "weight_decay": weight_decay})
        return groups

    def bind(self, optimizer: torch.optim.Optimizer) -> None:
        """Tell the adapter whose moments to slice.

        Raises:
            RuntimeError: a trained parameter is in no group, or in two.
        """
        seen = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        trained = [id(parameter) for parameter in self.model.parameters() if parameter.requires_grad]
        if sorted(seen) != sorted(trained):
            missing, doubled = len(set(trained) - set(seen)), len(seen) - len(set(seen))
            raise RuntimeError(f"optimizer groups: {missing} trained parameters in no group, {doubled} in two")
        self._optimizer = optimizer

    def _roles(self, index: int) -> list[tuple[nn.Parameter, int]]:
        """(parameter, its rank axis) of a site: A, B, gate."""
        layer = self._layers[index]
        roles = [(layer.lora_A[NAME].weight, 0), (layer.lora_B[NAME].weight, 1)]
        return [*roles, (layer.lora_gate, 0)] if self.gate_spec else roles

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        state: dict[str, Any] = self._optimizer.state[parameter] if self._optimizer is not None else {}
        return state

    def _named_moments(self, parameter: nn.Parameter) -> list[tuple[str, Tensor]]:
        state = self._state(parameter)
        return [(k, v) for k, v in state.items() if isinstance(v, Tensor) and v.shape == parameter.shape]

    def _moments(self, parameter: nn.Parameter) -> list[Tensor]:
        return [moment for _, moment in self._named_moments(parameter)]

    # -- in and out --

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, tensors on CPU."""
        return {
            "tensors": [[p.detach().cpu().clone() for p, _ in self._roles(i)] for i in range(len(self.sites))],
            "live": [live.clone() for live in self._live],
            "masked": [layer.rankbench_slot.mask is not None for layer in self._layers],
            "head": [parameter.detach().cpu().clone() for parameter in self.head],
            "history": list(self.history),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, on an AdapterSet attached to the same sites. Bind the optimizer afterwards."""
        for index, (tensors, live, masked) in enumerate(
            zip(state["tensors"], state["live"], state["masked"], strict=True)
        ):
            layer = self._layers[index]
            device = layer.lora_A[NAME].weight.device
            self._set_tensors(index, *[t.to(device) for t in tensors], *([] if self.gate_spec else [None]))
            self._live[index] = live.clone()
            if masked:
                layer.rankbench_slot.mask = live.to(device, torch.float32)
                self._held[index] = tuple(parameter.detach().clone() for parameter, _ in self._roles(index))
            self._refresh(index)
        with torch.no_grad():
            for parameter, value in zip(self.head, state["head"], strict=True):
                parameter.copy_(value)
        self.history = list(state["history"])

    def to_plain_lora(self) -> tuple[dict[str, Tensor], LoraConfig]:
        """The live components as a stock PEFT LoRA adapter: (state dict, config), gates folded in.

        `rank_pattern` and `alpha_pattern` reproduce rank and scale of each site; sites of rank 0 are left out.

        Raises:
            ValueError: no site has a rank left.
        """
        whole = get_peft_model_state_dict(self.model)
        state = {key: value.detach().cpu() for key, value in whole.items() if ".lora_" not in key}
        rank_pattern, alpha_pattern = {}, {}
        for index, site in enumerate(self.sites):
            A, B = self._folded(index)
            if len(A) == 0:
                continue
            rank_pattern[site.name] = len(A)
            alpha_pattern[site.name] = self.scale(site.name) * len(A)
            state[f"base_model.model.{site.name}.lora_A.weight"] = A.cpu().contiguous()
            state[f"base_model.model.{site.name}.lora_B.weight"] = B.cpu().contiguous()
        if not rank_pattern:
            raise ValueError("no site has a rank left: there is no adapter to export")
        config: LoraConfig = self.model.peft_config[NAME]
        return state, LoraConfig(
            r=self.scale_rule.reference_rank,
            lora_alpha=self.scale_rule.alpha,
            lora_dropout=config.lora_dropout,
            target_modules=list(rank_pattern),
            rank_pattern=rank_pattern,
            alpha_pattern=alpha_pattern,
            modules_to_save=config.modules_to_save,
            task_type=config.task_type,
            base_model_name_or_path=config.base_model_name_or_path,
            inference_mode=True,
        )

    def export(self, folder: Path) -> None:
        """Write `to_plain_lora` as PEFT's own two files; `PeftModel.from_pretrained` needs nothing else."""
        state, config = self.to_plain_lora()
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        content = config.to_dict()
        content["target_modules"] = sorted(content["target_modules"])
        (folder / "adapter_config.json").write_text(json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def draw_factors(site: Site, rank: int, gate: Gate | None, streams: Streams, name: str) -> tuple[Tensor, Tensor]:
    """Initial A (rank, d_in) and B (d_out, rank) of a site, row by row from its stream.

    LoRA (Hu et al. 2022, as in PEFT): A ~ U(-1/sqrt(d_in), 1/sqrt(d_in)), B = 0.
    SVD form (Zhang et al. 2023): A, B ~ N(0, 0.02^2).
    """
    rng_A, rng_B = (streams.numpy("init", site.name, name, role) for role in "AB")
    if gate is not None and gate.factors == "gaussian":
        A, B = rng_A.standard_normal((rank, site.d_in)) * 0.02, rng_B.standard_normal((rank, site.d_out)) * 0.02
        return torch.from_numpy(A).float(), torch.from_numpy(B).float().T.contiguous()
    bound = site.d_in**-0.5
    return torch.from_numpy(rng_A.uniform(-bound, bound, (rank, site.d_in))).float(), torch.zeros(site.d_out, rank)


def _along(axis: int, keep: Tensor, parameter: Tensor) -> Tensor:
    """`keep` (r,) shaped to broadcast along the rank axis of `parameter`: (r, 1) for A, (1, r) for B, (r,) for a gate."""
    keep = keep.to(parameter.device)
    return keep.view([-1 if dimension == axis else 1 for dimension in range(parameter.ndim)])
