"""PEFT's own search for EVA's vectors: mini-batches in turn, until the vectors of all sites converge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import MethodError, Probe

PREFIX = "base_model.model."


def search(adapters: AdapterSet, probe: Probe, config: Any, rank: int, rho: float) -> dict[str, Tensor]:
    """PEFT's vectors, best first: site name -> (rank, d_in), rank >= 0.

    Args:
        config: EVAConfig.
        rank: mean rank of the sites.
        rho: largest rank over the mean rank.

    Raises:
        MethodError: the input of a site is not one vector per token, or the vectors have not converged after
            `most_passes` passes.
    """
    from peft import EvaConfig, LoraConfig  # takes seconds to import
    from peft.tuners.lora import eva

    settings = EvaConfig(rho=rho, tau=config.tau, use_label_mask=config.label_mask, whiten=config.whiten)
    passes, site_inputs, sites = 0, SiteInputs(), [site.name for site in adapters.sites]

    def forward(model: Any, inputs: dict[str, Tensor]) -> None:
        nonlocal passes
        passes += 1
        if passes > config.most_passes:
            raise MethodError(
                f"EVA's vectors have not converged after {config.most_passes} passes: raise method.most_passes or "
                "train.batch_size (each pass needs more tokens than a site may get ranks), lower method.tau, or set "
                "method.search=exact"
            )
        site_inputs.tokens = tuple(inputs["input_ids"].shape)
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        if passes == 1:  # PEFT looks at the inputs of all sites before it decomposes any
            site_inputs.check(sites)

    micros = [micro for batch in probe.batches(config.batches) for micro in probe.inputs(batch)]
    two = getattr(getattr(adapters.model, "config", None), "is_encoder_decoder", False)
    if two and micros[0]["labels"].dim() > 1:
        raise MethodError(
            "method.search=peft takes one text per example, as PEFT's search for vectors does, but an encoder-decoder "
            "reads two: set method.search=exact"
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
    return {site: vectors[PREFIX + site] for site in sites}


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
                "method.search=peft needs one input vector for each token at every site, but in a batch of "
                f"{tokens} tokens {', '.join(odd[:5])}{more}: leave these sites out of model.targets, "
                "or set method.search=exact"
            )


def per_token(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that have one value per token: PEFT takes any labels for labels of tokens."""
    return {key: value for key, value in inputs.items() if value.shape == inputs["input_ids"].shape}
