"""Measured scores -> a task's data efficiency, by each of the plan's scores and ceilings."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from taskeff.curves.curve import TaskCurve, data_efficiency
from taskeff.errors import DataError
from taskeff.estimate.posterior import Score

KINDS = ("strict", "label", "corrected")
CEILINGS = ("one", "best", "chance", "reachable")
PRIMARY = ("strict", "one")
STATISTICS = ("median", "mean", "balanced")
"""Of the pairwise cosines."""


@dataclass(frozen=True)
class TaskScores:
    """One task's measurements.

    Attributes:
        strict, label: (budget, seed) -> score; budget 0 stands under the first seed. `label` is
            `strict` where the task lists no labels.
        signal: its row of signals.csv: CoS-Low, controls, noise, facts of the task.
        n_test: test rows behind its scores; None while none is measured.
    """

    name: str
    strict: dict[tuple[int, int], float] = field(default_factory=dict)
    label: dict[tuple[int, int], float] = field(default_factory=dict)
    signal: Mapping[str, Any] = field(default_factory=dict)
    n_test: int | None = None

    @property
    def zero_shot(self) -> float | None:
        """The strict score before any training."""
        return self._at_zero(self.strict)

    @property
    def zero_shot_label(self) -> float | None:
        """The same among the task's labels."""
        return self._at_zero(self.label)

    @property
    def first_run(self) -> dict[int, Score]:
        """Budget -> the strict score of its lowest seed, with its test rows."""
        found: dict[int, Score] = {}
        for (budget, _), score in sorted(self.strict.items()):
            found.setdefault(budget, Score(score, self.n_test))
        return found

    def seeds(self, cap: int) -> list[int]:
        """Seeds that are measured at the cap and have a zero-shot score to start from."""
        if self.zero_shot is None:
            return []
        return sorted(s for budget, s in self.strict if budget == cap)

    def curve(self, kind: str, ceiling: str, cap: int, seeds: Sequence[int]) -> TaskCurve | None:
        """The curve over the mean of `seeds`' scores; None where there is no room to rise."""
        scores = self._mean(self.label if kind == "label" else self.strict, seeds)
        if kind == "corrected":
            scores[0] = self._mean(self.label, seeds)[0]
        top: float | None = 1.0
        if ceiling == "best":
            top = None
        elif ceiling == "reachable":
            top = self._reachable(scores)
        elif ceiling == "chance":
            chance = float(self.signal["chance"])
            scores = {budget: max(score, chance) for budget, score in scores.items()}
        try:
            return data_efficiency(scores, cap=cap, ceiling=top, name=self.name)
        except DataError:
            return None

    @staticmethod
    def _at_zero(scores: Mapping[tuple[int, int], float]) -> float | None:
        return next((score for (budget, _), score in scores.items() if budget == 0), None)

    def _reachable(self, scores: Mapping[int, float]) -> float:
        ngram = self.signal["ngram_accuracy"]
        return 1.0 if ngram is None else max(float(ngram), *scores.values())

    def _mean(
        self, scores: Mapping[tuple[int, int], float], seeds: Sequence[int]
    ) -> dict[int, float]:
        found: dict[int, list[float]] = {}
        for (budget, seed), score in scores.items():
            if budget == 0 or seed in seeds:
                found.setdefault(budget, []).append(score)
        return {budget: float(np.mean(values)) for budget, values in found.items()}


def read_measurements(folder: Path) -> list[TaskScores]:
    """Every task attempted, from `scores.csv` and `signals.csv`, by name."""
    tasks: dict[str, TaskScores] = {}
    for row in _rows(folder / "signals.csv"):
        signal = {key: _number(value) for key, value in row.items()}
        tasks[row["task"]] = TaskScores(row["task"], signal=signal)
    for row in _rows(folder / "scores.csv"):
        key = int(row["budget"]), int(row["seed"])
        n_test = int(row["n_test"]) if row.get("n_test") else None
        task = tasks[row["task"]] = replace(tasks[row["task"]], n_test=n_test)
        task.strict[key] = float(row["score"])
        task.label[key] = float(row["label_score"] or row["score"])
    return [tasks[name] for name in sorted(tasks)]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(value: str) -> Any:
    if value == "":
        return None
    try:
        return float(value)
    except ValueError:
        return value
