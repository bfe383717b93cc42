"""What a calibration was measured with, and whether a new CoS-Low was measured alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from taskeff.errors import EstimateError

REFUSED = (
    "model",
    "revision",
    "template_hash",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "n_examples",
    "quantile",
    "confidence_metric",
    "max_new_tokens",
    "strategy",
    "on_long",
)
"""Fields that change what CoS-Low means: a difference is an error."""

USUAL: Mapping[str, object] = {"strategy": "low", "on_long": "skip"}
"""What a fingerprint means that does not state these fields: nearly none departs from them."""

WARNED = ("pool_cap", "dtype", "attention", "lora_seed", "versions")
"""Fields that move CoS-Low a little: a difference is a warning."""


def compare_fingerprints(
    calibrated: Mapping[str, object], measured: Mapping[str, object] | None, family: str
) -> list[str]:
    """Warnings about how a CoS-Low was measured, against the family's calibration.

    Args:
        calibrated: the calibration's fingerprint; fields it lacks cannot be checked and are named
            in a warning (published coefficients state few).
        measured: the new task's fingerprint, or None for a bare number.
        family: the family, for messages.

    Raises:
        EstimateError: a field of `REFUSED` differs, naming the field and both values.
    """
    if measured is None:
        return ["unverified: how this CoS-Low was measured is not known"]
    calibrated, measured = {**USUAL, **calibrated}, {**USUAL, **measured}
    warnings: list[str] = []
    for field in REFUSED:
        if field not in calibrated or field not in measured:
            if field in calibrated or field in measured:
                warnings.append(f"unverified: {field} is not recorded on both sides")
            continue
        if _plain(calibrated[field]) != _plain(measured[field]):
            raise EstimateError(
                f"this CoS-Low was measured with {field} {measured[field]!r}, but family "
                f"{family!r} is calibrated with {calibrated[field]!r}; measure again or use a "
                "calibration made that way"
            )
    for field in WARNED:
        if field in calibrated and field in measured:
            before, now = calibrated[field], measured[field]
            if _plain(before) != _plain(now):
                warnings.append(f"{field} differs: calibrated {before!r}, measured {now!r}")
    return warnings


def _plain(value: object) -> object:
    # Lists and tuples are the same once through JSON; the order of LoRA targets means nothing.
    if isinstance(value, list | tuple | set | frozenset):
        return sorted(map(str, cast("Iterable[object]", value)))
    return value
