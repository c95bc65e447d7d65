"""Gradient checkpointing changes no number: activations are computed again with the same gates, path and dropout."""

import json

import pytest
from support.harness import configure, folder_of, perform, prepared
from support.texts import WORDS, encoder, word_tokenizer, write
from torch.utils import checkpoint

from rankbench.models.errors import ModelError

SIZES = ["task.train_size=16", "task.validation_size=4", "task.test_size=4", "train.steps=3", "adapter.dropout=0.1"]
DECODER = ["task=arithmetic", *SIZES]


@pytest.fixture(scope="module")
def classification(tmp_path_factory):
    """A tiny BERT and sentences with labels, as words of a command line."""
    folder = tmp_path_factory.mktemp("bert")
    encoder(2).save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    rows = [{"sentence": " ".join(WORDS[i % 5 : i % 5 + 4]), "label": i % 2} for i in range(24)]
    for split in ("train", "validation"):
        write(folder / f"{split}.jsonl", rows)
    return [
        *("model=minilm-l6", f"model.path={folder / 'model'}", "task=glue-sst2", f"task.data_dir={folder}"),
        *SIZES,
    ]


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("decoder", ["method=lora"]),
        ("decoder", ["method=gora", "model.quantization=nf4"]),
        ("encoder", ["method=igu"]),
    ],
)
def test_the_numbers_are_the_same(tmp_path, classification, architecture, words, monkeypatch):
    if "model.quantization=nf4" in words:
        pytest.importorskip("bitsandbytes")
    recomputed = []
    frame = checkpoint._CheckpointFrame.__init__
    monkeypatch.setattr(
        checkpoint._CheckpointFrame, "__init__", lambda self, *rest: (recomputed.append(1), frame(self, *rest))[1]
    )
    numbers = []
    for switch in ("false", "true"):
        settings = DECODER if architecture == "decoder" else classification
        config = configure(tmp_path, *words, *settings, f"train.gradient_checkpointing={switch}")
        record = perform(config)
        steps = (folder_of(config).path / "steps.jsonl").read_text()
        passes = {phase: spent["forward_passes"] for phase, spent in record["cost"].items() if isinstance(spent, dict)}
        numbers.append(json.dumps([record["status"], record["ranks"], record["metrics"], steps, passes]))
    assert recomputed
    assert numbers[0] == numbers[1]


def test_a_model_that_cannot_is_refused(tmp_path, monkeypatch):
    assembly = prepared(configure(tmp_path, *DECODER, "train.gradient_checkpointing=true")).assembly
    assembly.load()
    assembly.allocate()
    monkeypatch.setattr(type(assembly.loaded.model), "supports_gradient_checkpointing", False)
    with pytest.raises(ModelError, match="tiny is a Qwen2ForCausalLM, which cannot compute activations again; set"):
        assembly.attach()
