"""The short runs that the checks of rankbench.doctor share: a method on a tiny model, made when first asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rankbench import miniature
from rankbench.config import overrides, registry, validation, yaml_files
from rankbench.config.schema import ConfigError
from rankbench.files import write_atomically
from rankbench.trial import Trial

TRAINING = ["train.batch_size=4", "train.evaluate_before=false", "train.checkpoint_every=5", "train.threads=1"]
SPLITS = ["task.train_size=64", "task.validation_size=4", "task.test_size=4", "task.length=8"]
DECODER = ["model=tiny", "task=planted", "budget=r4", *SPLITS, "train.steps=16", *TRAINING]
SHORT = {"train.steps": 6}  # enough for a warm-up, cuts and a last phase, where only survival is asked for


@dataclass
class Examination:
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
        """What the caller typed: key -> value."""
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
    def config(self) -> DictConfig:
        """Of the run that most checks look at.

        Raises:
            ConfigError: with every mistake.
        """
        return self._build(DECODER, "decoder")

    @cached_property
    def main(self) -> Trial:
        """The whole run; what it leaves when it is stopped on the way lies in `stopped` and `ended`."""
        return Trial(self.config, self.folder / "main", stop=self.folder / "stopped", end=self.folder / "ended")

    @cached_property
    def again(self) -> Trial:
        """The same."""
        return Trial(self.config, self.folder / "again")

    @cached_property
    def other(self) -> Trial:
        """With another seed."""
        return self._variant("other", {"seed": self.config.seed + 1})

    def resumed(self, moment: str) -> Trial:
        """From what is left of a run "stopped" on the way, or "ended" after its last step."""
        assert self.main is not None  # made first: it leaves what is gone on from
        return Trial(self.config, self.folder / moment)

    @cached_property
    def smallest(self) -> Trial:
        """With a budget of one rank per site."""
        return self._variant("smallest", {**SHORT, **self._uniform(1)})

    @cached_property
    def fullest(self) -> Trial:
        """With a budget of the greatest uniform rank there can be.

        On larger batches: who decomposes the inputs of a site needs more of them than it may get ranks.
        """
        rank = min(self.main.budget.full_ranks.values())
        return self._variant("fullest", {**SHORT, "train.batch_size": 16, **self._uniform(rank)})

    def scaled(self, rule: str) -> Trial:
        """Under another scale rule."""
        return self._variant(rule, {**SHORT, "adapter.scale_rule": rule})

    @cached_property
    def bf16(self) -> Trial:
        """With the base computed in bfloat16."""
        return self._variant("bf16", {**SHORT, "train.precision": "bf16"})

    @cached_property
    def encoder(self) -> Trial:
        """On an encoder with a trained head."""
        written = miniature.write_encoder(self.folder / "encoder")
        return Trial(self._build([*written, "budget=r2", "train.steps=6", *TRAINING], "encoder"), self.folder / "bert")

    def _variant(self, name: str, changes: Mapping[str, Any]) -> Trial:
        changed = DictConfig(OmegaConf.to_container(self.config))
        for key, value in changes.items():
            OmegaConf.update(changed, key, value)
        return Trial(validation.build(changed), self.folder / name)

    def _uniform(self, rank: int) -> dict[str, Any]:
        """Another budget; a method that takes a rank map as it is gets one that spends it."""
        changes = {"budget.source": "uniform", "budget.reference_rank": rank}
        if not self._starts_from_a_run():
            return changes
        file = self.folder / f"rank{rank}.json"
        write_atomically(file, json.dumps(dict.fromkeys(self.config.method.ranks, rank)).encode())
        return {**changes, "method.source_run": str(file)}

    def _build(self, defaults: Sequence[str], name: str) -> DictConfig:
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
        return [f"method.source_run={Trial(validation.build(composed), folder).folder.path}"]

    def _starts_from_a_run(self) -> bool:
        """Whether its YAML names no other method as its source."""
        return self.needs("source") and yaml_files.defaults("method", self.chosen["method"]).get("source") is None
