"""A run's artefacts -> the page's input. Reads files only: the page can be made anywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import yaml

from taskeff.curves.curve import TaskCurve
from taskeff.errors import DataError, EstimateError, StorageError, redacted
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.left_out import Prediction, predict_task, without
from taskeff.estimate.run_tables import Ceiling, ceiling_of, task_curves
from taskeff.report.contents import ReportData, TaskReport
from taskeff.report.page import render
from taskeff.schema import Artefact, Cosine, Count, Number, Object, Share, Text, Whole, checked
from taskeff.storage import Store
from taskeff.yaml_file import parsed_yaml


class _RunFile(Artefact):
    identity: Object
    ceiling: Share | dict[str, Share | None] | None
    held_out: list[Text]
    seeds: list[Whole]
    versions: dict[str, Text]
    git_commit: Text | None
    seconds: Number
    cores: Count | None


class _CurveRow(Artefact):
    task: Text
    budget: Count
    seed: Whole
    score: Share
    label_score: Share | None
    n_test: Count | None
    status: Literal["measured", "imputed"]


class _SignalRow(Artefact):
    task: Text
    cos_low: Cosine
    cos_low_low: Cosine
    cos_low_high: Cosine
    n_labels: Count | None


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
    run = checked(store.read_json("run.json"), _RunFile, store.path("run.json"))
    rows = _rows(store, "curves.parquet", _CurveRow)
    signals = {row["task"]: row for row in _rows(store, "coslow.parquet", _SignalRow)}
    names = [*run["held_out"], *(task.name for task in calibration.tasks)]
    for name in names:
        for table, known in (("curves", {row["task"] for row in rows}), ("coslow", signals)):
            if name not in known:
                where = store.path(f"{table}.parquet")
                raise DataError(
                    f"{where}: task: has no {name!r:.60}; run `taskeff calibrate` again"
                )
    curves = task_curves(rows, cap=calibration.cap, ceiling=run["ceiling"])
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
        provenance={**run, "config": _without_paths(store.read_bytes("config.yaml"))},
    )


def _rows(store: Store, name: str, schema: type[Artefact]) -> list[dict[str, Any]]:
    return [
        checked(row, schema, f"{store.path(name)}, row {number}")
        for number, row in enumerate(store.read_table(name).to_pylist(), 1)
    ]


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


def _without_paths(config: bytes) -> str:
    """The configuration without the folders of the machine that ran it."""
    values = parsed_yaml(config)
    values.pop("storage")
    values["model"].pop("path")
    return yaml.safe_dump(redacted(_shortened(values)), sort_keys=False)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return os.path.basename(value) if isinstance(value, str) and value[:1] in "/~" else value
