"""Folders of measured curves -> a family: its own with its tasks, or parameters alone."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskeff.curves.curve import TaskCurve
from taskeff.curves.published import read_ceilings, read_curves
from taskeff.errors import DataError, EstimateError
from taskeff.estimate.beta_curve import Rise, fit_rise
from taskeff.estimate.calibration import Calibration, fit_calibration
from taskeff.estimate.points import TaskPoint
from taskeff.estimate.prior import CurvePrior, fit_prior
from taskeff.estimate.shapes import Beta, fit_shape
from taskeff.estimate.sibling import SIGNALS


@dataclass(frozen=True)
class MeasuredTask:
    """One task of a results folder: its curve, what a calibration keeps of it, and the ceiling
    that was known beforehand, if one was."""

    curve: TaskCurve
    point: TaskPoint
    ceiling: float | None = None


def read_tasks(
    results: str | Path,
    ceilings: str | Path | None = None,
    cos_low: str | Path | None = None,
    *,
    cap: int = 5000,
) -> dict[str, MeasuredTask]:
    """Every task of a results folder in the published layout, by name.

    Args:
        results: folder of ``{task}.json``.
        ceilings: a-priori ceilings, or None.
        cos_low: CSV with columns ``task`` and ``cos_low``; tasks it lacks have none.
        cap: the largest budget considered, in labels.

    Raises:
        DataError: a file is missing or malformed, naming it, the row and the fix.
    """
    signals = read_cos_low(cos_low) if cos_low is not None else {}
    curves, _ = read_curves(results, ceilings, cap=cap)
    known = read_ceilings(ceilings) if ceilings is not None else {}
    found: dict[str, MeasuredTask] = {}
    for name, curve in sorted(curves.items()):
        ceiling = top if isinstance(top := known.get(name), float) else None
        rise = fit_rise(curve, ceiling)
        point = TaskPoint(name, curve.auc, signals.get(name), curve.status, rise=rise)
        found[name] = MeasuredTask(curve, point, ceiling)
    return found


def read_cos_low(path: str | Path) -> dict[str, float]:
    """Task -> CoS-Low from a CSV with columns ``task`` and ``cos_low``.

    Raises:
        DataError: naming file, line and fix.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the path") from None
    values: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        try:
            values[row["task"]] = float(row["cos_low"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}, line {number}: expected columns task and cos_low") from None
    return values


def fit_tasks(
    tasks: Mapping[str, MeasuredTask], *, family: str, cap: int, fingerprint: Mapping[str, object]
) -> Calibration:
    """A family of one's own measured curves, with a line in CoS-Low where tasks have one.

    Raises:
        EstimateError: too few tasks.
    """
    if not tasks:
        raise EstimateError(f"cannot fit family {family!r}: no task has a curve")
    points = [task.point for task in tasks.values()]
    shape = fit_shape([task.curve for task in tasks.values()], rises=[p.rise for p in points])
    return fit_calibration(points, curve=shape, cap=cap, family=family, fingerprint=fingerprint)


def fit_parameters(
    families: Mapping[str, Mapping[str, MeasuredTask]], targets: Sequence[str]
) -> tuple[CurvePrior, ...]:
    """What the curves of `targets` say of a new task: without a signal, and given a sibling.

    The second is fitted to every pair of one target's task and the same task in another family;
    there is none where too few tasks are in two families.

    Args:
        families: family -> its tasks by name.
        targets: the families whose curves are to be predicted; all can be siblings.

    Raises:
        EstimateError: fewer than eight of the targets' curves rise.
    """
    tasks = [task for name in targets for task in families[name].values()]
    points = [task.point for task in tasks]
    shape = fit_shape([task.curve for task in tasks], rises=[point.rise for point in points])
    assert isinstance(shape, Beta)
    plain = [rise for point in points if (rise := _usable(point)) is not None]
    priors = [fit_prior(plain, {}, shape)]
    rises: list[Rise] = []
    signals: dict[str, list[float]] = {name: [] for name in SIGNALS}
    for name in targets:
        for other in families.keys() - {name}:
            for task in sorted(families[name].keys() & families[other].keys()):
                rise = _usable(families[name][task].point)
                beside = families[other][task].point
                if rise is not None and beside.status != "short":
                    rises.append(rise)
                    for signal in SIGNALS:
                        signals[signal].append(beside.as_sibling[signal])
    if len(rises) > len(SIGNALS) + 8:
        priors.append(fit_prior(rises, signals, shape))
    return tuple(priors)


def _usable(point: TaskPoint) -> Rise | None:
    return None if point.status == "short" else point.rise


def of_parameters(
    family: str, priors: tuple[CurvePrior, ...], *, cap: int, source: str, **more: Any
) -> Calibration:
    """A family of `fit_parameters` priors; `more` are further fields of `Calibration`."""
    known: dict[str, Any] = {"fingerprint": {}, "line": None, **more}
    curve = priors[0].shape
    return Calibration(family, cap=cap, curve=curve, priors=priors, source=source, **known)
