"""Confidences -> the examples to label: a seeded draw from the least confident."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from taskeff.errors import DataError

Strategy = Literal["low", "random"]


@dataclass(frozen=True)
class Selection:
    """Which pool rows to label.

    Attributes:
        indices: rows of the pool, rising.
        candidates: how many rows the draw was from.
        quantile: the share of the pool that makes; wider than asked for in a small pool.
    """

    indices: tuple[int, ...]
    candidates: int
    quantile: float


def select(
    confidences: Sequence[float | None],
    *,
    n: int = 32,
    quantile: float = 0.1,
    seed: int = 0,
    strategy: Strategy = "low",
) -> Selection:
    """Draw `n` rows to label (arXiv 2512.24991: 32 at random from the lowest decile).

    Args:
        confidences: one per pool row; None (no answer) is never drawn.
        strategy: `low` draws from the lowest `quantile`, `random` from the whole pool (the
            published control).

    Raises:
        DataError: a confidence is not a number, fewer than `n` rows have one, or a setting is
            out of range.
    """
    if n < 1:
        raise DataError(f"n is {n}; label at least one row")
    if not 0 < quantile <= 1:
        raise DataError(f"quantile {quantile} is no share of the pool; use 0.1, say")
    if strategy not in ("low", "random"):
        raise DataError(f"strategy {strategy!r}: use low or random")
    if not confidences:
        raise DataError("the pool is empty; add unlabelled rows")
    for index, value in enumerate(confidences):
        if value is not None and not math.isfinite(value):
            raise DataError(f"pool row {index}: confidence {value}; score the row again")
    known = [index for index, value in enumerate(confidences) if value is not None]
    if len(known) < n:
        without = len(confidences) - len(known)
        fix = "add rows" if len(confidences) < n else f"{without} rows have none"
        raise DataError(
            f"the pool has {len(known)} rows with a confidence, fewer than the {n} to label; {fix}"
        )
    ordered = sorted(known, key=lambda index: (confidences[index] or 0.0, index))
    size = len(known) if strategy == "random" else max(n, round(quantile * len(known)))
    candidates = ordered[:size]
    drawn = random.Random(f"{seed}:select").sample(candidates, n)
    return Selection(
        indices=tuple(sorted(drawn)),
        candidates=len(candidates),
        quantile=len(candidates) / len(known),
    )
