"""Made-up but realistic report data, seeded: 12 calibration tasks and 3 held out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from taskeff.report.data import (
    Band,
    Calibration,
    Correlation,
    CurvePoint,
    HeldOut,
    Interval,
    LabelTarget,
    Provenance,
    ReportData,
    TaskCurve,
)

CALIBRATION_TASKS = (
    "digits_ascii", "digits_3_vs_5", "name_gender", "city_country", "phrase_fr_de",
    "phrase_sv_nl", "phrase_ten_languages", "part_of_speech", "past_tense", "ing_form",
    "boolean_expressions", "coloured_objects",
)  # fmt: skip
HELD_OUT_TASKS = ("airport_country", "word_sentiment", "web_of_lies")
BUDGETS = (0, 8, 32, 128)
CAP = 128
CONFIG = "model:\n  path: HuggingFaceTB/SmolLM2-135M-Instruct\nbudgets: [0, 8, 32, 128]\n"


def report(strength: float = 0.6, seed: int = 7) -> ReportData:
    """A whole report; `strength` is how much of AUC is CoS-Low's doing."""
    rng = np.random.default_rng(seed)
    names = CALIBRATION_TASKS + HELD_OUT_TASKS
    cos_low = rng.uniform(-0.05, 0.75, len(names))
    noise = rng.normal(0, 0.16, len(names))
    auc = np.clip(0.2 + strength * cos_low + noise, 0.08, 0.9)
    curves = tuple(
        curve(rng, name, "held_out" if name in HELD_OUT_TASKS else "calibration", c, a)
        for name, c, a in zip(names, cos_low, auc, strict=True)
    )
    record = calibration(curves)
    grid = np.linspace(-0.1, 0.85, 40)
    mean = record["fit"]["intercept"] + record["fit"]["slope"] * grid
    return ReportData(
        calibration=Calibration.from_dict(record),
        signal=Correlation(
            "cos_low", record["loo"]["r"], Interval(*record["loo"]["r_interval"], 0.95)
        ),
        curves=curves,
        held_out=held_out(),
        fit_band=band(grid, mean, 0.2),
        provenance=provenance(),
        warnings=(
            "digits_ascii: 1 of 32 examples has a gradient of norm 0 and was left out.",
            "Two seeds only: the spread of a point is the range of two numbers.",
        ),
    )


def with_name(data: ReportData, old: str, new: str) -> ReportData:
    """The same report with one task renamed wherever it occurs."""
    calibration_tasks = tuple(
        replace(t, name=new) if t.name == old else t for t in data.calibration.tasks
    )
    return replace(
        data,
        calibration=replace(data.calibration, tasks=calibration_tasks),
        curves=tuple(replace(c, name=new) if c.name == old else c for c in data.curves),
        held_out=tuple(replace(h, task=new) if h.task == old else h for h in data.held_out),
    )


def band(x: np.ndarray, mean: np.ndarray, width: float) -> Band:
    """A band of constant width."""
    return Band(*(tuple(map(float, v)) for v in (x, mean, mean - width, mean + width)))


def curve(rng: np.random.Generator, name: str, role: str, cos_low: float, auc: float) -> TaskCurve:
    """A power curve with that area, measured with noise by two seeds."""
    zero, top = float(rng.uniform(0, 0.25)), float(rng.uniform(0.6, 0.98))
    points = []
    for budget in BUDGETS:
        x = math.log2(max(budget, 1)) / math.log2(CAP)
        score = zero + (top - zero) * x ** ((1 - auc) / auc) + float(rng.normal(0, 0.02))
        score, spread = min(max(score, 0.0), 1.0), float(rng.uniform(0.01, 0.08))
        points.append(
            CurvePoint(
                budget,
                score,
                "imputed" if name == "past_tense" and budget == 32 else "measured",
                max(score - spread, 0.0),
                min(score + spread, 1.0),
                min(max(score, 0.45) + 0.04, 1.0),
            )
        )
    x = np.linspace(0, 1, 29)
    guess = np.clip(0.85 * x ** (1.2 + float(rng.uniform(-0.6, 0.6))), 0, 1)
    low, high = np.clip(guess - 0.2 * np.sqrt(x), 0, 1), np.clip(guess + 0.2 * np.sqrt(x), 0, 1)
    predicted = Band(*(tuple(map(float, v)) for v in (CAP**x, guess, low, high)))
    return TaskCurve(
        name, role, tuple(points), points[0].score, 1.0, 250, float(auc), float(cos_low),
        Interval(cos_low - 0.06, cos_low + 0.06), 0.5 if "3_vs_5" in name else 0.1, 2, predicted,
    )  # fmt: skip


