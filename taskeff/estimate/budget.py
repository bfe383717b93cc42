"""Labels needed: from what is known of a task to a number and its certainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from taskeff.errors import EstimateError
from taskeff.estimate.calibration import LEVELS, Calibration
from taskeff.estimate.fingerprint import compare_fingerprints
from taskeff.estimate.footing import assumed, coverage, enough, no_prior
from taskeff.estimate.posterior import (
    AreaEvidence,
    Pilot,
    Posterior,
    Score,
    check,
    interval,
    labels_interval,
    update,
)
from taskeff.estimate.regression import AucEstimate
from taskeff.estimate.shapes import CurveShape, Power
from taskeff.estimate.shown import Shown
from taskeff.estimate.sibling import Sibling

CurveKind = Literal["power", "beta"]
LEVEL = 0.8
"""The coverage level shown where only one interval is."""


def target_share(target_score: float, *, zero_shot: float, ceiling: float) -> float:
    """A target score as the share of the range from `zero_shot` to `ceiling` that it asks for.

    Raises:
        EstimateError: the three are not 0 <= zero_shot < target_score <= 1, zero_shot < ceiling.

    Examples:
        >>> round(taskeff.target_share(0.8, zero_shot=0.4, ceiling=0.9), 2)
        0.8
    """
    if not 0.0 <= zero_shot < ceiling <= 1.0:
        raise EstimateError(
            f"zero-shot {zero_shot} and ceiling {ceiling} leave no range; give "
            "0 <= zero-shot < ceiling <= 1"
        )
    if not zero_shot < target_score <= 1.0:
        raise EstimateError(
            f"target score {target_score} is not above the zero-shot score {zero_shot} and at "
            "most 1"
        )
    return (target_score - zero_shot) / (ceiling - zero_shot)


@dataclass(frozen=True, repr=False)
class Estimate(Shown):
    """How many labels a task needs, and how sure that is.

    Attributes:
        labels_needed: labels at which the target is reached, the median over the curves that do
            within the cap; None when not `reachable`.
        reachable: whether the target is more likely than not to be reached within the cap.
        reach_probability: probability that it is; None without a posterior.
        auc: predicted data efficiency.
        auc_intervals: coverage level -> (low, high) of the AUC; None with a reason.
        intervals: coverage level -> (low, high) labels; high is None where it lies beyond the
            cap. None with a reason when the calibration keeps no residuals.
        interval_reason: why there is no interval, else None.
        target: share of the zero-shot-to-ceiling range asked for.
        zero_shot, ceiling: scores that the range runs between, where known.
        zero_shot_n_test: test examples behind the first.
        family, cos_low, cap, curve_kind: what was asked.
        pilots: the pilot measurements used.
        sibling: the same task's curve on another model, where one was used.
        warnings: sentences for the user.
        seed: seed of the random draws.
        shape: the family of curves.
        posterior: equally likely curves of the task; None for the power curve and for
            calibrations too small for one.

    Examples:
        >>> found = taskeff.predict("llama-3.1-8b-instruct", cos_low=0.65)
        >>> found
        <Estimate: 307 labels for 90 %, 80 % interval 65 to 2,700; llama-3.1-8b-instruct>
        >>> found.reachable, found.cap
        (True, 5000)
        >>> figure = found.plot("curve.svg")
    """

    labels_needed: float | None
    reachable: bool
    reach_probability: float | None
    auc: float
    auc_intervals: dict[float, tuple[float, float]] | None
    intervals: dict[float, tuple[float, float | None]] | None
    interval_reason: str | None
    target: float
    zero_shot: float | None
    zero_shot_n_test: int | None
    ceiling: float | None
    family: str
    cos_low: float | None
    cap: int
    curve_kind: CurveKind
    pilots: tuple[Pilot, ...]
    sibling: Sibling | None
    warnings: tuple[str, ...]
    seed: int
    shape: CurveShape
    posterior: Posterior | None = None

    def __repr__(self) -> str:
        from taskeff.estimate.words import short

        return f"<Estimate: {short(self)}>"

    def curve(self, budgets: Sequence[float]) -> dict[str, Any]:
        """The predicted curve and its bands at `budgets`, for plots.

        The curve is that of `labels_needed`: it crosses any target at the labels that `predict`
        says of it, and stays level from the highest share that is more likely reached than not.

        Returns:
            ``{"budgets", "share", "band": {"80": {"low", "high"}} or None}``: lists as long as
            `budgets`; shares of the zero-shot-to-ceiling range.
        """
        n = np.maximum(np.asarray(budgets, dtype=np.float64), 1.0)
        x = np.minimum(np.log(n) / math.log(self.cap), 1.0)
        if self.posterior is not None:
            middle, band = self.posterior.likely(x), self.posterior.band(x, LEVELS)
        elif self.auc_intervals is not None:
            middle = self.shape.value(x, self.auc)
            band = {
                level: (self.shape.value(x, low), self.shape.value(x, high))
                for level, (low, high) in self.auc_intervals.items()
            }
        else:
            middle, band = self.shape.value(x, self.auc), None
        return {
            "budgets": [float(b) for b in budgets],
            "share": middle.tolist(),
            "band": band
            and {
                f"{100 * level:.0f}": {"low": low.tolist(), "high": high.tolist()}
                for level, (low, high) in band.items()
            },
        }

    @property
    def labels_if_reached(self) -> float | None:
        """Median labels of the curves that reach the target, however few; None if none does."""
        if self.posterior is None:
            return self.labels_needed
        labels = self.posterior.labels(self.target)
        reached = labels[np.isfinite(labels)]
        return float(np.median(reached)) if len(reached) else None

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain JSON values (`taskeff predict --json`)."""
        return {
            "labels_needed": self.labels_needed,
            "labels_if_reached": self.labels_if_reached,
            "auc": self.auc,
            "level": LEVEL,
            "interval": None if self.intervals is None else list(self.intervals[LEVEL]),
            "intervals": _levels(self.intervals),
            "interval_reason": self.interval_reason,
            "auc_interval": None if self.auc_intervals is None else list(self.auc_intervals[LEVEL]),
            "auc_intervals": _levels(self.auc_intervals),
            "reachable": self.reachable,
            "reach_probability": self.reach_probability,
            "target": self.target,
            "zero_shot": self.zero_shot,
            "zero_shot_n_test": self.zero_shot_n_test,
            "ceiling": self.ceiling,
            "family": self.family,
            "cos_low": self.cos_low,
            "cap": self.cap,
            "curve": self.curve_kind,
            "pilots": [
                {"budget": p.budget, "score": p.score, "n_test": p.n_test} for p in self.pilots
            ],
            "sibling": self.sibling
            and {
                "source": self.sibling.source,
                "task": self.sibling.task,
                **self.sibling.signals,
            },
            "warnings": list(self.warnings),
            "seed": self.seed,
        }


