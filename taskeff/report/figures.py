"""The page's figures: each takes `ReportData` and a width in CSS pixels and returns SVG text.

The same data gives the same bytes: no dates, seeded ids, nothing random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from taskeff.errors import EstimateError
from taskeff.estimate.budget import LEVEL, Estimate
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.regression import Worth
from taskeff.report.contents import ReportData, TaskReport
from taskeff.report.name_placement import place
from taskeff.report.sentences import number, title
from taskeff.report.style import (
    INK,
    MEASURED,
    MUTED,
    PAPER,
    PREDICTED,
    canvas,
    drawn,
    plain,
    styled,
)

# Above this many points names cannot be told apart, below this width they do not fit: number them.
_MOST_NAMES, _NAMES_FROM_WIDTH = 40, 560
_SMALL, _TICK = 9.5, 10.5
_GRID = 41  # points of a predicted line


def scatter_is_numbered(data: ReportData, width: float) -> bool:
    """Whether the scatter of that width shows numbers, which the page must then explain."""
    return width < _NAMES_FROM_WIDTH or len(scatter_tasks(data)) > _MOST_NAMES


def scatter_tasks(data: ReportData) -> list[TaskReport]:
    """The tasks in the scatter, in the order of their numbers: from the highest AUC down."""
    return sorted(data.tasks, key=lambda task: (-task.auc, task.name))


def scatter(data: ReportData, width: float) -> str:
    """AUC against CoS-Low: calibration tasks, the fit and its band, the held-out tasks."""
    tasks = scatter_tasks(data)
    numbered = scatter_is_numbered(data, width)
    with styled():
        figure, axes = canvas(width, max(300, width * 0.56), left=54, bottom=42)
        _frame_scatter(axes, data.calibration, tasks)
        line = fitted_line(data.calibration, [task.prediction.cos_low for task in tasks])
        if len(line):
            axes.fill_between(line[:, 0], line[:, 2], line[:, 3], color=PREDICTED, alpha=0.13, lw=0)
            axes.plot(line[:, 0], line[:, 1], color=PREDICTED)
        for task in tasks:
            _scatter_point(axes, task)
        names = [str(i + 1) if numbered else plain(t.name) for i, t in enumerate(tasks)]
        _name_points(axes, tasks, names, line)
        return drawn(figure)


def fitted_line(calibration: Calibration, cos_lows: Sequence[float]) -> np.ndarray:
    """float64 [points, 4]: CoS-Low, AUC and the ends of a new task's interval, where it has one."""
    margin = 0.1 * (max(cos_lows) - min(cos_lows))
    rows: list[tuple[float, ...]] = []
    for x in np.linspace(min(cos_lows) - margin, max(cos_lows) + margin, _GRID).tolist():
        try:
            found = calibration.predict_auc(x)
        except EstimateError:
            continue
        if found.interval:
            rows.append((x, found.auc, *found.interval[LEVEL]))
    return np.array(rows).reshape(-1, 4)


def _frame_scatter(axes: Axes, calibration: Calibration, tasks: Sequence[TaskReport]) -> None:
    x = [task.prediction.cos_low for task in tasks]
    y = [task.auc for task in tasks]
    pad = max(0.03, 0.08 * (max(x) - min(x)))
    axes.set_xlim(min(x) - pad, max(x) + pad)
    axes.set_ylim(min([0.0, *y]) - 0.03, max([1.0, *y]) + 0.03)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="y")
    axes.set_xlabel("CoS-Low")
    axes.set_ylabel("data efficiency (AUC)")
    mean = float(np.mean([task.auc for task in calibration.fitted]))
    axes.axhline(mean, color=MUTED, lw=1, ls=(0, (1, 3)))


def _scatter_point(axes: Axes, task: TaskReport) -> None:
    axes.plot(task.cos_low_interval, [task.auc] * 2, color=MEASURED, lw=1, alpha=0.3, zorder=2)
    axes.plot(
        task.prediction.cos_low,
        task.auc,
        marker="D" if task.held_out else "o",
        markersize=6.5 if task.held_out else 6,
        color=PAPER if task.held_out else MEASURED,
        markeredgecolor=MEASURED if task.held_out else PAPER,
        markeredgewidth=1.8 if task.held_out else 0.8,
        zorder=3,
    )


def _name_points(
    axes: Axes, tasks: Sequence[TaskReport], names: Sequence[str], line: np.ndarray
) -> None:
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    texts = [axes.text(0, 0, name, fontsize=_SMALL, va="center", zorder=4) for name in names]
    sizes = np.array([(t.get_window_extent(renderer).width, _SMALL + 2.5) for t in texts])
    points = axes.transData.transform([(t.prediction.cos_low, t.auc) for t in tasks])
    frame = np.array([axes.get_window_extent(renderer).extents])
    boxes = place(points, sizes, frame, _strokes(axes, tasks, line))
    back = axes.transData.inverted().transform
    for point, text, box in zip(points, texts, boxes, strict=True):
        text.set_position(tuple(back((box[0], (box[1] + box[3]) / 2))))
        near = point.clip(box[:2], box[2:])
        if math.dist(point, near) > 12:
            axes.plot(*back([point, near]).T, color=MUTED, lw=0.6, zorder=1.5)