def calibration(curves: tuple[TaskCurve, ...]) -> dict:
    """A `calibration.json` with an honest fit of the made-up tasks."""
    tasks = [c for c in curves if c.role == "calibration"]
    x, y = np.array([c.cos_low for c in tasks]), np.array([c.auc for c in tasks])
    slope, intercept = np.polyfit(x, y, 1)
    left_out = [
        float(np.polyval(np.polyfit(np.delete(x, i), np.delete(y, i), 1), x[i]))
        for i in range(len(x))
    ]
    base = [float(np.delete(y, i).mean()) for i in range(len(x))]
    r = float(np.corrcoef(x, y)[0, 1])
    z, se = math.atanh(r), 1.96 / math.sqrt(len(x) - 3)
    controls = {
        "random_example_cosine": (0.41, 0.118), "mean_cosine": (0.52, 0.104),
        "mean_confidence": (0.22, 0.131), "gradient_norm": (-0.31, 0.127),
        "zero_shot_accuracy": (0.08, 0.139), "label_zero_shot": (0.12, 0.136),
    }  # fmt: skip
    return {
        "schema": 1,
        "family": "SmolLM2-135M-Instruct",
        "fingerprint": {"model": "SmolLM2-135M-Instruct", "examples": 32, "quantile": 0.1},
        "cap": CAP,
        "curve": {"kind": "beta", "shape": {"concentration": 4.2}},
        "fit": {"kind": "linear", "slope": float(slope), "intercept": float(intercept)},
        "loo": {
            "mae": float(np.abs(np.array(left_out) - y).mean()),
            "mean_baseline": float(np.abs(np.array(base) - y).mean()),
            "residuals": [],
            "r": r,
            "r_interval": [math.tanh(z - se), math.tanh(z + se)],
        },
        "controls": {
            name: {"r": r, "r_interval": [r - 0.4, min(r + 0.35, 1)], "mae": mae}
            for name, (r, mae) in controls.items()
        },
        "tasks": [
            {"name": c.name, "auc": c.auc, "cos_low": c.cos_low, "loo_auc": p, "status": "measured"}
            for c, p in zip(tasks, left_out, strict=True)
        ],
    }


def held_out() -> tuple[HeldOut, ...]:
    """One ordinary answer, one out of reach, one with an open interval."""
    return (
        HeldOut("airport_country", 0.48, Interval(0.3, 0.66), (
            LabelTarget(0.8, 41.3, Interval(9, 160), 32),
            LabelTarget(0.9, 87.2, Interval(20, 400), 64),
        )),
        HeldOut("word_sentiment", 0.71, Interval(0.52, 0.88), (
            LabelTarget(0.8, 11.0, Interval(3, 40), 9.5),
            LabelTarget(0.9, 24.8, Interval(6, 90), 118),
        )),
        HeldOut("web_of_lies", 0.22, Interval(0.06, 0.4), (
            LabelTarget(0.8, 120.0, Interval(60, None), None),
            LabelTarget(0.9, None, Interval(95, None), None),
        )),
    )  # fmt: skip


def provenance() -> Provenance:
    """Where it would have come from."""
    return Provenance(
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        template_hash="sha256:4f1c9d02a7be",
        config_yaml=CONFIG,
        seeds=(1, 2),
        versions={"taskeff": "0.1.0", "torch": "2.13.0", "transformers": "5.1.0", "ray": "2.60.0"},
        git_commit="a4732015e8b1",
        duration_s=553.0,
        cores=2,
    )
