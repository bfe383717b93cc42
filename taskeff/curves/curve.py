"""Measured scores per label budget -> one normalised, monotone curve and its area.

The area under the curve over log2(labels) is the task's *data efficiency* (arXiv 2512.24991,
section 3.1). Two ways of drawing the curve: ``default`` uses exactly what was measured and marks
what was not; ``published`` repeats the paper's own arithmetic to the last digit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from taskeff.errors import DataError

Mode = Literal["default", "published"]
Status = Literal["measured", "imputed", "carried"]
Floats = npt.NDArray[np.float64]

PUBLISHED_GRID = (50, 100, 200, 500, 1000, 2500, 5000)
"""Budgets of the paper's fine-tuning grid (section 3.2)."""


@dataclass(frozen=True)
class CurvePoint:
    """One budget's score as found: before the running maximum and the normalisation.

    Attributes:
        budget: labels; 0 is zero-shot.
        score: the score, in [0, 1]; the mean over seeds where there are several.
        status: whether it was measured.
        seeds: number of runs behind it.
        spread: standard deviation of a run around the mean; None with fewer than two.
    """

    budget: int
    score: float
    status: Status
    seeds: int = 1
    spread: float | None = None


@dataclass(frozen=True)
class TaskCurve:
    """A task's data-efficiency curve.

    Attributes:
        name: the task; "" when it has none.
        mode: the arithmetic used, ``default`` or ``published``.
        points: the scores behind the curve, by rising budget; budget 0 is zero-shot.
        x: float64 [points], log2(labels) as a share of log2(cap), from 0 to 1.
        y: float64 [points], running maximum of the score as a share of the range from
            `zero_shot` to `ceiling`; never falls.
        auc: area under (x, y), trapezoid rule: the data efficiency.
        zero_shot: the score that counts as 0.
        ceiling: the score that counts as 1.
        cap: the largest budget considered, in labels.
        carried_share: the part of `auc` that rests on carried points, from 0 to 1.
    """

    name: str
    mode: Mode
    points: tuple[CurvePoint, ...]
    x: Floats
    y: Floats
    auc: float
    zero_shot: float
    ceiling: float
    cap: int
    carried_share: float

    @property
    def status(self) -> Literal["measured", "imputed", "carried", "short"]:
        """How far the area is known; ``short`` if it is carried from below a quarter of the cap.

        Short curves say little of what happens at the cap: calibration leaves them out unless
        asked. An imputed score rests on a model of the whole curve, so it is not short.
        """
        statuses = {point.status for point in self.points}
        known = (point.budget for point in self.points if point.status != "carried")
        if 4 * max(known, default=0) < self.cap:
            return "short"
        if "carried" in statuses:
            return "carried"
        return "imputed" if "imputed" in statuses else "measured"

    def labels_to_reach(self, share: float) -> float | None:
        """Labels at which the curve first reaches `share` of the range, linear in log2 n.

        Returns:
            A number of labels, 0.0 when `share` is 0 and None when the curve never gets there.

        Raises:
            DataError: `share` is not within [0, 1].
        """
        if not 0.0 <= share <= 1.0:
            raise DataError(
                f"task {self.name!r}: share {share} is not between 0 (zero-shot) and 1 (ceiling)"
            )
        if share <= self.y[0]:
            return 0.0
        above = np.flatnonzero(self.y >= share)
        if above.size == 0:
            return None
        right = int(above[0])
        x0, x1 = float(self.x[right - 1]), float(self.x[right])
        y0, y1 = float(self.y[right - 1]), float(self.y[right])
        return self.points[-1].budget ** (x0 + (x1 - x0) * (share - y0) / (y1 - y0))

    def to_dict(self) -> dict[str, Any]:
        """The curve as plain JSON values."""
        return {
            "name": self.name,
            "mode": self.mode,
            "status": self.status,
            "auc": self.auc,
            "zero_shot": self.zero_shot,
            "ceiling": self.ceiling,
            "cap": self.cap,
            "carried_share": self.carried_share,
            "points": [
                {**asdict(p), "x": x, "y": y}
                for p, x, y in zip(self.points, self.x.tolist(), self.y.tolist(), strict=True)
            ],
        }


