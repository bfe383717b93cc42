"""What each piece of evidence is worth on one family: its own tasks, one left out at a time.

For every task a calibration of the others is asked with nothing but the mean, with CoS-Low, with
one or two small pilots, with both; the answers stand beside what was measured. So a family on
which CoS-Low fails still says what works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from taskeff.curves.curve import TaskCurve
from taskeff.errors import EstimateError
from taskeff.estimate.budget import predict
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.left_out import TARGETS, without
from taskeff.estimate.points import TaskPoint
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.scoring import Row, answer_of, mean_of, record, row_of

TARGET = TARGETS[-1]
MEAN, COS_LOW = "mean", "cos_low"
Runs = Mapping[str, Mapping[int, Score]]
"""Task -> budget -> the score of one run, zero-shot at 0."""


def with_evidence(
    calibration: Calibration,
    curves: Mapping[str, TaskCurve],
    ceilings: Mapping[str, float | None],
    runs: Runs | None = None,
) -> Calibration:
    """The calibration with the worth of evidence: `Calibration.evidence`.

    What fewer than half of the tasks have an answer from is left out.

    Args:
        calibration: the family's; it must have tasks.
        curves: task -> its measured curve.
        ceilings: task -> the ceiling known beforehand, if any was.
        runs: what a pilot would have been; None takes the curves' own points, whose test rows
            are not known.
    """
    tasks = [t for t in calibration.fitted or calibration.tasks if t.status != "short"]
    if runs is None:
        runs = {t.name: _points(curves[t.name]) for t in tasks}
    kinds = _kinds(calibration, _budgets(calibration, [runs[t.name] for t in tasks]))
    rows: dict[tuple[str, tuple[int, ...]], list[Row]] = {kind: [] for kind in kinds}
    for task in tasks:
        try:
            others = without(calibration, task.name, curves)
        except EstimateError:
            continue
        for kind in kinds:
            row = _asked(others, kind, curves, task, ceilings.get(task.name), runs[task.name])
            if row is not None:
                rows[kind].append(row)
    found = [
        {**record(kind, budgets, TARGET, answers), "seed": calibration.seed}
        for (kind, budgets), answers in rows.items()
        # A family too small to answer without a task says nothing of most of them.
        if answers and 2 * len(answers) >= len(tasks)
    ]
    return replace(calibration, evidence=tuple(found))


def _points(curve: TaskCurve) -> dict[int, Score]:
    return {p.budget: Score(p.score) for p in curve.points if p.status == "measured"}


def _kinds(calibration: Calibration, budgets: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and pilot budgets of what is compared; a pilot alone has the name ``pilots``."""
    pilots = [tuple(budgets[:count]) for count in range(1, len(budgets) + 1)]
    kinds: list[tuple[str, tuple[int, ...]]] = [(MEAN, ())]
    if calibration.line is not None:
        kinds.append((COS_LOW, ()))
    kinds += [("pilots", shown) for shown in pilots]
    if calibration.line is not None:
        kinds += [(COS_LOW, shown) for shown in pilots]
    return kinds


def _budgets(calibration: Calibration, runs: Sequence[Mapping[int, Score]]) -> list[int]:
    """The two smallest budgets below the cap that at least half of the tasks were measured at."""
    counts = Counter(n for run in runs for n in run if 0 < n < calibration.cap)
    return sorted(n for n, count in counts.items() if 2 * count >= len(runs))[:2]


def _asked(
    others: Calibration,
    kind: tuple[str, tuple[int, ...]],
    curves: Mapping[str, TaskCurve],
    task: TaskPoint,
    ceiling: float | None,
    run: Mapping[int, Score],
) -> Row | None:
    """One task's answer beside its curve; None where the family cannot give it."""
    evidence, budgets = kind
    curve = curves[task.name]
    if evidence == MEAN:
        known = [curves[other.name] for other in others.fitted or others.tasks]
        return row_of(mean_of(known, TARGET), curve, TARGET)
    if any(n not in run for n in budgets):
        return None
    pilots = tuple(Pilot(n, run[n].score, run[n].n_test) for n in budgets)
    base = run.get(0, Score(curve.zero_shot))
    try:
        found = predict(
            others,
            task.cos_low if evidence == COS_LOW else None,
            target=TARGET,
            pilots=pilots,
            zero_shot=base,
            ceiling=None if ceiling is None or ceiling <= base.score else ceiling,
            fingerprint=others.fingerprint,
            seed=others.seed,
        )
    except EstimateError:
        return None
    return row_of(answer_of(found), curve, TARGET, pilots)
