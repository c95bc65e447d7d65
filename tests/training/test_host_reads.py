"""How often a step makes the host wait for a device: as often at two layers as at one, whatever the method."""

import pytest
import torch
from host_reads import HostReads
from support.toys import Rig, rig
from transformers import LlamaConfig, LlamaForCausalLM

from rankbench.tasks.base import Evaluation, Example, Task
from rankbench.tasks.text.decoder import Decoder

LENGTH, STEPS = 6, 8


class Sentences(Task):
    """Random tokens in rows of one length, with targets of one to three tokens."""

    source = "generated"

    def __init__(self):
        super().__init__(None)
        self.language_model = Decoder(pad_id=0)
        rows = torch.randint(1, 32, (24, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
        cuts = [LENGTH - 1 - index % 3 for index in range(len(rows))]
        pairs = zip(rows, cuts, strict=True)
        train = [self.language_model.example(tuple(row[:cut]), tuple(row[cut:]), {}) for row, cut in pairs]
        self.splits, self.revision = {"train": train}, {}

    def num_labels(self) -> None:
        return None

    def load(self, tokenizer, architecture, streams) -> None:
        raise NotImplementedError

    def collate(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        return self.language_model.collate(examples)

    def units(self, batch) -> int:
        return self.language_model.units(batch)

    def loss(self, model, batch) -> torch.Tensor:
        return self.language_model.losses(model, batch).sum()

    def evaluate(self, model, examples, batch_size) -> Evaluation:
        raise NotImplementedError


def small(method: str, layers: int, **settings) -> Rig:
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 32}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, attn_implementation="sdpa", **shape))
    return rig(method, model=model, task=Sentences(), steps=STEPS, train={"batch_size": 4}, **settings)


def reads_of_steps(run: Rig) -> list[int]:
    """Waits in each step of a run."""
    counts = []
    with HostReads(run.engine.model) as counter:
        for index in range(1, STEPS + 1):
            before = counter.reads.total()
            run.step(index)
            counts.append(counter.reads.total() - before)
    return counts


# transformers asks once a pass whether a mask has padding; that is one of each step's reads, and one of a scoring pass
@pytest.mark.parametrize(
    ("method", "settings", "plain", "most"),
    [
        ("lora", {}, 2, 2),
        ("adalora", {}, 2, 3),
        ("adalora", {"compact": False}, 2, 3),
        ("igu", {}, 2, 4),
        ("igu", {"prune": "hard"}, 2, 4),
        ("igu_code", {}, 2, 3),
        ("sora", {}, 3, 3),
        ("l1ra", {"gate_rate": 0.2, "checks": 0.1}, 2, 3),
        ("increlora", {}, 2, 3),
    ],
)
def test_a_step_waits_as_often_whatever_the_number_of_sites(method, settings, plain, most):
    one, two = (reads_of_steps(small(method, layers, **settings)) for layers in (1, 2))
    assert one == two
    assert (min(one), max(one)) == (plain, most)
    if method == "igu":
        assert sorted(set(one)) == [2, 3, 4]  # a plain step, one with a cut, one with a scoring pass as well


@pytest.mark.parametrize("method", ["fim", "gora", "sensitivity", "stable_rank"])
def test_a_calibration_waits_as_often_whatever_the_number_of_sites(method):
    counts = []
    for layers in (1, 2):
        run = small(method, layers)
        with HostReads(run.engine.model) as counter:
            run.trainer.calibrate()
        counts.append(counter.reads)
    assert counts[0] == counts[1]
    assert counts[0].total() > 0


def test_what_waits_is_counted():
    """The counter itself: what a device's value or a device's shape is needed for, and nothing on the host."""
    layer = torch.nn.Linear(2, 2).requires_grad_(False)
    host = torch.ones(2)
    with HostReads(layer) as counter:
        y = layer(host.to(layer.weight.device))
        assert (counter.reads.total(), counter.copies) == (0, 1)
        float(y.sum()), bool((y > 0).any()), y.tolist(), y.cpu().numpy()
        assert dict(counter.reads) == {"_local_scalar_dense": 2, "tolist": 1, "cpu": 1}
        y[y > 0], (y > 0).nonzero(), y.cpu().sum().item(), host.sum().item()
        assert dict(counter.reads)["boolean index"] == 1
        assert counter.reads.total() == 7
