"""CoS-Low of many data sets -> one ranked table: fewest labels first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from taskeff.errors import EstimateError
from taskeff.estimate.budget import LEVEL, Estimate, predict
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.rounding import whole

CURVE_POINTS = 17
FACTS = ("rows_in", "rows", "unscored", "duplicates", "mean_confidence")


def ranking_rows(
    records: Sequence[Mapping[str, Any]],
    calibration: Calibration,
    *,
    targets: Sequence[float],
    fingerprint: Mapping[str, object],
) -> list[dict[str, Any]]:
    """One row per data set, in the order given.

    Args:
        records: name, status, reason, price, warnings, `FACTS` where known, and for a data set of
            status ``measured`` its `result` (`coslow.json`).
        targets: shares of the zero-shot-to-ceiling range.
        fingerprint: what CoS-Low was measured with.

    Returns:
        Rows with the columns of `columns(targets)` and `curve`: budgets with the predicted share
        and its band, for the page. Status is ``ranked`` where there is an estimate.
    """
    return [_row(record, calibration, targets, fingerprint) for record in records]


def ordered(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows numbered from the highest predicted data efficiency down; the others follow by name."""
    found = sorted(
        rows, key=lambda row: (row["auc"] is None, -(row["auc"] or 0.0), str(row["name"]))
    )
    for number, row in enumerate(found, 1):
        row["rank"] = number if row["auc"] is not None else None
    return found


def columns(targets: Sequence[float]) -> list[str]:
    """The table's columns, in order."""
    first = ["rank", "name", "status", "cos_low", "cos_low_low", "cos_low_high", "mean_cosine"]
    per_target = [
        f"{what}_{share(target)}{end}"
        for target in targets
        for what, end in (
            ("labels", ""),
            ("labels", "_low"),
            ("labels", "_high"),
            ("reachable", ""),
            ("cost", ""),
        )
    ]
    return [*first, "auc", "auc_low", "auc_high", *per_target, *FACTS, "reason", "warnings"]


def share(target: float) -> str:
    """A target as part of a column's name: 0.9 -> `90`, 0.925 -> `92.5`."""
    return f"{100 * target:g}"


def _row(
    record: Mapping[str, Any],
    calibration: Calibration,
    targets: Sequence[float],
    fingerprint: Mapping[str, object],
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(columns(targets))
    row |= {key: record.get(key) for key in ("name", "status", "reason", *FACTS)}
    row |= {"warnings": list(record.get("warnings") or ()), "curve": None}
    result = record.get("result")
    if result is None:
        return row
    row |= {key: result[key] for key in ("cos_low", "cos_low_low", "cos_low_high", "mean_cosine")}
    try:
        found = [
            predict(calibration, result["cos_low"], target=target, fingerprint=fingerprint)
            for target in targets
        ]
    except EstimateError as error:
        return row | {"status": "no_estimate", "reason": str(error)}
    row |= {"status": "ranked", "auc": found[0].auc}
    if found[0].auc_intervals is not None:
        row["auc_low"], row["auc_high"] = found[0].auc_intervals[LEVEL]
    for target, estimate in zip(targets, found, strict=True):
        row |= _needed(share(target), estimate, record.get("price"))
    # What holds of the whole family is said once, not on every row.
    common = set(calibration.warnings)
    row["warnings"] += [warning for warning in found[0].warnings if warning not in common]
    budgets = np.geomspace(1.0, float(calibration.cap), CURVE_POINTS).tolist()
    row["curve"] = _curve(found[0], budgets)
    return row


def _needed(name: str, estimate: Estimate, price: float | None) -> dict[str, Any]:
    labels = estimate.labels_needed
    low, high = (None, None) if estimate.intervals is None else estimate.intervals[LEVEL]
    return {
        f"labels_{name}": labels,
        f"labels_{name}_low": low,
        f"labels_{name}_high": high,
        f"reachable_{name}": estimate.reachable,
        f"cost_{name}": None if labels is None or price is None else whole(labels) * price,
    }


def _curve(estimate: Estimate, budgets: Sequence[float]) -> dict[str, list[float]]:
    drawn = estimate.curve(budgets)
    band = drawn["band"] and drawn["band"][f"{100 * LEVEL:.0f}"]
    curve = {"budgets": drawn["budgets"], "share": drawn["share"]}
    if band:
        curve |= {"low": band["low"], "high": band["high"]}
    return {key: [round(float(v), 4) for v in values] for key, values in curve.items()}
