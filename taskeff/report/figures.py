"""The page's figures: each takes `ReportData` and a width in CSS pixels and returns SVG text.

The same data gives the same bytes: no dates, seeded ids, nothing random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from taskeff.report.data import Band, Correlation, LabelTarget, ReportData, TaskCurve
from taskeff.report.labels import Box, place
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
from taskeff.report.words import known, number, title

# Above this many points names cannot be told apart, below this width they do not fit: number them.
_MOST_NAMES, _NAMES_FROM_WIDTH = 40, 560
_SMALL, _TICK = 9.5, 10.5


def scatter_is_numbered(data: ReportData, width: float) -> bool:
    """Whether the scatter of that width shows numbers, which the page must then explain."""
    return width < _NAMES_FROM_WIDTH or len(scatter_tasks(data)) > _MOST_NAMES


def scatter_tasks(data: ReportData) -> list[TaskCurve]:
    """The tasks in the scatter, in the order of their numbers: from the highest AUC down."""
    shown = [c for c in data.curves if known(c.auc) and known(c.cos_low)]
    return sorted(shown, key=lambda c: (-(c.auc or 0.0), c.name))


def scatter(data: ReportData, width: float) -> str:
    """AUC against CoS-Low: calibration tasks, the fit and its band, the held-out tasks."""
    tasks = scatter_tasks(data)
    numbered = scatter_is_numbered(data, width)
    with styled():
        figure, axes = canvas(width, max(300, width * 0.56), left=54, bottom=42)
        _frame_scatter(axes, data, tasks)
        if data.fit_band is not None:
            band = data.fit_band
            axes.fill_between(band.x, band.low, band.high, color=PREDICTED, alpha=0.13, lw=0)
            axes.plot(band.x, band.mean, color=PREDICTED)
        for task in tasks:
            _scatter_point(axes, task)
        names = [str(i + 1) if numbered else plain(t.name) for i, t in enumerate(tasks)]
        _name_points(axes, tasks, names, data.fit_band)
        return drawn(figure)


def _frame_scatter(axes: Axes, data: ReportData, tasks: Sequence[TaskCurve]) -> None:
    x = [_position(task)[0] for task in tasks] or [0.0, 1.0]
    y = [_position(task)[1] for task in tasks]
    pad = max(0.03, 0.08 * (max(x) - min(x)))
    axes.set_xlim(min(x) - pad, max(x) + pad)
    axes.set_ylim(min([0.0, *y]) - 0.03, max([1.0, *y]) + 0.03)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="y")
    axes.set_xlabel("CoS-Low")
    axes.set_ylabel("data efficiency (AUC)")
    fitted = [task.auc for task in data.calibration.fitted]
    if fitted:
        axes.axhline(float(np.mean(fitted)), color=MUTED, lw=1, ls=(0, (1, 3)))


def _position(task: TaskCurve) -> tuple[float, float]:
    assert task.cos_low is not None and task.auc is not None, "scatter_tasks lets no other in"
    return task.cos_low, task.auc


def _scatter_point(axes: Axes, task: TaskCurve) -> None:
    cos_low, auc = _position(task)
    interval = task.cos_low_interval
    if interval is not None and interval.high is not None:
        ends = [interval.low, interval.high]
        axes.plot(ends, [auc] * 2, color=MEASURED, lw=1, alpha=0.3, zorder=2)
    held_out = task.role == "held_out"
    axes.plot(
        cos_low,
        auc,
        marker="D" if held_out else "o",
        markersize=6.5 if held_out else 6,
        color=PAPER if held_out else MEASURED,
        markeredgecolor=MEASURED if held_out else PAPER,
        markeredgewidth=1.8 if held_out else 0.8,
        zorder=3,
    )


def _name_points(
    axes: Axes, tasks: Sequence[TaskCurve], names: Sequence[str], fit: Band | None
) -> None:
    if not tasks:
        return
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    texts = [axes.text(0, 0, name, fontsize=_SMALL, va="center", zorder=4) for name in names]
    sizes = [(t.get_window_extent(renderer).width, _SMALL + 2.5) for t in texts]
    points = [tuple(axes.transData.transform(_position(t))) for t in tasks]
    frame = axes.get_window_extent(renderer)
    strokes = list(_strokes(axes, tasks, fit))
    boxes = place(points, sizes, Box(frame.x0, frame.y0, frame.x1, frame.y1), strokes)
    back = axes.transData.inverted().transform
    for point, text, box in zip(points, texts, boxes, strict=True):
        middle = (box.bottom + box.top) / 2
        text.set_position(tuple(back((box.left, middle))))
        near = (min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top))
        if math.dist(point, near) > 12:
            ends = np.array([back(point), back(near)])
            axes.plot(ends[:, 0], ends[:, 1], color=MUTED, lw=0.6, zorder=1.5)


def _strokes(axes: Axes, tasks: Sequence[TaskCurve], fit: Band | None) -> Iterator[Box]:
    """The lines that names had better not cover, as thin boxes."""
    at = axes.transData.transform
    for task in tasks:
        interval = task.cos_low_interval
        if interval is not None and interval.high is not None:
            auc = _position(task)[1]
            (x0, y), (x1, _) = at((interval.low, auc)), at((interval.high, auc))
            yield Box(x0, y - 1, x1, y + 1)
    if fit is not None:
        # Short pieces, because a box around a whole slope would cover the plot.
        ends = np.linspace(fit.x[0], fit.x[-1], 120)
        path = at(np.column_stack([ends, np.interp(ends, fit.x, fit.mean)]))
        for (x0, y0), (x1, y1) in pairwise(path):
            yield Box(x0, min(y0, y1) - 1, x1, max(y0, y1) + 1)


def curve(task: TaskCurve, cap: int, width: float = 200) -> str:
    """One task's score against labels: measured, label-restricted and predicted."""
    with styled():
        figure, axes = canvas(width, width * 0.68, left=28, right=10, bottom=20, top=6)
        budgets = [p.budget for p in task.points]
        axes.set_xlim(-0.3, math.log2(max([cap, 2, *budgets])) + 0.3)
        _budget_ticks(axes, budgets or [1, cap])
        _curve_frame(axes, task)
        if task.predicted is not None:
            _predicted_curve(axes, task)
        _measured_curve(axes, task)
        return drawn(figure)


