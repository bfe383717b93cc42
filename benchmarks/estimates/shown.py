"""What each piece of evidence is worth: `python -m benchmarks.estimates --families`."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.estimates.predictors import Case
from benchmarks.estimates.unseen import (
    Families,
    first_labels_records,
    generic_records,
    published_records,
    sibling_records,
    small_test_records,
)
from taskeff.curves.curve import data_efficiency
from taskeff.estimate.beta_curve import beta_cdf, fit_rise
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.folders import fit_parameters, read_cos_low
from taskeff.estimate.posterior import N_TEST, Pilot, Posterior, Score, interval, update
from taskeff.estimate.prior import CurvePrior

LLAMA = "llama-3.1-8b-instruct"
CAP = 5000
BUDGETS = (50, 100, 200, 500, 1000, 2500, CAP)
REPLICATION = Path("docs/replication/scores.csv")
SMOLLM2 = "smollm2-135m-instruct"
DEMO = ("ing_form", "city_country", "phrase_scandinavian")
"""The tasks that the demo's family has not seen."""


def with_cos_low(families: Families, path: str) -> Families:
    """The families, Llama's tasks with the CoS-Low of a CSV."""
    known = read_cos_low(path)
    llama = {task: replace(c, cos_low=known.get(task)) for task, c in families[LLAMA].items()}
    return {**families, LLAMA: llama}


def everything(families: Families) -> list[dict[str, Any]]:
    """All records on measured curves; see `benchmarks.estimates.unseen`."""
    llama = [case for case in families[LLAMA].values() if case.cos_low is not None]
    return [
        *generic_records(families),
        *published_records(families, Calibration.load(LLAMA)),
        *small_test_records(llama),
        *first_labels_records(families, LLAMA),
        *sibling_records(families),
    ]


def simulated(
    prior: CurvePrior, tasks: int = 2000, n_test: int = 50, draws: int = 1000
) -> dict[str, float]:
    """Shares of 80 % intervals that hold where the model is exact: tasks drawn from the prior.

    One to four pilots and the zero-shot score are measured on `n_test` rows; the truth is the
    curve of true scores.
    """
    rng = np.random.default_rng(7)
    x = np.log2(BUDGETS) / np.log2(CAP)
    hits: dict[str, list[bool]] = {"area": [], "labels": []}
    for i in range(tasks):
        k, base, ceiling = 1 + i % 4, float(rng.uniform(0.1, 0.6)), 0.95
        head = (ceiling - base) / (1 - base)
        area, steep, gain = (v[0] for v in prior.draw({}, head, 1, rng))
        level = gain * beta_cdf(x, area, steep)
        score = base + (1 - base) * level
        # A pilot is a run's score, as rough as scores are; the rest is known as running maxima.
        off = np.hypot(gain * prior.shape.roughness, np.sqrt(score * (1 - score) / N_TEST))
        off[:k] = gain * prior.shape.score_scatter(BUDGETS[:k])
        level = np.clip(level + off * rng.standard_normal(len(x)) * (x < 1), 0, 1)
        seen = rng.binomial(n_test, base + (1 - base) * level[:k]) / n_test
        zero_shot = float(rng.binomial(n_test, base)) / n_test
        found = update(
            prior,
            {},
            cap=CAP,
            pilots=[Pilot(n, float(s), n_test) for n, s in zip(BUDGETS, seen, strict=False)],
            zero_shot=Score(zero_shot, n_test),
            ceiling=ceiling,
            seed=i,
            draws=draws,
        )
        risen = np.maximum.accumulate(level)
        share = np.concatenate([[0.0], risen / max(risen[-1], head)])
        at = np.concatenate([[0.0], x])
        auc = float(np.sum((share[1:] + share[:-1]) / 2 * np.diff(at)))
        hit = int(np.argmax(share >= 0.9))
        labels = math.inf
        if share[hit] >= 0.9:
            labels = CAP ** float(np.interp(0.9, share[hit - 1 : hit + 1], at[hit - 1 : hit + 1]))
        for name, truth, values in (
            ("area", auc, found.auc),
            ("labels", labels, found.labels(0.9)),
        ):
            low, high = interval(values, 0.8)
            hits[name].append(low <= truth <= (math.inf if high is None else high))
    return {name: float(np.mean(found)) for name, found in hits.items()}


