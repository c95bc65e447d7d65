"""All tasks: their settings, and the loss of a decoder at target positions."""

import pytest
import torch
from support.texts import (
    CONF,
    adapted,
    decoder,
    loaded,
    settings,
    write_gsm8k,
)

from rankbench.config import registry
from rankbench.tasks.text import decoder as decoder_tasks
from rankbench.tasks.text.tokens import length_groups, scoring_groups

NAMES = sorted(file.stem for file in CONF.glob("*.yaml") if file.stem not in ("planted", "text"))  # text needs a file


@pytest.fixture(scope="module")
def model():
    return decoder()


@pytest.fixture
def gsm8k(tmp_path):
    return write_gsm8k(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_conform_to_the_schema(name):
    cls = registry.get("task", name)
    section = settings(name)
    assert isinstance(section, cls.Config)
    assert section.name == name
    assert cls.source


def test_hub_revisions_are_commits():
    for name in NAMES:
        revision = getattr(settings(name), "revision", "0" * 40)
        assert len(revision) == 40


def test_loss_sums_over_target_tokens_alone(gsm8k, model):
    made = loaded("gsm8k", **gsm8k)
    examples = made.splits["train"]
    batch = made.collate(examples)
    expected, count = 0.0, 0
    for example in examples:
        logits = model(torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
        for position in range(example.prompt_length, len(example.input_ids)):
            expected -= float(logits[position - 1, example.input_ids[position]])
            count += 1
    loss = made.loss(model, batch)
    assert loss.dtype == torch.float32
    assert made.units(batch) == count
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_only_target_positions_reach_the_output_layer(gsm8k, model):
    made = loaded("gsm8k", **gsm8k)
    batch = made.collate(made.splits["train"])
    for net in (model, adapted(decoder())):
        seen = []
        head = net.get_output_embeddings() if net is model else net.base_model.model.lm_head
        handle = head.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.shape))
        made.loss(net, batch)
        handle.remove()
        assert seen == [(made.units(batch), 258)]


def test_an_architecture_without_logits_to_keep_gives_the_same(gsm8k, model):
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input_ids, attention_mask, use_cache):
            return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    made = loaded("gsm8k", **gsm8k)
    batch = made.collate(made.splits["train"])
    torch.testing.assert_close(made.loss(Whole(), batch), made.loss(model, batch))


def test_adapted_model_gets_gradients_from_the_loss(gsm8k):
    made = loaded("gsm8k", **gsm8k)
    net = adapted(decoder())
    made.loss(net, made.collate(made.splits["train"])).backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_batches_of_like_length_keep_to_both_limits():
    lengths = [3, 10, 4, 9, 1, 2]
    assert list(length_groups(lengths, 2)) == [[1, 3], [2, 0], [5, 4]]
    assert list(length_groups(lengths, 3, tokens=12)) == [[1], [3], [2, 0, 5], [4]]
    assert list(length_groups([], 3)) == []


def test_a_cpu_scores_few_tokens_at_a_time_and_a_gpu_whole_batches():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [len(group) for group in scoring_groups([100] * 40, 20, cpu)] == [10] * 4
    assert [len(group) for group in scoring_groups([100] * 40, 20, gpu)] == [20, 20]
    assert [len(group) for group in scoring_groups([100] * 40, 20, gpu, 1500)] == [15, 15, 10]
    assert [len(group) for group in scoring_groups([100] * 8, 20, cpu, 400)] == [4, 4]
    assert list(scoring_groups([2000, 3], 20, cpu)) == [[0], [1]]


def test_many_positions_are_summed_in_parts(gsm8k, model, monkeypatch):
    made = loaded("gsm8k", **gsm8k)
    batch = made.collate(made.splits["train"])
    whole = made.loss(model, batch)
    monkeypatch.setattr(decoder_tasks, "ROWS", 7)
    torch.testing.assert_close(made.loss(model, batch), whole)
