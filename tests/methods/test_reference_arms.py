"""DoRA, full fine-tuning and BitFit, each against a plain loop of PEFT or transformers with torch's AdamW."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.harness import begun, configure, perform

from rankbench.contract.short_runs import write_encoder
from rankbench.core import peft_injection
from rankbench.training.trainer import examples_of_step, rate

STEPS = 4
OVERRIDES = [
    f"train.steps={STEPS}",
    "train.weight_decay=0.1",
    "train.learning_rate=0.01",
    "train.evaluate_before=false",
]


def arrange(tmp_path, method: str, base: str) -> list[str]:
    """Overrides of a run of this method on the decoder or the encoder."""
    encoder = write_encoder(tmp_path / "encoder") if base == "encoder" else []
    return [f"method={method}", *encoder, *OVERRIDES, "budget=r2", "adapter.scale_rule=fixed"]


def plain_model(run, method: str, ranks: dict[str, int]):
    """A fresh base model made ready by PEFT or transformers alone, from the same start, and what of it is trained."""
    run.assembly.load()
    model = run.assembly.loaded.model
    if method == "dora":
        own = dict(run.assembly.adapters.model.named_parameters())
        settings = LoraConfig(
            r=2, lora_alpha=run.config.adapter.alpha, use_dora=True, target_modules=list(ranks), rank_pattern=ranks
        )
        model = get_peft_model(model, settings)
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:
                parameter.data = own[name].detach().clone()
        return model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(method == "full" or name.endswith(".bias") or name.startswith("classifier."))
    return model.train()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft 0.21 asks transformers for it
@pytest.mark.parametrize(
    ("method", "base", "head_rate"),
    [("dora", "decoder", None), ("full", "decoder", None), ("full", "encoder", 0.1), ("bitfit", "encoder", None)],
)
def test_an_arm_is_what_a_plain_loop_trains(tmp_path, method, base, head_rate):
    words = [] if head_rate is None else [f"train.head_learning_rate={head_rate}"]
    run = begun(configure(tmp_path, *arrange(tmp_path, method, base), *words))
    trainer, settings, streams = run.assembly.trainer, run.config.train, run.assembly.streams
    ranks, task = run.assembly.adapters.ranks(), run.assembly.task
    plain = plain_model(run, method, ranks)
    trained = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    head = [p for name, p in plain.named_parameters() if p.requires_grad and name.startswith("classifier.")]
    body = [p for p in trained if not any(p is of_head for of_head in head)]
    peaks = [(body, settings.learning_rate), (head, head_rate or settings.learning_rate)]
    groups = [{"params": parameters, "peak": peak} for parameters, peak in peaks if parameters]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    run.assembly.adapters.model.train()
    for index in range(1, STEPS + 1):
        row = trainer.step(index, STEPS)
        order = examples_of_step(len(trainer.train), settings.batch_size, index, lambda e: streams.numpy("data", e))
        batch = task.collate([trainer.train[i] for i in order])
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate(settings.schedule, settings.warmup_share, (STEPS,), index)
        optimizer.zero_grad()
        with streams.ambient("dropout", index, 0):
            loss = task.loss(plain, batch) / task.units(batch)
            loss.backward()
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
        norm = torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        assert row["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
        optimizer.step()
    own = trainer._trained()
    assert sum(parameter.numel() for parameter in own) == sum(parameter.numel() for parameter in trained)
    assert row["params"] == sum(p.numel() for p in trained) - run.assembly.ledger.head_params
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = [model.eval()(**inputs).logits for model in (run.assembly.adapters.model, plain)]
    assert torch.allclose(*logits, rtol=1e-4, atol=1e-5)


def test_an_arm_without_an_adapter_records_no_ranks_and_leaves_no_adapter(tmp_path):
    record = perform(configure(tmp_path, "method=full", "train.steps=2"))
    assert (record["code"], record["status"], record["ranks"], record["budget_kind"]) == (0, "ok", None, "implicit")
    assert record["ledger"]["final"]["ranks"] == 0
    assert record["ledger"]["final"]["params"] > 10 * record["ledger"]["target"]
    assert "map_overlap" not in record["metrics"]["test"]
    assert not list(tmp_path.glob("runs/*/adapter"))


def test_what_cannot_be_trained_is_said():
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    with pytest.raises(
        peft_injection.InjectionError, match="the base model has no biases, so there is nothing to train"
    ):
        peft_injection._parameters_of_base(Bare(), [], "biases")
    quantised = Bare()
    quantised.weight.data = quantised.weight.data.to(torch.uint8)
    with pytest.raises(peft_injection.InjectionError, match="a quantised base model cannot be trained itself"):
        peft_injection._parameters_of_base(quantised, [], "base")


def test_a_control_cannot_take_the_ranks_of_a_reference_arm(tmp_path):
    with pytest.raises(ValueError, match=r"method\.source=dora: it is a reference arm and allocates nothing"):
        configure(tmp_path, "method=permuted", "method.source=dora")


def test_dora_starts_exactly_at_a_base_in_bfloat16(tmp_path):
    run = begun(configure(tmp_path, *arrange(tmp_path, "dora", "decoder"), "model.dtype=bfloat16"))
    magnitude = run.assembly.adapters.beside[0]
    weight = run.assembly.adapters.weight(run.assembly.sites[0].name)
    torch.testing.assert_close(magnitude.detach(), weight.norm(dim=1), rtol=1e-6, atol=0)
