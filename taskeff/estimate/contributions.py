"""What each piece of evidence adds to an answer: what it says alone, and the answer without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskeff.errors import EstimateError
from taskeff.estimate.budget import Estimate, predict
from taskeff.estimate.calibration import Calibration


@dataclass(frozen=True)
class Contribution:
    """One piece of evidence.

    Attributes:
        name: ``cos_low``, ``sibling`` or ``pilot``.
        budget: of a pilot, in labels; None for the others.
        alone: the answer if this were all that is known; None if the family cannot give one.
        without: the answer from everything else; None if nothing else is known.
    """

    name: str
    budget: int | None
    alone: Estimate | None
    without: Estimate | None


def contributions(calibration: Calibration, asked: Mapping[str, Any]) -> list[Contribution]:
    """The pieces of evidence behind an answer, each on its own and left out.

    Args:
        calibration: the family asked.
        asked: the arguments that `predict` was given, by name.
    """
    pilots = tuple(asked.get("pilots") or ())
    pieces: list[tuple[str, int | None, dict[str, Any]]] = [
        (name, None, {name: asked[name]})
        for name in ("cos_low", "sibling")
        if asked.get(name) is not None
    ]
    pieces += [("pilot", pilot.budget, {"pilots": (pilot,)}) for pilot in pilots]
    nothing: dict[str, Any] = {"cos_low": None, "sibling": None, "pilots": ()}

    def answer(evidence: Mapping[str, Any]) -> Estimate | None:
        try:
            return predict(calibration, **{**asked, **nothing, **evidence})
        except EstimateError:
            return None

    found: list[Contribution] = []
    for name, budget, own in pieces:
        rest: dict[str, Any] = {
            key: asked.get(key) for key in ("cos_low", "sibling") if key != name
        }
        rest["pilots"] = tuple(pilot for pilot in pilots if pilot.budget != budget)
        found.append(Contribution(name, budget, answer(own), answer(rest)))
    return found
