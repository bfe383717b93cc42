"""An estimate in sentences that agree with each other."""

from __future__ import annotations

from taskeff.estimate.budget import LEVEL, Estimate


def headline(found: Estimate) -> str:
    """The answer in one sentence that can be repeated without the rest."""
    share = f"{100 * found.target:.3g} % of the way from zero-shot to the ceiling"
    cap = f"{found.cap:,} labels"
    chance = found.reach_probability
    if chance is None:
        return f"About {found.labels_needed or found.cap:,.0f} labels reach {share}."
    if_reached = found.labels_if_reached
    if if_reached is None or chance < 0.005:
        return f"Not even {cap} reach {share}, as far as can be told."
    if not found.reachable:
        return (
            f"More likely than not ({100 * (1 - chance):.0f} %) even {cap} fall short of {share}; "
            f"in the other {100 * chance:.0f} % of cases about {if_reached:,.0f} would do."
        )
    if chance >= 0.995:
        return f"About {if_reached:,.0f} labels reach {share}."
    return (
        f"About {if_reached:,.0f} labels reach {share}, if it can be reached at all: the chance "
        f"that {cap} do is {100 * chance:.0f} %."
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
            f"{said} {low:,.0f} labels or more; there is no upper end below {found.cap:,}, because "
            f"{short:.0f} % of the likely curves are not there by then."
        )
    return f"{said} between {low:,.0f} and {high:,.0f} labels."
