"""Greedy generation: equal to that of transformers for any batch."""

import pytest
import torch
from support.texts import adapted, decoder

from rankbench.core.seeding import Streams
from rankbench.tasks.text.generation import generate

EOS, PAD = 257, 256


@pytest.fixture(scope="module")
def model():
    return decoder()


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
    generate(model, prompts, 12, [], PAD, lambda answer: len(answer) == 2, 7)
    handle.remove()
    assert calls == [7, 7]


def test_finished_rows_leave_the_batch(model, prompts):
    calls = []
    first = generate(model, prompts, 1, [], PAD, None, 7)
    handle = model.register_forward_hook(lambda module, inputs, output: calls.append(output.logits.shape[0]))
    generate(model, prompts, 2, [first[0][0]], PAD, None, 7)
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
