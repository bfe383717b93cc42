"""What the page is made of: plain frozen records, no torch, no ray, no storage.

The driver fills a `ReportData`; `page.render` turns it into HTML. Every number is decided before it
gets here, so that the page can be tested with made-up numbers and never disagrees with the files.
`None` always means "not known" unless the field says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from taskeff.errors import DataError

Role = Literal["calibration", "held_out"]
PointStatus = Literal["measured", "imputed", "carried"]
Reference = Literal["cap", "ceiling"]


@dataclass(frozen=True)
class Interval:
    """A range with its nominal coverage; `high=None` means that it reaches beyond the cap."""

    low: float
    high: float | None
    level: float = 0.8

    def __post_init__(self) -> None:
        _none_unless_finite(self, "high")


@dataclass(frozen=True)
class CurvePoint:
    """One budget of a measured curve; scores are means over seeds, in the metric's own units.

    `low` and `high` are the smallest and largest score over seeds (leave out for one seed).
    `label_restricted` is the score when the answer is the argmax among the allowed labels.
    """

    budget: int
    score: float
    status: PointStatus = "measured"
    low: float | None = None
    high: float | None = None
    label_restricted: float | None = None


@dataclass(frozen=True)
class Band:
    """A curve with its interval; `x` is a budget or a CoS-Low."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    level: float = 0.8

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.mean), len(self.low), len(self.high)}
        if len(lengths) != 1:
            raise DataError(f"a band's x, mean, low and high differ in length: {sorted(lengths)}")


@dataclass(frozen=True)
class TaskCurve:
    """One task: what was measured of it, and the curve that was predicted for it.

    `predicted` is normalised: x in labels, 0 is `zero_shot` and 1 is `ceiling`. For a calibration
    task it should be the curve predicted with that task left out.
    """

    name: str
    role: Role
    points: tuple[CurvePoint, ...]
    zero_shot: float
    ceiling: float
    n_test: int
    auc: float | None = None
    cos_low: float | None = None
    cos_low_interval: Interval | None = None
    chance: float | None = None
    seeds: int = 1
    predicted: Band | None = None

    @property
    def measured(self) -> bool:
        """Whether at least one fine-tune of this task was measured."""
        return any(p.budget > 0 and p.status == "measured" for p in self.points)


@dataclass(frozen=True)
class LabelTarget:
    """Labels needed for one share of the reachable range.

    `labels=None` means "not reachable within the cap". `measured=None` means that the measured
    curve never reached the share, or, where the task has no measured curve, that nobody knows.
    """

    share: float
    labels: float | None
    interval: Interval | None = None
    measured: float | None = None

    def __post_init__(self) -> None:
        _none_unless_finite(self, "labels", "measured")