def _curve_frame(axes: Axes, task: TaskCurve) -> None:
    shown = [p.score for p in task.points] + [p.high for p in task.points if p.high is not None]
    top = max([task.ceiling, 1.0, *shown])
    axes.set_ylim(-0.04 * top, 1.06 * top)
    axes.set_yticks([0, top / 2, top], [f"{v:.3g}" for v in (0, top / 2, top)])
    axes.grid(axis="y")
    axes.tick_params(labelsize=_TICK, pad=2)
    if task.chance is not None:
        axes.axhline(task.chance, color=MUTED, lw=1, ls=(0, (1, 3)))


def _budget_ticks(axes: Axes, budgets: Sequence[int]) -> None:
    # Labels closer than this many doublings run into each other.
    apart = 0.16 * (axes.get_xlim()[1] - axes.get_xlim()[0])
    kept: list[int] = []
    for budget in sorted(set(budgets), reverse=True):
        if not kept or _log2(kept[-1]) - _log2(budget) >= apart:
            kept.append(budget)
    axes.xaxis.set_major_locator(FixedLocator([_log2(b) for b in kept]))
    axes.xaxis.set_major_formatter(FixedFormatter([_short(b) for b in kept]))
    axes.xaxis.set_minor_locator(NullLocator())


def _predicted_curve(axes: Axes, task: TaskCurve) -> None:
    band = task.predicted
    assert band is not None
    reach = task.ceiling - task.zero_shot
    x = [_log2(n) for n in band.x]
    mean, low, high = (
        task.zero_shot + reach * np.asarray(v) for v in (band.mean, band.low, band.high)
    )
    axes.fill_between(x, low, high, color=PREDICTED, alpha=0.15, lw=0)
    axes.plot(x, mean, color=PREDICTED, lw=1.4)


def _measured_curve(axes: Axes, task: TaskCurve) -> None:
    restricted = [
        (_log2(p.budget), p.label_restricted) for p in task.points if p.label_restricted is not None
    ]
    axes.plot(
        [x for x, _ in restricted],
        [score for _, score in restricted],
        color=MEASURED,
        lw=1.1,
        alpha=0.75,
        ls=(0, (3, 2.2)),
    )
    axes.plot(
        [_log2(p.budget) for p in task.points], [p.score for p in task.points], color=MEASURED
    )
    for point in task.points:
        x = _log2(point.budget)
        if point.low is not None and point.high is not None:
            axes.plot([x, x], [point.low, point.high], color=MEASURED, lw=3.5, alpha=0.3)
        face = MEASURED if point.status == "measured" else PAPER
        marker = "s" if point.status == "carried" else "o"
        axes.plot(x, point.score, marker, color=face, markeredgecolor=MEASURED, markersize=4.2)


