"""Handwritten digits as pictures of characters (scikit-learn's copy of the UCI optical digits)."""

from __future__ import annotations

import random

from taskeff.tasks.suite.sampling import Row, unambiguous

SHADES = ".+#"
LEVELS = 17


def digits(rng: random.Random) -> list[Row]:
    """The 1797 scans, duplicates once; columns `picture`, `label` (a numeral).

    A picture is 8 lines of 8 characters.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    rows = unambiguous(
        zip(map(picture, data.images), map(str, data.target), strict=True), "picture"
    )
    rng.shuffle(rows)
    return rows


def picture(image) -> str:
    """One character per pixel, darker ink as a heavier character."""
    return "\n".join(
        "".join(SHADES[int(ink) * len(SHADES) // LEVELS] for ink in line) for line in image
    )
