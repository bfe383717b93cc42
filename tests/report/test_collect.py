"""The page shows what its answers are made of: one estimate gives the labels and the line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from taskeff.errors import StorageError
from taskeff.estimate.budget import predict
from taskeff.estimate.calibration import Calibration, fit_calibration
from taskeff.estimate.left_out import TARGETS, predict_task, prediction_rows
from taskeff.estimate.run_tables import FitSettings, fit_run, task_curves
from taskeff.estimate.shapes import fit_shape
from taskeff.report.collect import collect, write_report
from taskeff.report.figures import predicted_scores
from taskeff.storage import Store
from tests.estimate.conftest import CAP, made_up_cases
from tests.report import fake

HELD_OUT = ["t00", "t01", "t02", "t03"]


def finished_run(
    folder, ceiling: float | None, shape: str = "beta", *, flat: bool = False
) -> Store:
    """What a run leaves behind, of made-up tasks that reach .75 to .98."""
    cases = made_up_cases(16)
    rows = [
        {
            "task": case.curve.name,
            "budget": n,
            "seed": 0,
            "score": 0.2 if flat else score,
            "label_score": None,
        }
        | {"n_test": 100, "status": "measured"}
        for case in cases
        for n, score in case.scores.items()
    ]
    signals = {
        case.curve.name: {
            "task": case.curve.name,
            "cos_low": case.cos_low,
            "cos_low_low": case.cos_low - 0.1,
            "cos_low_high": case.cos_low + 0.1,
            "n_labels": None,
        }
        for case in cases
    }
    curves = task_curves(rows, cap=CAP, ceiling=ceiling)
    settings = FitSettings(CAP, ceiling, shape, "fractional", "made-up", {"model": "m"})
    calibration = fit_run({n: c for n, c in curves.items() if n not in HELD_OUT}, signals, settings)
    predictions = [
        predict_task(calibration, curves[n], signals[n]["cos_low"], ceiling) for n in HELD_OUT
    ]
    store = Store(str(folder))
    calibration.save(store)
    store.write_table(pa.Table.from_pylist(rows), "curves.parquet")
    store.write_table(pa.Table.from_pylist(list(signals.values())), "coslow.parquet")
    store.write_table(pa.Table.from_pylist(prediction_rows(predictions)), "estimates.parquet")
    store.write_bytes(b"storage: s3://a-bucket\nmodel: {path: somewhere, name: m}\n", "config.yaml")
    identity = {"model": "m", "revision": None, "chat_template": "h"}
    record = {"identity": identity, "ceiling": ceiling, "held_out": HELD_OUT, "seeds": [0]}
    more = {"versions": {}, "git_commit": None, "seconds": 1.0, "cores": 2}
    store.write_json({**record, **more}, "run.json")
    return store


@pytest.fixture(scope="module", params=[0.99, 0.8, None])
def run(request, tmp_path_factory):
    """A store and its report: targets mostly out of reach, mostly within it, no known ceiling."""
    store = finished_run(tmp_path_factory.mktemp("run"), request.param)
    return store, collect(store)


def crossing(labels: np.ndarray, scores: np.ndarray, goal: float) -> float | None:
    """log2 of the labels at which a drawn line first reaches a score."""
    hit = np.flatnonzero(scores >= goal - 1e-12)
    if not len(hit) or hit[0] == 0:
        return None
    return float(np.interp(goal, scores[hit[0] - 1 : hit[0] + 1], labels[hit[0] - 1 : hit[0] + 1]))


def test_the_drawn_line_crosses_every_target_at_the_printed_labels(run):
    _, data = run
    checked = 0
    for task in data.tasks:
        x, line, _, _ = predicted_scores(task)
        step = x[1] - x[0]
        reach = task.prediction.top - task.prediction.curve.zero_shot
        for estimate in task.prediction.estimates:
            at = crossing(x, line, task.prediction.curve.zero_shot + estimate.target * reach)
            if estimate.labels_needed is None:
                assert at is None
            else:
                assert at == pytest.approx(math.log2(estimate.labels_needed), abs=step)
            checked += 1
    assert checked == 2 * len(data.tasks) == 32


def test_the_line_and_the_band_end_where_the_likely_curves_do(run):
    _, data = run
    for task in data.tasks:
        _, line, low, high = predicted_scores(task)
        ends = task.prediction.estimates[0].posterior.share[:, -1]
        reach = task.prediction.top - task.prediction.curve.zero_shot
        wanted = task.prediction.curve.zero_shot + reach * np.quantile(ends, [0.5, 0.1, 0.9])
        assert (line[-1], low[-1], high[-1]) == pytest.approx(tuple(wanted), abs=0.002)


def test_a_band_that_does_not_reach_the_ceiling_is_drawn_so():
    task = fake.report().by_name["web_of_lies"]
    assert not any(estimate.reachable for estimate in task.prediction.estimates)
    _, line, low, high = predicted_scores(task)
    assert low[-1] < line[-1] < high[-1] < 0.9 < task.prediction.top


def test_the_page_and_the_table_have_the_same_numbers(run):
    store, data = run
    rows = store.read_table("estimates.parquet").to_pylist()
    assert [(row["task"], row["target"]) for row in rows] == [
        (name, target) for name in HELD_OUT for target in TARGETS
    ]
    shown = [(t.prediction, e) for t in data.held_out for e in t.prediction.estimates]
    for row, (prediction, estimate) in zip(rows, shown, strict=True):
        assert row["labels_needed"] == estimate.labels_needed
        assert row["interval"] == estimate.to_dict()["interval"]
        assert row["measured_labels"] == prediction.measured_labels(row["target"])


def test_a_calibration_task_is_predicted_by_the_others(run):
    store, data = run
    family = data.calibration
    task = data.by_name["t07"]
    curves = {t.name: t.prediction.curve for t in data.tasks}
    others = [t for t in family.tasks if t.name != "t07"]
    left_out = fit_calibration(
        others,
        curve=fit_shape([curves[t.name] for t in others]),
        cap=CAP,
        family="others",
        fingerprint={},
    )
    question = {
        "zero_shot": task.prediction.curve.zero_shot,
        "ceiling": store.read_json("run.json")["ceiling"],
    }
    for estimate, target in zip(task.prediction.estimates, TARGETS, strict=True):
        wanted = predict(left_out, task.prediction.cos_low, target=target, **question)
        assert (estimate.labels_needed, estimate.intervals) == (
            wanted.labels_needed,
            wanted.intervals,
        )
        assert estimate.auc == pytest.approx(family.left_out["t07"])
    assert predict(family, task.prediction.cos_low, **question).auc != estimate.auc


def test_without_a_posterior_the_curve_of_the_area_stays(tmp_path):
    data = collect(finished_run(tmp_path, 0.8, "power"))
    for task in data.tasks:
        estimate = task.prediction.estimates[1]
        assert estimate.posterior is None
        x, line, _, _ = predicted_scores(task)
        zero = task.prediction.curve.zero_shot
        share = (line - zero) / (0.8 - zero)
        assert share == pytest.approx(estimate.shape.value(x / x[-1], estimate.auc))


def test_the_page_tells_no_folder_and_an_unfinished_run_is_named(tmp_path):
    store = finished_run(tmp_path / "run", 0.8)
    text = Path(write_report(store)).read_text()
    assert "a-bucket" not in text and "somewhere" not in text
    with pytest.raises(StorageError, match=r"calibration\.json is missing"):
        write_report(Store(str(tmp_path / "nothing")))


def test_a_run_whose_curves_never_rise_says_so_in_its_report(tmp_path):
    store = finished_run(tmp_path, 0.99, flat=True)
    assert "no fine-tune of these tasks beats zero-shot" in " ".join(
        Calibration.load(store).warnings
    )
    write_report(store)
    page = (tmp_path / "report.html").read_text()
    assert "no fine-tune of these tasks beats zero-shot" in page
