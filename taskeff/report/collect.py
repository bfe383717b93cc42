"""A run's artefacts -> the page's input. Reads files only: the page can be made anywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from taskeff.curves.curve import TaskCurve
from taskeff.errors import EstimateError, StorageError, redacted
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.left_out import Prediction, predict_task, without
from taskeff.estimate.run_tables import Ceiling, ceiling_of, task_curves
from taskeff.report.contents import ReportData, TaskReport
from taskeff.report.page import render
from taskeff.storage import Store


def write_report(store: Store) -> str:
    """Render `report.html` from the artefacts in `store`; returns its path.

    Raises:
        StorageError: the run has not finished, naming the missing file.
    """
    store.write_bytes(render(collect(store)).encode(), "report.html")
    return store.path("report.html")


def collect(store: Store) -> ReportData:
    """Everything the page shows, from the files of a finished run.

    Held-out tasks are predicted as they were for `estimates.parquet`, calibration tasks by the
    calibration of the others.
    """
    if not store.exists("calibration.json"):
        raise StorageError(
            f"{store.path('calibration.json')} is missing: run `taskeff calibrate` first"
        )
    calibration = Calibration.load(store)
    run = store.read_json("run.json")
    rows = store.read_table("curves.parquet").to_pylist()
    signals = {row["task"]: row for row in store.read_table("coslow.parquet").to_pylist()}
    curves = task_curves(rows, cap=calibration.cap, ceiling=run["ceiling"])
    names = [*run["held_out"], *(task.name for task in calibration.tasks)]
    return ReportData(
        calibration=calibration,
        tasks=tuple(
            _task(
                _predict(calibration, name, curves, signals[name]["cos_low"], run["ceiling"]),
                name in run["held_out"],
                [row for row in rows if row["task"] == name],
                signals[name],
            )
            for name in names
        ),
        provenance={**run, "config": _without_paths(store.read_bytes("config.yaml").decode())},
    )


def _predict(
    calibration: Calibration,
    name: str,
    curves: Mapping[str, TaskCurve],
    cos_low: float,
    ceiling: Ceiling,
) -> Prediction:
    known = ceiling_of(ceiling, name)
    others = calibration
    try:
        if any(task.name == name for task in calibration.tasks):
            others = without(calibration, name, curves)
    except EstimateError as error:
        return Prediction(curves[name], cos_low, known, problem=str(error))
    return predict_task(others, curves[name], cos_low, known)


def _task(
    prediction: Prediction,
    held_out: bool,
    rows: Sequence[Mapping[str, Any]],
    signal: Mapping[str, Any],
) -> TaskReport:
    scores: dict[int, list[float]] = {}
    label_scores: dict[int, list[float]] = {}
    for row in rows:
        scores.setdefault(row["budget"], []).append(row["score"])
        if row["label_score"] is not None:
            label_scores.setdefault(row["budget"], []).append(row["label_score"])
    return TaskReport(
        prediction=prediction,
        held_out=held_out,
        cos_low_interval=(signal["cos_low_low"], signal["cos_low_high"]),
        n_test=rows[0]["n_test"],
        seeds=len({row["seed"] for row in rows}),
        spread={n: (min(found), max(found)) for n, found in scores.items() if len(found) > 1},
        label_scores={n: float(np.mean(found)) for n, found in label_scores.items()},
        chance=1 / signal["n_labels"] if signal["n_labels"] else None,
    )


def _without_paths(config: str) -> str:
    """The configuration without the folders of the machine that ran it."""
    values = yaml.safe_load(config)
    values.pop("storage")
    values["model"].pop("path")
    return yaml.safe_dump(redacted(_shortened(values)), sort_keys=False)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return os.path.basename(value) if isinstance(value, str) and value[:1] in "/~" else value
