"""One adapted matrix: its shape, the computation every method shares, and how its rank changes.

    y = W0 x + v * s * B diag(g * m) A dropout(x)

    W0 (d_out, d_in)  frozen          A (r, d_in), B (d_out, r)  trained
    g  (r,)           gate, trained where a method asks for one, else absent (1)
    m  (r,)           hard mask of 0 and 1, absent (1) unless set
    s                 `Scale.at`, the only place where alpha meets a rank
    v                 path coefficient, 1 except while an allocator scores along a path

A site without gate and path runs PEFT's stock forward
pass, so the uniform arm is PEFT LoRA bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankbench.core.gated_lora import NAME, Scale, _Slot
from rankbench.core.seeding import Streams
from rankbench.core.sites import Site

OptimizerState = Callable[[nn.Parameter], dict[str, Any]]


@dataclass(frozen=True)
class Gate:
    """How a method wants its gates.

    Attributes:
        start: initial value of every entry; 0 starts at the identity.
        factors: "gaussian" (A, B ~ N(0, spread^2): the SVD form of Zhang et al. 2023), "lora" (A uniform, B = 0) or
            "normal" (A ~ N(0, spread^2), B = 0).
        spread: standard deviation of normal factors.
        learning_rate: factor on the run's learning rate.
        constant_rate: learning rate of the gates from the first step to the last, whatever the run's; None follows it.
        weight_decay: None takes the run's.
    """

    start: float
    factors: str = "gaussian"
    spread: float = 0.02
    learning_rate: float = 1.0
    constant_rate: float | None = None
    weight_decay: float | None = None


class SiteAdapter:
    """The adapter at one site. Its Parameters stay the same objects whatever their rank, so an optimizer keeps them.

    Attributes:
        layer: PEFT's LoRA layer.
        A: (r, d_in). B: (d_out, r). gate: (r,), None for methods without gates.
        roles: trained parameters with their rank axis: A, B and, where there is one, the gate.
        size: components present, live or not: r.
        live: (r,) bool on the CPU, the components that the last decision kept.
        rank: their number.
        factor: extra scale factor of this site, on top of the scale rule.
    """

    def __init__(
        self, site: Site, layer: Any, scale: Scale, gate: Gate | None, streams: Streams, rank: int, variant: bool
    ) -> None:
        self.site, self.layer = site, layer
        self._scale, self._gate_spec, self._streams = scale, gate, streams
        self.A: nn.Parameter = layer.lora_A[NAME].weight
        self.B: nn.Parameter = layer.lora_B[NAME].weight
        self.gate = None if gate is None else nn.Parameter(torch.ones(1, device=self.A.device))
        self.roles: list[tuple[nn.Parameter, int]] = [(self.A, 0), (self.B, 1)]
        if self.gate is not None:
            layer.lora_gate = self.gate
            self.roles.append((self.gate, 0))
        self.slot = layer.rankbench_slot = _Slot(0.0, self.gate)
        self._variant = variant
        if variant:
            from rankbench.core.peft_variant import SlotVariant  # PEFT takes seconds to import

            layer.lora_variant[NAME] = SlotVariant()
        self._held: list[Tensor] = []
        self.factor = 1.0
        self.draw(rank, "start")

    @property
    def scale(self) -> float:
        """The scale s, as the forward pass uses it."""
        value: float = self.layer.scaling[NAME]
        return value

    def draw(self, rank: int, name: str) -> None:
        """Fresh factors of `rank` from the site's own stream, all live, nothing masked."""
        A, B = draw_factors(self.site, rank, self._gate_spec, self._streams, name)
        gate = [torch.full((rank,), self._gate_spec.start)] if self._gate_spec else []
        self.put([A, B, *gate], torch.ones(rank, dtype=torch.bool))

    def put(self, tensors: list[Tensor], live: Tensor, masked: bool = False) -> None:
        """New values, of any rank, for the same Parameter objects: A, B and the gate."""
        device = self.A.device
        for (parameter, _), tensor in zip(self.roles, tensors, strict=True):
            parameter.data = tensor.to(device).contiguous()
        linear_A, linear_B = self.layer.lora_A[NAME], self.layer.lora_B[NAME]
        linear_A.out_features = linear_B.in_features = self.layer.r[NAME] = self.size = len(live)
        self.slot.mask, self._held = None, []
        if masked:
            self.slot.mask = live.to(device, torch.float32)
            self._held = [parameter.detach().clone() for parameter, _ in self.roles]
        self.live, self.rank = live.clone(), sum(live.tolist())
        self._refresh()

    @torch.no_grad()
    def set_factors(self, A: Tensor, B: Tensor) -> None:
        """Give the factors new values of the present rank: A (r, d_in), B (d_out, r).

        Raises:
            ValueError: they do not fit.
        """
        if A.shape != self.A.shape or B.shape != self.B.shape:
            shapes = f"{tuple(A.shape)}, {tuple(B.shape)}"
            raise ValueError(f"{self.site.name}: factors {shapes} do not fit rank {self.size}")
        self.A.copy_(A)
        self.B.copy_(B)

    def keep(self, live: Tensor) -> None:
        """Mark which components are live, (r,) bool, and update the scale."""
        before, self.live, self.rank = self.rank, live, sum(live.tolist())
        if self.rank != before:
            self._refresh()

    def _refresh(self) -> None:
        """Bring scale and activity in line with the live rank."""
        # a site whose components are all zeroed softly keeps the scale of one: at scale 0 none could ever regrow
        self.slot.scale = self.factor * self._scale.at(max(1, self.rank) if self.size else 0)
        self.layer.scaling[NAME] = self.slot.scale
        self.layer.lora_alpha[NAME] = self.slot.scale * max(1, self.size)
        self.layer._disable_adapters = self.size == 0  # a site without components costs nothing

    def set_scale_factor(self, factor: float) -> None:
        """Set this site's extra scale factor, replacing any earlier one."""
        self.factor = factor
        self._refresh()

    def weight(self) -> Tensor:
        """W0 in fp32: (d_out, d_in)."""
        from peft.utils.integrations import dequantize_module_weight
        from peft.utils.other import transpose

        base = self.layer.get_base_layer()
        weight: Tensor = dequantize_module_weight(base)
        return transpose(weight.detach(), self.layer.fan_in_fan_out).float()

    @property
    def masked(self) -> bool:
        """Whether some components are held at zero."""
        return self.slot.mask is not None

    def mask(self, keep: Tensor, state: OptimizerState) -> None:
        """Hold all components but `keep` (r,) out of the forward pass, their moments at zero."""
        kept = keep.to(self.A.device)
        for parameter, axis in self.roles:
            for moment in _moments(parameter, state).values():
                moment.mul_(_along(axis, kept, moment))
        self.put([parameter.detach().clone() for parameter, _ in self.roles], keep, masked=not bool(keep.all()))

    @torch.no_grad()
    def hold(self) -> None:
        """Put masked components back where they were: decay and momentum moved them."""
        if self.slot.mask is not None:
            kept = self.slot.mask.bool()  # on the device already
            for (parameter, axis), before in zip(self.roles, self._held, strict=True):
                parameter.copy_(torch.where(_along(axis, kept, parameter), parameter, before))

    @torch.no_grad()
    def resize(self, kept: Tensor, grow: int, stream: str, state: OptimizerState, reset: bool) -> None:
        """Keep components `kept` (indices), append `grow` fresh ones; moments and gradients are cut alike.

        Fresh components start without effect: B = 0, the gate at its start value or at 1 if that is 0.
        """
        A, B = draw_factors(self.site, grow, self._gate_spec, self._streams, stream)
        start = self._gate_spec.start if self._gate_spec and self._gate_spec.start else 1.0
        fresh = [A, torch.zeros_like(B), torch.full((grow,), start)]
        index, values, gradients = kept.to(self.A.device), [], []
        for (parameter, axis), new in zip(self.roles, fresh, strict=False):
            new = new.to(parameter.device)
            zeros = torch.zeros_like(new)
            if reset:
                state(parameter).clear()  # the step count too: the bias correction of a fresh start
            for name, moment in _moments(parameter, state).items():
                state(parameter)[name] = torch.cat([moment.index_select(axis, index), zeros], axis)
            gradient = parameter.grad
            gradients.append(None if gradient is None else torch.cat([gradient.index_select(axis, index), zeros], axis))
            parameter.grad = None
            values.append(torch.cat([parameter.index_select(axis, index), new], axis))
        live = torch.cat([self.live[kept.cpu()], torch.ones(grow, dtype=torch.bool)])
        self.put(values, live, masked=self.masked and not bool(live.all()))
        for (parameter, _), gradient in zip(self.roles, gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def refactor(self) -> None:
        """Rewrite the live part of B diag(g) A as its singular value decomposition; the update stays what it is.

        With gates: unit vectors on both sides, the values in the gate. Each new triplet takes the place of the old one
        it overlaps most (best assignment of |cos| on both sides), with its sign, so that statistics kept by component
        go on to mean the same direction. Without: values in falling order, their roots on both sides. Moments are left.
        """
        live = self.live.to(self.A.device)
        A, B = self.A[live], self.B[:, live]
        P, values, Q = _decompose(A, B if self.gate is None else B * self.gate[live])
        if not values.any():
            return  # no update yet: nothing to decompose
        if self.gate is None:
            root = values.sqrt()
            self.A[live], self.B[:, live] = Q * root[:, None], P * root
            return
        from scipy.optimize import linear_sum_assignment  # takes a moment to import

        cosine = F.normalize(B, dim=0).T @ P
        overlap = cosine.abs() * (F.normalize(A, dim=1) @ Q.T).abs()
        places = torch.as_tensor(linear_sum_assignment(-overlap.cpu().numpy())[1], device=A.device)
        sign = torch.where(cosine.gather(1, places[:, None])[:, 0] < 0, -1.0, 1.0)
        self.A[live], self.B[:, live], self.gate[live] = Q[places] * sign[:, None], P[:, places] * sign, values[places]

    def coefficients(self) -> Tensor | float:
        """What the forward pass multiplies the components by: scale, gate, mask and path; (r,), or one for all."""
        return self.slot.coefficients() * self.slot.value if self._variant else self.scale

    def folded(self) -> tuple[Tensor, Tensor]:
        """A and B of the live components, gate and mask folded into B."""
        A, B = self.A.detach()[self.live], self.B.detach()[:, self.live]
        for factor in (self.slot.gate, self.slot.mask):
            if factor is not None:
                B = B * factor.detach()[self.live]
        return A, B


def _decompose(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition of B A without forming it: left (d_out, r), values (r,) falling, right (r, d_in)."""
    left, left_core = torch.linalg.qr(B)
    right, right_core = torch.linalg.qr(A.T)
    U, values, Vh = torch.linalg.svd(left_core @ right_core.T)
    return left @ U, values, Vh @ right.T


def draw_factors(site: Site, rank: int, gate: Gate | None, streams: Streams, name: str) -> tuple[Tensor, Tensor]:
    """Initial A (rank, d_in) and B (d_out, rank) of a site, row by row from its stream.

    LoRA (Hu et al. 2022, as in PEFT): A ~ U(-1/sqrt(d_in), 1/sqrt(d_in)), B = 0.
    SVD form (Zhang et al. 2023): A, B ~ N(0, 0.02^2).
    """
    rng_A, rng_B = (streams.numpy("init", site.name, name, role) for role in "AB")
    if gate is None or gate.factors == "lora":
        bound = site.d_in**-0.5
        A, B = rng_A.uniform(-bound, bound, (rank, site.d_in)), np.zeros((rank, site.d_out))
    else:
        spread_B = gate.spread if gate.factors == "gaussian" else 0.0
        A = rng_A.standard_normal((rank, site.d_in)) * gate.spread
        B = rng_B.standard_normal((rank, site.d_out)) * spread_B
    return torch.from_numpy(A).float(), torch.from_numpy(B).float().T.contiguous()


def _moments(parameter: nn.Parameter, state: OptimizerState) -> dict[str, Tensor]:
    """The optimizer's tensors that have the parameter's shape, by name."""
    return {k: v for k, v in state(parameter).items() if isinstance(v, Tensor) and v.shape == parameter.shape}


def _along(axis: int, keep: Tensor, parameter: Tensor) -> Tensor:
    """`keep` (r,) shaped to broadcast along a parameter's rank axis: (r, 1) for A, (1, r) for B, (r,) for a gate."""
    return keep.view([-1 if dimension == axis else 1 for dimension in range(parameter.ndim)])
