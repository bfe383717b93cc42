"""A ranking as Parquet, CSV and one self-contained page that sorts, filters and shows curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from taskeff.estimate.calibration import Calibration
from taskeff.estimate.ranking import columns, share
from taskeff.estimate.rounding import high_end, low_end, whole
from taskeff.report import html
from taskeff.report.sentences import UNKNOWN, number
from taskeff.spreadsheet import csv_bytes
from taskeff.storage import Store

TEXT = ("name", "status", "reason")
COUNTS = ("rank", "rows_in", "rows", "unscored", "duplicates")


def write_ranking(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    calibration: Calibration,
    targets: Sequence[float],
) -> str:
    """Write ranking.parquet, ranking.csv and ranking.html; returns the page's path.

    Args:
        rows: of `taskeff.estimate.ranking.ordered`.
    """
    store.write_table(as_table(rows, targets), "ranking.parquet")
    store.write_bytes(as_csv(rows, calibration, targets), "ranking.csv")
    store.write_bytes(render(rows, calibration, targets).encode(), "ranking.html")
    return store.path("ranking.html")


def as_table(rows: Sequence[Mapping[str, Any]], targets: Sequence[float]) -> pa.Table:
    """The rows with typed columns, whatever is missing."""
    return pa.table(
        {name: pa.array([row[name] for row in rows], _type(name)) for name in columns(targets)}
    )


def _type(name: str) -> pa.DataType:
    if name == "warnings":
        return pa.list_(pa.string())
    if name in TEXT:
        return pa.string()
    if name in COUNTS:
        return pa.int64()
    return pa.bool_() if name.startswith("reachable") else pa.float64()


def as_csv(
    rows: Sequence[Mapping[str, Any]], calibration: Calibration, targets: Sequence[float]
) -> bytes:
    """The rows as CSV, labels rounded as for people, with what holds of the whole family on each.

    Cells a spreadsheet would run as formulas get a leading quote.
    """
    told = {"family": calibration.family, "family_warnings": "; ".join(calibration.warnings)}
    cells = (
        {**_rounded(row, calibration.cap, targets), "warnings": "; ".join(row["warnings"]), **told}
        for row in rows
    )
    return csv_bytes([*columns(targets), *told], cells)


def _rounded(row: Mapping[str, Any], cap: int, targets: Sequence[float]) -> dict[str, Any]:
    found = dict(row)
    for name in (f"labels_{share(target)}" for target in targets):
        low, high = f"{name}_low", f"{name}_high"
        for key, rule in ((name, whole), (low, low_end), (high, lambda n: high_end(n, cap))):
            found[key] = None if row[key] is None else rule(row[key])
    return found


def render(
    rows: Sequence[Mapping[str, Any]], calibration: Calibration, targets: Sequence[float]
) -> str:
    """The page as text; the same rows give the same bytes."""
    statuses = sorted({row["status"] for row in rows})
    return html.page(
        "ranking.html.j2",
        html.asset("page.css", "ranking.css"),
        html.asset("ranking.js"),
        filters={"number": number, "labels": _labels, "money": _money},
        rows=[_rounded(row, calibration.cap, targets) for row in rows],
        common=_common_warnings(rows),
        calibration=calibration,
        targets=[(target, share(target)) for target in targets],
        statuses=statuses,
        counts={status: sum(row["status"] == status for row in rows) for status in statuses},
        priced=any(row[f"cost_{share(t)}"] is not None for row in rows for t in targets),
        curves={
            "cap": calibration.cap,
            "targets": list(targets),
            "curves": {index: row["curve"] for index, row in enumerate(rows) if row["curve"]},
        },
        unknown=UNKNOWN,
    )


def _common_warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What every one of several ranked rows warns of, to be said once."""
    ranked = [row["warnings"] for row in rows if row["auc"] is not None]
    if len(ranked) < 2:
        return []
    return [warning for warning in ranked[0] if all(warning in others for others in ranked)]


def _labels(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _money(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.2f}"
