"""The figure of one family: its tasks and line in CoS-Low, or the curves that it expects."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taskeff.errors import EstimateError
from taskeff.estimate.calibration import LEVELS, Calibration
from taskeff.estimate.posterior import update
from taskeff.report.estimate_figures import budget_frame
from taskeff.report.figures import fitted_line
from taskeff.report.style import MEASURED, PAPER, PREDICTED, canvas

_GRID = 81  # points of a line


def alone(calibration: Calibration, width: float) -> Figure:
    """The figure with its legend, on paper; to be called within `styled`.

    Raises:
        EstimateError: the family has neither a line nor enough curves to draw from.
    """
    figure, axes = canvas(width, max(260, width * 0.48), left=64, bottom=40)
    if calibration.line is not None:
        _line(axes, calibration)
    elif (prior := calibration.prior_given(())) is not None:
        found = update(prior, {}, cap=calibration.cap)
        x = np.linspace(0.0, 1.0, _GRID)
        at = x * math.log2(calibration.cap)
        for level, (low, high) in reversed(found.band(x, LEVELS).items()):
            name = f"{100 * level:.0f} % of tasks"
            axes.fill_between(at, low, high, color=PREDICTED, alpha=0.13, lw=0, label=name)
        axes.plot(at, found.likely(x), color=PREDICTED, label="likely curve of a new task")
        budget_frame(axes, calibration.cap, "share of zero-shot to ceiling")
    else:
        raise EstimateError(
            f"family {calibration.family!r} has neither a line in CoS-Low nor eight curves that "
            "rise: there is nothing to draw"
        )
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    figure.set_facecolor(PAPER)
    return figure


def _line(axes: Axes, calibration: Calibration) -> None:
    tasks, line = calibration.fitted, calibration.line
    assert line is not None
    known = [task.cos_low for task in tasks if task.cos_low is not None] or [0.0, 1.0]
    band = fitted_line(calibration, known)
    if len(band):
        ends = band[:, 2], band[:, 3]
        name = "80 % interval of a new task"
        axes.fill_between(band[:, 0], *ends, color=PREDICTED, alpha=0.13, lw=0, label=name)
    at = np.linspace(min(known), max(known), _GRID)
    axes.plot(at, [line.auc(x) for x in at.tolist()], color=PREDICTED, label="line in CoS-Low")
    if tasks:
        areas = [task.auc for task in tasks]
        axes.plot(known, areas, "o", color=MEASURED, mec=PAPER, markersize=6, label="tasks")
    axes.set_ylim(-0.03, 1.03)
    axes.grid(axis="y")
    axes.set_xlabel("CoS-Low")
    axes.set_ylabel("data efficiency (AUC)")
