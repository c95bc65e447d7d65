"""Greedy generation: equal to that of transformers for any batch."""

import pytest
import torch
import transformers
from support.texts import adapted, byte_tokenizer, decoder

from rankbench.core.seeding import Streams
from rankbench.tasks.base import IGNORE
from rankbench.tasks.text.decoder import Decoder
from rankbench.tasks.text.encoder_decoder import EncoderDecoder, apart
from rankbench.tasks.text.generation import generate
from rankbench.tasks.text.language_model import evaluate_losses, losses_and_answers
from rankbench.tasks.text.reading import keeps_every_token, reading_of

EOS, PAD = 257, 256


@pytest.fixture(scope="module")
def model():
    model = decoder()
    reading_of(model)
    return model


@pytest.fixture(scope="module")
def prompts():
    rng = Streams(0).numpy("task")
    return [rng.integers(0, 256, length).tolist() for length in (5, 17, 1, 9, 30, 9, 2)]


def reference(model, prompt, new, eos=EOS):
    """transformers' generate() on one prompt, without the end token."""
    ids = torch.tensor([prompt])
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new,
        eos_token_id=eos,
        pad_token_id=PAD,
    )[0, len(prompt) :].tolist()
    return made[:-1] if made and made[-1] == eos else made


def test_equals_transformers_on_unequal_prompts(model, prompts):
    expected = [reference(model, prompt, 12) for prompt in prompts]
    assert len({tuple(answer) for answer in expected}) > 3  # the model says different things
    for batch_size in (1, 3, len(prompts)):
        assert generate(model, prompts, 12, [EOS], PAD, None, batch_size) == expected


def test_ends_at_an_end_token_and_others_of_the_batch_go_on(model, prompts):
    free = generate(model, prompts, 12, [], PAD, None, 7)
    eos = free[0][3]
    expected = [reference(model, prompt, 12, eos) for prompt in prompts]
    assert {len(answer) for answer in expected} > {12}  # some end early, some do not
    assert generate(model, prompts, 12, [eos], PAD, None, 7) == expected


def test_stop_ends_one_row_after_the_token_that_completes_it(model, prompts):
    free = generate(model, prompts, 12, [], PAD, None, 7)
    limits = [index % 3 + 2 for index in range(len(prompts))]
    by_answer = {tuple(answer[:limit]) for answer, limit in zip(free, limits, strict=True)}
    stopped = generate(model, prompts, 12, [], PAD, lambda answer: tuple(answer) in by_answer, 7)
    assert all(answer == full[: len(answer)] for answer, full in zip(stopped, free, strict=True))
    assert all(len(answer) <= limit for answer, limit in zip(stopped, limits, strict=True))


def test_no_forward_pass_after_all_answers_are_complete(model, prompts):
    calls = []
    handle = model.register_forward_hook(lambda module, inputs, output: calls.append(output.logits.shape[0]))
    generate(model, prompts, 12, [], PAD, lambda answer: len(answer) == 2, 8)
    handle.remove()
    assert calls == [4, 3, 7]


def test_prompts_join_the_rows_that_are_not_answered_yet(model, prompts):
    lengths = [12, 1, 3, 2, 1, 5, 2]  # of the answers, longest prompt first
    free = generate(model, prompts, 12, [], PAD, None, 1)
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    expected = {index: free[index][:length] for index, length in zip(order, lengths, strict=True)}
    done = set(map(tuple, expected.values()))
    calls = []
    handle = model.register_forward_hook(lambda module, inputs, output: calls.append(output.logits.shape[0]))
    answers = generate(model, prompts, 12, [], PAD, lambda answer: tuple(answer) in done, 4)
    handle.remove()
    assert answers == [expected[index] for index in range(len(prompts))]
    # two read; one is done and two join; three go on until there is room for two more, and so on
    assert calls == [2, 2, 3, 2, 3, 1, 3, 2, 2, *[1] * 6]


def test_the_output_layer_multiplies_no_view(model, prompts):
    """A slice of the last position is one, and its product takes several times as long on a CPU."""
    inputs = []
    handle = model.lm_head.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    generate(model, prompts, 2, [], PAD, None, 14)
    handle.remove()
    assert [(of_pass.shape[1], of_pass.is_contiguous()) for of_pass in inputs] == [(1, True), (1, True)]


