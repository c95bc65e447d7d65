"""The figure of `rankbench quadrature`; readable without colour. The bounds are those of Theorem 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import NullLocator

if TYPE_CHECKING:
    from rankbench.quadrature.errors import Fit, Point

# estimator -> label, marker, line, grey
LOOKS = {
    "printed": ("printed (eq. 6)", "s", "-", "0.0"),
    "printed_rescaled": ("printed, scaled to sum 1", "D", "-", "0.35"),
    "none": ("none (released code)", "^", "-", "0.55"),
    "unbiased": ("unbiased (factor M - 1)", "o", "-", "0.0"),
    "sampled": ("sampled (default)", "v", "-", "0.35"),
}


@context(["default", {"pdf.fonttype": 42, "ps.fonttype": 42}])  # not a user's matplotlibrc; journals refuse Type 3
def draw(points: Sequence[Point], fits: Sequence[Fit], title: str, stem: Path) -> None:
    """Write <stem>.png and <stem>.pdf: error over M beside error over N, both against the integral, log-log."""
    figure = Figure(figsize=(9.5, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    slopes = {(fit.estimator, fit.reference): fit for fit in fits}
    _trapezoid(left, [p for p in points if p.kind == "trapezoid"], slopes)
    _sampling(right, [p for p in points if p.kind == "sampling" and p.reference == "integral"], slopes)
    for suffix in ("png", "pdf"):
        metadata = {"CreationDate": None} if suffix == "pdf" else None  # the same points give the same bytes
        figure.savefig(stem.with_suffix(f".{suffix}"), dpi=160, metadata=metadata)


def _trapezoid(axes: Any, line: Sequence[Point], slopes: dict[tuple[str, str], Fit]) -> None:
    x = [p.M for p in line]
    axes.plot(x, [p.bound for p in line], "--", color="0.5", label="bound")
    axes.plot(x, [p.error for p in line], "o-", color="0.0", label=f"trapezoid, {_slope(slopes, 'trapezoid')}")
    if max(p.floor for p in line) > min(p.error for p in line) / 100:  # else it would only squeeze the rest
        axes.plot(x, [p.floor for p in line], ":", color="0.5", label="rounding")
    _finish(axes, x, "M, intervals of the path", "Trapezoid rule")


def _sampling(axes: Any, points: Sequence[Point], slopes: dict[tuple[str, str], Fit]) -> None:
    for estimator, (label, marker, style, grey) in LOOKS.items():
        line = [p for p in points if p.estimator == estimator]
        x, y = [p.N for p in line], [p.error for p in line]
        axes.plot(x, y, style, marker=marker, color=grey, mfc="white", label=f"{label}, {_slope(slopes, estimator)}")
    bound = [p for p in points if p.estimator == "unbiased"]
    axes.plot([p.N for p in bound], [p.bound for p in bound], "--", color="0.5", label="bound of unbiased")
    _finish(axes, [p.N for p in bound], "N, draws averaged", f"Stochastic estimators, M = {bound[0].M}")


def _slope(slopes: dict[tuple[str, str], Fit], estimator: str) -> str:
    fit = slopes[estimator, "integral"]
    return "no slope" if fit.slope is None else f"slope {round(fit.slope, 2) + 0.0:.2f}"  # + 0.0: no "-0.00"


def _finish(axes: Any, x: Sequence[int | None], label: str, title: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="relative error of the attributions")
    axes.set_title(title, fontsize=10)
    axes.set_xticks(x, [str(value) for value in x])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="0.9")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
