"""The adapter every method shares, and the only writer of ranks.

rankbench.core.site_adapter computes one site; PEFT matches targets, carries heads and quantised bases, and merges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rankbench.core import folding, forward_switches, optimizer_groups, parameter_stacks
from rankbench.core.budget import Ledger
from rankbench.core.gated_lora import Scale
from rankbench.core.parameter_stacks import Stack
from rankbench.core.rank_log import RankLog
from rankbench.core.site_adapter import Gate, SiteAdapter


class AdapterSet:
    """All sites of one run, in site order. `zero`, `set_mask`, `resize`, `restart` alone change ranks, in `deciding`.

    Attributes:
        sites: adapted matrices.
        model: the PeftModel that carries the adapter.
        scale_spec: rule, alpha and reference rank that give each site its scale.
        beside: trained parameters that count as the method's own beside the factors: magnitudes, or those of the base.
        head: the other trained parameters outside the adapter (classification head).
        log: who may change ranks now, and every change so far.
    """

    def __init__(
        self,
        model: Any,
        adapters: Mapping[str, SiteAdapter],
        scale: Scale,
        gate: Gate | None,
        ledger: Ledger,
        beside: Sequence[nn.Parameter] = (),
    ) -> None:
        self.model, self.scale_spec, self._gate_spec, self.ledger = model, scale, gate, ledger
        self.log = RankLog()
        self._adapters = dict(adapters)
        self._list = list(self._adapters.values())
        self.sites = [adapter.site for adapter in self._list]
        self.beside = list(beside)
        own = {id(parameter) for parameter in [*self.parameters(), *self.beside]}
        self.head = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
        self._initial_head = [parameter.detach().clone() for parameter in self.head]
        self._optimizer: torch.optim.Optimizer | None = None
        self._observe()

    # -- what a method may look at --

    def factors(self, site: str) -> tuple[nn.Parameter, nn.Parameter]:
        """Factors A (r, d_in) and B (d_out, r) of a site."""
        adapter = self._adapters[site]
        return adapter.A, adapter.B

    def gates(self, site: str) -> nn.Parameter | None:
        """Gate (r,) of a site, None for methods without gates."""
        return self._adapters[site].gate

    def parameters(self) -> list[nn.Parameter]:
        """All A, then all B, then all gates, in site order."""
        gates = [adapter.gate for adapter in self._list if adapter.gate is not None]
        return [*(adapter.A for adapter in self._list), *(adapter.B for adapter in self._list), *gates]

    def alike(self) -> list[tuple[int, ...]]:
        """Indices of the sites of each stack: sites of one shape that have components."""
        return parameter_stacks.alike(self._list)

    def iter_stacked(self, of: Callable[[nn.Parameter], Tensor | None] | None = None) -> Iterator[Tensor]:
        """Parameters, or what `of` makes of each, stacked by shape, one at a time; see parameter_stacks."""
        return parameter_stacks.iter_stacked(self._list, of)

    def stacked(self, of: Callable[[nn.Parameter], Tensor | None]) -> list[Tensor]:
        """All of `iter_stacked(of)`."""
        return list(self.iter_stacked(of))

    def stacks(self) -> Iterator[Stack]:
        """`iter_stacked()`, named."""
        return parameter_stacks.stacks(self._list)

    def ranks(self) -> dict[str, int]:
        """Live rank per site: the last decision, not the count of non-zeros."""
        return {name: adapter.rank for name, adapter in self._adapters.items()}

    def live(self, site: str) -> Tensor:
        """Mask of the components of a site that the last decision kept: (r,) bool, on the CPU."""
        return self._adapters[site].live

    def sizes(self) -> dict[str, int]:
        """Components present per site, live or not."""
        return {name: adapter.size for name, adapter in self._adapters.items()}

    def scale(self, site: str) -> float:
        """The scale s of a site, as the forward pass uses it."""
        return self._adapters[site].scale

    def cost(self, site: str) -> int:
        """Factor parameters of one rank at a site."""
        shape = self._adapters[site].site
        return shape.d_in + shape.d_out

    def param_count(self) -> int:
        """Parameters of the factors present and of `beside`; gates not counted."""
        factors = sum(size * self.cost(name) for name, size in self.sizes().items())
        return factors + sum(parameter.numel() for parameter in self.beside)

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

    # -- transient settings of the forward pass --

    def watching(self, site_hook: Callable[[str], Callable[..., Any]]) -> AbstractContextManager[None]:
        """Run `site_hook(site)`, a forward hook, on the frozen layer of every site inside the block."""
        return forward_switches.watching(self._list, site_hook)

    def disabled(self) -> AbstractContextManager[None]:
        """Run the base model alone inside the block."""
        return forward_switches.disabled(self._list)

    def folding(self) -> AbstractContextManager[None]:
        """Evaluate with the adapter folded into those frozen weights that can hold it; see rankbench.core.folding."""
        return folding.folding(self._list)

    def set_path_point(self, a: float, kind: str = "delta", jacobian: str = "raw") -> None:
        """Evaluate at a point of the path from no adapter (0) to the adapter (1), until `reset_path`; see set_path."""
        forward_switches.set_path(self._list, a, kind, jacobian)

    def reset_path(self) -> None:
        """Back to the adapter as it is: path coefficient 1."""
        self.set_path_point(1.0)

    # -- rank changes --

    @property
    def history(self) -> list[dict[str, Any]]:
        """Every rank change: {step, site, before, after, reason}."""
        return self.log.history

    def deciding(self, method: str, hook: str, step: int) -> AbstractContextManager[None]:
        """Name the hook that runs inside the block; ranks may change in some hooks only (see RankLog)."""
        return self.log.deciding(method, hook, step)

    def _note(self, site: str, before: int, reason: str) -> None:
        self.log.note(site, before, self._adapters[site].rank, reason)

    def _observe(self) -> None:
        gates = sum(self.sizes().values()) if self._gate_spec else 0
        self.ledger.observe(sum(self.ranks().values()), self.param_count(), gates)

    @torch.no_grad()
    def zero(self, keep: Mapping[str, Tensor], reason: str) -> None:
        """Set the gates of components to zero, softly: they go on receiving gradient and may regrow.

        Args:
            keep: site name -> (r,) bool, the components of this decision.
            reason: why, as the history will say.
        """
        for name in keep:
            self.log.step_of_change(name)
        gates: list[Tensor] = [gate for name in keep if (gate := self.gates(name)) is not None]
        assert len(gates) == len(keep), "zero() needs gates"
        if gates:
            mask = torch.cat(list(keep.values())).to(gates[0], non_blocking=True)
            torch._foreach_mul_(gates, torch.split(mask, list(map(len, gates))))
        for name, kept in keep.items():
            before = self._adapters[name].rank
            self._adapters[name].keep(kept)
            self._note(name, before, reason)
        self._observe()

    def set_mask(self, site: str, keep: Tensor, reason: str) -> None:
        """Hold all components of a site but `keep`, (r,) bool, at zero: unmoved by the optimizer until unmasked."""
        before = self._adapters[site].rank
        self.log.step_of_change(site)
        self._adapters[site].mask(keep, self._state)
        self._note(site, before, reason)
        self._observe()

    def hold(self) -> None:
        """After an optimizer step: put masked components back where they were (decay and momentum moved them)."""
        for adapter in self._list:
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
            reason: why, as the history will say.
        """
        self._resize(site, torch.as_tensor(keep), grow, moments, reason)
        self._observe()

    def _resize(self, site: str, keep: Tensor, grow: int, moments: str, reason: str) -> None:
        adapter, step = self._adapters[site], self.log.step_of_change(site)
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
            reason: why, as the history will say.
            draw: "restart": a new initialisation, for methods that train again from scratch. "start": the one that a
                run injected at these ranks would have, for methods that find them before training.
        """
        for name, adapter in self._adapters.items():
            before = adapter.rank
            self.log.step_of_change(name)
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
        """Reset ledger and history after calibration, so that its temporary ranks do not count."""
        self.log.begin()
        self.ledger.begin()
        self._observe()

    def forget_moments(self) -> None:
        """Drop all optimizer state of the adapter, step counts included: a fresh optimizer at the present rates."""
        for parameter in self.parameters():
            self._state(parameter).clear()

    def set_scale_factors(self, factors: Mapping[str, float]) -> None:
        """Set an extra factor >= 0 on the scale of each site, on top of the scale rule; earlier ones are replaced."""
        for name, factor in factors.items():
            self.log.step_of_change(name)
            self._adapters[name].set_scale_factor(factor)

    def refactor(self) -> None:
        """Rewrite the live update of every site as its singular value decomposition (see SiteAdapter)."""
        for adapter in self._list:
            if adapter.rank:
                adapter.refactor()

    def set_factors(self, site: str, A: Tensor, B: Tensor) -> None:
        """Start a site from given factors of its present rank: A (r, d_in), B (d_out, r), else ValueError."""
        self._adapters[site].set_factors(A, B)

    # -- optimizer --

    def groups(self, weight_decay: float, head_rate: float | None = None) -> list[dict[str, Any]]:
        """Optimizer groups: factors, gates (with their own rate and decay), what is trained beside them, head."""
        gates = [adapter.gate for adapter in self._list if adapter.gate is not None]
        factors = self.parameters()[: 2 * len(self._list)]
        return optimizer_groups.groups(factors, gates, self._gate_spec, self.beside, self.head, weight_decay, head_rate)

    def bind(self, optimizer: torch.optim.Optimizer) -> None:
        """Tell the adapter whose moments to slice.

        Raises:
            RuntimeError: a trained parameter is in no group, or in two.
        """
        optimizer_groups.check_groups(optimizer, self.model.parameters())
        self._optimizer = optimizer

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The bound optimizer's state of a parameter; nothing before one is bound."""
        return {} if self._optimizer is None else self._optimizer.state[parameter]

    # -- in and out --

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs, tensors on the CPU."""
        return {
            "tensors": [[p.detach().cpu().clone() for p, _ in adapter.roles] for adapter in self._list],
            "live": [adapter.live.clone() for adapter in self._list],
            "masked": [adapter.masked for adapter in self._list],
            "factors": [adapter.factor for adapter in self._list],
            "head": [parameter.detach().cpu().clone() for parameter in [*self.head, *self.beside]],
            "history": list(self.history),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, on an AdapterSet attached to the same sites. Bind the optimizer afterwards."""
        stored = zip(state["tensors"], state["live"], state["masked"], state["factors"], strict=True)
        for adapter, (tensors, live, masked, factor) in zip(self._list, stored, strict=True):
            adapter.put(tensors, live, masked)
            adapter.set_scale_factor(factor)
        for parameter, value in zip([*self.head, *self.beside], state["head"], strict=True):
            parameter.copy_(value)
        self.log.history = list(state["history"])