def data_efficiency(
    scores: Mapping[int, float | Sequence[float]],
    *,
    cap: int,
    ceiling: float | None,
    mode: Mode = "default",
    name: str = "",
    imputed: Collection[int] = (),
) -> TaskCurve:
    """The curve and area of one task.

    ``default``: budget 0 is the zero-shot score and counts as 0; gaps between measured budgets
    are linear in log2 n; a curve measured short of the cap is held at its last value, as a
    ``carried`` point. ``ceiling=None`` is the best score; a ceiling given beforehand is used as
    it is and must not lie below the best score.

    ``published`` (arXiv 2512.24991, section 3.1): budgets 1-49 are dropped; a budget of the
    paper's grid that is missing takes the running maximum there; the smallest point counts as
    0, its budget 0 as one label; the ceiling is the larger of the given one and the best score.

    Args:
        scores: budget in labels -> score in [0, 1], or one score a seed, which are averaged and
            their spread kept; in any order; budgets above `cap` are unused.
        cap: the largest budget considered, in labels, at least 2.
        ceiling: the score that counts as 1, or None for the best measured.
        mode: the arithmetic, see above.
        name: the task, for messages.
        imputed: budgets of `scores` that are model estimates rather than measurements.

    Raises:
        DataError: naming the task and the row: a score outside [0, 1] or not a number, a
            negative budget, fewer than two budgets, no zero-shot score (default mode), no room
            between zero-shot and ceiling, or a ceiling below the best score (default mode).
    """
    label = f"task {name!r}" if name else "the task"
    runs = {n: _runs(n, found, label) for n, found in scores.items()}
    _check(runs, cap, ceiling, label)
    if mode == "published":
        means = {n: float(np.mean(found)) for n, found in runs.items()}
        return _published_curve(means, cap, ceiling, name, label)
    kept = sorted(n for n in runs if n <= cap)
    if not kept or kept[0] != 0:
        raise DataError(f"{label}: no score at budget 0; measure the zero-shot score")
    if len(kept) < 2:
        raise DataError(
            f"{label}, budget 0: nothing else is measured; add at least one larger budget"
        )
    points = [_point(n, runs[n], "imputed" if n in imputed else "measured") for n in kept]
    top = max(points, key=lambda point: point.score)
    best = top.score
    if ceiling is not None and ceiling < best:
        raise DataError(
            f"{label}, budget {top.budget}: the ceiling {ceiling} is below the best score {best}; "
            "raise the ceiling, or leave it out to use the best score"
        )
    if kept[-1] < cap:
        points.append(CurvePoint(cap, best, "carried"))
    return _curve(name, label, "default", points, ceiling or best, cap)


def _runs(budget: int, found: float | Sequence[float], label: str) -> Sequence[float]:
    runs = found if isinstance(found, Sequence) else (found,)
    if not runs:
        raise DataError(f"{label}, budget {budget}: no score; leave the budget out or measure it")
    return runs


def _point(budget: int, runs: Sequence[float], status: Status) -> CurvePoint:
    spread = float(np.std(runs, ddof=1)) if len(runs) > 1 else None
    return CurvePoint(budget, float(np.mean(runs)), status, len(runs), spread)


def _check(
    runs: Mapping[int, Sequence[float]], cap: int, ceiling: float | None, label: str
) -> None:
    if cap < 2:
        raise DataError(f"{label}: the cap {cap} is below 2 labels; set a larger cap")
    if ceiling is not None and not 0.0 < ceiling <= 1.0:
        raise DataError(f"{label}: the ceiling {ceiling} is not in (0, 1]; give it as a share")
    for budget, scores in runs.items():
        if budget < 0:
            raise DataError(f"{label}, budget {budget}: a budget cannot be negative")
        for score in scores:
            if not 0.0 <= score <= 1.0:  # also false for NaN
                raise DataError(
                    f"{label}, budget {budget}: the score {score} is not in [0, 1]; "
                    "give scores as shares, not percentages"
                )


def _published_curve(
    scores: Mapping[int, float], cap: int, ceiling: float | None, name: str, label: str
) -> TaskCurve:
    kept = {n: float(s) for n, s in scores.items() if n <= cap and (n == 0 or n >= 50)}
    if len(kept) < 2:
        raise DataError(
            f"{label}: {len(kept)} of its budgets are 0 or 50-{cap}; the published curve needs two"
        )
    best = max(kept.values())
    points: list[CurvePoint] = []
    reached = 0.0
    for n in sorted(kept.keys() | {n for n in PUBLISHED_GRID if n <= cap}):
        if n in kept:
            reached = max(reached, kept[n])
            points.append(CurvePoint(n, kept[n], "measured"))
        else:
            points.append(CurvePoint(n, reached, "carried"))
    top = best if ceiling is None else max(ceiling, best)
    # The paper divides by the largest budget of the curve, which is the cap when that is on the
    # grid; and its curve starts at the first point's score, whatever later ones do.
    return _curve(name, label, "published", points, top, cap)


def _curve(
    name: str,
    label: str,
    mode: Mode,
    points: list[CurvePoint],
    ceiling: float,
    cap: int,
) -> TaskCurve:
    zero_shot = points[0].score
    if ceiling <= zero_shot:
        raise DataError(
            f"{label}, budgets {points[0].budget} to {points[-1].budget}: the scores leave no room "
            f"between zero-shot ({zero_shot}) and the ceiling ({ceiling}), so there is no curve; "
            "give a higher ceiling"
        )
    budgets = np.array([max(point.budget, 1) for point in points], dtype=np.float64)
    x = np.log2(budgets) / np.log2(budgets[-1])
    reached = np.maximum.accumulate(np.array([p.score for p in points], dtype=np.float64))
    y = (reached - zero_shot) / (ceiling - zero_shot)
    pieces = np.diff(x) * (y[1:] + y[:-1]) / 2
    auc = float(pieces.sum())
    carried = np.array([point.status == "carried" for point in points[1:]])
    share = float(pieces[carried].sum()) / auc if auc > 0 else 0.0
    return TaskCurve(name, mode, tuple(points), x, y, auc, zero_shot, ceiling, cap, share)
