"""The same task's curve measured on another model, as evidence of this one's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taskeff.curves.curve import TaskCurve, data_efficiency
from taskeff.curves.published import curve_from_dict, read_task_scores
from taskeff.errors import DataError, EstimateError
from taskeff.estimate.calibration import Calibration
from taskeff.schema import decoded

SIGNALS = ("sibling_area", "sibling_share")


@dataclass(frozen=True)
class Sibling:
    """A task's curve on another model.

    Attributes:
        source: the file or family it is from.
        task: its name there.
        cap: the largest budget of its curve, in labels.
        signals: its area and its share of the range at the cap, by the names of `SIGNALS`.
        others: further tasks of that model, by name, with theirs: what a family that has measured
            some of them learns from.
    """

    source: str
    task: str
    cap: int
    signals: Mapping[str, float]
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])


def read_sibling(text: str, *, cap: int, task: str = "", ceiling: float | None = None) -> Sibling:
    """The sibling that ``FILE`` or ``WHERE:TASK`` names.

    Args:
        text: a result file of one task in the published layout (budget -> {"accuracy": score});
            or a task of a measured family (a run's folder, a calibration.json, a bundled family
            that keeps its tasks) or of a file of `taskeff curves import`.
        cap: the largest budget considered of a result file, in labels.
        task: the name of the task asked about, where it is known: the sibling's must be the same.
        ceiling: of a result file; None is the curve's best score.

    Raises:
        EstimateError: it cannot be read, is not there, or is another task.
    """
    where, colon, name = text.rpartition(":")
    if not colon or Path(text).exists():
        where, name = text, Path(text).stem
        found = {name: _from_file(text, name, cap, ceiling)}
    else:
        found = _measured(where)
    if task and name != task:
        raise EstimateError(
            f"sibling {text!r} is of task {name!r}, but the pilots are of {task!r}; name that "
            "task's curve on the other model"
        )
    if name not in found:
        near = difflib.get_close_matches(name, found, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(found))}"
        raise EstimateError(f"sibling {text!r}: {where} has no task {name!r}; {hint}")
    known, signals = found[name]
    others = {other: values for other, (_, values) in found.items() if other != name}
    return Sibling(where, name, known, signals, others)


def signals_of(curve: TaskCurve) -> dict[str, float]:
    """The signals of a measured curve."""
    return dict(zip(SIGNALS, (curve.auc, float(curve.y[-1])), strict=True))


def _from_file(
    path: str, name: str, cap: int, ceiling: float | None
) -> tuple[int, dict[str, float]]:
    try:
        scores = read_task_scores(path)
        best = max((score for n, score in scores.items() if n <= cap), default=0.0)
        known = None if ceiling is None else max(ceiling, best)
        curve = data_efficiency(scores, cap=cap, ceiling=known, mode="published", name=name)
    except DataError as error:
        raise EstimateError(f"sibling {error}") from None
    if curve.status == "short":
        raise EstimateError(
            f"sibling {path}: measured up to {max(scores)} labels only, of a curve up to {cap}; "
            "its area says too little"
        )
    return curve.cap, signals_of(curve)


def _measured(where: str) -> dict[str, tuple[int, dict[str, float]]]:
    """Task -> cap and signals, of a family or an imported folder."""
    file = Path(where)
    if file.suffix == ".json" and file.is_file():
        try:
            value: Any = decoded(file.read_bytes())
            if "mode" in value:
                curves = [curve_from_dict(task) for task in value["tasks"].values()]
                return {c.name: (c.cap, signals_of(c)) for c in curves if c.status != "short"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EstimateError(
                f"sibling {where}: neither a calibration nor a file of `taskeff curves import` "
                f"({error!r})"
            ) from None
    family = Calibration.load(where)
    if not family.tasks:
        raise EstimateError(
            f"sibling family {where!r} keeps no curves of its tasks; name a family that was "
            "measured, or the task's result file"
        )
    return {t.name: (family.cap, t.as_sibling) for t in family.tasks if t.status != "short"}
