"""The training loop: its learning rate, its data order, its hooks, and its assertions about every method."""

import collections
import itertools
import math

import pytest
import torch
from support.harness import begun, configure, folder_of, perform, rows

from rankbench.config.registry import _classes
from rankbench.core.seeding import Streams
from rankbench.core.site_adapter import Gate
from rankbench.methods.base import Allocator
from rankbench.methods.lora import Uniform
from rankbench.tasks.planted import Planted
from rankbench.training.assembly import assemble
from rankbench.training.trainer import NotIdentityError, examples_of_step, rate


@pytest.fixture
def method(monkeypatch):
    """Registers a method for one test; returns its section."""

    def add(cls: type[Allocator]) -> dict[str, str]:
        monkeypatch.setitem(_classes["method"], "mine", cls)
        return {"name": "mine"}

    return add


# ------------------------------------------------------------------------------------------------ learning rate


@pytest.mark.parametrize(
    ("schedule", "warmup_share", "stages", "expected"),
    [
        ("linear", 0.0, (4,), [1, 0.75, 0.5, 0.25]),
        ("linear", 0.5, (4,), [0.5, 1, 1, 0.5]),
        ("cosine", 0.0, (4,), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("cosine", 0.25, (4,), [1, 1, 0.75, 0.25]),
        ("constant", 0.5, (4,), [0.5, 1, 1, 1]),
        ("constant", 0.0, (3,), [1, 1, 1]),
        ("linear", 1.0, (4,), [0.25, 0.5, 0.75, 1]),
        ("linear", 0.0, (1,), [1]),
        ("linear", 0.0, (2, 4), [1, 0.5, 1, 0.75, 0.5, 0.25]),
        ("linear", 0.5, (4, 2), [0.5, 1, 1, 0.5, 1, 1]),
        ("cosine", 0.0, (1, 2), [1, 1, 0.5]),
    ],
)
def test_rate_by_hand(schedule, warmup_share, stages, expected):
    found = [rate(schedule, warmup_share, stages, step) for step in range(1, sum(stages) + 1)]
    assert found == pytest.approx(expected)


def test_the_rate_is_what_the_optimizer_uses_and_the_log_says(tmp_path, method):
    seen = []

    class Gated(Uniform):
        def gate(self):
            return Gate(start=0.0, learning_rate=3.0)

        def on_step_end(self, adapters, step):
            groups = {group["name"]: group["lr"] for group in adapters._optimizer.param_groups}
            seen.append((step.learning_rate, groups["factors"], groups["gates"] / 3))

    config = configure(
        tmp_path, "train.steps=4", "train.learning_rate=0.5", "train.warmup_share=0.5", method=method(Gated)
    )
    assert perform(config)["status"] == "ok"
    logged = [row["learning_rate"] for row in rows(folder_of(config).path / "steps.jsonl")]
    assert logged == pytest.approx([0.25, 0.5, 0.5, 0.25])
    assert [pytest.approx((rate_,) * 3) for rate_ in logged] == seen


# --------------------------------------------------------------------------------------------------- data order


@pytest.mark.parametrize(("count", "batch_size"), [(12, 4), (10, 4), (3, 8), (7, 1)])
def test_every_example_comes_once_per_epoch(count, batch_size):
    def rng(epoch):
        return Streams(0).numpy("data", epoch)

    steps = [examples_of_step(count, batch_size, step, rng) for step in range(1, 2 * count + 1)]
    assert all(len(step) == batch_size for step in steps)
    order = [index for step in steps for index in step]
    epochs = [order[start : start + count] for start in range(0, len(order), count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs[:-1])
    assert epochs[0] != epochs[1]
    alone = [examples_of_step(count, batch_size, step, rng) for step in (5, 2, 5)]  # no state between steps
    assert alone == [steps[4], steps[1], steps[4]]


def test_a_step_trains_on_its_examples(tmp_path, monkeypatch):
    run = begun(configure(tmp_path, "train.steps=16", "task.train_size=32", "train.evaluate_before=false")).assembly
    counts = collections.Counter()
    loss = run.task.loss
    monkeypatch.setattr(
        run.task,
        "loss",
        lambda model, batch: counts.update(map(tuple, batch["input_ids"].tolist())) or loss(model, batch),
    )
    run.trainer.run()
    assert counts == collections.Counter({example.input_ids: 2 for example in run.task.splits["train"]})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "adalora", "igu"])
