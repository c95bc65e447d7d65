"""What a measurement of quadrature prints and writes: tables, quadrature.csv, quadrature.json and the figure."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.table import Table

from rankbench.quadrature.errors import Point, fits
from rankbench.terminal import console


def write(folder: Path, points: Sequence[Point], facts: dict[str, Any]) -> None:
    """quadrature.csv (a row per point), quadrature.json (what was run) and the figure as PNG and PDF."""
    from rankbench.quadrature.figure import draw  # matplotlib takes a moment to import

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "quadrature.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)
    (folder / "quadrature.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    setting = (facts["config"][group]["name"] for group in ("method", "model", "task"))
    title = f"{', '.join(setting)}: integrated gradients, ||dW|| / ||W0|| = {facts['relative_update']:.2g}"
    draw(points, fits(points), title, folder / "quadrature")


def show(points: Sequence[Point], completeness: Sequence[dict[str, Any]]) -> None:
    """Print errors against the integral, slopes (those against the trapezoid, too) and completeness."""
    errors = Table("estimator", "M", "N", "error", "rounding", "bound", box=None, pad_edge=False)
    for p in (p for p in points if p.reference == "integral"):
        number = (str(p.M), str(p.N or ""), f"{p.error:.3e}", f"{p.floor:.0e}")
        errors.add_row(p.estimator, *number, "" if p.bound is None else f"{p.bound:.3e}")
    slopes = Table("estimator", "against", "slope", "fitted over", box=None, pad_edge=False)
    for fit in fits(points):
        described = ("none", "too few points above rounding")
        if fit.slope is not None:
            described = (f"{fit.slope:.3f}", f"{'M' if fit.kind == 'trapezoid' else 'N'} {fit.first} to {fit.last}")
        slopes.add_row(fit.estimator, fit.reference, *described)
    complete = Table("rule", "role", "sum of attributions", "loss difference", "gap", box=None, pad_edge=False)
    for row in completeness:
        numbers = f"{row['sum']:.9g}", f"{row['difference']:.9g}", f"{row['gap']:.1e}"
        complete.add_row(row["rule"], row["role"], *numbers)
    for table in (errors, slopes, complete):
        console().print(table, "")
