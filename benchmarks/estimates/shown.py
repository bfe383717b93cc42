"""What each piece of evidence is worth: `python -m benchmarks.estimates --families`."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.estimates.unseen import (
    Families,
    generic_records,
    published_records,
    sibling_records,
    small_test_records,
)
from taskeff.curves.curve import data_efficiency
from taskeff.estimate.beta_curve import beta_cdf
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.folders import read_cos_low
from taskeff.estimate.posterior import N_TEST, Pilot, Score, interval, update
from taskeff.estimate.prior import CurvePrior

LLAMA = "llama-3.1-8b-instruct"
CAP = 5000
BUDGETS = (50, 100, 200, 500, 1000, 2500, CAP)
REPLICATION = Path("docs/replication/scores.csv")


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


def replication(prior: CurvePrior, budgets: Sequence[int] = (8, 32)) -> dict[str, float]:
    """The generic prior on the committed SmolLM2 curves: areas up to 512 labels from pilots.

    The truth is the curve of the seeds' means; every seed's pilots are asked about it.
    """
    with REPLICATION.open(newline="", encoding="utf-8") as file:
        rows = [(r["task"], int(r["budget"]), int(r["seed"]), r) for r in csv.DictReader(file)]
    errors: list[float] = []
    held: list[bool] = []
    for task in sorted({row[0] for row in rows}):
        scores: dict[int, dict[int, float]] = {}
        tests = 0
        for name, budget, seed, row in rows:
            if name == task:
                scores.setdefault(budget, {})[seed] = float(row["score"])
                tests = int(row["n_test"])
        means = {n: float(np.mean(list(found.values()))) for n, found in scores.items()}
        curve = data_efficiency(means, cap=max(means), ceiling=1.0)
        base = next(iter(scores[0].values()))
        at = np.log2(np.maximum(sorted(means), 1)) / np.log2(CAP)
        for seed in sorted(set.intersection(*(set(scores[n]) for n in budgets))):
            found = update(
                prior,
                {},
                cap=CAP,
                pilots=[Pilot(n, scores[n][seed], tests) for n in budgets],
                zero_shot=Score(base, tests),
                ceiling=1.0,
            )
            share = found.at(at) * found.top[:, None]
            auc = ((share[:, 1:] + share[:, :-1]) / 2) @ np.diff(at) / at[-1]
            low, high = interval(auc, 0.8)
            errors.append(abs(float(np.median(auc)) - curve.auc))
            held.append(low <= curve.auc <= (high or 1.0))
    return {"auc_mae": float(np.mean(errors)), "held": float(np.mean(held)), "of": len(held)}
