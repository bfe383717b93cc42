"""Whether a question has something to go by, and what to say of it: refusals and caveats."""

from __future__ import annotations

from collections.abc import Sequence

from taskeff.errors import EstimateError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.posterior import N_TEST, Pilot, Score
from taskeff.estimate.regression import AucEstimate
from taskeff.estimate.sibling import Sibling


def enough(
    calibration: Calibration,
    predicted: AucEstimate | None,
    pilots: Sequence[Pilot],
    sibling: Sibling | None,
    kind: str,
) -> None:
    """Refuse a question without evidence.

    Raises:
        EstimateError: saying what to measure.
    """
    if predicted is not None:
        return
    if kind == "power":
        raise EstimateError(
            "curve 'power' is a formula of CoS-Low; measure it with `taskeff select` and `score`, "
            "or leave the curve out"
        )
    if pilots or sibling is not None:
        return
    if calibration.generic:
        raise EstimateError(
            f"family {calibration.family!r} knows how curves go, not how this task's does: "
            "fine-tune on some 50 labels, score that and the untouched model on 50 rows or more, "
            "and give --pilot 50:SCORE:N_TEST --zero-shot SCORE:N_TEST; or name a measured family"
        )
    raise EstimateError(
        "nothing is known of the task; give its CoS-Low (--scored or --cos-low), a pilot or a "
        "sibling"
    )


def no_prior(calibration: Calibration, kind: str, sibling: Sibling | None) -> str:
    """Why a family has no prior over curves for this question, and what would do."""
    name = calibration.family
    if kind == "power":
        return f"family {name!r} cannot use pilots with curve 'power'; they need a Beta curve"
    if sibling is None:
        return (
            f"family {name!r} cannot use pilots: that takes a Beta curve and eight calibration "
            "tasks whose curves rise"
        )
    shared = len({task.name for task in calibration.tasks} & sibling.others.keys())
    return (
        f"family {name!r} cannot use sibling {sibling.source}: {shared} of its own tasks are "
        "measured there too, ten are needed; name the sibling as FAMILY:TASK of a family with "
        "more, or use --family generic"
    )


def coverage(calibration: Calibration, pilots: int) -> list[str]:
    """How often the intervals of a family for any model held on models it had not seen."""
    if calibration.coverage is None:
        return []
    most = max(int(key) for key in calibration.coverage if key.isdecimal())
    found = calibration.coverage[str(min(pilots, most)) if pilots else "sibling"]

    def held(what: str) -> str:
        shares = [100 * row[what] for name, row in found.items() if name != "all"]
        low, high = min(shares), max(shares)
        return f"{100 * found['all'][what]:.0f} % ({low:.0f} to {high:.0f} % by model)"

    return [
        f"family {calibration.family!r} is made of other models' curves: tried on models that it "
        f"had not seen, its 80 % intervals held the area in {held('area')} and labels needed in "
        f"{held('labels')}"
    ]


def assumed(pilots: Sequence[Pilot], base: Score | None) -> list[str]:
    """A sentence where a score does not say how many test rows are behind it."""
    silent = [f"the pilot at {p.budget}" for p in pilots if p.n_test is None]
    if pilots and base is not None and base.n_test is None:
        silent.insert(0, "zero-shot")
    if not silent:
        return []
    return [f"{N_TEST} test rows are assumed behind {', '.join(silent)}; give them as SCORE:N_TEST"]
