"""The pocket decoder: what model=pocket loads, and that its pretraining is a function of the seed."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from pocket import pretrain

from rankbench.core.seeding import Streams
from rankbench.models.loading import load

CONF = Path(__file__).parents[2] / "conf" / "model" / "pocket.yaml"
SMALL = {
    "vocab_size": 272,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
}
TEXTS = pretrain.sums(8, "train", 0)


@pytest.fixture(scope="module")
def pocket():
    return load(OmegaConf.load(CONF), None, None, Streams(0))


def test_it_has_five_million_parameters_and_seven_kinds_of_site_in_six_layers(pocket):
    assert sum(parameter.numel() for parameter in pocket.model.parameters()) == 5_401_856
    kinds = {site.kind for site in pocket.sites}
    assert len(pocket.sites) == 42
    assert len(kinds) == 7
    assert {parameter.dtype for parameter in pocket.model.parameters()} == {torch.float32}


def test_its_tokens_spell_any_text_and_every_digit_is_one(pocket):
    tokenizer = pocket.tokenizer
    text = "Anna has 120 apples, 35 % more than 88 — ĉu ne?\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer("1234567890").input_ids) == 10
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0


def test_it_has_learned_english_and_sums(pocket):
    def loss(text: str) -> float:
        ids = torch.tensor([pocket.tokenizer(text).input_ids])
        return float(pocket.model(input_ids=ids, labels=ids).loss.detach())

    assert loss("The city is the capital of the state and one of the largest in the country.") < 5  # chance: 8.3
    assert loss("\n".join(["12 + 45 - 30 = 27", "72 + 12 = 84", "90 - 12 = 78"])) < 3


def train(steps: int, **options):
    tokenizer = pretrain.make_tokenizer(TEXTS, SMALL["vocab_size"])
    recipe = pretrain.Recipe(steps, length=16, rows=2, warmup=1, evaluate_every=1)
    return pretrain.pretrain(tokenizer, TEXTS, {"sums": TEXTS[:2]}, recipe, SMALL, **options)


def test_pretraining_again_or_from_a_checkpoint_gives_the_same_weights(tmp_path):
    model, curve = train(3, checkpoints=tmp_path)
    for options in ({}, {"resume": tmp_path / "step1.pt"}):
        other, same_curve = train(3, **options)
        assert same_curve == curve
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert [row["step"] for row in curve] == [1, 2, 3]
    assert curve[-1]["sums"] < curve[0]["sums"]


def test_passages_hold_no_answer_and_come_once(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text(
        '{"question": "is it red", "passage": "It is red.", "answer": true}\n'
        '{"question": "is it blue", "passage": "It is red.", "answer": false}\n'
    )
    assert pretrain.passages(file) == ["It is red.\nis it red?\nis it blue?"]
