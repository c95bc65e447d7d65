"""Named random streams: independent, repeatable, and without effect on one another."""

import numpy as np
import pytest
import torch
from support.harness import configure, prepared

from rankbench.config.registry import _classes
from rankbench.core.seeding import NAMES, Streams
from rankbench.methods.base import Allocator
from rankbench.methods.lora import Uniform
from rankbench.training.assembly import assemble
from rankbench.training.trainer import examples_of_step


def test_every_stream_index_and_seed_is_a_generator_of_its_own():
    keys = [
        Streams(seed).key(name, *indices) for seed in (0, 1) for name in NAMES for indices in ((), (1,), (2,), (1, 2))
    ]
    assert len(set(keys)) == len(keys)
    assert Streams(0).key("init", "a/b") != Streams(0).key("init", "a", "c")
    assert all(0 <= key < 2**63 for key in keys)


def test_streams_are_uncorrelated():
    draws = np.stack([Streams(seed).numpy(name).standard_normal(4000) for seed in (0, 1) for name in NAMES])
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / 4000**0.5  # five standard errors
    assert abs(draws.mean()) < 5 / draws.size**0.5


def test_a_stream_is_the_same_each_time_and_in_each_library():
    a, b = Streams(3), Streams(3)
    assert (a.numpy("data", 5).integers(0, 1000, 50) == b.numpy("data", 5).integers(0, 1000, 50)).all()
    assert torch.equal(torch.randn(50, generator=a.torch("init", "x")), torch.randn(50, generator=b.torch("init", "x")))


def test_the_numbers_are_frozen():
    """Looked at once: another value means that every published run has other data and another initialisation."""
    assert Streams(0).key("data", 0) == 2740297886984710817
    assert Streams(0).numpy("data", 0).permutation(8).tolist() == [2, 6, 1, 4, 0, 3, 7, 5]


def test_an_unknown_stream_is_refused():
    with pytest.raises(ValueError, match="stream 'shuffle' is unknown; streams are data, init, dropout, calibration"):
        Streams(0).key("shuffle")


def test_ambient_draws_from_the_stream_and_restores_the_global_state():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    with Streams(0).ambient("dropout", 3, 0):
        inside = torch.rand(4)
        with Streams(0).ambient("init"):
            torch.rand(11)
        after_nested = torch.rand(4)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(100)
    with Streams(0).ambient("dropout", 3, 0):
        assert torch.equal(torch.rand(4), inside)
        assert torch.equal(torch.rand(4), after_nested)
    with Streams(0).ambient("dropout", 4, 0):
        assert not torch.equal(torch.rand(4), inside)


def test_ambient_restores_after_an_error():
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError, match="normal expects"), Streams(0).ambient("dropout"):
        torch.normal(torch.rand(3), std=-1.0)
    assert torch.equal(before, torch.random.get_rng_state())


class Greedy(Uniform):
    """Draws from everything it is given, and from the global generators, at every hook."""

    def initial_ranks(self) -> dict[str, int]:
        self.context.rng.standard_normal(1000)
        torch.rand(17)
        return super().initial_ranks()

    def calibrate(self, adapters, probe):
        probe.batches(5)
        torch.rand(23)

    def before_forward(self, adapters, step, micro):
        step.rng.standard_normal(step.index)

    def on_step_end(self, adapters, step):
        step.probe.batches(3)
        torch.rand(step.index)
        np.random.default_rng().random()


def train(tmp_path, monkeypatch, method: str, cls: type[Allocator]):
    """Token ids of every batch, the losses, and the trained factors."""
    monkeypatch.setitem(_classes["method"], method, cls)
    config = configure(tmp_path, "adapter.dropout=0.2", "train.steps=5", method={"name": method})
    run = prepared(config)
    run.assembly.complete()
    trainer = run.assembly.trainer
    seen = []
    collate = run.assembly.task.collate
    monkeypatch.setattr(
        run.assembly.task, "collate", lambda examples: seen.append([e.input_ids for e in examples]) or collate(examples)
    )
    losses = []
    run.start()
    seen.clear()
    trainer.log = lambda row: losses.append(row["loss"])
    trainer.run()
    return seen, losses, [parameter.detach().clone() for parameter in trainer.adapters.parameters()]


def test_a_method_that_draws_more_numbers_moves_neither_data_order_nor_dropout_nor_initialisation(
    tmp_path, monkeypatch
):
    plain, losses, factors = train(tmp_path, monkeypatch, "plain", Uniform)
    greedy, other_losses, other_factors = train(tmp_path, monkeypatch, "greedy", Greedy)
    assert len(plain) == 5
    assert plain == greedy
    assert losses == other_losses
    assert all(torch.equal(a, b) for a, b in zip(factors, other_factors, strict=True))


def test_two_seeds_have_another_order_and_other_factors(tmp_path):
    def order(seed):
        return examples_of_step(64, 16, 1, lambda epoch: Streams(seed).numpy("data", epoch))

    assert order(0) != order(1)
    first, second = (assemble(configure(tmp_path, f"seed={seed}")).adapters for seed in (0, 1))
    site = first.sites[0].name
    assert not torch.equal(first.factors(site)[0], second.factors(site)[0])


def test_dropout_differs_from_step_to_step_and_repeats_from_run_to_run(tmp_path):
    def outputs():
        run = assemble(configure(tmp_path, "adapter.dropout=0.5"))
        trainer = run.trainer
        for site in trainer.adapters.sites:
            trainer.adapters.factors(site.name)[1].data.fill_(0.1)
        batch = run.task.collate(run.task.splits["train"][:2])
        run.engine.model.train()
        found = []
        for step in (1, 2):
            with run.engine.streams.ambient("dropout", step, 0), torch.no_grad():
                found.append(float(run.engine.loss(batch)))
        return found

    first = outputs()
    assert first[0] != first[1]
    assert first == outputs()
