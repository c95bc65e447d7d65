"""The adapter every method shares, and the only writer of ranks.

PEFT does target matching, classification heads, quantised bases and merging; rankbench.core.site_adapter has the computation at one
site; this module holds all sites together: what methods may look at, how ranks change, who is told about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rankbench.core.budget import Ledger
from rankbench.core.gated_lora import Scale
from rankbench.core.parameter_stacks import STACK_SIZE, Stack, together
from rankbench.core.rank_log import DECIDING_HOOKS, RankChangeError
from rankbench.core.seeding import Streams
from rankbench.core.site_adapter import Gate, SiteAdapter
from rankbench.core.sites import Site

__all__ = ["AdapterSet", "Gate", "RankChangeError", "Scale", "Site", "Stack"]


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
        self, model: Any, adapters: Mapping[str, SiteAdapter], scale: Scale, gate: Gate | None, ledger: Ledger
    ) -> None:
        self.model = model
        self.scale_rule = scale
        self.ledger = ledger
        self.history: list[dict[str, Any]] = []
        self._adapters = dict(adapters)
        self.sites = [adapter.site for adapter in self._adapters.values()]
        own = {id(parameter) for parameter in self.parameters()}
        self.head = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
        self._initial_head = [parameter.detach().clone() for parameter in self.head]
        self._gate_spec = gate
        self._optimizer: torch.optim.Optimizer | None = None
        self._hook = ("?", "no hook", 0)
        self._observe()

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
            sites: matrices to adapt.
            ranks: site name -> rank >= 0, at most the site's full rank.
            scale: rule of the factor s.
            streams: of the run.
            ledger: told of every change.
            gate: what the method wants; None leaves gates out.
            path: whether the method scores along a path (its layers then leave PEFT's stock forward pass).
            dropout: of the adapter's input, in [0, 1).
            head: modules trained in full, by name.
            task_type: PEFT's, written into the exported config.
        """
        from peft import LoraConfig, get_peft_model  # takes seconds to import

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
        with streams.ambient("init", "peft"), warnings.catch_warnings():
            # peft 0.21 asks transformers 5.23 by an older name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            peft_model = get_peft_model(model, config)
        peft_model.train(model.training)  # its own modules are made in training mode
        modules = dict(peft_model.named_modules())
        variant = gate is not None or path
        adapters = {}
        for site in sites:
            layer = modules[f"base_model.model.{site.name}"]
            adapters[site.name] = SiteAdapter(site, layer, scale, gate, streams, ranks[site.name], variant)
        return cls(peft_model, adapters, scale, gate, ledger)

    # -- what a method may look at --

    def factors(self, site: str) -> tuple[nn.Parameter, nn.Parameter]:
        """A (r, d_in) and B (d_out, r) of a site."""
        adapter = self._adapters[site]
        return adapter.A, adapter.B

    def gates(self, site: str) -> nn.Parameter | None:
        """Gate (r,) of a site, None for methods without gates."""
        return self._adapters[site].gate

    def parameters(self) -> list[nn.Parameter]:
        """All A, then all B, then all gates, in site order."""
        adapters = self._adapters.values()
        gates = [adapter.gate for adapter in adapters if adapter.gate is not None]
        return [*(adapter.A for adapter in adapters), *(adapter.B for adapter in adapters), *gates]

    def alike(self) -> list[tuple[int, ...]]:
        """Indices of the sites with components, grouped by shape, about STACK_SIZE elements at most: one per stack."""
        shapes: dict[tuple[int, int, int], list[int]] = {}
        for index, adapter in enumerate(self._adapters.values()):
            if adapter.size:
                shapes.setdefault((adapter.size, adapter.site.d_out, adapter.site.d_in), []).append(index)
        groups = []
        for (size, d_out, d_in), indices in shapes.items():
            count = max(1, STACK_SIZE // (size * max(d_out, d_in)))
            groups += [tuple(indices[start : start + count]) for start in range(0, len(indices), count)]
        return groups

    def each(self, of: Callable[[nn.Parameter], Tensor | None] | None = None) -> Iterator[Tensor]:
        """Parameters stacked by shape, one tensor at a time: A, B and gate of the first stack, then of the second, ...

        Sites without components are left out.

        Args:
            of: makes from a parameter what is stacked instead (a copy); None, such as no gradient, counts as zero.
        """
        adapters = list(self._adapters.values())
        for indices in self.alike():
            for role in zip(*(adapters[index].roles for index in indices), strict=True):
                if of is None:
                    yield together([p for p, _ in role])
                else:
                    yield torch.stack([torch.zeros_like(p) if (value := of(p)) is None else value for p, _ in role])

    def tensors(self, of: Callable[[nn.Parameter], Tensor | None]) -> list[Tensor]:
        """All of `each(of)`."""
        return list(self.each(of))

    def stacks(self) -> Iterator[Stack]:
        """`each()`, named."""
        tensors = self.each()
        for indices in self.alike():
            yield Stack(indices, next(tensors), next(tensors), next(tensors) if self._gate_spec else None)

    def ranks(self) -> dict[str, int]:
        """Live rank per site: the last decision, not the count of non-zeros."""
        return {name: adapter.rank for name, adapter in self._adapters.items()}

    rank_map = ranks

    def live(self, site: str) -> Tensor:
        """Which components of a site the last decision kept: (r,) bool, on the CPU."""
        return self._adapters[site].live

    def sizes(self) -> dict[str, int]:
        """Components present per site, live or not."""
        return {name: adapter.size for name, adapter in self._adapters.items()}

    def scale(self, site: str) -> float:
        """The scale s of a site, as the forward pass uses it."""
        return self._adapters[site].scale

    def cost(self, site: str) -> int:
        """Factor parameters of one rank at a site."""
        found = self._adapters[site].site
        return found.d_in + found.d_out

    def param_count(self) -> int:
        """Factor parameters present, gates not counted."""
        return sum(size * self.cost(name) for name, size in self.sizes().items())

    def delta(self, site: str) -> Tensor:
        """The update s * B diag(g * m) A of a site: (d_out, d_in)."""
        A, B = self.folded(site)
        return self.scale(site) * (B @ A)

    def folded(self, site: str) -> tuple[Tensor, Tensor]:
        """A and B of the live components of a site, gate and mask folded into B."""
        return self._adapters[site].folded()

    def weight(self, site: str) -> Tensor:
        """The frozen weight W0 of a site in fp32, dequantised where it must be: (d_out, d_in)."""
        return self._adapters[site].weight()

    @contextmanager
    def watching(self, site_hook: Callable[[str], Callable[..., Any]]) -> Iterator[None]:
        """Run a forward hook on the frozen layer of every site inside the block.

        Args:
            site_hook: site name -> hook of torch's `register_forward_hook`.
        """
        handles = [
            adapter.layer.get_base_layer().register_forward_hook(site_hook(name))
            for name, adapter in self._adapters.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

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
        for adapter in self._adapters.values():
            adapter.slot.value, adapter.slot.jacobian = value, factor

    def truncate(self, components: int | None) -> None:
        """Use only the first components of each site in the coming forward passes; None uses all."""
        for adapter in self._adapters.values():
            adapter.slot.truncate = components

    def reset_path(self) -> None:
        """Back to the adapter as it is: path coefficient 1, no truncation."""
        self.path(1.0)
        self.truncate(None)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model alone, inside the block."""
        layers = [adapter.layer for adapter in self._adapters.values()]
        before = [layer._disable_adapters for layer in layers]
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, disabled in zip(layers, before, strict=True):
                layer._disable_adapters = disabled

    # -- rank changes --

    @contextmanager
    def deciding(self, method: str, hook: str, step: int) -> Iterator[None]:
        """Name the hook that is running; ranks may change in DECIDING_HOOKS only."""
        before, self._hook = self._hook, (method, hook, step)
        try:
            yield
        finally:
            self._hook = before

    def _step_of_change(self, site: str) -> int:
        method, hook, step = self._hook
        if hook not in DECIDING_HOOKS:
            raise RankChangeError(
                f"method {method} changed the rank of {site} in {hook}; "
                "ranks change only in calibrate, on_step_end and finish"
            )
        return step

    def _note(self, site: str, before: int, reason: str) -> None:
        """Into the history, if the rank differs from what it was."""
        after, step = self._adapters[site].rank, self._step_of_change(site)
        if before != after:
            self.history.append({"step": step, "site": site, "before": before, "after": after, "reason": reason})

    def _observe(self) -> None:
        sizes = self.sizes()
        gates = sum(sizes.values()) if self._gate_spec else 0
        self.ledger.observe(sum(self.ranks().values()), self.param_count(), gates)

    @torch.no_grad()
    def zero(self, keep: Mapping[str, Tensor], reason: str) -> None:
        """Set the gates of components to zero, softly: they go on receiving gradient and may regrow.

        Args:
            keep: site name -> (r,) bool, the components of this decision.
            reason: for the history.
        """
        for name in keep:
            self._step_of_change(name)
        gates: list[Tensor] = [gate for name in keep if (gate := self.gates(name)) is not None]
        assert len(gates) == len(keep), "zero() needs gates"
        masks = [kept.to(gate.device) for kept, gate in zip(keep.values(), gates, strict=True)]
        torch._foreach_mul_(gates, masks)
        for name, kept in keep.items():
            before = self._adapters[name].rank
            self._adapters[name].keep(kept)
            self._note(name, before, reason)
        self._observe()

    def set_mask(self, site: str, keep: Tensor, reason: str) -> None:
        """Hold components at zero: out of the forward pass, and unmoved by the optimizer until unmasked.

        Args:
            site: name.
            keep: (r,) bool.
            reason: for the history.
        """
        before = self._adapters[site].rank
        self._step_of_change(site)
        self._adapters[site].mask(keep, self._state)
        self._note(site, before, reason)
        self._observe()

    def hold(self) -> None:
        """After an optimizer step: put masked components back where they were (decay and momentum moved them)."""
        for adapter in self._adapters.values():
            if adapter.masked:
                adapter.hold()

    def resize(
        self, site: str, keep: Sequence[int] | Tensor, grow: int = 0, moments: str = "keep", reason: str = "resize"
    ) -> None:
        """Remove all components of a site but `keep`, then append `grow` fresh ones; parameters stay the same objects.

        Adam moments (and gradients) are sliced along with the parameters; fresh components have zeros. They start
        without effect: B = 0 (and the gate at its start value, or at 1 if that is 0).

        Args:
            site: name.
            keep: indices of components, or (r,) bool.
            grow: number of fresh components.
            moments: "keep" or "reset" for the components kept.
            reason: for the history.
        """
        self._resize(site, torch.as_tensor(keep), grow, moments, reason)
        self._observe()

    def _resize(self, site: str, keep: Tensor, grow: int, moments: str, reason: str) -> None:
        adapter, step = self._adapters[site], self._step_of_change(site)
        before = adapter.rank
        kept = keep.nonzero().flatten() if keep.dtype == torch.bool else keep.long()
        adapter.resize(kept, grow, f"grow{step}", self._state, reset=moments == "reset")
        self._note(site, before, reason)

    def compact(self, reason: str) -> None:
        """Remove every component that the last decision did not keep: smaller parameters, cheaper steps."""
        for name, adapter in self._adapters.items():
            if not bool(adapter.live.all()):
                self._resize(name, adapter.live, 0, "keep", reason)
        self._observe()

    def restart(self, ranks: Mapping[str, int], reason: str, draw: str = "restart") -> None:
        """Begin again: fresh factors at `ranks`, initial head, no moments.

        Args:
            ranks: site name -> rank.
            reason: for the history.
            draw: "restart": a new initialisation, for methods that train again from scratch. "start": the one that a
                run injected at these ranks would have, for methods that find them before training.
        """
        for name, adapter in self._adapters.items():
            before = adapter.rank
            self._step_of_change(name)
            for parameter, _ in adapter.roles:
                parameter.grad = None
                self._state(parameter).clear()
            adapter.draw(ranks[name], draw)
            self._note(name, before, reason)
        self._observe()
        with torch.no_grad():
            for parameter, initial in zip(self.head, self._initial_head, strict=True):
                parameter.copy_(initial)
                parameter.grad = None
                self._state(parameter).clear()

    def begin(self) -> None:
        """Training starts here: what calibration held on the way is neither start nor peak nor history of the run."""
        first = {event["site"]: event["before"] for event in reversed(self.history)}
        last = {event["site"]: event for event in self.history}
        net = [{**event, "before": first[site]} for site, event in last.items()]
        self.history = [event for event in net if event["before"] != event["after"]]
        self.ledger.begin()
        self._observe()

    def forget_moments(self) -> None:
        """Drop all optimizer state of the adapter, step counts included: a fresh optimizer at the present rates."""
        for parameter in self.parameters():
            self._state(parameter).clear()

    def weigh(self, factors: Mapping[str, float]) -> None:
        """Multiply the scale of each site by a factor >= 0 of its own, on top of the scale rule."""
        for name, factor in factors.items():
            self._step_of_change(name)
            self._adapters[name].weigh(factor)

    def refactor(self) -> None:
        """At every site with components: the live update as its own singular value decomposition (see SiteAdapter)."""
        for adapter in self._adapters.values():
            if adapter.rank:
                adapter.refactor()

    @torch.no_grad()
    def set_factors(self, site: str, A: Tensor, B: Tensor, absorb: bool) -> None:
        """Start a site from given factors of its present rank.

        Args:
            site: name.
            A: (r, d_in).
            B: (d_out, r).
            absorb: subtract the update from W0, so that the output stays what it was (PiSSA-like starts).

        Raises:
            ValueError: the factors do not fit.
        """
        adapter = self._adapters[site]
        if A.shape != adapter.A.shape or B.shape != adapter.B.shape:
            raise ValueError(f"{site}: factors {tuple(A.shape)}, {tuple(B.shape)} do not fit rank {adapter.size}")
        adapter.A.copy_(A)
        adapter.B.copy_(B)
        if absorb:
            base = adapter.layer.get_base_layer().weight
            base -= self.delta(site).to(base.dtype)

    # -- optimizer --

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups: factors, gates (their own rate and decay), head. Each trained parameter stands in one."""
        gates = [adapter.gate for adapter in self._adapters.values() if adapter.gate is not None]
        own = {id(gate) for gate in gates}
        factors = [parameter for parameter in self.parameters() if id(parameter) not in own]
        groups: list[dict[str, Any]] = [
            {"name": "factors", "params": factors, "rate": 1.0, "weight_decay": weight_decay}
        ]
        if self._gate_spec is not None:
            decay = weight_decay if self._gate_spec.weight_decay is None else self._gate_spec.weight_decay
            rate = {"rate": self._gate_spec.learning_rate, "constant": self._gate_spec.constant_rate}
            groups.append({"name": "gates", "params": gates, **rate, "weight_decay": decay})
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

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The bound optimizer's state of a parameter; nothing before one is bound."""
        state: dict[str, Any] = self._optimizer.state[parameter] if self._optimizer is not None else {}
        return state

    # -- in and out --

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, tensors on CPU."""
        adapters = self._adapters.values()
        return {
            "tensors": [[p.detach().cpu().clone() for p, _ in adapter.roles] for adapter in adapters],
            "live": [adapter.live.clone() for adapter in adapters],
            "masked": [adapter.masked for adapter in adapters],
            "factors": [adapter.factor for adapter in adapters],
            "head": [parameter.detach().cpu().clone() for parameter in self.head],
            "history": list(self.history),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, on an AdapterSet attached to the same sites. Bind the optimizer afterwards."""
        stored = zip(state["tensors"], state["live"], state["masked"], state["factors"], strict=True)
        for adapter, (tensors, live, masked, factor) in zip(self._adapters.values(), stored, strict=True):
            adapter.put(tensors, live, masked)
            adapter.weigh(factor)
        for parameter, value in zip(self.head, state["head"], strict=True):
            parameter.copy_(value)
        self.history = list(state["history"])
