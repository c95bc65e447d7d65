"""What is adapted of models of many architectures: sites, what all-linear leaves out, and that PEFT does the same."""

import re

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from support.architectures import CONFIGS, HEADS
from support.toys import ToyTask, rig, toy_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankbench.models.errors import ModelError
from rankbench.models.targets import find_sites, left_out

LANGUAGE = {
    "gpt2": transformers.AutoModelForCausalLM,
    "opt": transformers.AutoModelForCausalLM,
    "bart": transformers.AutoModelForSeq2SeqLM,
    "t5": transformers.AutoModelForSeq2SeqLM,
}


def decoder(name: str) -> nn.Module:
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]())


def classifier(name: str) -> nn.Module:
    return transformers.AutoModelForSequenceClassification.from_config(CONFIGS[name]())


def wrapped_by_peft(model: nn.Module, **settings) -> set[str]:
    """Names of the layers that PEFT's own all-linear adapts."""
    config = LoraConfig(target_modules="all-linear", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)
        adapted = get_peft_model(model, config)
    names = [name for name, module in adapted.named_modules() if isinstance(module, LoraLayer)]
    return {name.removeprefix("base_model.model.") for name in names}


@pytest.mark.parametrize("name", LANGUAGE)
def test_all_linear_of_a_language_model_is_peft_s(name):
    model = LANGUAGE[name].from_config(CONFIGS[name]())
    sites = find_sites(model, ["all-linear"])
    assert left_out(model, sites) is None
    assert {site.name for site in sites} == wrapped_by_peft(model)


@pytest.mark.parametrize("name", HEADS)
def test_all_linear_of_a_classifier_is_peft_s(name):
    model = classifier(name)
    sites = find_sites(model, ["all-linear"], HEADS[name])
    assert left_out(model, sites, HEADS[name]) is None
    assert {site.name for site in sites} == wrapped_by_peft(
        model, task_type="SEQ_CLS", modules_to_save=list(HEADS[name])
    )


def test_a_conv1d_has_its_two_dimensions_the_right_way_round():
    c_fc = find_sites(decoder("gpt2"), ["c_fc"])[0]
    assert (c_fc.name, c_fc.kind, c_fc.d_out, c_fc.d_in) == ("transformer.h.0.mlp.c_fc", "mlp.c_fc", 64, 16)


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("mixtral", {"q_proj", "k_proj", "v_proj", "o_proj"}, r"adapts 18.0% .*mlp.experts.gate_up_proj \(2 of shape"),
        (
            "qwen2_moe",
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
            r"mlp.experts.down_proj .*mlp.shared_expert_gate \(2 of shape \(1, 16\)\)",
        ),
        (
            "deepseek_v3",
            {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
            r"mlp.down_proj \(1 of .*mlp.shared_experts.gate_proj",
        ),
        (
            "llama4_text",
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
            r"feed_forward.experts.down_proj .*feed_forward.router \(2 of shape \(4, 16\)\)",
        ),
        ("mamba", {"in_proj", "x_proj"}, r"mixer.dt_proj \(2 of .*mixer.out_proj \(2 of"),
    ],
)
def test_what_all_linear_does_not_reach_is_said_by_name(name, kinds, words):
    model = decoder(name)
    sites = find_sites(model, ["all-linear"])
    assert {site.name.rpartition(".")[2] for site in sites} == kinds
    sentence = left_out(model, sites)
    assert sentence
    assert re.search(words, sentence), sentence


def test_excluded_layers_and_modules_are_not_adapted():
    model = decoder("gpt2")
    kinds = {site.kind for site in find_sites(model, ["all-linear"], exclude=[r"mlp\.c_proj", r"h\.0"])}
    assert kinds == {"attn.c_attn", "attn.c_proj", "mlp.c_fc"}
    assert {site.layer for site in find_sites(model, ["all-linear"], exclude=["h.0"])} == {1}
    with pytest.raises(ModelError, match=r"model.exclude: 'fc' matches no linear layer .*mlp.c_fc"):
        find_sites(model, ["all-linear"], exclude=["fc"])
    with pytest.raises(ModelError, match=r"model.exclude: '\(' is no regular expression"):
        find_sites(model, ["all-linear"], exclude=["("])
    with pytest.raises(ModelError, match=r"leaves no matrix of full rank 2"):
        find_sites(model, ["c_fc"], exclude=["mlp"])


def test_model_without_linear_layers():
    with pytest.raises(ModelError, match=r"Sequential has no linear layer .* take another model"):
        find_sites(nn.Sequential(nn.Embedding(2, 2)), ["all-linear"])


def transposed(model: nn.Module) -> nn.Module:
    """The model with every layer of its blocks as a Conv1D of the same weight."""
    for block in model.layers:
        for name, linear in list(block.named_children()):
            layer = Conv1D(linear.out_features, linear.in_features)
            layer.weight.data = linear.weight.data.T.contiguous()
            setattr(block, name, layer)
    return model


METHODS = ["adalora", "eva", "fim", "gora", "igu", "l1ra", "para", "sensitivity", "stable_rank"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_does_the_same_on_conv1d_as_on_linear_layers(method):
    """What it reads of weights, gradients and inputs is the site's; so is the forward pass with gates, along a path."""
    linear = toy_model()
    task = ToyTask(linear, find_sites(linear, ["all-linear"], ("score",)))
    one = rig(method, steps=12, model=linear, task=task).run()
    two = rig(method, steps=12, model=transposed(toy_model()), task=task).run()
    assert two.adapters.ranks() == one.adapters.ranks()
    torch.testing.assert_close(two.logits(), one.logits(), rtol=1e-4, atol=1e-5)