@dataclass(frozen=True)
class Replicated:
    """A task of the replication.

    Attributes:
        scores: budget -> seed -> score, in [0, 1].
        n_test: test rows behind each.
    """

    name: str
    scores: Mapping[int, Mapping[int, float]]
    n_test: int

    @property
    def means(self) -> dict[int, float]:
        """Budget -> mean score of the seeds."""
        return {n: float(np.mean(list(found.values()))) for n, found in self.scores.items()}

    def case(self) -> Case:
        """Its mean curve, as a family keeps it."""
        curve = data_efficiency(self.means, cap=max(self.scores), ceiling=1.0, name=self.name)
        return Case(curve, self.means, None, 1.0, fit_rise(curve))

    def seen(self, prior: CurvePrior, cap: int, seed: int, budgets: Sequence[int]) -> Posterior:
        """Its likely curves, from one seed's pilots and the zero-shot score."""
        return update(
            prior,
            {},
            cap=cap,
            pilots=[Pilot(n, self.scores[n][seed], self.n_test) for n in budgets],
            zero_shot=Score(self.zero_shot, self.n_test),
            ceiling=1.0,
        )

    @property
    def zero_shot(self) -> float:
        """The untouched model's score, in [0, 1]."""
        return next(iter(self.scores[0].values()))


def replicated() -> list[Replicated]:
    """The tasks of docs/replication."""
    scores: dict[str, dict[int, dict[int, float]]] = {}
    tests: dict[str, int] = {}
    with REPLICATION.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            of_task = scores.setdefault(row["task"], {})
            of_task.setdefault(int(row["budget"]), {})[int(row["seed"])] = float(row["score"])
            tests[row["task"]] = int(row["n_test"])
    return [Replicated(name, scores[name], tests[name]) for name in sorted(scores)]


def replication(prior: CurvePrior, budgets: Sequence[int] = (8, 32)) -> dict[str, float]:
    """The generic prior on the committed SmolLM2 curves: areas up to 512 labels from pilots.

    The truth is the curve of the seeds' means; every seed's pilots are asked about it.
    """
    errors: list[float] = []
    held: list[bool] = []
    for task in replicated():
        curve = task.case().curve
        at = np.log2(np.maximum(sorted(task.scores), 1)) / np.log2(CAP)
        for seed in sorted(set.intersection(*(set(task.scores[n]) for n in budgets))):
            found = task.seen(prior, CAP, seed, budgets)
            share = found.at(at) * found.top[:, None]
            auc = ((share[:, 1:] + share[:, :-1]) / 2) @ np.diff(at) / at[-1]
            low, high = interval(auc, 0.8)
            errors.append(abs(float(np.median(auc)) - curve.auc))
            held.append(low <= curve.auc <= (high or 1.0))
    return {"auc_mae": float(np.mean(errors)), "held": float(np.mean(held)), "of": len(held)}


def demo_tasks(names: Sequence[str] = DEMO, budgets: Sequence[int] = (8, 32)) -> list[str]:
    """Rows of docs/training.md: what the pilots of seed 0 say of the largest budget of a task, by
    the generic family and by SmolLM2's without the task, beside what was measured there."""
    generic = Calibration.load("generic").priors[0]
    tasks = {task.name: task for task in replicated()}
    rows = []
    for name in names:
        task, last = tasks[name], max(tasks[name].scores)
        others = {key: other.case().measured for key, other in tasks.items() if key != name}
        own = fit_parameters({SMOLLM2: others}, [SMOLLM2])
        said = []
        for prior, cap in ((generic, CAP), (own[0], last)):
            found = task.seen(prior, cap, 0, budgets)
            share = found.at(np.array([np.log2(last) / np.log2(cap)]))[:, 0] * found.top
            score = task.zero_shot + (1 - task.zero_shot) * share
            low, high = np.quantile(score, [0.1, 0.9])
            said.append(f"{np.median(score):.2f} [{low:.2f}, {high:.2f}]")
        seen = [task.zero_shot, *(task.scores[n][0] for n in budgets)]
        scores = ", ".join(f"{score:.3f}" for score in seen).replace("0.", ".")
        measured = f"{task.means[last]:.3f}"
        rows.append(
            f"| {name} | {scores} | {said[0]} | {said[1]} | {measured} |".replace("0.", ".")
        )
    return rows
