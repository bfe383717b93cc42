"""What each quantity is worth as a predictor of data efficiency. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.replication.targets import TaskScores
from taskeff.estimate.regression import (
    bootstrap_interval,
    left_out_means,
    left_out_predictions,
    pearson,
)

Floats = npt.NDArray[np.float64]
SEED = 0
DRAWS = 2000  # of the bootstrap over tasks

PREDICTORS = {
    "CoS-Low": lambda s: s["cos_low"],
    "remedy 1: balanced": lambda s: s["low_balanced"],
    "remedy 2: mean": lambda s: s["mean_cosine"],
    # Open tasks have no labels to warm up with and keep their CoS-Low (the plan).
    "remedy 3: warm": lambda s: s["cos_low"] if s["is_open"] else s["warm_median"],
    "random-example cosine": lambda s: s["random_cosine"],
    "high-confidence cosine": lambda s: s["high_median"],
    "mean confidence": lambda s: s["mean_confidence"],
    "gradient norm": lambda s: s["gradient_norm"],
    "zero-shot score": lambda s: s["zero_shot"],
    "zero-shot among labels": lambda s: s["zero_shot_label"],
    "log2 number of labels": lambda s: float(np.log2(s["n_labels"])),
    "n-gram accuracy": lambda s: s["ngram_accuracy"],
}
"""Name -> the value in a task's signal row; None where it is not measured."""


@dataclass(frozen=True)
class Row:
    """One predictor over the tasks that have it.

    Attributes:
        r, rho: Pearson's and Spearman's correlation with AUC, with 95 % bootstrap intervals over
            tasks; None where not defined.
        mae, mean_mae: leave-one-task-out error in AUC of the logit line, and of predicting the
            mean of the other tasks, over the same tasks.
    """

    name: str
    n: int
    r: float
    r_interval: tuple[float, float] | None
    rho: float
    rho_interval: tuple[float, float] | None
    mae: float
    mean_mae: float


def values(tasks: Sequence[TaskScores], name: str) -> list[float | None]:
    """The predictor's value for each task."""
    found: list[float | None] = []
    for task in tasks:
        signal: dict[str, Any] = dict(task.signal)
        signal |= {"zero_shot": task.zero_shot, "zero_shot_label": task.zero_shot_label}
        found.append(PREDICTORS[name](signal))
    return found


def worth(name: str, x: Sequence[float | None], auc: Sequence[float | None]) -> Row | None:
    """The row of one predictor over the tasks where both are known; None below four."""
    pairs = [(a, b) for a, b in zip(x, auc, strict=True) if a is not None and b is not None]
    if len(pairs) < 4:
        return None
    columns = np.array(pairs, dtype=np.float64)
    first, second = columns[:, 0], columns[:, 1]
    return Row(
        name,
        len(pairs),
        pearson(first, second),
        bootstrap_interval(first, second, SEED, draws=DRAWS),
        spearman(first, second),
        bootstrap_interval(first, second, SEED, spearman, draws=DRAWS),
        float(np.mean(np.abs(second - left_out_predictions("logit", first, second)))),
        float(np.mean(np.abs(second - left_out_means(second)))),
    )


def spearman(x: Floats, y: Floats) -> float:
    """The correlation of ranks, ties sharing theirs."""
    return pearson(_ranks(x), _ranks(y))


def partial(x: Floats, y: Floats, given: Floats) -> float:
    """Pearson's correlation of x and y once a line in `given` is taken from both."""
    design = np.column_stack([np.ones_like(given), given])

    def rest(values: Floats) -> Floats:
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    return pearson(rest(x), rest(y))


def verdict(cos_low: Row, random: Row) -> str:
    """The plan's three conditions on the primary analysis."""
    held = [
        cos_low.r_interval is not None and cos_low.r_interval[0] > 0,
        cos_low.mae < cos_low.mean_mae,
        cos_low.mae < random.mae,
    ]
    return {3: "replicates", 2: "replicates in part"}.get(sum(held), "does not replicate")


def _ranks(values: Floats) -> Floats:
    # A comparison of all pairs: for a few dozen tasks faster than sorting, 2000 times over.
    above = (values[:, None] > values).sum(axis=1)
    same = (values[:, None] == values).sum(axis=1)
    return above + (same + 1) / 2
