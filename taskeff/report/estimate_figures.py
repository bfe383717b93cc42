"""The figures of one estimate: its curve with bands and pilots, the chance over labels.

They stand on the page of `taskeff predict --html`, the first alone in a notebook and in the file of
`--plot`.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskeff.estimate.budget import LEVEL, Estimate
from taskeff.estimate.rounding import whole
from taskeff.report.figures import budget_ticks, log2_labels
from taskeff.report.style import MEASURED, MUTED, PAPER, PREDICTED, canvas, drawn, styled

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
        budget_frame(axes, estimate.cap, "chance of the target")
        return drawn(figure)


def alone(estimate: Estimate, width: float) -> Figure:
    """The curve with its legend, on paper; to be called within `styled`."""
    figure = _curve(estimate, width)
    figure.axes[0].legend(frameon=False, fontsize=9, loc="upper left")
    figure.set_facecolor(PAPER)
    return figure


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
    budget_frame(axes, estimate.cap, "share of zero-shot to ceiling", max(1.0, highest))
    return figure


def budget_frame(axes: Axes, cap: int, name: str, top: float = 1.0) -> None:
    """The axes of a share, `name` it is, over labels up to `cap`."""
    axes.set_xlim(-0.15, math.log2(cap) + 0.15)
    axes.set_ylim(-0.03, top + 0.05)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    decades = [10**k for k in range(int(math.log10(cap)) + 1)]
    budget_ticks(axes, [*decades, cap])
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
