"""Made-up but realistic report data, seeded: 12 calibration tasks and 3 held out."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from taskeff.curves.curve import TaskCurve, data_efficiency
from taskeff.estimate.beta_curve import fit_rise
from taskeff.estimate.budget import Estimate
from taskeff.estimate.calibration import Calibration, TaskPoint, fit_calibration
from taskeff.estimate.evidence import with_evidence
from taskeff.estimate.left_out import Prediction, predict_task, without
from taskeff.estimate.shapes import fit_shape
from taskeff.report.contents import ReportData, TaskReport

CALIBRATION_TASKS = (
    "digits_ascii", "digits_3_vs_5", "name_gender", "city_country", "phrase_fr_de",
    "phrase_sv_nl", "phrase_ten_languages", "part_of_speech", "past_tense", "ing_form",
    "boolean_expressions", "coloured_objects",
)  # fmt: skip
HELD_OUT_TASKS = ("airport_country", "word_sentiment", "web_of_lies")
BUDGETS = (0, 8, 32, 128)
CAP = 128
CONFIG = "model:\n  path: HuggingFaceTB/SmolLM2-135M-Instruct\nbudgets: [0, 8, 32, 128]\n"
WARNING = "Made-up numbers: do not rely on this family."


@lru_cache(maxsize=1)
def report() -> ReportData:
    """A whole report: an answer within the cap and one out of reach are among the held out."""
    rng = np.random.default_rng(7)
    names = (*CALIBRATION_TASKS, *HELD_OUT_TASKS)
    cos_low = dict(zip(names, rng.uniform(-0.05, 0.75, len(names)).tolist()))
    cos_low |= {"airport_country": 0.7, "word_sentiment": 0.55, "web_of_lies": 0.0}
    runs = {name: scores(rng, cos_low[name]) for name in names}
    curves = {
        name: data_efficiency(
            found, cap=CAP, ceiling=1.0, name=name, imputed=(32,) if name == "past_tense" else ()
        )
        for name, found in runs.items()
    }
    known = {name: curves[name] for name in CALIBRATION_TASKS}
    family = with_evidence(calibration(known, cos_low), known, dict.fromkeys(known, 1.0))
    return ReportData(
        calibration=family,
        tasks=tuple(task(name, family, curves, runs[name], cos_low[name]) for name in names),
        provenance=provenance(),
    )


def scores(rng: np.random.Generator, cos_low: float) -> dict[int, list[float]]:
    """A power curve whose area and top CoS-Low tells, measured with noise by two seeds."""
    top = float(np.clip(0.65 + 0.6 * cos_low + rng.normal(0, 0.03), 0.3, 0.99))
    area = float(np.clip(0.25 + 0.6 * cos_low + rng.normal(0, 0.08), 0.1, 0.9))
    zero = float(rng.uniform(0, 0.25))
    found = {}
    for budget in BUDGETS:
        x = math.log2(max(budget, 1)) / math.log2(CAP)
        score = zero + (top - zero) * x ** ((1 - area) / area)
        found[budget] = np.clip(score + rng.normal(0, 0.02, 2), 0, 0.99).tolist()
    return found


def calibration(curves: dict[str, TaskCurve], cos_low: dict[str, float]) -> Calibration:
    """A family with some controls, fitted to these tasks."""
    rng = np.random.default_rng(1)
    controls = ("gradient_norm", "label_zero_shot", "mean_cosine", "random_example_cosine")
    points = [
        TaskPoint(
            name,
            curve.auc,
            cos_low[name],
            curve.status,
            {control: float(rng.normal()) for control in controls},
            fit_rise(curve, 1.0),
        )
        for name, curve in curves.items()
    ]
    fitted = fit_calibration(
        points,
        curve=fit_shape(list(curves.values())),
        cap=CAP,
        family="SmolLM2-135M-Instruct",
        fingerprint={"model": "SmolLM2-135M-Instruct", "n_examples": 32, "quantile": 0.1},
    )
    return replace(fitted, caveat=WARNING)


def task(
    name: str,
    family: Calibration,
    curves: dict[str, TaskCurve],
    runs: dict[int, list[float]],
    cos_low: float,
) -> TaskReport:
    """What a run would say of one task."""
    held_out = name in HELD_OUT_TASKS
    others = family if held_out else without(family, name, curves)
    return TaskReport(
        prediction=predict_task(others, curves[name], cos_low, 1.0),
        held_out=held_out,
        cos_low_interval=(cos_low - 0.06, cos_low + 0.06),
        n_test=250,
        seeds=2,
        spread={budget: (min(found), max(found)) for budget, found in runs.items()},
        label_scores={budget: min(max(found) + 0.1, 1.0) for budget, found in runs.items()},
        chance=0.5 if "3_vs_5" in name else 0.1,
    )


def with_name(data: ReportData, old: str, new: str) -> ReportData:
    """The same report with one task renamed wherever it occurs."""
    family = data.calibration
    family = replace(
        family,
        tasks=tuple(replace(t, name=new) if t.name == old else t for t in family.tasks),
        left_out={new if n == old else n: auc for n, auc in (family.left_out or {}).items()},
    )
    tasks = tuple(
        replace(t, prediction=renamed(t.prediction, new)) if t.name == old else t
        for t in data.tasks
    )
    return replace(data, calibration=family, tasks=tasks)


def renamed(prediction: Prediction, name: str) -> Prediction:
    """The same prediction of a task of this name."""
    return replace(prediction, curve=replace(prediction.curve, name=name))


def said(labels: float | None, interval: tuple[float, float | None] | None, **more) -> Estimate:
    """An estimate with these labels, by default for 90 % and without a chance."""
    estimate = report().held_out[0].prediction.estimates[1]
    return replace(
        estimate,
        labels_needed=labels,
        reachable=labels is not None,
        reach_probability=more.pop("reach_probability", None),
        intervals=None if interval is None else {0.8: interval},
        **more,
    )


def told(
    *estimates: Estimate, reached: float | None = 64, problem: str | None = None
) -> TaskReport:
    """A held-out task with these estimates, whose curve is at 90 % with `reached` labels."""
    found = {0: 0.0, CAP: 0.5} if reached is None else {0: 0.0, reached: 0.9, CAP: 1.0}
    curve = data_efficiency(found, cap=CAP, ceiling=1.0, name="airport_country")
    prediction = Prediction(curve, 0.3, 1.0, estimates, problem)
    return TaskReport(prediction, True, (0.2, 0.4), 250)


def provenance() -> dict[str, Any]:
    """Where it would have come from."""
    return {
        "identity": {
            "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
            "chat_template": "sha256:4f1c9d02a7be",
        },
        "config": CONFIG,
        "seeds": (1, 2),
        "versions": {
            "taskeff": "0.1.0",
            "torch": "2.13.0",
            "transformers": "5.1.0",
            "ray": "2.60.0",
        },
        "git_commit": "a4732015e8b1",
        "seconds": 553.0,
        "cores": 2,
    }
