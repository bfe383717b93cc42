"""The figures of one estimate: its curve with bands and pilots, the chance over labels.

They stand on the page of `taskeff predict --html`, and the first alone in the file of `--plot`.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskeff.errors import EstimateError
from taskeff.estimate.budget import LEVEL, Estimate
from taskeff.estimate.rounding import whole
from taskeff.report.figures import budget_ticks, log2_labels
from taskeff.report.style import MEASURED, MUTED, PAPER, PREDICTED, canvas, drawn, styled
from taskeff.storage import Store

_GRID = 81  # points of a line
_SD = 1.2816  # standard deviations of a normal's 80 % interval


def curve(estimate: Estimate, width: float) -> str:
    """Share of the range against labels, as SVG text `width` CSS pixels wide."""
    with styled():
        return drawn(_curve(estimate, width))


def chance(estimate: Estimate, width: float) -> str:
    """The chance that the target is reached with so many labels, as SVG text.

    The estimate has a posterior.
    """
    found = estimate.posterior
    assert found is not None
    with styled():
        figure, axes = canvas(width, max(190, width * 0.3), left=64, bottom=40)
        labels = np.sort(np.log2(np.maximum(found.labels(estimate.target), 1.0)))
        at = np.linspace(0, math.log2(estimate.cap), _GRID)
        reached = np.searchsorted(labels, at, side="right") / len(labels)
        axes.fill_between(at, reached, color=PREDICTED, alpha=0.13, lw=0)
        axes.plot(at, reached, color=PREDICTED)
        _frame(axes, estimate, "chance of the target")
        return drawn(figure)


def save(estimate: Estimate, path: str | Path) -> None:
    """Draw the curve into an SVG or PNG file; the same estimate gives the same bytes.

    Raises:
        EstimateError: the path ends in neither .svg nor .png.
        StorageError: it cannot be written; what was there before is as it was.
    """
    file = Path(path)
    if file.suffix not in (".svg", ".png"):
        raise EstimateError(f"{file}: the plot is drawn as .svg or .png; end the name so")
    with styled():
        figure = _curve(estimate, 700)
        figure.axes[0].legend(frameon=False, fontsize=9, loc="upper left")
        kind = file.suffix[1:]
        metadata = {"Date": None} if kind == "svg" else None
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=144, facecolor=PAPER)
    Store(str(file.parent)).write_bytes(buffer.getvalue(), file.name)


def _curve(estimate: Estimate, width: float) -> Figure:
    figure, axes = canvas(width, max(260, width * 0.48), left=64, bottom=40)
    budgets = np.geomspace(1, estimate.cap, _GRID).tolist()
    found = estimate.curve(budgets)
    at = np.log2(budgets)
    for level, ends in reversed((found["band"] or {}).items()):
        name = f"{level} %"
        axes.fill_between(
            at, ends["low"], ends["high"], color=PREDICTED, alpha=0.13, lw=0, label=name
        )
    axes.plot(at, found["share"], color=PREDICTED, label="likely curve")
    name = f"target {estimate.target:.3g}"
    axes.axhline(estimate.target, color=MUTED, lw=1, ls=(0, (1, 3)), label=name)
    _needed(axes, estimate)
    highest = _pilots(axes, estimate)
    _frame(axes, estimate, "share of zero-shot to ceiling", max(1.0, highest))
    return figure


def _frame(axes: Axes, estimate: Estimate, name: str, top: float = 1.0) -> None:
    axes.set_xlim(-0.15, math.log2(estimate.cap) + 0.15)
    axes.set_ylim(-0.03, top + 0.05)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    decades = [10**k for k in range(int(math.log10(estimate.cap)) + 1)]
    budget_ticks(axes, [*decades, estimate.cap])
    axes.grid(axis="y")
    axes.set_xlabel("labels")
    axes.set_ylabel(name)


def _needed(axes: Axes, estimate: Estimate) -> None:
    """The labels that are said of the target, and their interval, where there are any."""
    if estimate.intervals is not None:
        low, end = estimate.intervals[LEVEL]
        ends = [log2_labels(low), log2_labels(estimate.cap if end is None else end)]
        axes.plot(ends, [estimate.target] * 2, color=PREDICTED, lw=5, alpha=0.3)
    if estimate.labels_needed is not None:
        x, name = log2_labels(estimate.labels_needed), f"{whole(estimate.labels_needed):,} labels"
        axes.plot(x, estimate.target, "D", color=PREDICTED, markersize=7, label=name, ls="")


def _pilots(axes: Axes, estimate: Estimate) -> float:
    """The pilots with what their test rows leave open; returns the highest point drawn."""
    base, found = estimate.zero_shot, estimate.posterior
    if not estimate.pilots or base is None or found is None:
        return 0.0
    # The range that most of the curves count in: a pilot may have outgrown the ceiling given.
    room = (1 - base) * float(np.median(found.top))
    highest = 0.0
    for i, pilot in enumerate(estimate.pilots):
        x, y = log2_labels(pilot.budget), (pilot.score - base) / room
        if pilot.n_test is not None:
            off = _SD * math.sqrt(pilot.score * (1 - pilot.score) / pilot.n_test) / room
            axes.plot([x, x], [y - off, y + off], color=MEASURED, lw=3.5, alpha=0.3)
        name = "pilots" if i == 0 else None
        axes.plot(x, y, "o", color=MEASURED, markersize=6, label=name, ls="")
        highest = max(highest, y)
    return highest
