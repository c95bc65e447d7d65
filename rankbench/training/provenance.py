"""Where a number comes from: code, libraries, machine, model, data."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rankbench.config import environment, registry
from rankbench.training.code_identity import numbers_code, shared_code

if TYPE_CHECKING:
    from rankbench.training.assembly import Assembly

PACKAGES = ("rankbench", "torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy", "hydra-core")

QUANTIZER = "bitsandbytes"  # a number depends on it where the base is quantised


def provenance(assembly: Assembly) -> dict[str, Any]:
    """Provenance as in the record; revisions of model and data are {} before they are loaded."""
    config, device = assembly.config, assembly.accelerator.device
    model, data = assembly.revisions
    return {
        **code(),
        "numbers_code": numbers_code(config.method.name, config.task.name, getattr(config.method, "source", None)),
        "shared_code": shared_code(config.task.name),
        "deviations": list(registry.get("method", config.method.name).deviations_of(config.method)),
        "packages": dict(libraries()) | ({QUANTIZER: _version(QUANTIZER)} if config.model.quantization else {}),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {_processor()}",
        "threads": torch.get_num_threads(),
        "environment": environment.recorded(),
        "processes": assembly.accelerator.num_processes,
        "model": model,
        "task": data,
    }


@functools.cache
def code() -> dict[str, Any]:
    """Commit and dirty flag of the checkout this package runs from, as first asked for; None if it is from a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True).stdout.strip()

    return {"git_commit": git("rev-parse", "HEAD") or None, "git_dirty": bool(git("status", "--porcelain", "-uno"))}


@functools.cache
def libraries() -> dict[str, str | None]:
    """Versions of the packages that a number may depend on, as first asked for; None for one that is not installed."""
    return {name: _version(name) for name in (*PACKAGES, *_extensions())}


def _extensions() -> list[str]:
    """Installed packages that bring methods or tasks."""
    return sorted({registry.package(point) for kind in registry.ENTRY_POINTS for point in registry.points(kind)})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
