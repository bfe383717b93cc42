"""CoS-Low -> data efficiency: the regression of one model family and what it is worth.

Fitted over tasks whose curves were measured (arXiv 2512.24991, section 4); every error is
leave-one-task-out and stands beside that of predicting the mean.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from taskeff.errors import EstimateError
from taskeff.estimate.beta_curve import Rise
from taskeff.estimate.calibration_file import CalibrationFile
from taskeff.estimate.doubts import doubts
from taskeff.estimate.family_files import located, read_family
from taskeff.estimate.points import TaskPoint, check_points, columns, point_from_dict
from taskeff.estimate.prior import MIN_RISES, CurvePrior, fit_prior
from taskeff.estimate.regression import (
    AucEstimate,
    FitKind,
    Line,
    Worth,
    fit_line,
    jackknife_plus,
    leave_one_out,
    left_out_means,
    left_out_predictions,
    measure_worth,
)
from taskeff.estimate.shapes import Beta, CurveShape, shape_from_dict
from taskeff.estimate.shown import Shown
from taskeff.schema import checked

if TYPE_CHECKING:
    from taskeff.storage import Store

SCHEMA = 1
PRINTED_MAE = 0.086
"""The one leave-one-out error of a line that arXiv 2512.24991 prints, Llama's."""
LEVELS = (0.5, 0.8, 0.9)
"""Coverage levels of every interval."""


