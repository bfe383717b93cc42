"""An estimate in sentences that agree with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskeff.estimate.budget import LEVEL, Estimate
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.contributions import Contribution
from taskeff.estimate.posterior import N_TEST
from taskeff.estimate.rounding import high_end, low_end, whole
from taskeff.estimate.sharpen import Sharpening

BEYOND = "beyond the cap"


def headline(found: Estimate) -> str:
    """The answer in one sentence that can be repeated without the rest."""
    share = f"{100 * found.target:.3g} % of the way from zero-shot to the ceiling"
    cap = f"{found.cap:,} labels"
    chance = found.reach_probability
    if chance is None:
        return f"About {whole(found.labels_needed or found.cap):,} labels reach {share}."
    if_reached = found.labels_if_reached
    if if_reached is None or chance < 0.005:
        return f"Not even {cap} reach {share}, as far as can be told."
    if not found.reachable:
        return (
            f"More likely than not ({100 * (1 - chance):.0f} %) even {cap} fall short of {share}; "
            f"in the other {100 * chance:.0f} % of cases about {whole(if_reached):,} would do."
        )
    if chance >= 0.995:
        return f"About {whole(if_reached):,} labels reach {share}."
    return (
        f"About {whole(if_reached):,} labels reach {share}, if it can be reached at all: the "
        f"chance that {cap} do is {100 * chance:.0f} %."
    )


def uncertainty(found: Estimate) -> str:
    """How sure the headline is: the interval, or why there is none."""
    if found.intervals is None:
        return f"There is no interval: {found.interval_reason}."
    low, high = found.intervals[LEVEL]
    said = f"With {100 * LEVEL:.0f} % certainty it takes"
    short = 100 * (1 - (found.reach_probability or 0.0))
    if low >= found.cap:
        return f"{said} more than {found.cap:,} labels."
    if high is None:
        return (
            f"{said} {low_end(low):,} labels or more; there is no upper end below {found.cap:,}, "
            f"because {short:.0f} % of the likely curves are not there by then."
        )
    return f"{said} between {low_end(low):,} and {high_end(high, found.cap):,} labels."


def efficiency(found: Estimate) -> str:
    """The predicted area and its interval."""
    said = f"data efficiency (AUC) {found.auc:.3f}"
    if found.auc_intervals is not None:
        low, high = found.auc_intervals[LEVEL]
        said += f" [{low:.2f}, {high:.2f}]"
    return f"{said}, curve {found.curve_kind}"


def span(found: Estimate) -> str:
    """The interval of labels, which there is: 20 to 400, or with its end beyond the cap."""
    assert found.intervals is not None
    low, high = found.intervals[LEVEL]
    if high is None:
        return BEYOND if low >= found.cap else f"{low_end(low):,} to {BEYOND}"
    return f"{low_end(low):,} to {high_end(high, found.cap):,}"


def short(found: Estimate) -> str:
    """The answer in half a line."""
    share = f"{100 * found.target:.3g} %"
    said = f"{share} not reachable within {found.cap:,} labels"
    if found.labels_needed is not None:
        said = f"{whole(found.labels_needed):,} labels for {share}"
    if found.intervals is not None:
        said += f", {100 * LEVEL:.0f} % interval {span(found)}"
    return f"{said}; {found.family}"


def family(found: Calibration) -> str:
    """What a family rests on, in half a line."""
    rests = "parameters"
    if found.tasks:
        rests = f"{len(found.tasks)} tasks, {len(found.fitted)} with a CoS-Low"
    line = ", a line in CoS-Low" if found.line is not None and not found.tasks else ""
    return f"{found.family}, {rests}{line}, up to {found.cap:,} labels"


def spent(cost: Mapping[str, float], prices: Mapping[str, float]) -> str:
    """A cost in labels and in whatever else has a price."""
    said = [f"{cost['labels']:,.0f} more labels"]
    if prices["label"] or prices["gpu_hour"]:
        said.append(f"{cost['money']:,.2f} in money")
    if cost["gpu_hours"]:
        said.append(f"{cost['gpu_hours']:.3g} GPU-hours")
    return ", ".join(said)


def advised(advice: Mapping[str, Any], prices: Mapping[str, float]) -> str:
    """Stop, or how many to label more, of `taskeff.estimate.advice.outlook`."""
    if advice["action"] == "stop":
        return "stop labelling; what is left to gain costs more than it is worth"
    return (
        f"label {advice['more']:,} more, {advice['labels']:,} in all; expected gain "
        f"{100 * advice['expected_gain']:.0f} % of the range for {spent(advice['cost'], prices)}"
    )


def sharpened(option: Sharpening, labelled: int, prices: Mapping[str, float]) -> str:
    """One piece of evidence that could be had, what it costs and what it takes away."""
    cost = spent(option.cost, prices)
    if option.what == "pilot":
        assert option.budget is not None
        rows = option.labels - (option.budget - labelled)
        scored = f", {rows} of them to test on" if rows else ""
        said = f"a next pilot: fine-tune on {option.budget:,} labels ({cost}{scored})"
    elif option.what == "test rows":
        said = f"{option.labels:,} more test rows behind the pilot at {option.budget:,} ({cost})"
    elif option.what == "CoS-Low":
        said = f"CoS-Low, by `taskeff select` and `score` ({cost}, no fine-tune)"
    else:
        said = "a sibling, this task's curve on a cheaper model (no labels but its own fine-tunes)"
    if option.narrows < 0.01:
        return f"{said}; it would take away hardly any of the uncertainty"
    return f"{said}; it would take away some {100 * option.narrows:.0f} % of the uncertainty"


def evidence(piece: Contribution) -> str:
    """The name of a piece of evidence."""
    if piece.budget is not None:
        return f"pilot at {piece.budget:,} labels"
    return {"cos_low": "CoS-Low", "sibling": "sibling"}[piece.name]


def scored(score: float, n_test: int | None) -> str:
    """A score and the rows behind it."""
    return f"{score:.3g} on {f'{n_test:,}' if n_test else f'an assumed {N_TEST:,}'} test rows"
