"""Short runs that the checks of rankbench.contract.checks share: a method on a tiny model, each made when needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from rankbench.config import overrides, registry, validation, yaml_files
from rankbench.config.schema import ConfigError
from rankbench.config.sections import Config
from rankbench.contract.observed_run import ObservedRun
from rankbench.core.seeding import Streams
from rankbench.files import write_atomically
from rankbench.models.errors import quiet

TRAINING = ["train.batch_size=4", "train.evaluate_before=false", "train.checkpoint_every=5", "train.threads=1"]
SPLITS = ["task.train_size=64", "task.validation_size=4", "task.test_size=4", "task.length=8"]
DECODER = ["model=tiny", "task=planted", "budget=r4", *SPLITS, "train.steps=16", *TRAINING]
SHORT = {"train.steps": 6}  # enough for a warm-up, cuts and a last phase, where only survival is asked for


@dataclass
class ShortRuns:
    """One method, its configuration and its runs.

    Attributes:
        arguments: overrides, as for rankbench; method=NAME is one. They win over what the runs have by default.
        folder: takes all results; the caller removes it.
        config_dir: more configuration files (--config-dir).
    """

    arguments: Sequence[str]
    folder: Path
    config_dir: Path | None = None

    @cached_property
    def chosen(self) -> dict[str, str]:
        """Overrides that the caller typed: key -> value."""
        pairs = (argument.partition("=") for argument in self.arguments)
        return {key.lstrip("+~"): value for key, _, value in pairs}

    @cached_property
    def cls(self) -> type[Any]:
        """The method's class.

        Raises:
            RegistryError: there is none, or more than one.
        """
        return registry.get("method", self.chosen.get("method", "(none given)"))

    def needs(self, what: str) -> bool:
        """Whether the class says that it needs this; no class needs nothing."""
        try:
            return what in getattr(self.cls, "needs", ())
        except registry.RegistryError:
            return False

    @cached_property
    def config(self) -> Config:
        """Configuration of the run that most checks look at.

        Raises:
            ConfigError: the configuration has mistakes; it names them all.
        """
        return self._build(DECODER, "decoder")

    @cached_property
    def main(self) -> ObservedRun:
        """The whole run; what it leaves when it is stopped on the way lies in `stopped` and `ended`."""
        return ObservedRun(self.config, self.folder / "main", stop=self.folder / "stopped", end=self.folder / "ended")

    @cached_property
    def again(self) -> ObservedRun:
        """The main run once more."""
        return ObservedRun(self.config, self.folder / "again")

    @cached_property
    def other(self) -> ObservedRun:
        """The same run with another seed."""
        return self._variant("other", {"seed": self.config.seed + 1})

    def resumed(self, moment: str) -> ObservedRun:
        """The main run, resumed where it was "stopped" on the way or had "ended" its last step."""
        assert self.main is not None  # made first: it leaves what is gone on from
        return ObservedRun(self.config, self.folder / moment)

    @cached_property
    def smallest(self) -> ObservedRun:
        """A run with a budget of one rank per site."""
        return self._variant("smallest", {**SHORT, **self._uniform(1)})

    @cached_property
    def fullest(self) -> ObservedRun:
        """A run with a budget of the greatest uniform rank there can be.

        Its batches are larger: a method that decomposes the inputs of a site needs more inputs than ranks.
        """
        rank = min(self.main.assembly.budget.full_ranks.values())
        return self._variant("fullest", {**SHORT, "train.batch_size": 16, **self._uniform(rank)})

    def scaled(self, rule: str) -> ObservedRun:
        """A run under another scale rule."""
        return self._variant(rule, {**SHORT, "adapter.scale_rule": rule})

    @cached_property
    def bf16(self) -> ObservedRun:
        """A run whose base computes in bfloat16."""
        return self._variant("bf16", {**SHORT, "train.precision": "bf16"})

    @cached_property
    def encoder(self) -> ObservedRun:
        """A run on an encoder with a trained head."""
        written = write_encoder(self.folder / "encoder")
        return ObservedRun(
            self._build([*written, "budget=r2", "train.steps=6", *TRAINING], "encoder"), self.folder / "bert"
        )

    def _variant(self, name: str, changes: Mapping[str, Any]) -> ObservedRun:
        changed = OmegaConf.create(self.config.plain())
        for key, value in changes.items():
            OmegaConf.update(changed, key, value)
        return ObservedRun(validation.build(changed), self.folder / name)

    def _uniform(self, rank: int) -> dict[str, Any]:
        """Another budget; a method that takes a rank map as it is gets one that spends it."""
        changes = {"budget.source": "uniform", "budget.reference_rank": rank}
        if not self._starts_from_a_run():
            return changes
        file = self.folder / f"rank{rank}.json"
        write_atomically(file, json.dumps(dict.fromkeys(self.config.method.plain()["ranks"], rank)).encode())
        return {**changes, "method.source_run": str(file)}

    def _build(self, defaults: Sequence[str], name: str) -> Config:
        """The configuration of a run with these overrides, what the method needs, and the caller's."""
        arguments = [
            *self._left(defaults),
            *getattr(self.cls, "provoked_by", ()),
            *self._source(defaults, name),
            *self.arguments,
        ]
        problems = overrides.mistakes(arguments, config_dir=self.config_dir)
        if problems:
            raise ConfigError(problems)
        return validation.build(overrides.compose([*arguments, f"results_dir={self.folder}"], self.config_dir))

    def _left(self, defaults: Sequence[str]) -> list[str]:
        """Those that the caller did not replace; a method that needs the truth gets its budget."""
        keys = {line: line.partition("=")[0] for line in defaults}
        kept = [line for line, key in keys.items() if key not in self.chosen]
        if "task" in self.chosen:
            kept = [line for line in kept if not line.startswith("task.")]
        return ["budget=true_ranks" if line == "budget=r4" and self.needs("truth") else line for line in kept]

    def _source(self, defaults: Sequence[str], name: str) -> list[str]:
        """For a method that starts from a finished run: one of `random`, under the same overrides."""
        if "method.source_run" in self.chosen or not self._starts_from_a_run():
            return []
        others = [argument for argument in self.arguments if not argument.startswith("method")]
        folder = self.folder / f"source-{name}"
        composed = overrides.compose(
            ["method=random", *self._left(defaults), *others, f"results_dir={folder}"], self.config_dir
        )
        return [f"method.source_run={ObservedRun(validation.build(composed), folder).folder.path}"]

    def _starts_from_a_run(self) -> bool:
        """Whether its YAML names no other method as its source."""
        return self.needs("source") and yaml_files.defaults("method", self.chosen["method"]).get("source") is None


SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
WORDS = ["good", "bad", "the", "film", "was", "long", "and", "very", "not", "again"]
SENTENCES = {"train": 16, "validation": 8}


def write_encoder(folder: Path) -> list[str]:
    """Write model, tokenizer and data into `folder` and return the overrides of a run that reads them."""
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
