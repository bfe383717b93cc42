"""Handwritten digits as pictures of characters (scikit-learn's copy of the UCI optical digits)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from taskeff.tasks.suite.sampling import Row, unambiguous

SHADES = ".+#"
LEVELS = 17
WIDTH = 8


def digits(rng: random.Random) -> list[Row]:
    """The 1797 scans, duplicates once; columns `picture`, `label` (a numeral).

    A picture is 8 lines of 8 characters.
    """
    from sklearn.datasets import load_digits

    scans, numerals = load_digits(return_X_y=True)
    rows = unambiguous(zip(map(picture, scans), map(str, numerals), strict=True), "picture")
    rng.shuffle(rows)
    return rows


def picture(scan: Sequence[float]) -> str:
    """One character per pixel, 8 to a line, darker ink as a heavier character.

    Args:
        scan: 64 values from 0 (paper) to 16.
    """
    shades = "".join(SHADES[int(ink) * len(SHADES) // LEVELS] for ink in scan)
    return "\n".join(shades[start : start + WIDTH] for start in range(0, len(shades), WIDTH))
