"""A question as a user writes it, in Python or on the command line -> what is computed with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskeff.errors import ConfigError
from taskeff.estimate import budget
from taskeff.estimate.budget import CurveKind, Estimate, target_share
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.pilots import PilotFile, as_pilot, as_score, read_pilots
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.sibling import Sibling, read_sibling

AnyPath = str | os.PathLike[str]
AnyPilots = Sequence[Pilot | Sequence[float] | str] | PilotFile | AnyPath


@dataclass(frozen=True)
class Question:
    """What is asked, resolved.

    Attributes:
        calibration: the family asked.
        task: the task's name; "" where nothing says it.
        options: the other arguments of `taskeff.estimate.budget.predict`, by name.
    """

    calibration: Calibration
    task: str
    options: Mapping[str, Any]

    def answer(self) -> Estimate:
        """Labels needed; raises as `predict` does."""
        return budget.predict(self.calibration, **self.options)


def question(
    family: Calibration | AnyPath = "generic",
    cos_low: float | None = None,
    *,
    scored: Mapping[str, Any] | AnyPath | None = None,
    target: float = 0.9,
    target_score: float | None = None,
    curve: str | None = None,
    pilots: AnyPilots = (),
    zero_shot: Score | float | Sequence[float] | str | None = None,
    ceiling: float | None = None,
    sibling: Sibling | AnyPath | None = None,
    fingerprint: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Question:
    """The question that the arguments of `predict` ask; raises as it does."""
    if cos_low is not None and scored is not None:
        raise ConfigError("give either CoS-Low as a number or a result of `score`, not both")
    if scored is not None:
        cos_low, fingerprint = _read_scored(scored)
    if curve not in (None, "power", "beta"):
        raise ConfigError(f"curve {curve!r}: use power or beta")
    base = None if zero_shot is None else as_score(zero_shot, "zero-shot")
    task = ""
    if isinstance(pilots, str | os.PathLike):
        pilots = read_pilots(os.fspath(pilots))
    if isinstance(pilots, PilotFile):
        known, base, task = pilots.merged(), base or pilots.base, pilots.task
        ceiling = pilots.ceiling if ceiling is None else ceiling
    else:
        known = [as_pilot(pilot) for pilot in pilots]
    if target_score is not None:
        if base is None:
            raise ConfigError("a target score needs the zero-shot score, before any fine-tune")
        ceiling = 1.0 if ceiling is None else ceiling
        target = target_share(target_score, zero_shot=base.score, ceiling=ceiling)
    calibration = family if isinstance(family, Calibration) else Calibration.load(family)
    if sibling is not None and not isinstance(sibling, Sibling):
        where = os.fspath(sibling)
        sibling = read_sibling(where, cap=calibration.cap, task=task, ceiling=ceiling)
    options = {
        "cos_low": cos_low,
        "target": target,
        "curve": curve,
        "pilots": known,
        "zero_shot": base,
        "ceiling": ceiling,
        "sibling": sibling,
        "fingerprint": fingerprint,
        "seed": seed,
    }
    return Question(calibration, task, options)


def predict(
    family: Calibration | AnyPath = "generic",
    cos_low: float | None = None,
    *,
    scored: Mapping[str, Any] | AnyPath | None = None,
    target: float = 0.9,
    target_score: float | None = None,
    curve: CurveKind | None = None,
    pilots: AnyPilots = (),
    zero_shot: Score | float | Sequence[float] | str | None = None,
    ceiling: float | None = None,
    sibling: Sibling | AnyPath | None = None,
    fingerprint: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Estimate:
    """Labels needed to reach a target on a task, from any of what can be known of it.

    What `taskeff predict` answers on the command line; the same question gives the same numbers.

    Args:
        family: a family's name (`taskeff families` lists them), its folder or calibration.json, or
            a `Calibration`. ``generic`` is of no model in particular and needs a pilot.
        cos_low: the task's CoS-Low, in [-1, 1].
        scored: in its place what `score` returned, or the coslow.json that it wrote.
        target: share of the range from zero-shot to the ceiling to reach, in (0, 1].
        target_score: in its place a score in (zero_shot, 1]; needs `zero_shot`.
        curve: ``power`` is the paper's formula, labels = cap ** (target ** (a / (1 - a)))
            (arXiv 2512.24991, section 5), of CoS-Low alone; ``beta`` the fitted curves. None is
            the family's own.
        pilots: fine-tunes already made on the task: each a `Pilot`, or labels, score and perhaps
            the number of test rows as ``(50, 0.61, 200)`` or ``"50:0.61:200"``; or the pilots.json
            of `taskeff pilot`, or a CSV with columns labels, score, n_test.
        zero_shot: the score before any fine-tune: a `Score`, a number, ``(0.42, 200)`` with the
            number of test rows, or ``"0.42:200"``; needed with pilots unless their file has it.
        ceiling: the best score to hope for, where it is known; 1 with `target_score`.
        sibling: this task's curve on another model: a result file, or ``FAMILY:TASK``.
        fingerprint: what CoS-Low was measured with; None warns "unverified".
        seed: seed of the random draws.

    Returns:
        An `Estimate`: `labels_needed`, its `intervals`, `warnings` and more; in a notebook it
        draws itself.

    Raises:
        TaskeffError: nothing to go by, an argument out of range or unreadable, a fingerprint that
            does not fit the family, or a predicted AUC outside (0, 1).

    Examples:
        >>> import taskeff
        >>> taskeff.predict("llama-3.1-8b-instruct", cos_low=0.65)
        <Estimate: 307 labels for 90 %, 80 % interval 65 to 2,700; llama-3.1-8b-instruct>
        >>> found = taskeff.predict(
        ...     pilots=[(50, 0.61, 200)], zero_shot=(0.42, 200), ceiling=0.95, target=0.8
        ... )
        >>> round(found.reach_probability, 1)
        0.6
    """
    return question(
        family,
        cos_low,
        scored=scored,
        target=target,
        target_score=target_score,
        curve=curve,
        pilots=pilots,
        zero_shot=zero_shot,
        ceiling=ceiling,
        sibling=sibling,
        fingerprint=fingerprint,
        seed=seed,
    ).answer()


def _read_scored(scored: Mapping[str, Any] | AnyPath) -> tuple[float, dict[str, Any]]:
    # Storage takes pyarrow along, which most questions do not need.
    from taskeff.estimate.calibration_file import Scored
    from taskeff.schema import checked
    from taskeff.storage import Store

    record, where = scored, "scored"
    if isinstance(scored, str | os.PathLike):
        path = Path(scored)
        record, where = Store(str(path.parent)).read_json(path.name), str(path)
    found: Any = checked(
        record, Scored, f"{where}: not the coslow.json of `taskeff score`", ConfigError
    )
    return float(found["cos_low"]), found["fingerprint"]