def controls(data: ReportData, width: float) -> str:
    """r with AUC and its interval, for CoS-Low and for each control."""
    rows = [data.signal, *data.controls]
    with styled():
        figure, axes = canvas(width, 30 * len(rows) + 44, left=150, right=40, bottom=38, top=6)
        axes.set_xlim(-1.02, 1.02)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(0, color=MUTED, lw=1)
        axes.grid(axis="x")
        axes.set_xticks([-1, -0.5, 0, 0.5, 1], [number(v, 1) for v in (-1, -0.5, 0, 0.5, 1)])
        # Two lines of 22 characters are what the left margin and a row's height hold.
        names = [wrap(plain(title(row.name), 44), 22)[:2] for row in rows]
        axes.set_yticks(range(len(rows)), ["\n".join(lines) for lines in names])
        axes.get_yticklabels()[0].set_color(INK)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("correlation with AUC, r")
        for position, row in enumerate(rows):
            _correlation_row(axes, position, row, INK if position == 0 else MUTED)
        return drawn(figure)


def _correlation_row(axes: Axes, position: int, row: Correlation, colour: str) -> None:
    if row.interval is not None and row.interval.high is not None:
        ends = [row.interval.low, row.interval.high]
        axes.plot(ends, [position] * 2, color=colour, lw=4, alpha=0.35)
    if row.r is not None and known(row.r):
        axes.plot(row.r, position, "o", color=colour, markersize=7)
    axes.text(1.08, position, number(row.r), color=colour, va="center", fontsize=10)


def labels(data: ReportData, width: float) -> str:
    """Predicted labels with their interval, and measured labels, for each held-out task."""
    rows = [(h.task, sorted(h.targets, key=lambda t: t.share)) for h in data.held_out if h.targets]
    height = sum(22 + 22 * len(targets) for _, targets in rows) + 50
    cap = data.calibration.cap
    with styled():
        figure, axes = canvas(width, height, left=42, right=12, bottom=40, top=4)
        edge = _labels_frame(axes, rows, cap)
        y, ticks = 0.0, []
        for task, targets in rows:
            axes.text(
                -0.055 if width > 500 else -0.12,
                y,
                plain(task, 40),
                transform=axes.get_yaxis_transform(),
                fontweight="bold",
                fontsize=10.5,
                va="center",
            )
            for target in targets:
                y += 1
                ticks.append((y, f"{target.share * 100:.3g} %"))
                measured = data.curve(task)
                _labels_row(axes, y, target, edge, measured is not None and measured.measured)
            y += 1
        axes.set_yticks([t[0] for t in ticks], [t[1] for t in ticks])
        return drawn(figure)


def _labels_frame(axes: Axes, rows: Sequence[tuple[str, Sequence[LabelTarget]]], cap: int) -> float:
    targets = [target for _, row in rows for target in row]
    numbers = [t.labels for t in targets] + [t.measured for t in targets]
    numbers += [t.interval.high for t in targets if t.interval is not None]
    most = max([float(cap), *(n for n in numbers if n is not None and math.isfinite(n))])
    edge = _log2(most) + 0.8
    axes.set_xlim(-0.15, edge)
    axes.set_ylim(sum(1 + len(row) for _, row in rows) - 0.4, -0.6)
    _budget_ticks(axes, _powers(cap, most))
    axes.axvline(_log2(cap), color=MUTED, lw=1, ls=(0, (4, 3)))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("labels (dashed: the cap)")
    return edge


def _labels_row(axes: Axes, y: float, target: LabelTarget, edge: float, was_measured: bool) -> None:
    interval = target.interval
    if interval is not None:
        high = edge if interval.high is None else _log2(interval.high)
        axes.plot([_log2(interval.low), high], [y, y], color=PREDICTED, lw=5, alpha=0.3)
    if target.labels is None:
        axes.plot(edge - 0.3, y, ">", color=PREDICTED, markersize=7, clip_on=False)
    else:
        axes.plot(_log2(target.labels), y, "o", color=PREDICTED, markersize=7)
    if target.measured is not None:
        axes.plot(
            _log2(target.measured), y, "D", color=PAPER, mec=MEASURED, mew=1.8, markersize=6.5
        )
    elif was_measured:
        axes.plot(edge, y, ">", color=PAPER, mec=MEASURED, mew=1.8, markersize=7, clip_on=False)


def _powers(cap: int, most: float) -> list[int]:
    """The cap and what lies whole quadruplings from it."""
    steps = [cap]
    while steps[0] >= 4:
        steps.insert(0, steps[0] // 4)
    while steps[-1] * 4 <= most:
        steps.append(steps[-1] * 4)
    return steps


def _log2(budget: float) -> float:
    # No labels at all stands where one label would: the published axis.
    return math.log2(max(budget, 1.0))


def _short(budget: int) -> str:
    return f"{budget / 1000:g}k" if budget >= 1000 else str(budget)
