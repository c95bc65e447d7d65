"""Helpers for several test files: configurations, runs in this process and in others, small adapters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from rankbench.config import registry
from rankbench.config.sections import Config
from rankbench.config.validation import build
from rankbench.config.yaml_files import CONF_DIR
from rankbench.core import peft_injection
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.budget import Ledger
from rankbench.core.gated_lora import Scale
from rankbench.core.seeding import Streams
from rankbench.core.site_adapter import Gate
from rankbench.core.sites import Site
from rankbench.records.frozen_run import FrozenRun
from rankbench.records.record import run_id
from rankbench.records.run_folder import RunFolder
from rankbench.training.engine import make_accelerator
from rankbench.training.run import Run, execute

SMALL = ["model=tiny", "train.steps=12", "train.batch_size=4", "train.threads=1"]
QUICK = [*SMALL, "task=planted", "task.train_size=64", "task.validation_size=8", "task.test_size=8", "task.length=8"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def configure(results: Path, *overrides: str, method: dict[str, Any] | None = None) -> Config:
    """Compose the configuration of a quick run; later overrides win. `method`: section of a method without a YAML."""
    settings = SMALL if any(override.startswith("task=") for override in overrides) else QUICK
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = compose("config", ["method=lora", *settings, f"results_dir={results}", *overrides])
    if method is not None:
        OmegaConf.set_struct(composed, False)
        composed.method = method
    return build(composed)


def folder_of(config: Config) -> RunFolder:
    """The folder of the run that a configuration describes."""
    return RunFolder(Path(config.results_dir), run_id(config.plain()))


def prepared(config: Config) -> Run:
    """A run that has its folder but no parts yet (`run.assembly.complete()` builds them all)."""
    folder = folder_of(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    return Run(config, folder, make_accelerator(config.train.precision))


def begun(config: Config) -> Run:
    """A run before its first step, calibrated and evaluated."""
    run = prepared(config)
    run.assembly.complete()
    run.start()
    return run


def perform(config: Config) -> dict[str, Any]:
    """Execute a run in this process and return its record from disk, with its exit code under "code"."""
    code = execute(config)
    return {**json.loads((folder_of(config).path / "record.json").read_text()), "code": code}


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def python(*arguments: str, environment: dict[str, str] = ENVIRONMENT) -> subprocess.CompletedProcess[str]:
    """Run another Python process with one thread and without network."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


class Linears(nn.Module):
    """A stack of linear layers of unequal shapes; PEFT requires `config` of a model."""

    def __init__(self, shapes: Sequence[tuple[int, int]], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.config = {"model_type": "linears"}
        self.layers = nn.ModuleList(nn.Linear(d_in, d_out, bias=False) for d_out, d_in in shapes)
        for layer in self.layers:
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


SHAPES = [(6, 4), (5, 6), (4, 5)]


def sites_of(shapes: Sequence[tuple[int, int]]) -> list[Site]:
    return [Site(f"layers.{i}", i, "", d_out, d_in) for i, (d_out, d_in) in enumerate(shapes)]


def attach(
    ranks: Sequence[int],
    *,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    gate: Gate | None = None,
    path: bool = False,
    rule: str = "fixed",
    alpha: float = 8.0,
    reference: int = 2,
    dropout: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> AdapterSet:
    """An adapter attached to `Linears`."""
    sites = sites_of(shapes)
    return peft_injection.attach(
        Linears(shapes, dtype),
        sites,
        {site.name: rank for site, rank in zip(sites, ranks, strict=True)},
        scale=Scale(rule, alpha, reference),
        streams=Streams(seed),
        ledger=Ledger("params", 1),
        gate=gate,
        path=path,
        dropout=dropout,
    )


def scramble(adapters: AdapterSet, seed: int = 1) -> None:
    """Fill all factors and gates with random values, so that nothing is zero by accident."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapters.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)


SUPPORT = Path(__file__).resolve().parent


def install_faulty(site: Path) -> dict[str, str]:
    """Install support/faulty as a package in this folder; returns the environment of processes that find it."""
    info = site / "faulty-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[rankbench.methods]\nfaulty = faulty:Faulty\n")
    paths = [str(site), str(SUPPORT), str(SUPPORT.parents[1])]
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def faulty_installed(site: Path) -> Iterator[dict[str, str]]:
    """Like `install_faulty`, but also for this process and for jobs forked from it, until the block ends."""
    registry.import_all("method")  # all built-in ones, or those imported until the block ends would go with it
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._classes, "method", dict(registry._classes["method"]))
        environment = install_faulty(site)
        patch.syspath_prepend(str(SUPPORT))
        patch.syspath_prepend(str(site))
        yield environment


def freeze(place: Path, *overrides: str, results: Path | None = None, **method: Any) -> Path:
    """Freeze a quick run as a sweep does; `method` gives settings of the faulty method, which must be installed."""
    section = {**FAULTY, **method} if method else None
    config = configure(results or place, *overrides, method=section).plain()
    frozen = FrozenRun(run_id(config), config, " ".join(overrides) or str(method))
    frozen.write(place / f"{frozen.run_id}.json")
    return place / f"{frozen.run_id}.json"


FAULTY = {"name": "faulty", "fault": "none", "at": 2, "note": None, "megabytes": 0, "target": None}


SMALL_EXPERIMENT = """
question: Does it run?
source: none
arms:
  lora: {method: lora}
  random: {method: random}
  random permuted: {method: permuted, method.source: null, method.source_run: "{random}"}
  random reversed: {method: reversed, method.source: null, method.source_run: "{random}"}
vary:
  random: {method.concentration: [0.5]}
axes: {seed: [0, 1]}
settings: {model: tiny, task: planted, train.threads: 1, train.steps: 3, task.train_size: 16, task.validation_size: 8}
shares: {random reversed: lora}
tune: {learning_rate: [1.0e-3, 1.0e-2], seeds: [100], widen: 1}
report: {reference: lora}
"""


def write_experiment(config_dir: Path, text: str = SMALL_EXPERIMENT, name: str = "small") -> Path:
    """Write an experiment file into a folder for --config-dir."""
    file = config_dir / "experiment" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return config_dir
