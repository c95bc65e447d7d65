"""What PEFT wraps and trains is what was asked for, here and in an exported adapter."""

import copy
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from support.harness import scramble
from torch import nn
from transformers import AutoModelForCausalLM, DeepseekV3Config, GPT2Config, GPT2LMHeadModel

from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Ledger
from rankbench.core.gated_lora import Scale
from rankbench.core.peft_export import export
from rankbench.core.peft_injection import InjectionError, _parameters_of_base, attach
from rankbench.core.seeding import Streams
from rankbench.core.site_adapter import Gate
from rankbench.models.targets import find_sites


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


class Towers(nn.Module):
    """A layer `block.proj`, and another `tower.block.proj` whose name ends like it; a head with a namesake too."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Part()
        self.tower = nn.ModuleDict({"block": Part()})
        self.pre_classifier = nn.Linear(6, 6)
        self.classifier = nn.Linear(6, 3)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        x = torch.tanh(self.tower["block"](torch.tanh(self.block(input_ids))))
        return SimpleNamespace(logits=self.classifier(torch.tanh(self.pre_classifier(x))))


def adapted(model: nn.Module, targets: list[str], head: tuple[str, ...] = (), gate: Gate | None = None) -> AdapterSet:
    """Ranks 1, 2, 1, ... on the sites, all factors and gates filled with random values."""
    sites = find_sites(model, targets, head)
    ranks = {site.name: 1 + index % 2 for index, site in enumerate(sites)}
    scale, ledger = Scale("fixed", 8, 2), Ledger("params", 1)
    adapters = attach(model, sites, ranks, scale=scale, streams=Streams(0), ledger=ledger, gate=gate, head=head)
    scramble(adapters)
    return adapters


def wrapped(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]


@pytest.mark.parametrize("targets", [[r"^block\.proj"], [r"^block\.proj", r"tower\.block\.proj"]])
def test_a_layer_whose_name_ends_alike_is_another_layer(tmp_path, targets):
    model, x = Towers().eval(), torch.randn(4, 6)
    plain = copy.deepcopy(model)
    adapters = adapted(model, targets)
    names = [f"base_model.model.{site.name}" for site in adapters.sites]
    assert len(names) == len(targets)
    assert wrapped(adapters.model) == names
    export(adapters, tmp_path)
    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()
    assert wrapped(loaded) == names
    assert torch.allclose(loaded(x).logits, adapters.model(x).logits, atol=1e-6)


def test_a_head_that_peft_would_widen_is_refused_by_name():
    with pytest.raises(InjectionError, match=r"model.head=\['classifier'\]: also pre_classifier; without none; .*name"):
        adapted(Towers(), [r"^block\.proj"], ("classifier",))
    adapters = adapted(Towers(), [r"^block\.proj"], ("pre_classifier", "classifier"))
    assert len(adapters.head) == 4


def test_sites_that_peft_gives_to_fused_experts_are_named():
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    experts = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 0}
    model = AutoModelForCausalLM.from_config(DeepseekV3Config(vocab_size=8, **shape, **experts, num_experts_per_tok=2))
    with pytest.raises(InjectionError, match=r"without model.layers.0.mlp.shared_experts.down_proj; also .*experts"):
        adapted(model, ["o_proj", "shared_experts.down_proj"])


@pytest.mark.filterwarnings("error", "ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("gate", [None, Gate(start=0.0)])
def test_export_of_conv1d_layers_gives_the_same_logits_in_plain_peft(tmp_path, gate):
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    with Streams(0).ambient("init", "base"):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=40, bos_token_id=1, eos_token_id=2, **shape)).eval()
    plain, ids = copy.deepcopy(model), torch.arange(24).view(2, 12)
    adapters = adapted(model, ["all-linear"], gate=gate)
    export(adapters, tmp_path)
    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()
    logits = adapters.model(ids).logits
    assert torch.allclose(loaded(ids).logits, logits, atol=1e-5)
    merged = loaded.merge_and_unload()
    assert torch.allclose(merged(ids).logits, logits, atol=1e-5)


def test_a_site_whose_name_ends_like_the_head_s_is_refused_by_name():
    with pytest.raises(InjectionError, match=r"would train pre_classifier in full.*model.head=\['classifier'\]"):
        adapted(Towers(), ["all-linear"], head=("classifier",))


def test_biases_are_trained_whatever_they_are_called_and_packed_weights_never():
    model = Towers()
    model.block.register_parameter("q_bias", nn.Parameter(torch.zeros(6)))
    assert any(parameter is model.block.q_bias for parameter in _parameters_of_base(model, (), "biases"))
    model.is_quantized = True  # as GPTQ's are, whose weights are buffers
    with pytest.raises(InjectionError, match="a quantised base model cannot be trained itself"):
        _parameters_of_base(model, (), "base")