def test_finished_rows_leave_the_batch(model, prompts):
    calls = []
    first = generate(model, prompts, 1, [], PAD, None, 7)
    handle = model.register_forward_hook(lambda module, inputs, output: calls.append(output.logits.shape[0]))
    generate(model, prompts, 2, [first[0][0]], PAD, None, 14)
    handle.remove()
    assert calls[0] == 7
    assert calls[1] < 7


def test_works_inside_peft_and_leaves_the_model_as_it_was(model, prompts):
    expected = generate(decoder(), prompts, 6, [EOS], PAD, None, 4)
    wrapped = adapted(decoder())
    assert generate(wrapped, prompts, 6, [EOS], PAD, None, 4) == expected
    assert not wrapped.training


def test_nothing_to_generate(model):
    assert generate(model, [], 5, [EOS], PAD, None, 4) == []


TOKENS = {"vocab_size": 258, "pad_token_id": PAD, "bos_token_id": EOS, "eos_token_id": EOS}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
BART_DECODER = {
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "init_std": 0.3,
}
BART = {**BART_DECODER, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "initializer_factor": 3.0}
START = {"decoder_start_token_id": EOS, "forced_eos_token_id": None}


def random_model(name, **settings):
    """A tiny model with random weights, in evaluation mode."""
    config = transformers.AutoConfig.for_model(name, **TOKENS, **settings)
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    with Streams(0).ambient("init"):
        return auto.from_config(config).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "settings", "padding", "cache"),
    [
        ("gpt2", GPT2, "left", "cut"),
        ("bart", {**BART_DECODER, "is_encoder_decoder": False, "forced_eos_token_id": None}, None, "cut"),
        ("lfm2", {**SIZES, **ATTENTION, "layer_types": ["conv", "full_attention"]}, "left", "kept"),
        ("mamba", {**SIZES, "state_size": 8}, "left", "kept"),
        ("rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}, "right", None),
    ],
)
def test_every_kind_of_cache_and_padding_answers_as_transformers_does(name, settings, padding, cache, prompts):
    model = random_model(name, **settings)
    reading = reading_of(model)
    assert (reading.causal, reading.padding, reading.cache) == (True, padding, cache)
    free = [reference(model, prompt, 8) for prompt in prompts]
    eos = free[0][3]
    expected = [reference(model, prompt, 8, eos) for prompt in prompts]
    assert {len(answer) for answer in expected} > {8}
    assert Decoder(PAD).generate(model, prompts, 8, [eos], None, 4) == expected


@pytest.mark.parametrize(
    ("name", "settings", "once"),
    [
        ("qwen2", {**SIZES, **ATTENTION}, True),
        ("gpt2", GPT2, True),
        ("mistral", {**SIZES, **ATTENTION, "sliding_window": 8}, False),
        ("lfm2", {**SIZES, **ATTENTION, "layer_types": ["conv", "full_attention"]}, False),
        ("mamba", {**SIZES, "state_size": 8}, False),
    ],
)
def test_a_prompt_is_read_once_for_loss_and_answer_where_the_cache_can_be_cut(name, settings, once, prompts):
    model, decoder = random_model(name, **settings), Decoder(PAD)
    targets = [tuple(prompt[: 2 + index % 5]) for index, prompt in enumerate(reversed(prompts))]
    examples = [decoder.example(tuple(prompt), target, {}) for prompt, target in zip(prompts, targets, strict=True)]
    asked = [tuple(prompt) for prompt in prompts]
    expected = evaluate_losses(decoder, model, examples, 3), decoder.generate(model, asked[:5], 8, [EOS], None, 3)
    assert keeps_every_token(model) is once
    tokens = []
    handle = model.register_forward_hook(
        lambda module, inputs, named, output: tokens.append(named["input_ids"].shape), with_kwargs=True
    )
    with torch.no_grad():
        losses, answers = losses_and_answers(decoder, model, examples, 5, 8, [EOS], None, 6)
    handle.remove()
    assert losses == pytest.approx(expected[0], rel=1e-5)
    assert answers == expected[1]
    assert len(set(map(tuple, answers))) > 2
    rows = [shape[0] for shape in tokens if shape[1] > 1]
    assert (rows == [3, 2, 2]) is once  # the last two are not answered