@dataclass(frozen=True, repr=False)
class Calibration(Shown):
    """What is known of one family: the tasks it rests on, its curve shape, its line in CoS-Low.

    Families that the package ships come as parameters: a line that was printed, priors that were
    fitted to curves which are not ours to ship, or both.

    Attributes:
        family: name of the family.
        fingerprint: what CoS-Low was measured with, see `taskeff.estimate.fingerprint`.
        cap: the largest budget of the curves, in labels.
        curve: the family of curves.
        line: AUC as a function of CoS-Low; None where no task has one.
        tasks: the calibration tasks; empty for a family of parameters.
        left_out: task -> its AUC predicted from the other tasks; None if published.
        mae: mean absolute leave-one-task-out error in AUC; as stated, if published.
        mean_baseline: the same error of predicting the mean of the other tasks.
        cos_low: the worth of CoS-Low; None if published.
        controls: the worth of every other measured quantity.
        seed: seed of the bootstrap.
        source: where published coefficients are from, else None.
        caveat: what the evidence behind a family that is shipped with this package is worth.
        priors: what a family of parameters says of curves, one prior for none and one for the
            signals of a sibling.
        coverage: for a family of parameters, how often its 80 % intervals held on the curves of
            families that it had not seen: pilots -> family -> {"area", "labels"}, a share each.
        evidence: what each piece of evidence is worth here, see `taskeff.estimate.evidence`: a
            record of `taskeff.estimate.scoring` each.

    Examples:
        >>> family = taskeff.Calibration.load("llama-3.1-8b-instruct")
        >>> family
        <Calibration: llama-3.1-8b-instruct, parameters, a line in CoS-Low, up to 5,000 labels>
        >>> round(family.predict_auc(0.65).auc, 3)
        0.664
    """

    family: str
    fingerprint: Mapping[str, object]
    cap: int
    curve: CurveShape
    line: Line | None
    tasks: tuple[TaskPoint, ...] = ()
    left_out: Mapping[str, float] | None = None
    mae: float | None = None
    mean_baseline: float | None = None
    cos_low: Worth | None = None
    controls: Mapping[str, Worth] = field(default_factory=dict[str, Worth])
    seed: int = 0
    source: str | None = None
    caveat: str | None = None
    priors: tuple[CurvePrior, ...] = ()
    coverage: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None
    evidence: tuple[Mapping[str, Any], ...] = ()

    def __repr__(self) -> str:
        from taskeff.estimate.words import family

        return f"<Calibration: {family(self)}>"

    @cached_property
    def fitted(self) -> tuple[TaskPoint, ...]:
        """The tasks the line is fitted to: all with a CoS-Low but the short ones."""
        return tuple(t for t in self.tasks if t.status != "short" and t.cos_low is not None)

    @property
    def generic(self) -> bool:
        """Whether it is made of other families' curves alone, which say little without a pilot."""
        return self.line is None and not self.tasks

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What to know before trusting this calibration."""
        return (*(() if self.caveat is None else (self.caveat,)), *doubts(self))

    @cached_property
    def prior(self) -> CurvePrior | None:
        """What a task's CoS-Low, if the family has a line, says of its curve."""
        return self.prior_given(("cos_low",) if self.fitted else ())

    def prior_given(
        self, names: Sequence[str], siblings: Mapping[str, Mapping[str, float]] | None = None
    ) -> CurvePrior | None:
        """What the tasks say of a new task's whole curve, given its signals of these names.

        Args:
            names: of the signals.
            siblings: task -> its signals on the other model, see `TaskPoint.as_sibling`.

        Returns:
            None where the family is too small: eight tasks that rise, more with a sibling.
        """
        if not self.tasks:
            return next((p for p in self.priors if set(p.signals) == set(names)), None)
        rows: list[tuple[Rise, list[float]]] = []
        for task in self.tasks:
            known = {"cos_low": task.cos_low, **(siblings or {}).get(task.name, {})}
            found = [value for name in names if (value := known.get(name)) is not None]
            if task.status != "short" and task.rise is not None and len(found) == len(names):
                rows.append((task.rise, found))
        if len(rows) < MIN_RISES + max(0, len(names) - 1) or not isinstance(self.curve, Beta):
            return None
        values = zip(*(values for _, values in rows), strict=True)
        signals = dict(zip(names, map(list, values), strict=True)) if names else {}
        return fit_prior([rise for rise, _ in rows], signals, self.curve)

    @property
    def line_sd(self) -> float:
        """Standard deviation of a printed line's error: a normal's is sqrt(pi / 2) times its mean
        absolute error. Where none is printed, it is the one that is."""
        return math.sqrt(math.pi / 2) * (PRINTED_MAE if self.mae is None else self.mae)

    @cached_property
    def _line(self) -> Line:
        if self.line is None:
            raise EstimateError(f"family {self.family!r} has no line in CoS-Low")
        return self.line

    @cached_property
    def _left_out_lines(self) -> list[Line]:
        return leave_one_out(self._line.kind, *columns(self.fitted))

    def predict_auc(self, cos_low: float) -> AucEstimate:
        """The data efficiency of a task with this CoS-Low.

        Raises:
            EstimateError: CoS-Low is not in [-1, 1], or the line leaves (0, 1) there.
        """
        if not -1.0 <= cos_low <= 1.0:
            raise EstimateError(f"CoS-Low {cos_low} is not in [-1, 1]; it is a cosine")
        auc = self._line.auc(cos_low)
        if not 0.0 < auc < 1.0:
            raise EstimateError(
                f"CoS-Low {cos_low:g} is outside what family {self.family!r} can answer: its line "
                f"predicts an area of {auc:.3f}, which is not between 0 and 1"
            )
        warnings = list(self.warnings)
        if not self.fitted:
            if self.priors and self.mae is None:
                warnings.append(
                    "the error of this family's line is not printed; that of Llama's is borrowed"
                )
            reason = "the published formula comes without residuals"
            return AucEstimate(auc, None, reason, tuple(warnings))
        x, measured = columns(self.fitted)
        if not float(x.min()) <= cos_low <= float(x.max()):
            warnings.append(
                f"CoS-Low {cos_low:g} is outside the calibrated range "
                f"{float(x.min()):.3g} to {float(x.max()):.3g}"
            )
        interval = {
            level: jackknife_plus(self._left_out_lines, x, measured, cos_low, level)
            for level in LEVELS
        }
        return AucEstimate(auc, interval, None, tuple(warnings))

    def to_dict(self) -> dict[str, Any]:
        """The content of `calibration.json`: no time, path or host, so reruns compare equal."""
        left_out = self.left_out or {}
        return {
            "schema": SCHEMA,
            "family": self.family,
            "fingerprint": dict(self.fingerprint),
            "cap": self.cap,
            "curve": {"kind": self.curve.kind, "shape": self.curve.to_dict()},
            "fit": self.line and dataclasses.asdict(self.line),
            "loo": {
                "mae": self.mae,
                "mean_baseline": self.mean_baseline,
                "residuals": [t.auc - left_out[t.name] for t in self.fitted] if left_out else None,
                "r": self.cos_low and self.cos_low.r,
                "r_interval": self.cos_low and self.cos_low.to_dict()["r_interval"],
            },
            "controls": {name: worth.to_dict() for name, worth in self.controls.items()},
            "seed": self.seed,
            "source": self.source,
            "caveat": self.caveat,
            "warnings": list(self.warnings),
            "tasks": [
                {**dataclasses.asdict(task), "loo_auc": left_out.get(task.name)}
                for task in self.tasks
            ],
            **({"priors": [p.to_dict() for p in self.priors]} if self.priors else {}),
            **({"coverage": self.coverage} if self.coverage else {}),
            **({"evidence": list(self.evidence)} if self.evidence else {}),
        }

    @staticmethod
    def from_dict(value: Mapping[str, Any], where: str = "calibration") -> Calibration:
        """The calibration whose `to_dict` this is, fitted again to its tasks.

        Args:
            where: its file, for messages.

        Raises:
            EstimateError: another schema, or a field that is missing or out of range.
        """
        try:
            if value["schema"] != SCHEMA:
                raise EstimateError(
                    f"{where}: schema {value['schema']!r}, expected {SCHEMA}; calibrate again"
                )
            checked(
                value,
                CalibrationFile,
                f"{where}: unlike a calibration, calibrate again",
                EstimateError,
            )
            line = None if value["fit"] is None else Line(**value["fit"])
            common: dict[str, Any] = {
                "family": value["family"],
                "fingerprint": value["fingerprint"],
                "cap": value["cap"],
                "curve": shape_from_dict(value["curve"]["kind"], value["curve"]["shape"]),
                "seed": value["seed"],
            }
            if value["source"] is not None:
                shape = common["curve"]
                return Calibration(
                    **common,
                    line=line,
                    mae=value["loo"]["mae"],
                    source=value["source"],
                    caveat=value.get("caveat"),
                    priors=tuple(CurvePrior.from_dict(p, shape) for p in value.get("priors", ())),
                    coverage=value.get("coverage"),
                )
            points = [point_from_dict(task) for task in value["tasks"]]
            kind = "fractional" if line is None else line.kind
            fitted = fit_calibration(points, **common, kind=kind)
            more = {"caveat": value.get("caveat"), "evidence": tuple(value.get("evidence", ()))}
            return dataclasses.replace(fitted, **more)
        except EstimateError:
            raise
        except Exception as error:  # noqa: BLE001 - a file may hold anything at all
            raise EstimateError(
                f"{where}: unlike a calibration ({type(error).__name__}: {error}); calibrate again"
            ) from None

    def save(self, target: Store | str | os.PathLike[str]) -> None:
        """Write `calibration.json` into a store or folder, or the file at a `*.json` path.

        Raises:
            StorageError: it cannot be written.
        """
        store, name = located(target)
        store.write_json(self.to_dict(), name)

    @staticmethod
    def load(source: Store | str | os.PathLike[str]) -> Calibration:
        """A calibration: a bundled family's name, a store or folder, or a `*.json` file.

        Raises:
            EstimateError: the name is no bundled family and no file, or the file is not a
                calibration.
        """
        return Calibration.from_dict(*read_family(source))