@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_change_nothing_but_rounding(tmp_path, name, size):
    def run(*overrides):
        config = configure(tmp_path, f"method={name}", "train.learning_rate=0.01", *overrides)
        record = perform(config)
        return record, rows(folder_of(config).path / "steps.jsonl")

    whole, whole_steps = run()
    parts, part_steps = run(f"train.micro_batch_size={size}")
    assert [row["loss"] for row in part_steps] == pytest.approx(
        [row["loss"] for row in whole_steps], abs=1e-5, rel=1e-5
    )
    _, still_steps = run("train.learning_rate=1e-9")
    moved = [abs(a["loss"] - b["loss"]) for a, b in zip(still_steps, whole_steps, strict=True)]
    assert max(moved) > 3e-4  # there was something to get wrong
    assert parts["ranks"] == whole["ranks"]
    passes = [record["cost"]["training"] for record in (whole, parts)]
    assert [cost["forward_passes"] for cost in passes] == [12, 12 * 4 // size]
    assert [cost["backward_passes"] for cost in passes] == [12, 12 * 4 // size]
    assert passes[0]["tokens"] == passes[1]["tokens"] == 12 * 4 * 8


# ---------------------------------------------------------------------------------------------------- its hooks


class Diary(Uniform):
    """Writes down what each hook sees."""

    def __init__(self, config, context):
        super().__init__(config, context)
        Diary.lines = self.lines = []

    def write(self, hook, adapters, index):
        _, B = adapters.factors(adapters.sites[0].name)
        moments = adapters._optimizer is not None and bool(adapters._optimizer.state[B])
        self.lines.append((hook, index, B.grad is not None, moments, float(B.detach().abs().max()) > 0))

    def calibrate(self, adapters, probe):
        self.write("calibrate", adapters, 0)

    def before_forward(self, adapters, step, micro):
        self.write(f"before_forward {micro}", adapters, step.index)

    def on_gradients(self, adapters, step):
        self.write("on_gradients", adapters, step.index)

    def penalty(self, adapters, step):
        self.write("penalty", adapters, step.index)

    def on_step_end(self, adapters, step):
        self.write("on_step_end", adapters, step.index)

    def finish(self, adapters):
        self.write("finish", adapters, 0)


def test_the_order_of_hooks_and_what_is_there_at_each(tmp_path, method):
    perform(configure(tmp_path, "train.steps=2", "train.micro_batch_size=2", method=method(Diary)))
    # hook, step, gradients there, moments there, parameters moved
    assert Diary.lines == [
        ("calibrate", 0, False, False, False),
        ("before_forward 0", 1, False, False, False),
        ("before_forward 1", 1, True, False, False),
        ("on_gradients", 1, True, False, False),
        ("penalty", 1, True, False, False),
        ("on_step_end", 1, True, True, True),
        ("before_forward 0", 2, False, True, True),
        ("before_forward 1", 2, True, True, True),
        ("on_gradients", 2, True, True, True),
        ("penalty", 2, True, True, True),
        ("on_step_end", 2, True, True, True),
        ("finish", 0, False, True, True),
    ]


def test_the_penalty_is_logged_apart_and_moves_the_factors_once_per_step(tmp_path, method):
    """A penalty of 0.5 * |A|^2 at a tiny rate: its gradient is A, whatever the number of micro-batches."""
    gradients = []

    class Penalized(Uniform):
        weight = 1.0

        def penalty(self, adapters, step):
            return self.weight * sum(adapters.factors(site.name)[0].square().sum() for site in adapters.sites) / 2

        def on_step_end(self, adapters, step):
            name = adapters.sites[0].name
            gradients.append((adapters.factors(name)[0].grad.clone(), adapters.factors(name)[0].detach().clone()))

    class Free(Penalized):
        weight = 0.0

    losses, penalties = [], []
    for cls in (Penalized, Free):
        overrides = ["train.steps=1", "train.micro_batch_size=1", "train.max_grad_norm=1e9", "train.learning_rate=1e-9"]
        config = configure(tmp_path / cls.__name__, *overrides, method=method(cls))
        perform(config)
        (row,) = rows(folder_of(config).path / "steps.jsonl")
        losses.append(row["loss"])
        penalties.append(row["penalty"])
    (with_, A), (without, _) = gradients
    assert losses[0] == losses[1]
    assert penalties[0] > 1
    assert penalties[1] == 0
    assert torch.allclose(with_ - without, A, atol=1e-5)


def test_no_penalty_is_null(tmp_path):
    config = configure(tmp_path, "train.steps=1")
    perform(config)
    (row,) = rows(folder_of(config).path / "steps.jsonl")
    assert row["penalty"] is None


def test_a_path_lasts_one_micro_batch(tmp_path, method):
    seen = []

    class Scaled(Uniform):
        needs = frozenset({"path"})

        def before_forward(self, adapters, step, micro):
            if step.index == 2 and micro == 0:
                adapters.set_path_point(0.0)

        def on_step_end(self, adapters, step):
            slots = [adapter.slot for adapter in adapters._adapters.values()]
            assert all((slot.value, slot.jacobian) == (1.0, 1.0) for slot in slots)
            seen.append(float(adapters.factors(adapters.sites[0].name)[1].grad.norm()))

    config = configure(
        tmp_path, "train.steps=3", "train.micro_batch_size=4", "train.max_grad_norm=1e9", method=method(Scaled)
    )
    assert perform(config)["status"] == "ok"
    assert seen[1] == 0  # at the start of the path
    assert seen[0] > 0
    assert seen[2] > 0


def test_masked_components_stay_where_they_are_for_the_rest_of_the_run(tmp_path, method):
    """Decay and momentum would move them."""
    values = []

    class Masking(Uniform):
        needs = frozenset({"path"})
        budget_kind = "at_most"

        def on_step_end(self, adapters, step):
            name = adapters.sites[0].name
            if step.index == 2:
                adapters.set_mask(name, torch.arange(adapters.sizes()[name]) > 0, "mask")
            values.append(adapters.factors(name)[0].detach().clone())

    assert perform(configure(tmp_path, "train.weight_decay=0.5", method=method(Masking)))["status"] == "ok"
    assert all(torch.equal(now[0], values[1][0]) for now in values[1:])
    assert all((now[1] != before[1]).any() for before, now in itertools.pairwise(values))


@pytest.mark.parametrize("hook", ["before_forward", "penalty", "on_gradients"])
def test_a_rank_change_in_another_hook_ends_the_run_and_names_method_site_and_hook(tmp_path, method, hook):
    def change(self, adapters, step, *rest):
        adapters.resize(adapters.sites[1].name, [0])

    record = perform(configure(tmp_path, method=method(type("Hasty", (Uniform,), {hook: change}))))
    assert record["status"] == "error"
    assert record["code"] == 1
    assert f"method mine changed the rank of model.layers.0.self_attn.k_proj in {hook};" in record["reason"]


def test_clipping_keeps_the_logged_norm_and_limits_the_applied_one(tmp_path, method):
    norms = []

    class Watch(Uniform):
        def on_step_end(self, adapters, step):
            total = sum(float(p.grad.square().sum()) for p in adapters.parameters() if p.grad is not None)
            norms.append(total**0.5)

    config = configure(tmp_path, "train.steps=3", "train.max_grad_norm=0.001", method=method(Watch))
    perform(config)
    logged = [row["gradient_norm"] for row in rows(folder_of(config).path / "steps.jsonl")]
    assert min(logged) > 0.002
    assert norms == pytest.approx([0.001] * 3, rel=1e-2)


def test_training_mode_comes_back_after_passes_of_the_methods_own(tmp_path, method):
    modes = []

    class Probing(Uniform):
        def on_step_end(self, adapters, step):
            batch = step.probe.batches(1)[0]
            step.probe.loss(batch)
            step.probe.gradients(batch, adapters.parameters())

        def before_forward(self, adapters, step, micro):
            modes.append(adapters.model.training)

    record = perform(configure(tmp_path, "train.steps=3", method=method(Probing)))
    assert modes == [True] * 3
    assert {key: record["cost"]["allocation"][key] for key in ("forward_passes", "backward_passes", "tokens")} == {
        "forward_passes": 6,
        "backward_passes": 3,
        "tokens": 6 * 4 * 8,
    }
    assert record["cost"]["training"]["forward_passes"] == 3


def test_probes_are_not_felt_by_the_training(tmp_path, method):
    class Probing(Uniform):
        def calibrate(self, adapters, probe):
            for batch in probe.batches(2):
                probe.gradients(batch, adapters.parameters())

        def on_gradients(self, adapters, step):
            step.probe.gradients(step.probe.batches(1)[0], adapters.parameters())

        on_step_end = on_gradients

    overrides = ["adapter.dropout=0.3"]
    plain = configure(tmp_path, *overrides)
    probing = configure(tmp_path, *overrides, method=method(Probing))
    first, second = perform(plain), perform(probing)
    assert second["cost"]["calibration"]["backward_passes"] == 2
    assert first["metrics"] == second["metrics"]
    losses = [[row["loss"] for row in rows(folder_of(config).path / "steps.jsonl")] for config in (plain, probing)]
    assert losses[0] == losses[1]


def test_a_probe_loss_is_the_mean_over_units_and_a_gradient_that_of_it(tmp_path):
    run = assemble(configure(tmp_path, "train.micro_batch_size=2"))
    trainer = run.trainer
    probe = trainer.probe("start")
    (batch,) = probe.batches(1)
    assert len(batch) == len({example.input_ids for example in batch}) == 4
    for site in trainer.adapters.sites:
        trainer.adapters.factors(site.name)[1].data.fill_(0.05)
    collated = run.task.collate(batch)
    mean = run.task.loss(trainer.adapters.model.eval(), collated) / run.task.units(collated)
    parameters = trainer.adapters.parameters()
    expected = torch.autograd.grad(mean, parameters)
    assert probe.loss(batch) == pytest.approx(float(mean.detach()), rel=1e-5)
    for found, gradient in zip(probe.gradients(batch, parameters), expected, strict=True):
        assert torch.allclose(found, gradient, rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in parameters)


# ---------------------------------------------------------------------------------------------- what it asserts


def test_a_method_that_does_not_start_at_the_base_model_must_say_so(tmp_path, method):
    class Displaced(Uniform):
        def calibrate(self, adapters, probe):
            adapters.factors(adapters.sites[0].name)[1].data.fill_(0.1)

    config = configure(tmp_path, method=method(Displaced))
    record = perform(config)
    assert record["status"] == "error"
    assert record["metrics"]["before"] is None
    assert (
        "NotIdentityError: method mine says it starts at the base model, but its output differs by " in record["reason"]
    )
    assert "declare starts_at_identity = False" in record["reason"]

    Displaced.starts_at_identity = False
    assert perform(config)["status"] == "ok"


def test_the_identity_is_checked_exactly(tmp_path):
    trainer = assemble(configure(tmp_path)).trainer
    trainer.check_identity()
    trainer.adapters.factors(trainer.adapters.sites[0].name)[1].data[0, 0] = 1e-3
    with pytest.raises(NotIdentityError):
        trainer.check_identity()


def test_a_method_that_decides_nothing_is_inert(tmp_path, method):
    class Idle(Uniform):
        static = False

    record = perform(configure(tmp_path, method=method(Idle)))
    assert record["status"] == "inert"
    assert record["reason"] == "method mine is not static and changed no rank in 12 steps"
    assert record["code"] == 1
    assert record["metrics"]["test"]["loss"] > 0  # it was trained and measured all the same


def test_a_method_that_keeps_too_much_is_over_budget(tmp_path, method):
    class Greedy(Uniform):
        def initial_ranks(self):
            return self.context.budget.uniform(2.0)

    record = perform(configure(tmp_path, method=method(Greedy)))
    assert record["status"] == "over_budget"
    assert record["code"] == 1
    final, target = record["ledger"]["final"]["params"], record["ledger"]["target"]
    assert f"final {final} params against a target of {target} (+" in record["reason"]
    assert final > 1.9 * target


def test_a_method_that_is_exact_must_spend_its_budget(tmp_path, method):
    class Frugal(Uniform):
        def initial_ranks(self):
            return self.context.budget.uniform(0.5)

    section = method(Frugal)
    assert perform(configure(tmp_path / "a", method=section))["status"] == "over_budget"
    Frugal.budget_kind = "at_most"
    assert perform(configure(tmp_path / "b", method=section))["status"] == "ok"


# --------------------------------------------------------------------------------------------- losses gone wrong


def test_a_loss_that_is_nan_leaves_a_record_with_step_and_last_good_loss(tmp_path, monkeypatch):
    calls = []
    loss = Planted.loss

    def broken(self, model, batch):
        calls.append(1)
        value = loss(self, model, batch)
        return value * float("nan") if len(calls) == 7 else value  # one is a check, two compare the start with the base

    monkeypatch.setattr(Planted, "loss", broken)
    config = configure(tmp_path)
    record = perform(config)
    last = rows(folder_of(config).path / "steps.jsonl")[-1]
    assert record["status"] == "nan"
    assert record["code"] == 1
    assert record["reason"] == f"loss is nan at step 4; last good loss {last['loss']:.6g}"
    assert last["step"] == 3
    assert record["metrics"] == {"before": None, "validation": None, "test": None}  # the base model's come at the end
    assert record["ledger"]["final"]["params"] > 0


SCORED_BY_TASK = ("method=igu", "method.estimator=instantaneous", "method.score_gradient=task", "method.ema_every=1")


@pytest.mark.parametrize("words", [(), SCORED_BY_TASK])
def test_a_loss_that_is_nan_at_once_has_no_good_one_before(tmp_path, monkeypatch, words):
    """The second method reads the gradients of the step before anybody looks at its loss."""
    monkeypatch.setattr(Planted, "loss", lambda self, model, batch: model(**batch).logits.sum() * float("inf"))
    record = perform(configure(tmp_path, *words))
    assert record["status"] == "nan"
    assert record["reason"] in (f"loss is {value} at step 1; last good loss none" for value in ("inf", "-inf", "nan"))


def test_a_gradient_that_is_not_finite_is_caught_before_it_is_applied(tmp_path, method):
    class Poison(Uniform):
        def on_gradients(self, adapters, step):
            if step.index == 2:
                adapters.factors(adapters.sites[0].name)[1].grad.fill_(float("inf"))

    record = perform(configure(tmp_path, method=method(Poison)))
    assert record["status"] == "nan"
    assert record["reason"].startswith("gradient norm is inf at step 2; last good loss 0.")


def test_a_learning_rate_without_measure_ends_as_nan(tmp_path):
    record = perform(configure(tmp_path, "train.learning_rate=1e30", "train.schedule=constant", "train.warmup_share=0"))
    assert record["status"] == "nan"
    assert "at step 2; last good loss 0." in record["reason"]


def test_a_model_that_is_broken_by_its_last_step_is_not_ok(tmp_path):
    record = perform(configure(tmp_path, "train.steps=1", "train.learning_rate=1e30", "train.warmup_share=0"))
    assert record["status"] == "nan"
    assert "validation loss is nan after step 1; last good loss 0." in record["reason"]
