"""What the page shows: the run's calibration, every task's curve and prediction, their origin.

The numbers are the estimate's and the curves' own objects; what is added here is what those do not
keep of a task. No torch, no ray, no storage: the page can be tested with made-up numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskeff.estimate.calibration import Calibration
from taskeff.estimate.left_out import Prediction
from taskeff.estimate.regression import Worth


@dataclass(frozen=True)
class TaskReport:
    """One task.

    Attributes:
        prediction: its measured curve, and what was predicted of it without it.
        held_out: whether the calibration never saw it.
        cos_low_interval: the 80 % interval of its CoS-Low.
        n_test: test rows behind a score.
        seeds: runs behind a point of the curve.
        spread: budget -> lowest and highest score over seeds; none for a single seed.
        label_scores: budget -> mean score where the answer is the best of the allowed labels.
        chance: the score of guessing among the labels; None where there are none.
    """

    prediction: Prediction
    held_out: bool
    cos_low_interval: tuple[float, float]
    n_test: int
    seeds: int = 1
    spread: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    label_scores: Mapping[int, float] = field(default_factory=dict)
    chance: float | None = None

    @property
    def name(self) -> str:
        """The task's name."""
        return self.prediction.curve.name

    @property
    def auc(self) -> float:
        """Measured data efficiency."""
        return self.prediction.curve.auc


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    Attributes:
        tasks: the calibration's and the held-out ones.
        provenance: `run.json`, and the resolved `config` as YAML, without the machine's folders.
    """

    calibration: Calibration
    tasks: tuple[TaskReport, ...]
    provenance: Mapping[str, Any]

    @property
    def held_out(self) -> tuple[TaskReport, ...]:
        """The tasks that the fit never saw."""
        return tuple(task for task in self.tasks if task.held_out)

    @property
    def by_name(self) -> dict[str, TaskReport]:
        """The tasks by their names."""
        return {task.name: task for task in self.tasks}

    @property
    def signal(self) -> Worth:
        """What CoS-Low is worth over the calibration tasks."""
        assert self.calibration.cos_low is not None, "a run's calibration has tasks"
        return self.calibration.cos_low
