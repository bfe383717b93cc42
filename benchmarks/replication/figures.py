"""The figures of docs/replication.md: the scatter with its spread, and every curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replication.tables import Setup, areas
from benchmarks.replication.targets import PRIMARY, TaskScores
from taskeff.estimate.regression import fit_line

COLUMNS = 5
WORDS = {
    "scatter": "AUC against CoS-Low and against the cosine of random examples",
    "curves": "Every task's scores by labels: strict in blue, among the labels in ochre",
}


def draw(tasks: Sequence[TaskScores], setup: Setup, folder: Path) -> str:
    """Write `scatter.svg` and `curves.svg`; the same measurements give the same bytes.

    Returns:
        Markdown that shows them from a page beside `folder`; what too little is measured for is
        left out.
    """
    import matplotlib

    matplotlib.use("Agg")
    # A fixed salt and no date: the same figure is the same bytes.
    matplotlib.rcParams["svg.hashsalt"] = "taskeff"
    matplotlib.rcParams["svg.fonttype"] = "none"
    shown = ""
    for name, figure in (("scatter", _scatter(tasks, setup)), ("curves", _curves(tasks, setup))):
        if figure is not None:
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            shown += f"![{WORDS[name]}]({folder.name}/{name}.svg)\n\n"
    return shown


def _scatter(tasks: Sequence[TaskScores], setup: Setup) -> Any:
    """AUC against the cosine of low-confidence and of random examples."""
    from matplotlib import pyplot as plt

    auc = areas(tasks, setup, *PRIMARY)
    by_seed = [areas(tasks, setup, *PRIMARY, seed=s) for s in setup.seeds]
    known = [
        (task, area, [a for seed in by_seed if (a := seed[i]) is not None])
        for i, (task, area) in enumerate(zip(tasks, auc, strict=True))
        if area is not None and task.signal["cos_low"] is not None
    ]
    if len(known) < 2:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    columns = (("cos_low", "CoS-Low (80 % of example draws)"), ("random_cosine", "random examples"))
    for axis, (column, title) in zip(axes, columns, strict=True):
        x = np.array([float(task.signal[column]) for task, _, _ in known])
        y = np.array([area for _, area, _ in known])
        for (task, area, seeds), at in zip(known, x, strict=True):
            if len(seeds) > 1:
                axis.plot([at, at], [min(seeds), max(seeds)], color="#666d76", linewidth=1)
            if column == "cos_low":
                ends = [task.signal["cos_low_low"], task.signal["cos_low_high"]]
                axis.plot(ends, [area, area], color="#d4d8dd", linewidth=1, zorder=0)
            axis.annotate(task.name, (at, area), (4, 3), textcoords="offset points", fontsize=6.5)
        axis.scatter(x, y, s=18, color="#1c5d99", zorder=3)
        line = fit_line("logit", x, y)
        grid = np.linspace(x.min(), x.max(), 60)
        axis.plot(grid, [line.auc(float(at)) for at in grid], color="#b35c12", linewidth=1.2)
        axis.set_xlabel(title)
    axes[0].set_ylabel("AUC: strict score, ceiling 1.0 (bars: seeds)")
    return figure


def _curves(tasks: Sequence[TaskScores], setup: Setup) -> Any:
    """Each task's scores: strict in blue, among labels in ochre; a line per seed."""
    from matplotlib import pyplot as plt

    started = [task for task in tasks if task.strict]
    if not started:
        return None
    rows = -(-len(started) // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(11, 1.9 * rows), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[len(started) :]:
        axis.set_axis_off()
    places = [0, *setup.budgets]
    for axis, task in zip(axes.flat, started, strict=False):
        for scores, colour in ((task.label, "#b35c12"), (task.strict, "#1c5d99")):
            for seed in setup.seeds:
                mine = {b: v for (b, s), v in scores.items() if b == 0 or s == seed}
                at = sorted(mine)
                axis.plot(
                    [places.index(b) for b in at], [mine[b] for b in at], color=colour,
                    linewidth=1, marker="o", markersize=2,
                )  # fmt: skip
        axis.axhline(float(task.signal["chance"]), color="#d4d8dd", linewidth=0.8)
        if task.signal["ngram_accuracy"] is not None:
            ngram = float(task.signal["ngram_accuracy"])
            axis.axhline(ngram, color="#666d76", linewidth=0.8, linestyle=":")
        axis.set_title(task.name, fontsize=8)
        axis.set_ylim(0, 1.02)
        axis.set_xticks(range(len(places)), [str(b) for b in places], fontsize=7)
    figure.supxlabel("labels (grey: chance; dotted: n-grams on all rows)", fontsize=8)
    return figure