def fit_calibration(
    points: Sequence[TaskPoint],
    *,
    curve: CurveShape,
    cap: int,
    family: str,
    fingerprint: Mapping[str, object],
    kind: FitKind = "fractional",
    seed: int = 0,
) -> Calibration:
    """Fit AUC on CoS-Low over the measured tasks of one family.

    Args:
        points: the tasks, in any order; those of status ``short`` are not fitted.
        curve: the family of curves, from `taskeff.estimate.shapes.fit_shape`.
        cap: the largest budget of the curves, in labels.
        family: name of the family.
        fingerprint: what CoS-Low was measured with.
        kind: ``fractional`` and ``logit`` stay in (0, 1): logistic regression of the AUC itself,
            or least squares of its logit; ``ols`` is the paper's straight line (section 4).
        seed: seed of the bootstrap intervals.

    Raises:
        EstimateError: fewer than two usable tasks, a name twice, or a value out of range.
    """
    check_points(points)
    tasks = tuple(sorted(points, key=lambda task: task.name))
    common: dict[str, Any] = {
        "family": family,
        "fingerprint": fingerprint,
        "cap": cap,
        "curve": curve,
        "tasks": tasks,
        "seed": seed,
    }
    if tasks and all(task.cos_low is None for task in tasks):
        found = Calibration(**common, line=None)
        if found.prior is None:
            raise EstimateError(
                f"cannot fit family {family!r}: without CoS-Low it takes {MIN_RISES} tasks whose "
                "curves rise"
            )
        return found
    fitted = tuple(t for t in tasks if t.status != "short" and t.cos_low is not None)
    if len(fitted) < 2:
        raise EstimateError(
            f"cannot fit family {family!r}: {len(fitted)} usable task(s); calibrate at least two"
        )
    x, auc = columns(fitted)
    names = set[str](fitted[0].controls).intersection(*(task.controls for task in fitted))
    controls = {
        name: measure_worth(kind, np.array([task.controls[name] for task in fitted]), auc, seed)
        for name in sorted(names)
    }
    left_out = left_out_predictions(kind, x, auc)
    worth = measure_worth(kind, x, auc, seed)
    return Calibration(
        **common,
        line=fit_line(kind, x, auc),
        left_out=dict(zip((task.name for task in fitted), left_out.tolist(), strict=True)),
        mae=worth.mae,
        mean_baseline=float(np.mean(np.abs(auc - left_out_means(auc)))),
        cos_low=worth,
        controls=controls,
    )