def predict(
    calibration: Calibration,
    cos_low: float | None = None,
    *,
    target: float = 0.9,
    curve: CurveKind | None = None,
    pilots: Sequence[Pilot] = (),
    zero_shot: Score | float | None = None,
    ceiling: float | None = None,
    sibling: Sibling | None = None,
    fingerprint: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Estimate:
    """Labels needed to reach `target` on a task, given any of what can be known of it.

    Args:
        calibration: the family's calibration, see `Calibration.load`.
        cos_low: the task's CoS-Low.
        target: share of the zero-shot-to-ceiling range, in (0, 1]; `target_share` converts a
            score.
        curve: ``power`` is the paper's formula, labels = cap ** (target ** (a / (1 - a)))
            (arXiv 2512.24991, section 5), of CoS-Low alone; ``beta`` the fitted curves. None is
            the calibration's own.
        pilots: fine-tunes already made on the task.
        zero_shot: the task's zero-shot score; needed with pilots.
        ceiling: an a-priori ceiling score, if there is one.
        sibling: the same task's curve on another model.
        fingerprint: what CoS-Low was measured with; None warns "unverified".
        seed: seed of the random draws.

    Raises:
        EstimateError: nothing to go by, an argument out of range, a fingerprint that does not
            fit, or a predicted AUC outside (0, 1).
    """
    if not 0.0 < target <= 1.0:
        raise EstimateError(
            f"target {target} is not in (0, 1]; it is a share of the zero-shot-to-ceiling range"
        )
    base = Score(zero_shot) if isinstance(zero_shot, float | int) else zero_shot
    check(pilots, base, ceiling, calibration.cap)
    warnings: list[str] = []
    predicted = None
    if cos_low is not None and calibration.line is not None:
        warnings += compare_fingerprints(calibration.fingerprint, fingerprint, calibration.family)
        predicted = calibration.predict_auc(cos_low)
    elif cos_low is not None:
        warnings.append(
            f"CoS-Low is not used: family {calibration.family!r} does not know what it means"
        )
    warnings += calibration.warnings if predicted is None else predicted.warnings
    shape = Power() if curve == "power" else calibration.curve
    if curve == "beta" and shape.kind != "beta":
        raise EstimateError(
            f"family {calibration.family!r} has no Beta curve; use curve 'power' or calibrate it"
        )
    common: dict[str, Any] = {
        "target": target,
        "zero_shot": None if base is None else base.score,
        "zero_shot_n_test": None if base is None else base.n_test,
        "ceiling": ceiling,
        "family": calibration.family,
        "cos_low": cos_low,
        "cap": calibration.cap,
        "curve_kind": shape.kind,
        "pilots": tuple(pilots),
        "sibling": sibling,
        "seed": seed,
        "shape": shape,
    }
    enough(calibration, predicted, pilots, sibling, shape.kind)
    signals = {} if sibling is None else dict(sibling.signals)
    if predicted is not None and calibration.tasks and cos_low is not None:
        signals["cos_low"] = cos_low
    if sibling is not None and not calibration.tasks and sibling.cap != calibration.cap:
        raise EstimateError(
            f"sibling {sibling.source} is measured up to {sibling.cap} labels, family "
            f"{calibration.family!r} up to {calibration.cap}: the areas do not compare"
        )
    prior = None
    if shape.kind == "beta":
        prior = calibration.prior_given(tuple(signals), sibling and sibling.others)
    if prior is None:
        if predicted is None or pilots or sibling is not None:
            raise EstimateError(no_prior(calibration, shape.kind, sibling))
        return Estimate(
            **_from_area(shape, target, predicted, calibration.cap), **common, warnings=(*warnings,)
        )
    plain = None if predicted is None or calibration.tasks else calibration.prior_given(())
    warnings += [*assumed(pilots, base), *coverage(calibration, len(pilots))]
    if ceiling is None and prior.ceiling_logit is not None:
        warnings.append("no a-priori ceiling given: one like the calibration tasks' is assumed")
    found = update(
        prior,
        signals,
        cap=calibration.cap,
        pilots=pilots,
        zero_shot=base,
        ceiling=ceiling,
        area=plain and predicted and AreaEvidence(predicted.auc, calibration.line_sd, plain),
        seed=seed,
    )
    if found.effective < 50:
        warnings.append("the evidence is unlike anything in the calibration; trust it, not this")
    alone = not pilots and sibling is None
    answer = _from_posterior(found, target, predicted if alone else None)
    return Estimate(**answer, **common, warnings=(*warnings,), posterior=found)


def _from_area(
    shape: CurveShape, target: float, predicted: AucEstimate, cap: int
) -> dict[str, Any]:
    """The part of an estimate that follows from the predicted area and one curve per area."""

    def labels(area: float) -> float:
        return float(cap ** float(shape.inverse(target, area)))

    intervals = predicted.interval and {
        # A larger area is a faster rise, so fewer labels.
        level: (labels(high), labels(low))
        for level, (low, high) in predicted.interval.items()
    }
    return {
        "labels_needed": labels(predicted.auc),
        "reachable": True,
        "reach_probability": None,
        "auc": predicted.auc,
        "auc_intervals": predicted.interval,
        "intervals": intervals,
        "interval_reason": predicted.interval_reason,
    }


def _from_posterior(
    found: Posterior, target: float, predicted: AucEstimate | None
) -> dict[str, Any]:
    """The part of an estimate that follows from many likely curves.

    Args:
        found: the curves.
        target: share of the range asked for.
        predicted: the regression's own area and interval where CoS-Low is all there is.
    """
    labels = found.labels(target)
    needed = found.labels_needed(target)
    auc = float(np.median(found.auc))
    auc_intervals: dict[float, tuple[float, float | None]] | dict[float, tuple[float, float]] = {
        level: interval(found.auc, level) for level in LEVELS
    }
    if predicted is not None and predicted.interval is not None:
        auc, auc_intervals = predicted.auc, predicted.interval
    return {
        "labels_needed": needed,
        "reachable": needed is not None,
        "reach_probability": float(np.mean(np.isfinite(labels))),
        "auc": auc,
        "auc_intervals": auc_intervals,
        "intervals": {level: labels_interval(labels, level, found.cap) for level in LEVELS},
        "interval_reason": None,
    }


def _levels(
    intervals: Mapping[float, tuple[float, float | None]] | None,
) -> dict[str, list[float | None]] | None:
    if intervals is None:
        return None
    return {f"{100 * level:.0f}": list(ends) for level, ends in intervals.items()}
