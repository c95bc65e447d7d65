"""Models that would be trained or scored on something else than the run says are refused before the first step."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from support.texts import byte_tokenizer, decoder, encoder, loaded, write_classification

from rankbench.core.seeding import Streams
from rankbench.models.errors import ModelError
from rankbench.models.loading import LoadedModel
from rankbench.models.targets import find_sites
from rankbench.tasks.base import Example
from rankbench.tasks.text.reading import reading_of
from rankbench.training.model_checks import _unlike, check_model

TOKENS = {"vocab_size": 258, "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 257}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WORDS = {"vocab_size": 20, "pad_token_id": 0, "num_labels": 2, "initializer_range": 0.3}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}


def random_model(auto, name, **settings):
    with Streams(0).ambient("init"):
        return auto.from_config(transformers.AutoConfig.for_model(name, **settings)).eval().requires_grad_(False)


@pytest.fixture
def arithmetic():
    return loaded("arithmetic", train_size=8, validation_size=4, test_size=4, max_new_tokens=8)


@pytest.fixture
def rte(tmp_path):
    return loaded("glue-rte", "encoder", **write_classification(tmp_path, "glue-rte"))


def check(model, task, architecture="decoder", micro_batch_size=None, eval_batch_size=8):
    """The notes; task._scorer's tokenizer is the encoder task's own."""
    tokenizer = task._scorer._tokenizer if architecture == "encoder" else byte_tokenizer()
    sites = find_sites(model, ["all-linear"], ("classifier", "score", "logits_proj"))
    parts = LoadedModel(model, tokenizer, architecture, sites, (), {}, "")
    train = SimpleNamespace(micro_batch_size=micro_batch_size, eval_batch_size=eval_batch_size)
    return check_model(parts, task, SimpleNamespace(model=SimpleNamespace(path=None, name="MODEL"), train=train))


def test_a_plain_decoder_and_a_plain_encoder_pass_without_a_note_and_without_a_random_number(arithmetic, rte):
    before = torch.get_rng_state()
    assert check(decoder(), arithmetic) == []
    assert check(encoder(2), rte, "encoder") == []
    assert torch.equal(torch.get_rng_state(), before)


def test_a_masked_language_model_is_refused_as_a_decoder(arithmetic):
    model = random_model(transformers.AutoModelForMaskedLM, "bert", **TOKENS, **SIZES)
    with pytest.raises(ModelError, match=r"MODEL sees the future: .*; take a causal language model"):
        check(model, arithmetic)


def test_an_encoder_decoder_passes_at_any_length_and_is_refused_where_its_decoder_is_not_causal():
    settings = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "initializer_factor": 3.0}
    t5 = random_model(transformers.AutoModelForSeq2SeqLM, "t5", **TOKENS, **settings, decoder_start_token_id=256)
    task = loaded("arithmetic", train_size=8, validation_size=4, test_size=4)
    task.load(byte_tokenizer(), "encoder_decoder", Streams(0))
    assert check(t5, task, "encoder_decoder") == []
    t5.config.n_positions = 8
    (note,) = check(t5, task, "encoder_decoder")
    assert note.endswith("is above the 8 positions of MODEL, which it was trained with")
    t5.decoder.config.is_decoder = False  # no causal mask, nor causal kernels without one
    for layer in t5.decoder.block:
        layer.layer[0].SelfAttention.is_causal = False
    with pytest.raises(ModelError, match="MODEL sees the future"):
        check(t5, task, "encoder_decoder")


@pytest.mark.parametrize(
    "sizes", [[(3, 2), (3, 5), (3, 3)], [(3, 2), (8, 2), (9, 5)], [(9, 4), (3, 3), (3, 2), (7, 3)]]
)
def test_a_text_is_compared_beside_a_longer_one_with_a_longer_target(sizes):
    short, long = _unlike([Example((1,) * source, (1,) * target) for source, target in sizes])
    assert (len(short.input_ids), len(short.labels)) == (3, 2)
    assert len(long.labels) > 2


class WithTower(transformers.Qwen2ForCausalLM):
    """A decoder with layers that no text reaches, and experts of which a text reaches the first."""

    def __init__(self, config):
        super().__init__(config)
        self.tower = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))
        for layer in self.model.layers:
            layer.mlp.experts = torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(4))
            layer.mlp.register_forward_pre_hook(lambda mlp, inputs: inputs[0] + mlp.experts[0](inputs[0]))


def test_sites_that_the_loss_does_not_depend_on_are_refused_by_name(arithmetic):
    model = WithTower(decoder().config).eval()
    with pytest.raises(ModelError, match=r"the loss does not depend on 3 of the 25 sites .*model.exclude=\[tower\]"):
        check(model, arithmetic)
    del model.tower
    model.pooler = torch.nn.Linear(32, 8)
    hook = model.model.register_forward_hook(lambda module, inputs, output: (model.pooler(output[0]), None)[1])
    with pytest.raises(ModelError, match=r"the loss does not depend on 1 of the 23 sites .*model.exclude=\[pooler\]"):
        check(model, arithmetic)
    hook.remove()
    del model.pooler
    (note,) = check(model, arithmetic)
    assert note == "6 of 22 sites are experts that the first training batch does not reach"


@pytest.mark.parametrize(("rope", "way_out"), [("dynamic", "28$"), ("longrope", "28, or train.eval_batch_size=1")])
def test_positions_that_change_with_the_longest_text_of_a_batch_are_refused(rope, way_out, arithmetic):
    angles = {"type": rope, "factor": 8.0, "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    angles |= {"original_max_position_embeddings": 28, "rope_theta": 1e4}
    settings = {**TOKENS, **SIZES, "num_key_value_heads": 2, "max_position_embeddings": 28}
    model = random_model(transformers.AutoModelForCausalLM, "llama", **settings, rope_scaling=angles)
    with pytest.raises(ModelError, match=rf"rotary positions \({rope}\) change .* set task.max_length={way_out}"):
        check(model, arithmetic)
    if rope == "longrope":
        check(model, arithmetic, micro_batch_size=1, eval_batch_size=1)


def test_a_classifier_that_pools_the_last_position_is_padded_on_the_left(rte):
    settings = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "summary_type": "last"}
    model = random_model(transformers.AutoModelForSequenceClassification, "xlnet", **WORDS, **settings)
    (note,) = check(model, rte, "encoder")
    assert note.startswith("MODEL is padded on the left")
    examples = sorted(rte.splits["train"], key=lambda example: len(example.input_ids))
    whole = rte.loss(model, rte.collate(examples))
    torch.testing.assert_close(whole, sum(rte.loss(model, rte.collate([example])) for example in examples))


def test_an_encoder_that_reads_padding_on_either_side_takes_one_text_at_a_time(rte):
    class Averaging(transformers.BertForSequenceClassification):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            output.logits = output.logits + (inputs["input_ids"] == 0).float().mean()
            return output

    model = Averaging(encoder(2).config).eval()
    with pytest.raises(ModelError, match=r"whichever side is padded.*train.eval_batch_size=1"):
        check(model, rte, "encoder")
    (note,) = check(model, rte, "encoder", micro_batch_size=1, eval_batch_size=1)
    assert "only with one text per pass" in note


@pytest.mark.parametrize("limit", [28, 60])
def test_texts_beyond_the_positions_are_refused_where_the_model_has_no_more(limit, arithmetic):
    model = random_model(transformers.AutoModelForCausalLM, "gpt2", **TOKENS, **GPT2, n_positions=limit)
    longest = max(len(e.input_ids) for split in arithmetic.splits.values() for e in split)
    assert 28 < longest < 60
    if limit > longest:
        assert check(model, arithmetic) == []
        arithmetic = loaded("arithmetic", train_size=8, validation_size=4, test_size=4, max_new_tokens=50)
        with pytest.raises(ModelError, match=r"task.max_new_tokens=50 .* is above the 60 positions of MODEL: lower"):
            check(model, arithmetic)
    else:
        message = f"task.max_length={arithmetic.config.max_length} is above the 28 positions of MODEL: .*max_length=28"
        with pytest.raises(ModelError, match=message):
            check(model, arithmetic)


def test_a_token_that_the_model_has_no_embedding_for_is_named(arithmetic):
    model = random_model(transformers.AutoModelForCausalLM, "gpt2", **{**TOKENS, "vocab_size": 60}, **GPT2)
    with pytest.raises(ModelError, match=r"MODEL has embeddings for 60 tokens, and its tokenizer writes 'Ė?.*', which"):
        check(model, arithmetic)


def test_the_first_positions_of_roberta_are_no_positions(tmp_path):
    task = loaded("glue-rte", "encoder", **write_classification(tmp_path, "glue-rte"))
    longest = max(len(e.input_ids) for split in task.splits.values() for e in split)
    settings = {**WORDS, **SIZES, "pad_token_id": 1, "type_vocab_size": 2}
    for room, refused in ((longest, False), (longest - 1, True)):
        settings["max_position_embeddings"] = room + 2
        model = random_model(transformers.AutoModelForSequenceClassification, "roberta", **settings)
        if refused:
            with pytest.raises(ModelError, match=f"above the {room} positions of MODEL"):
                check(model, task, "encoder")
        else:
            check(model, task, "encoder")


def test_more_tokens_than_a_rotary_model_was_trained_with_are_noted(arithmetic):
    model = decoder()
    model.config.max_position_embeddings = 28
    (note,) = check(model, arithmetic)
    assert note.endswith("is above the 28 positions of MODEL, which it was trained with")


def test_token_types_that_the_model_lacks_are_left_out(rte):
    assert rte.splits["train"][0].segments
    model = random_model(
        transformers.AutoModelForSequenceClassification, "roberta", **WORDS, **SIZES, type_vocab_size=1
    )
    (note,) = check(model, rte, "encoder")
    assert note.startswith("MODEL has no token types")
    assert not any(example.segments for split in rte.splits.values() for example in split)


def test_how_a_decoder_can_be_read_is_settled_before_the_first_step(arithmetic):
    model = decoder()
    check(model, arithmetic)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    assert reading_of(model).cache == "cut"
    assert not passes
