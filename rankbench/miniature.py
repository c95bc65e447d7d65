"""A random encoder of 20,000 parameters and 24 sentences, written as files: what model=tiny is to decoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from rankbench.core.seeding import Streams
from rankbench.models.errors import quiet

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
WORDS = ["good", "bad", "the", "film", "was", "long", "and", "very", "not", "again"]
SENTENCES = {"train": 16, "validation": 8}


def write_encoder(folder: Path) -> list[str]:
    """Write model, tokenizer and data into `folder`; the overrides of a run that reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.3,  # random weights of the usual size give flat outputs
    )
    with Streams(0).ambient("init", "base"):
        model: Any = BertForSequenceClassification(config)
    with quiet():
        model.base_model.save_pretrained(folder)
        _tokenizer().save_pretrained(folder)
    for split, count in SENTENCES.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows(split, count)))
    return [
        "model=minilm-l6",  # its targets and head are any BERT's
        f"model.path={folder}",
        "task=glue-sst2",
        f"task.data_dir={folder}",
        "task.validation_size=4",
    ]


def _tokenizer() -> Any:
    """One token per word, in [CLS] ... [SEP]."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL.values(), *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=backend, **SPECIAL)


def _rows(split: str, count: int) -> list[dict[str, Any]]:
    """Sentences of 3 to 8 words; the label says which of the first two words is in it."""
    rng = Streams(0).numpy("task", "miniature", split)
    rows = []
    for label in rng.integers(2, size=count).tolist():
        words = [WORDS[1 - label], *rng.choice(WORDS[2:], int(rng.integers(2, 8))).tolist()]
        rows.append({"sentence": " ".join(words), "label": label})
    return rows