@dataclass(frozen=True)
class HeldOut:
    """What was predicted for a task the fit never saw; `problem` says why there is no number."""

    task: str
    auc: float | None
    auc_interval: Interval | None = None
    targets: tuple[LabelTarget, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Correlation:
    """How one quantity goes with AUC over the calibration tasks."""

    name: str
    r: float | None
    interval: Interval | None = None
    loo_mae: float | None = None


@dataclass(frozen=True)
class CalibrationTask:
    """A row of the calibration's own table; a task of status `short` is listed but not fitted."""

    name: str
    auc: float
    cos_low: float
    loo_auc: float | None = None
    status: str = "measured"


@dataclass(frozen=True)
class Calibration:
    """`calibration.json` as the page reads it; see `from_dict`."""

    family: str
    fingerprint: tuple[tuple[str, str], ...]
    cap: int
    curve_kind: str
    curve_shape: tuple[tuple[str, str], ...]
    fit_kind: str
    slope: float
    intercept: float
    loo_mae: float | None
    mean_baseline: float | None
    tasks: tuple[CalibrationTask, ...]
    controls: tuple[Correlation, ...] = ()

    @property
    def fitted(self) -> tuple[CalibrationTask, ...]:
        """The tasks that the line rests on."""
        return tuple(task for task in self.tasks if task.status != "short")

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], r_level: float = 0.95) -> Calibration:
        """Read the content of `calibration.json`; `r_level` is the level of its r intervals."""
        try:
            loo = record["loo"]
            return cls(
                family=record["family"],
                fingerprint=_pairs(record["fingerprint"]),
                cap=int(record["cap"]),
                curve_kind=record["curve"]["kind"],
                curve_shape=_shape(record["curve"].get("shape")),
                fit_kind=record["fit"]["kind"],
                slope=record["fit"]["slope"],
                intercept=record["fit"]["intercept"],
                loo_mae=loo.get("mae"),
                mean_baseline=loo.get("mean_baseline"),
                tasks=tuple(_calibration_task(row) for row in record.get("tasks") or ()),
                controls=tuple(
                    _correlation(name, row, r_level)
                    for name, row in (record.get("controls") or {}).items()
                ),
            )
        except KeyError as missing:
            raise DataError(
                f"calibration.json lacks the field {missing}: run calibrate again"
            ) from None


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from; no host name, no path, no credential."""

    model: str
    revision: str | None
    template_hash: str
    config_yaml: str
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    git_commit: str | None = None
    duration_s: float | None = None
    cores: int | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    `signal` is CoS-Low's own row, set beside the calibration's controls. `fit_band` is the fit over
    a grid of CoS-Low (`x`) with the interval for a new task, both in AUC. `reference` says what a
    share of the reachable range is a share of: the way from zero-shot to the score at the cap, or
    to the ceiling.
    """

    calibration: Calibration
    signal: Correlation
    curves: tuple[TaskCurve, ...]
    provenance: Provenance
    held_out: tuple[HeldOut, ...] = ()
    fit_band: Band | None = None
    warnings: tuple[str, ...] = ()
    reference: Reference = "cap"

    def __post_init__(self) -> None:
        names = [curve.name for curve in self.curves]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"the report was given two curves of one task: {', '.join(twice)}")

    @property
    def controls(self) -> tuple[Correlation, ...]:
        """What else was correlated with AUC, without CoS-Low's own row should it be there."""
        return tuple(c for c in self.calibration.controls if c.name != self.signal.name)

    def curve(self, task: str) -> TaskCurve | None:
        """The curve of a task, or None where it has none."""
        return next((curve for curve in self.curves if curve.name == task), None)


def _none_unless_finite(record: Interval | LabelTarget, *fields: str) -> None:
    # A curve that is never reached comes as NaN or infinity from arrays and Parquet columns.
    for field in fields:
        value = getattr(record, field)
        if value is not None and not math.isfinite(value):
            object.__setattr__(record, field, None)


def _pairs(fingerprint: object) -> tuple[tuple[str, str], ...]:
    if isinstance(fingerprint, Mapping):
        return tuple((str(key), str(value)) for key, value in fingerprint.items())
    return (("fingerprint", str(fingerprint)),)


def _shape(parameters: object) -> tuple[tuple[str, str], ...]:
    if isinstance(parameters, Mapping):
        return tuple((str(key), _short(value)) for key, value in parameters.items())
    return ()


def _calibration_task(row: Mapping[str, Any]) -> CalibrationTask:
    return CalibrationTask(
        row["name"], row["auc"], row["cos_low"], row.get("loo_auc"), row.get("status", "measured")
    )


def _correlation(name: str, row: Mapping[str, Any], level: float) -> Correlation:
    limits = row.get("r_interval")
    interval = Interval(limits[0], limits[1], level) if limits else None
    return Correlation(name, row.get("r"), interval, row.get("mae"))


def _short(value: Any) -> str:
    """A number to three digits; several of them as how many there are."""
    return f"{value:.3g}" if isinstance(value, int | float) else f"{len(value)} values"
