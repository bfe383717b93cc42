"""A run's artefacts -> the page's input. Reads files only: the page can be made anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from taskeff.curves.curve import TaskCurve as Curve
from taskeff.errors import EstimateError, StorageError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.run_tables import task_curves
from taskeff.report.data import (
    Band,
    Correlation,
    CurvePoint,
    HeldOut,
    Interval,
    LabelTarget,
    Provenance,
    ReportData,
    TaskCurve,
)
from taskeff.report.data import Calibration as CalibrationTable
from taskeff.storage import Store

LEVEL = 0.8
GRID = 41


def write_report(store: Store) -> str:
    """Render `report.html` from the artefacts in `store`; returns its path.

    Raises:
        StorageError: the run has not finished, naming the missing file.
    """
    from taskeff.report.page import render

    store.write_bytes(render(collect(store)).encode(), "report.html")
    return store.path("report.html")


def collect(store: Store) -> ReportData:
    """Everything the page shows, from the files of a finished run."""
    if not store.exists("calibration.json"):
        raise StorageError(
            f"{store.path('calibration.json')} is missing: run `taskeff calibrate` first"
        )
    calibration = Calibration.load(store)
    record = store.read_json("calibration.json")
    run = store.read_json("run.json")
    rows = store.read_table("curves.parquet").to_pylist()
    signals = {row["task"]: row for row in store.read_table("coslow.parquet").to_pylist()}
    estimates = store.read_table("estimates.parquet").to_pylist()
    curves = task_curves(rows, cap=calibration.cap, ceiling=run["ceiling"])
    loo = record["loo"]
    limits = loo.get("r_interval")
    interval = Interval(limits[0], limits[1], 0.95) if limits else None
    return ReportData(
        calibration=CalibrationTable.from_dict(record),
        signal=Correlation("cos_low", loo["r"], interval, loo["mae"]),
        curves=tuple(
            _curve(name, curve, rows, signals[name], run, calibration)
            for name, curve in curves.items()
        ),
        provenance=_provenance(run, store),
        held_out=tuple(_held_out(name, estimates) for name in run["held_out"]),
        fit_band=_fit_band(calibration, [signal["cos_low"] for signal in signals.values()]),
        warnings=tuple(calibration.warnings),
        reference="ceiling",
    )


def _curve(
    name: str,
    curve: Curve,
    rows: Sequence[Mapping[str, Any]],
    signal: Mapping[str, Any],
    run: Mapping[str, Any],
    calibration: Calibration,
) -> TaskCurve:
    mine = [row for row in rows if row["task"] == name]
    points = []
    for point in curve.points:
        scores = [row["score"] for row in mine if row["budget"] == point.budget]
        labels = [
            row["label_score"]
            for row in mine
            if row["budget"] == point.budget and row["label_score"] is not None
        ]
        several = len(scores) > 1
        points.append(
            CurvePoint(
                point.budget,
                point.score,
                point.status,
                min(scores) if several else None,
                max(scores) if several else None,
                float(np.mean(labels)) if labels else None,
            )
        )
    return TaskCurve(
        name=name,
        role="held_out" if name in run["held_out"] else "calibration",
        points=tuple(points),
        zero_shot=curve.zero_shot,
        ceiling=curve.ceiling,
        n_test=mine[0]["n_test"],
        auc=curve.auc,
        cos_low=signal["cos_low"],
        cos_low_interval=Interval(signal["cos_low_low"], signal["cos_low_high"], LEVEL),
        chance=1 / signal["n_labels"] if signal["n_labels"] else None,
        seeds=len({row["seed"] for row in mine}),
        predicted=_band(calibration, name, signal["cos_low"]),
    )


def _band(calibration: Calibration, name: str, cos_low: float) -> Band | None:
    """The curve predicted for a task, for a calibration task with that task left out."""
    x = np.linspace(0, 1, GRID)
    try:
        found = calibration.predict_auc(cos_low)
    except EstimateError:
        return None
    low, high = found.interval[LEVEL] if found.interval else (found.auc, found.auc)
    left_out = {t["name"]: t["loo_auc"] for t in calibration.to_dict()["tasks"]}.get(name)
    auc = found.auc if left_out is None else left_out

    def share(area: float) -> tuple[float, ...]:
        inside = min(max(area, 1e-3), 1 - 1e-3)
        return tuple(map(float, calibration.curve.value(x, inside)))

    budgets = tuple(float(n) for n in calibration.cap**x)
    return Band(budgets, share(auc), share(low), share(high), LEVEL)


def _held_out(name: str, estimates: Sequence[Mapping[str, Any]]) -> HeldOut:
    rows = [row for row in estimates if row["task"] == name]
    first = rows[0]
    if first["problem"]:
        return HeldOut(name, None, problem=first["problem"])
    targets = tuple(
        LabelTarget(
            row["target"], row["labels_needed"], _interval(row["interval"]), row["measured_labels"]
        )
        for row in rows
    )
    return HeldOut(name, first["auc"], _interval(first["auc_interval"]), targets)


def _interval(limits: Sequence[float | None] | None) -> Interval | None:
    if not limits or limits[0] is None:
        return None
    return Interval(limits[0], limits[1], LEVEL)


def _fit_band(calibration: Calibration, cos_lows: Sequence[float]) -> Band | None:
    rows: list[tuple[float, float, float, float]] = []
    margin = 0.1 * (max(cos_lows) - min(cos_lows))
    for x in np.linspace(min(cos_lows) - margin, max(cos_lows) + margin, GRID):
        try:
            found = calibration.predict_auc(float(x))
        except EstimateError:
            continue
        if found.interval:
            rows.append((float(x), found.auc, *found.interval[LEVEL]))
    if not rows:
        return None
    x, mean, low, high = zip(*rows)
    return Band(x, mean, low, high, LEVEL)


def _provenance(run: Mapping[str, Any], store: Store) -> Provenance:
    return Provenance(
        model=run["identity"]["model"],
        revision=run["identity"]["revision"],
        template_hash=run["identity"]["chat_template"],
        config_yaml=_without_paths(store.read_bytes("config.yaml").decode()),
        seeds=tuple(run["seeds"]),
        versions=run["versions"],
        git_commit=run["git_commit"],
        duration_s=run["seconds"],
        cores=run["cores"],
    )


def _without_paths(config: str) -> str:
    """The configuration without the folders of the machine that ran it."""
    values = yaml.safe_load(config)
    values.pop("storage")
    values["model"].pop("path")
    return yaml.safe_dump(values, sort_keys=False)