def _strokes(axes: Axes, tasks: Sequence[TaskReport], line: np.ndarray) -> np.ndarray:
    """(n, 4): the lines that names had better not cover, as thin boxes."""
    bars = [[(end, task.auc) for end in task.cos_low_interval] for task in tasks]
    pieces = axes.transData.transform(np.reshape(bars, (-1, 2))).reshape(-1, 2, 2)
    if len(line):
        # Short pieces, because a box around a whole slope would cover the plot.
        ends = np.linspace(line[0, 0], line[-1, 0], 120)
        path = np.column_stack([ends, np.interp(ends, line[:, 0], line[:, 1])])
        path = axes.transData.transform(path)
        pieces = np.concatenate([pieces, np.stack([path[:-1], path[1:]], axis=1)])
    thin = np.array([0, 1])
    return np.hstack([pieces.min(1) - thin, pieces.max(1) + thin])


def curve(task: TaskReport, width: float = 200) -> str:
    """One task's score against labels: measured, label-restricted and predicted."""
    measured = task.prediction.curve
    with styled():
        figure, axes = canvas(width, width * 0.68, left=28, right=10, bottom=20, top=6)
        budgets = [p.budget for p in measured.points]
        axes.set_xlim(-0.3, math.log2(max(measured.cap, *budgets)) + 0.3)
        budget_ticks(axes, budgets)
        _curve_frame(axes, task)
        if task.prediction.estimates:
            x, likely, low, high = predicted_scores(task)
            axes.fill_between(x, low, high, color=PREDICTED, alpha=0.15, lw=0)
            axes.plot(x, likely, color=PREDICTED, lw=1.4)
        _measured_curve(axes, task)
        return drawn(figure)


def predicted_scores(task: TaskReport) -> tuple[np.ndarray, ...]:
    """log2(labels), and there the predicted score and the ends of its interval: float64 each.

    It is the curve of the estimate whose labels are printed; all targets have the same.
    """
    estimate, zero_shot = task.prediction.estimates[0], task.prediction.curve.zero_shot
    curve = estimate.curve(np.geomspace(1, estimate.cap, _GRID).tolist())
    ends = curve["band"][f"{100 * LEVEL:.0f}"] if curve["band"] else {}
    shares = curve["share"], ends.get("low", curve["share"]), ends.get("high", curve["share"])
    reach = task.prediction.top - zero_shot
    return (np.log2(curve["budgets"]), *(zero_shot + reach * np.array(share) for share in shares))


def _curve_frame(axes: Axes, task: TaskReport) -> None:
    highest = [ends[1] for ends in task.spread.values()]
    top = max([task.prediction.curve.ceiling, 1.0, *highest])
    axes.set_ylim(-0.04 * top, 1.06 * top)
    axes.set_yticks([0, top / 2, top], [f"{v:.3g}" for v in (0, top / 2, top)])
    axes.grid(axis="y")
    axes.tick_params(labelsize=_TICK, pad=2)
    if task.chance is not None:
        axes.axhline(task.chance, color=MUTED, lw=1, ls=(0, (1, 3)))


def budget_ticks(axes: Axes, budgets: Sequence[int]) -> None:
    """Ticks of an axis in doublings at those of these budgets that find room, the largest first."""
    # Labels closer than this many doublings run into each other.
    apart = 0.16 * (axes.get_xlim()[1] - axes.get_xlim()[0])
    kept: list[int] = []
    for budget in sorted(set(budgets), reverse=True):
        if not kept or log2_labels(kept[-1]) - log2_labels(budget) >= apart:
            kept.append(budget)
    shown = [f"{budget / 1000:g}k" if budget >= 1000 else str(budget) for budget in kept]
    axes.set_xticks([log2_labels(budget) for budget in kept], shown)


def _measured_curve(axes: Axes, task: TaskReport) -> None:
    restricted = sorted(task.label_scores.items())
    axes.plot(
        [log2_labels(budget) for budget, _ in restricted],
        [score for _, score in restricted],
        color=MEASURED,
        lw=1.1,
        alpha=0.75,
        ls=(0, (3, 2.2)),
    )
    points = task.prediction.curve.points
    axes.plot([log2_labels(p.budget) for p in points], [p.score for p in points], color=MEASURED)
    for point in points:
        x = log2_labels(point.budget)
        if point.budget in task.spread:
            axes.plot([x, x], task.spread[point.budget], color=MEASURED, lw=3.5, alpha=0.3)
        face = MEASURED if point.status == "measured" else PAPER
        marker = "s" if point.status == "carried" else "o"
        axes.plot(x, point.score, marker, color=face, markeredgecolor=MEASURED, markersize=4.2)


