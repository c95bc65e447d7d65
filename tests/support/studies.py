"""Made-up studies: sweeps with records of every kind, for the tests of code that reads them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from rankbench.records.record import RunRecord
from rankbench.studies.study import Study
from rankbench.sweeps import experiment, experiment_files
from rankbench.sweeps.grid import cells_of
from rankbench.sweeps.manifest import Job, Sweep

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
PROVENANCE = {
    "git_commit": "c" * 40,
    "git_dirty": False,
    "packages": {"rankbench": "0.1.0", "torch": "2.13.0", "scipy": "1.17.1"},
    "device": "cpu made up",
    "model": {"model": "4567"},
    "task": {"data": "d"},
}
# arm: settings, and how much better than LoRA it is, in standard deviations over seeds
ARMS: dict[str, tuple[dict[str, Any], float]] = {
    "lora": ({"method": "lora"}, 0.0),
    "igu": ({"method": "igu"}, 2.5),
    "adalora": ({"method": "adalora"}, 0.0),
    "fim": ({"method": "fim"}, 0.6),
    "l1ra": ({"method": "l1ra"}, 1.0),
    "igu ranks permuted": ({"method": "permuted", "method.source_run": "{igu}"}, -1.0),
    "random": ({"method": "random"}, -2.5),
}
RATES = (0.0003, 0.001, 0.003, 0.01)
TUNING_SEED = 100


def declared(
    tasks: Sequence[str] = ("glue-rte",),
    budgets: Sequence[str] = ("r8",),
    seeds: Sequence[int] = range(6),
    models: Sequence[str] = ("minilm-l6",),
    arms: int | None = None,
    **changes: Any,
) -> experiment.Experiment:
    """Declare an experiment; `arms` is the number of arms, some of which differ only in one setting."""
    own = {name: settings for name, (settings, _) in ARMS.items()}
    extra = max(0, (arms or len(own)) - len(own))
    content = {
        "name": "made_up",
        "question": "Does IGU-LoRA deal ranks better than LoRA does, at the same budget?",
        "source": "made up; arXiv 2603.13792, Table 1",
        "arms": own,
        "vary": {"igu": {"method.quadrature_steps": [2, 5, 10, 20], "method.beta1": [0.5, 0.85, 0.95]}},
        "grid": {"fim": {"method.batches": [1, 4, 16], "method.power": [0.5, 1.0, 2.0]}},
        "axes": {"model": list(models), "task": list(tasks), "budget": list(budgets), "seed": list(seeds)},
        "settings": {"train.steps": 100},
        "tune": {"learning_rate": list(RATES), "seeds": [TUNING_SEED]},
        "report": {
            "reference": "lora",
            "metrics": {"default": "test/accuracy", "planted": "test/kl"},
            "margin": 0.01,
            "controls": {"igu": {"permuted": "igu ranks permuted", "random": "random"}, "fim": {"random": "random"}},
            "curves": {"quadrature steps M": "method.quadrature_steps", "smoothing beta1": "method.beta1"},
            "maps": {"batches x power": ["method.batches", "method.power"]},
            "published": [
                {"file": "adalora", "table": "Table 1", "model": None, "arms": {"lora": "LoRA", "adalora": "AdaLoRA"}}
            ],
        },
    }
    if arms is not None:
        content["vary"] = {"igu": {"method.beta1": [round(0.01 * step, 2) for step in range(extra)]}} if extra else {}
        content["grid"] = {}
        content["report"]["maps"] = {}
        content["report"]["curves"] = {"smoothing beta1": "method.beta1"} if extra else {}
    return experiment_files.read({**content, **changes}, "made up")


def study(
    made: experiment.Experiment | None = None, layers: int = 6, lost: float = 0.03, failed: float = 0.03, seed: int = 0
) -> Study:
    """Make a sweep of an experiment with made-up numbers.

    Args:
        lost, failed: share of the runs without a record, and share of the runs that failed.
    """
    made = made or declared()
    generator = np.random.default_rng(seed)
    jobs, records, curves = [], {}, {}
    cells = cells_of(made, {})
    for cell in cells:
        values = {key: text.partition("=")[2] for key, text in cell.settings.items()}
        at = {key: values[key] for key in ("model", "task", "budget")}
        tuned = _tuned(cell.arm, at, generator)
        overrides = (*cell.overrides, f"train.learning_rate={tuned['chosen']}")
        name = _run_id(cell.arm, overrides, trial=False)
        jobs.append(Job(cell.arm, name, False, overrides))
        fate = generator.random()
        if fate >= lost:
            status = "ok" if fate >= lost + failed else ("nan", "oom", "inert")[int(generator.integers(3))]
            records[name] = _record(name, cell.arm, values, tuned, status, layers, generator)
            curves[name] = _curve(records[name])
    trials = []
    for cell, rate in itertools.product(cells, RATES if made.tune else ()):
        values = {key: text.partition("=")[2] for key, text in cell.settings.items()}
        if values["seed"] != str(made.axes["seed"][0]) or cell.arm in experiment.rates_of(made):
            continue
        values |= {"seed": str(TUNING_SEED), "train.learning_rate": str(rate)}
        overrides = tuple(f"{key}={value}" for key, value in values.items())
        name = _run_id(cell.arm, overrides, trial=True)
        trials.append(Job(cell.arm, name, True, overrides))
        if generator.random() >= lost:
            records[name] = _trial(name, cell.arm, values, rate, generator)
    words = ["experiment=made_up"]
    sweep = Sweep("made_up-1", "made_up", 1, words, made, made.tune, [*trials, *jobs], [])
    return Study(sweep, records, curves, ["results/runs/ffff/record.json: not JSON (Expecting value)"])


def _run_id(arm: str | None, overrides: Sequence[str], trial: bool) -> str:
    return hashlib.sha256(f"{arm}{overrides}{trial}".encode()).hexdigest()[:12]


def _effect(arm: str) -> float:
    base = next(name for name in sorted(ARMS, key=len, reverse=True) if arm.startswith(name))
    effect = ARMS[base][1]
    if "quadrature_steps=" in arm:
        effect -= 2.5 / float(arm.split("=")[1])
    return effect


def _method(arm: str) -> str:
    base = next(name for name in sorted(ARMS, key=len, reverse=True) if arm.startswith(name))
    return ARMS[base][0]["method"]


def _tuned(arm: str, at: dict[str, str], generator: np.random.Generator) -> dict[str, Any]:
    best = RATES[0 if arm == "l1ra" else 1 + (len(arm) + len(at["task"])) % 2]  # l1ra's alone at an edge
    curve = [[rate, round(0.6 + 0.2 * abs(np.log10(rate / best)), 4), 0] for rate in RATES]
    return {
        "metric": "validation/loss",
        "seeds": [TUNING_SEED],
        "curve": curve,
        "chosen": best,
        "edge": best in (RATES[0], RATES[-1]),
        "widened": 0,
        "trials": [],
    }


def _config(arm: str, values: dict[str, str], tuned: dict[str, Any] | None) -> dict[str, Any]:
    method: dict[str, Any] = {"name": _method(arm), "quadrature_steps": 10, "beta1": 0.75, "batches": 8, "power": 1.5}
    for key, value in values.items():
        if key.startswith("method.") and key != "method.source_run":
            method[key.removeprefix("method.")] = float(value) if value[0].isdecimal() else value
    rate = tuned["chosen"] if tuned else float(values["train.learning_rate"])
    return {
        "method": method,
        "model": {"name": values["model"], "dtype": "float32", "targets": ["all-linear"]},
        "task": {"name": values["task"], "train_size": 512},
        "budget": {
            "name": values["budget"],
            "match": "final",
            "unit": "params",
            "reference_rank": int(values["budget"][1:]),
        },
        "train": {"learning_rate": rate, "steps": int(values["train.steps"]), "batch_size": 16},
        "seed": int(values["seed"]),
        "tuned": tuned,
    }


def _record(
    name: str, arm: str, values: dict[str, str], tuned: Any, status: str, layers: int, generator: np.random.Generator
) -> RunRecord:
    rank = int(values["budget"].removeprefix("r"))
    seeds = np.random.default_rng(int(values["seed"]) + 7)
    score = 0.62 + 0.015 * np.log2(rank) + 0.02 * seeds.normal() + 0.01 * (_effect(arm) + generator.normal())
    method, target = _method(arm), rank * 1000 * layers
    spent = target * (1.4 if method == "l1ra" else 1) - int(generator.integers(20))
    grows = method in ("igu", "adalora")
    figures = {"ranks": rank * layers * len(KINDS), "params": int(spent)}
    own = 4.0 if method == "igu" else 1.0
    phases = {
        "calibration": _phase(1.5 if method == "fim" else 0.0, generator),
        "allocation": _phase(own if grows else 0.0, generator),
        "training": _phase(12.0, generator),
        "evaluation": _phase(1.0, generator),
    }
    metrics = {"step": 100, "accuracy": score, "matthews": score - 0.2, "loss": 1 - score, "kl": (1 - score) / 9}
    return RunRecord(
        run_id=name,
        status=status,
        reason=None if status == "ok" else f"{status}: made up to fail at step 3",
        method=method,
        model=values["model"],
        task=values["task"],
        budget=values["budget"],
        seed=int(values["seed"]),
        config=_config(arm, values, tuned),
        provenance=PROVENANCE,
        ledger={
            "unit": "params",
            "target": target,
            "head_params": 770,
            "gate_params": 0,
            "start": {**figures, "params": int(spent * (1.5 if grows else 1))},
            "peak": {**figures, "params": int(spent * (1.5 if grows else 1))},
            "final": figures,
        },
        ranks=_ranks(arm, rank, layers, generator),
        history_events=3,
        metrics=None if status in ("nan", "oom") else {"before": None, "validation": dict(metrics), "test": metrics},
        cost={**phases, "peak_memory_bytes": int(2**20 * (500 + 40 * grows + generator.random()))},
    )


def _trial(name: str, arm: str, values: dict[str, str], rate: float, generator: np.random.Generator) -> RunRecord:
    tuned = _tuned(arm, values, generator)
    found = _record(name, arm, values, None, "ok", 1, generator)
    loss = next(mean for at, mean, _ in tuned["curve"] if at == rate)
    found.config["trial"] = True
    found.metrics = {"before": None, "validation": {"step": 100, "loss": loss}, "test": None}
    return found


def _phase(seconds: float, generator: np.random.Generator) -> dict[str, Any]:
    passes = int(seconds * 10)
    seconds *= 1 + 0.05 * generator.random()
    return {"seconds": seconds, "forward_passes": passes, "backward_passes": passes, "tokens": passes * 512}


def _ranks(arm: str, rank: int, layers: int, generator: np.random.Generator) -> dict[str, int]:
    sites = [f"model.layers.{layer}.{kind}" for layer in range(layers) for kind in KINDS]
    if _method(arm) == "lora":
        return dict.fromkeys(sites, rank)
    shares = np.linspace(0.4, 1.6, len(sites)) * (0.8 + 0.4 * generator.random(len(sites)))
    return {site: round(rank * share) for site, share in zip(sites, shares, strict=True)}


def _curve(record: RunRecord) -> list[tuple[int, int]]:
    total = record.ledger["final"]["ranks"] if record.ledger else 0
    if record.method not in ("igu", "adalora", "l1ra"):
        return [(1, total), (100, total)]
    start = 1.5 if record.method != "l1ra" else 1.0
    end = 1.0 if record.method != "l1ra" else 1.4
    return [(step, round(total * (start + (end - start) * step / 70))) for step in (1, *range(10, 71, 5))] + [
        (100, round(total * end))
    ]
