"""What a calibration's own numbers say against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskeff.estimate.points import columns
from taskeff.estimate.regression import dfbetas, scale

if TYPE_CHECKING:
    from taskeff.estimate.calibration import Calibration


def doubts(family: Calibration) -> list[str]:
    """Sentences on a family that was fitted to tasks; none on one of parameters."""
    found: list[str] = []
    n = len(family.fitted)
    if family.line is None or not n:
        return found
    if n < 10:
        found.append(f"calibrated on {n} tasks only; below 10 the fit is a guess")
    if all(task.auc == 0 for task in family.fitted):
        found.append(
            "no fine-tune of these tasks beats zero-shot, so nothing is learnt of labels "
            "needed: look at the learning rate, at more labels or at another model"
        )
    x, auc = columns(family.fitted)
    moved = dfbetas(x, scale(family.line.kind, auc))
    if family.curve.kind == "beta" and family.prior is None:
        found.append(
            "fewer than eight curves rise: labels needed assume that the ceiling is reached "
            "at the cap, so take them as the fewest it could be"
        )
    heavy = [t.name for t, d in zip(family.fitted, moved, strict=True) if abs(d) > 1]
    if heavy:
        found.append(
            f"the slope rests on {', '.join(heavy)}: without it, it moves by more than a "
            "standard error"
        )
    if (
        family.mae is not None
        and family.mean_baseline is not None
        and (family.mae >= family.mean_baseline)
    ):
        found.append(
            f"CoS-Low predicts no better than the mean here (error {family.mae:.3f} against "
            f"{family.mean_baseline:.3f})"
        )
    return found