def controls(data: ReportData, width: float) -> str:
    """r with AUC and its interval, for CoS-Low and for each control."""
    rows = [("cos_low", data.signal), *data.calibration.controls.items()]
    with styled():
        figure, axes = canvas(width, 30 * len(rows) + 44, left=150, right=40, bottom=38, top=6)
        axes.set_xlim(-1.02, 1.02)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(0, color=MUTED, lw=1)
        axes.grid(axis="x")
        axes.set_xticks([-1, -0.5, 0, 0.5, 1], [number(v, 1) for v in (-1, -0.5, 0, 0.5, 1)])
        # Two lines of 22 characters are what the left margin and a row's height hold.
        names = [wrap(plain(title(name), 44), 22)[:2] for name, _ in rows]
        axes.set_yticks(range(len(rows)), ["\n".join(lines) for lines in names])
        axes.get_yticklabels()[0].set_color(INK)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("correlation with AUC, r")
        for position, (_, worth) in enumerate(rows):
            _correlation_row(axes, position, worth, INK if position == 0 else MUTED)
        return drawn(figure)


def _correlation_row(axes: Axes, position: int, worth: Worth, colour: str) -> None:
    if worth.r_interval is not None:
        axes.plot(worth.r_interval, [position] * 2, color=colour, lw=4, alpha=0.35)
    if worth.r is not None:
        axes.plot(worth.r, position, "o", color=colour, markersize=7)
    axes.text(1.08, position, number(worth.r), color=colour, va="center", fontsize=10)


def labels(data: ReportData, width: float) -> str:
    """Predicted labels with their interval, and measured labels, for each held-out task."""
    tasks = [task for task in data.held_out if task.prediction.estimates]
    height = sum(22 + 22 * len(task.prediction.estimates) for task in tasks) + 50
    with styled():
        figure, axes = canvas(width, height, left=42, right=12, bottom=40, top=4)
        edge = _labels_frame(axes, tasks, data.calibration.cap)
        y, ticks = 0.0, []
        for task in tasks:
            axes.text(
                -0.055 if width > 500 else -0.12,
                y,
                plain(task.name, 40),
                transform=axes.get_yaxis_transform(),
                fontweight="bold",
                fontsize=10.5,
                va="center",
            )
            for estimate in task.prediction.estimates:
                y += 1
                ticks.append((y, f"{estimate.target * 100:.3g} %"))
                measured = task.prediction.measured_labels(estimate.target)
                _labels_row(axes, y, estimate, measured, edge)
            y += 1
        axes.set_yticks([t[0] for t in ticks], [t[1] for t in ticks])
        return drawn(figure)


def _labels_frame(axes: Axes, tasks: Sequence[TaskReport], cap: int) -> float:
    most = float(cap)
    for estimate in (e for task in tasks for e in task.prediction.estimates):
        ends = (None, None) if estimate.intervals is None else estimate.intervals[LEVEL]
        most = max([most, *(n for n in (estimate.labels_needed, *ends) if n is not None)])
    edge = log2_labels(most) + 0.8
    axes.set_xlim(-0.15, edge)
    rows = sum(1 + len(task.prediction.estimates) for task in tasks)
    axes.set_ylim(rows - 0.4, -0.6)
    budget_ticks(axes, _powers(cap, most))
    axes.axvline(log2_labels(cap), color=MUTED, lw=1, ls=(0, (4, 3)))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("labels (dashed: the cap)")
    return edge


def _labels_row(
    axes: Axes, y: float, estimate: Estimate, measured: float | None, edge: float
) -> None:
    if estimate.intervals is not None:
        low, high = estimate.intervals[LEVEL]
        ends = [log2_labels(low), edge if high is None else log2_labels(high)]
        axes.plot(ends, [y, y], color=PREDICTED, lw=5, alpha=0.3)
    if estimate.labels_needed is None:
        axes.plot(edge - 0.3, y, ">", color=PREDICTED, markersize=7, clip_on=False)
    else:
        axes.plot(log2_labels(estimate.labels_needed), y, "o", color=PREDICTED, markersize=7)
    if measured is None:
        axes.plot(edge, y, ">", color=PAPER, mec=MEASURED, mew=1.8, markersize=7, clip_on=False)
    else:
        axes.plot(log2_labels(measured), y, "D", color=PAPER, mec=MEASURED, mew=1.8, markersize=6.5)


def _powers(cap: int, most: float) -> list[int]:
    """The cap and what lies whole quadruplings from it."""
    steps = [cap]
    while steps[0] >= 4:
        steps.insert(0, steps[0] // 4)
    while steps[-1] * 4 <= most:
        steps.append(steps[-1] * 4)
    return steps


def log2_labels(budget: float) -> float:
    """Where a budget stands on the axis; no labels at all where one would: the published axis."""
    return math.log2(max(budget, 1.0))
