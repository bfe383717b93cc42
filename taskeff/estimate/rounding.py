"""How numbers of labels are rounded for people: the one rule of console, pages and tables.

A number of labels is whole and suffices. The ends of an interval have two figures, and enclose what
was computed. JSON and Parquet, which programs read, keep every digit.
"""

from __future__ import annotations

import math

_NOISE = 1e-6  # of floating point, beside a whole number


def whole(labels: float) -> int:
    """The fewest whole labels that are as many as these."""
    return math.ceil(labels - _NOISE)


def low_end(labels: float) -> int:
    """The low end of an interval of labels, to two figures."""
    size = _size(labels)
    return math.floor((labels + _NOISE) / size) * size


def high_end(labels: float, cap: int) -> int:
    """The high end of an interval of labels, to two figures and within the cap."""
    size = _size(labels)
    return min(whole(labels / size) * size, max(cap, whole(labels)))


def _size(labels: float) -> int:
    """The power of ten that the second figure counts."""
    return 10 ** max(0, len(str(int(labels + _NOISE))) - 2)
