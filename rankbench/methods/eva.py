"""EVA: ranks and A from the singular vectors of each site's inputs, computed by PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import Allocator, MethodError, Probe, RunContext

PREFIX = "base_model.model."


class EVAConfig(Settings):
    """Settings of EVA.

    Attributes:
        use: the ranks, the initialisation of A, or both.
        batches: calibration mini-batches, taken in turn until the vectors converge.
        rho: largest rank over the budget's reference rank; unused with use=init, where all sites have the same.
        tau: cosine similarity of successive vectors that counts as converged.
        whiten: divide each vector by the root of its singular value.
        label_mask: leave out tokens without a label, where labels are per token.
        most_passes: forward passes after which the search for vectors is given up.
    """

    use: Literal["both", "ranks", "init"]
    batches: int = Field(ge=1)
    rho: float = Field(ge=1)
    tau: float = Field(gt=0, lt=1)
    whiten: bool
    label_mask: bool
    most_passes: int = Field(ge=2)


@register("method", "eva")
class EVA(Allocator[EVAConfig]):
    """The budget goes to the directions of the inputs that explain most of their variance, all sites together."""

    needs = frozenset({"probe_forward"})
    source = "Paischer et al. 2025 (arXiv 2410.07170); peft 0.21"
    deviations = (
        "Each micro-batch is one update of the decomposition.",
        "Scale: the run's scale rule; the fixed one is EVA's own (adjust_scaling_factors).",
    )
    summary = "ranks and initial A from the spectrum of the inputs"
    decides = "before training"
    signal = "explained variance of the site's inputs"

    @classmethod
    def deviations_of(cls, config: EVAConfig) -> tuple[str, ...]:
        """Where PEFT is left: at any settings, and at these."""
        ranks = "PEFT's ranks are shares of the budget where budget.unit=params and sites cost unequally."
        rows = "Rows of A beyond PEFT's (where the budget gives a site more ranks) are drawn as for every method."
        used = {"both": (ranks, rows), "ranks": (ranks,), "init": ()}[config.use]
        batches = f"{config.batches} mini-batches are taken in turn; the paper goes through the training set."
        return (*cls.deviations, *used, batches)

    @classmethod
    def passes_of(cls, config: EVAConfig) -> str:
        """The data decide how many."""
        return f"forward until the vectors converge, {config.most_passes} at the most"

    def __init__(self, config: EVAConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self.static = config.use == "init"

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks until the calibration is done."""
        return self.context.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Let PEFT find the vectors; begin at its ranks, with its vectors as first rows of A."""
        vectors = self.vectors(adapters, probe)
        if self.config.use != "init":
            shares = {name: float(len(rows)) for name, rows in vectors.items()}
            adapters.restart(self.context.budget.allocate(shares), "explained variance", draw="start")
        if self.config.use != "ranks":
            for name, rows in vectors.items():
                A, B = (factor.detach().clone() for factor in adapters.factors(name))
                count = min(len(A), len(rows))
                A[:count] = rows[:count]
                adapters.set_factors(name, A, B)

    def vectors(self, adapters: AdapterSet, probe: Probe) -> dict[str, Tensor]:
        """PEFT's vectors, best first: site name -> (rank, d_in), rank >= 0.

        Raises:
            MethodError: the input of a site is not one vector per token, or the vectors have not converged after
                `most_passes` passes.
        """
        from peft import EvaConfig, LoraConfig  # takes seconds to import
        from peft.tuners.lora import eva

        config, rank = self.config, self.context.budget.reference_rank
        widest = min(site.d_in for site in self.context.sites) / rank
        settings = EvaConfig(
            rho=1.0 if config.use == "init" else max(1.0, min(config.rho, widest)),
            tau=config.tau,
            use_label_mask=config.label_mask,
            whiten=config.whiten,
        )
        passes, site_inputs = 0, SiteInputs()

        def forward(model: Any, inputs: dict[str, Tensor]) -> None:
            nonlocal passes
            passes += 1
            if passes > config.most_passes:
                raise MethodError(
                    f"EVA's vectors have not converged after {config.most_passes} passes: raise method.most_passes or "
                    "train.batch_size (each pass needs more tokens than a site may get ranks), or lower method.tau"
                )
            site_inputs.tokens = tuple(inputs["input_ids"].shape)
            model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            if passes == 1:  # PEFT looks at the inputs of all sites before it decomposes any
                site_inputs.check([site.name for site in self.context.sites])

        micros = [micro for batch in probe.batches(config.batches) for micro in probe.inputs(batch)]
        two = getattr(getattr(adapters.model, "config", None), "is_encoder_decoder", False)
        if two and micros[0]["labels"].dim() > 1:
            raise MethodError(
                "method=eva takes one text per example, as PEFT's search for vectors does; an encoder-decoder reads "
                "two: take another method"
            )
        vectors: dict[str, Tensor] = eva.get_eva_state_dict(
            adapters.model,
            [per_token(micro) for micro in micros],
            LoraConfig(r=rank, init_lora_weights="eva", eva_config=settings),
            forward_fn=forward,
            prepare_layer_inputs_fn=site_inputs.prepare,
            gather_distributed_inputs=False,
            show_progress_bar=False,
        )
        return {site.name: vectors[PREFIX + site.name] for site in self.context.sites}


class SiteInputs:
    """What PEFT is given of the sites' inputs: the vectors of the tokens that count.

    Attributes:
        tokens: (batch, length) of the pass that is being made.
        shapes: site name -> shape of its input, as last seen.
    """

    def __init__(self) -> None:
        self.tokens: tuple[int, ...] = ()
        self.shapes: dict[str, tuple[int, ...]] = {}

    def prepare(self, layer_input: Any, indices: Tensor, name: str) -> Tensor:
        """The vectors at `indices` (n, 2) of an input (batch, length, d_in): (n, d_in); any other input as it is."""
        x: Tensor = layer_input if isinstance(layer_input, Tensor) else layer_input[0]
        self.shapes[name.removeprefix(PREFIX)] = tuple(x.shape)
        return x[indices.T.unbind()] if x.shape[:-1] == self.tokens else x.contiguous()

    def check(self, sites: Sequence[str]) -> None:
        """Refuse sites whose input is not one vector per token.

        Raises:
            MethodError: with the names of the sites, and the way out.
        """
        odd = [
            f"{name} reads {self.shapes[name]}" if name in self.shapes else f"{name} is not reached"
            for name in sites
            if self.shapes.get(name, ())[:-1] != self.tokens
        ]
        if odd:
            tokens, more = " x ".join(map(str, self.tokens)), f" and {len(odd) - 5} more sites" if len(odd) > 5 else ""
            raise MethodError(
                f"method eva needs one input vector for each token at every site, but in a batch of {tokens} tokens "
                f"{', '.join(odd[:5])}{more}: leave these sites out of model.targets"
            )


def per_token(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that have one value per token: PEFT takes any labels for labels of tokens."""
    return {key: value for key, value in inputs.items() if value.shape == inputs["input_ids"].shape}
