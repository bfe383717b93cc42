"""A run's rows to curves and controls: ceilings of each task, zero-shot with the format given."""

from __future__ import annotations

import pytest

from taskeff.estimate.left_out import predict_task, prediction_rows
from taskeff.estimate.run_tables import (
    FitSettings,
    fit_run,
    label_zero_shots,
    task_curves,
)

CAP = 64
SCORES = {
    "a": {0: 0.2, 8: 0.4, 64: 0.8},
    "b": {0: 0.1, 8: 0.2, 64: 0.5},
    "c": {0: 0.3, 8: 0.5, 64: 0.9},
    "free": {0: 0.25, 8: 0.3, 64: 0.45},
}
CEILINGS = {"a": 0.9, "b": None, "c": 0.6}
LABELS = {"a": 0.5, "b": 0.3, "c": 0.35, "free": None}


@pytest.fixture
def rows():
    return [
        {
            "task": task,
            "budget": budget,
            "score": score,
            "label_score": None if LABELS[task] is None else max(score, LABELS[task]),
        }
        for task, found in SCORES.items()
        for budget, score in found.items()
    ]


def test_each_task_has_its_own_ceiling_unless_it_did_better(rows):
    curves = task_curves(rows, cap=CAP, ceiling=CEILINGS)
    assert {name: curve.ceiling for name, curve in curves.items()} == {
        "a": 0.9,  # a human's
        "b": 0.5,  # none is known: the best score
        "c": 0.9,  # better than the human's
        "free": 0.45,
    }
    assert {c.ceiling for c in task_curves(rows, cap=CAP, ceiling=1.0).values()} == {1.0}


def test_a_task_that_no_labels_improve_has_no_area():
    scores = {"none": {0: 0.5, 8: 0.5, 64: 0.4}, "human": {0: 0.7, 8: 0.6, 64: 0.7}}
    rows = [
        {"task": task, "budget": budget, "score": score}
        for task, found in scores.items()
        for budget, score in found.items()
    ]
    curves = task_curves(rows, cap=CAP, ceiling={"none": None, "human": 0.7})
    assert {curve.ceiling for curve in curves.values()} == {1.0}
    assert {curve.auc for curve in curves.values()} == {0.0}


def test_zero_shot_with_the_format_given_is_a_control(rows):
    labels = label_zero_shots(rows)
    # A task without labels has no format to be given.
    assert labels == {"a": 0.5, "b": 0.3, "c": 0.35, "free": 0.25}
    curves = task_curves(rows, cap=CAP, ceiling=1.0)
    signals = {name: {"cos_low": 0.1 * i, "random_cosine": 0.2} for i, name in enumerate(curves)}
    settings = FitSettings(CAP, 1.0, "power", "logit", "test", {})
    fitted = fit_run(curves, signals, settings, labels)
    assert set(fitted.controls) == {"random_cosine", "zero_shot", "label_zero_shot"}
    assert fitted.controls["label_zero_shot"].mae != fitted.controls["zero_shot"].mae
    assert {t.name: t.controls["label_zero_shot"] for t in fitted.tasks} == labels


def test_measured_labels_reach_the_score_that_the_prediction_means(rows):
    curves = task_curves(rows, cap=CAP, ceiling=CEILINGS)
    signals = {name: {"cos_low": 0.1 * i} for i, name in enumerate(curves)}
    settings = FitSettings(CAP, CEILINGS, "power", "logit", "test", {})
    calibration = fit_run({n: curves[n] for n in ("a", "b", "free")}, signals, settings)
    at_ninety = [
        row
        for row in prediction_rows([predict_task(calibration, curves["c"], 0.2, CEILINGS["c"])])
        if row["target"] == 0.9
    ]
    # 90 % of the way from .3 to the human's .6 is .57, though the task reached .9.
    share = (0.57 - 0.3) / (0.9 - 0.3)
    assert at_ninety[0]["measured_labels"] == pytest.approx(curves["c"].labels_to_reach(share))


def test_a_task_that_cannot_be_answered_has_every_column(rows):
    """Tables take their columns from the first row; the other tasks' answers must not be lost."""
    signals = {name: {"cos_low": 0.2 * k} for k, name in enumerate(SCORES, 1)}
    curves = task_curves(rows, cap=CAP, ceiling=0.9)
    settings = FitSettings(
        cap=CAP, ceiling=0.9, shape="power", fit="ols", family="f", fingerprint={}
    )
    calibration = fit_run({name: curves[name] for name in ("a", "b", "c")}, signals, settings)
    found = prediction_rows(
        [predict_task(calibration, curves[n], c, 0.9) for n, c in (("a", 99.0), ("b", 0.4))]
    )
    assert [bool(row["problem"]) for row in found] == [True, True, False, False]
    assert {tuple(row) for row in found} == {tuple(found[0])}
    assert found[0]["labels_needed"] is None
