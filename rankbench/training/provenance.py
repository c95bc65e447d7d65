"""Where a number comes from: code, libraries, machine, model, data."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rankbench.config import registry

PACKAGES = ("rankbench", "torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy", "hydra-core")


def provenance(device: torch.device, processes: int, model: dict[str, str], data: dict[str, str]) -> dict[str, Any]:
    """As in the record.

    Args:
        device: of this process.
        processes: of the run.
        model: revision or hash of the weights.
        data: revision or hash of the data, and of the prompt template.
    """
    return {
        **code(),
        "packages": dict(libraries()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {_processor()}",
        "threads": torch.get_num_threads(),
        "processes": processes,
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