def test_prompts_read_in_several_passes_go_on_together(model, prompts, monkeypatch):
    monkeypatch.setattr("rankbench.tasks.text.decoder.CACHED", 40)
    decoder, asked = Decoder(PAD), [tuple(prompt) for prompt in prompts]
    targets = [prompt[: 1 + index % 3] for index, prompt in enumerate(reversed(asked))]
    examples = [decoder.example(*pair, {}) for pair in zip(asked, targets, strict=True)]
    rows = []
    handle = model.register_forward_hook(lambda module, inputs, output: rows.append(len(output.logits)))
    losses, answers = decoder.losses_and_answers(model, asked, targets, 8, [EOS], None, 14)
    handle.remove()
    assert (len(rows), rows[4:]) == (11, [7] * 7)  # four passes of two rows or one, then seven tokens of all rows
    assert losses == pytest.approx(evaluate_losses(decoder, model, examples, 3), rel=1e-5)
    assert answers == decoder.generate(model, asked, 8, [EOS], None, 7)


@pytest.mark.parametrize(("name", "settings"), [("t5", {**T5, **START}), ("bart", {**BART, **START})])
def test_an_encoder_decoder_is_trained_scored_and_read_as_transformers_does(name, settings, prompts):
    model = random_model(name, **settings)
    language_model = EncoderDecoder.of(byte_tokenizer())
    prompts = [tuple(prompt) for prompt in prompts]
    targets = [prompt[: 1 + index % 3] for index, prompt in enumerate(reversed(prompts))]
    examples = [language_model.example(*pair, {}) for pair in zip(prompts, targets, strict=True)]
    assert all(example.labels[-1] == EOS for example in examples)
    labels = [torch.tensor([example.labels]) for example in examples]
    means = [model(torch.tensor([p]), labels=of_one).loss for p, of_one in zip(prompts, labels, strict=True)]
    expected = [float(mean) * of_one.numel() for mean, of_one in zip(means, labels, strict=True)]
    losses = evaluate_losses(language_model, model, examples, 3)
    assert losses == pytest.approx(expected, rel=1e-5)
    scores = language_model.option_scores(model, prompts, [targets] * len(prompts), 3)
    assert [-row[index] for index, row in enumerate(scores)] == pytest.approx(expected, rel=1e-5)
    batch = language_model.collate(examples)
    assert language_model.units(batch) == int((batch["labels"] != IGNORE).sum()) == sum(map(len, targets)) + 7

    def answer(prompt):
        answer = model.generate(torch.tensor([prompt]), do_sample=False, num_beams=1, max_new_tokens=8)[0, 1:].tolist()
        return answer[:-1] if answer[-1] == EOS else answer

    answers = [answer(prompt) for prompt in prompts]
    assert language_model.generate(model, prompts, 8, [EOS], None, 3) == answers
    assert len(set(map(tuple, answers))) > 2


def test_a_model_that_sees_the_future_is_no_causal_one():
    assert not reading_of(random_model("xlnet", d_model=32, n_layer=2, n_head=4, d_inner=64)).causal


def test_source_and_target_of_a_batch_can_be_told_apart_by_their_lengths():
    model = random_model("t5", **T5, **START)
    language_model = EncoderDecoder.of(byte_tokenizer())
    batch = language_model.collate(
        [language_model.example((1, 2, 3), (4, 5), {}), language_model.example((1,), (4,), {})]
    )
    assert batch["labels"].shape == batch["input_ids"].shape
    same, (source, target) = apart(model, batch)
    assert [mask.sum(1).tolist() for mask in (source, target)] == [[3, 1], [3, 2]]
    assert target.shape == (2, 4)
    torch.testing.assert_close(language_model.losses(model, same), language_model.losses(model, batch))
    _, masks = apart(decoder(), batch)
    assert len(masks) == 1
