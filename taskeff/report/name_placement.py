"""Places the names of a scatter's points so that they neither cover each other nor the points.

A box is left, bottom, right, top in the drawing's own units, y upwards; boxes are (n, 4) float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_DIRECTIONS = (0, 180, 35, -35, 145, -145, 90, -90)
_RADII = (8, 15, 24, 36, 50)
_MARKER = 5.0
# Costs per unit of covered area, and of distance: a covered name is worse than a far one.
_ON_NAME, _ON_POINT, _ON_LINE, _OFF_FRAME = 100, 20, 0.4, 500
# A name about as near to another point as to its own is read as that point's.
_MISLEADING = 60
_ROUNDS = 3


def place(points: Floats, sizes: Floats, frame: Floats, lines: Floats) -> Floats:
    """One box for each point, of the given size, near its point and off the lines if it can be.

    Greedy from the most crowded point outwards, then each name once more in the light of all the
    others: exact placement is NP-hard, and with the few dozen tasks of a calibration this leaves
    no overlap unless points coincide.

    Args:
        points, sizes: (N, 2). frame: (1, 4). lines: (M, 4), as thin boxes.

    Returns:
        (N, 4) boxes.
    """
    n = len(points)
    gaps = np.hypot(*(points[:, None] - points).transpose(2, 0, 1))
    crowds = (1 / (1 + gaps / 20)).sum(1)
    markers = np.hstack([points - _MARKER, points + _MARKER])
    radii = np.repeat(np.array(_RADII, dtype=float), len(_DIRECTIONS))
    turns = np.radians(np.tile(_DIRECTIONS, len(_RADII)))
    ways = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    # A box lies beside its point, or is centred on it where it lies above or below.
    share = np.where(np.abs(ways) < 0.2, (1 - ways * [1, 0]) / 2, ways < 0)
    boxes, placed = np.zeros((n, 4)), np.zeros(n, dtype=bool)
    for index in np.argsort(-crowds, kind="stable").tolist() * _ROUNDS:
        placed[index] = False
        corner = points[index] + radii[:, None] * ways - sizes[index] * share
        tried = np.hstack([corner, corner + sizes[index]])
        away = distance(tried, points)
        misleading = away < away[:, [index]] + _MARKER
        misleading[:, index] = False
        cost = (
            _ON_NAME * overlap(tried, boxes[placed])
            + _ON_POINT * overlap(tried, markers)
            + _ON_LINE * overlap(tried, lines)
            + _OFF_FRAME * ((tried[:, 2:] - tried[:, :2]).prod(1) - overlap(tried, frame))
            + _MISLEADING * misleading.sum(1)
            + radii
        )
        boxes[index], placed[index] = tried[cost.argmin()], True
    return boxes


def overlap(boxes: Floats, others: Floats) -> Floats:
    """(n,) the area of each of `boxes` that `others` cover, overlaps counted each."""
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(
        boxes[:, None, :2], others[:, :2]
    )
    return sides.clip(0).prod(-1).sum(1)


def distance(boxes: Floats, points: Floats) -> Floats:
    """(n, m) how far each of `points` (m, 2) is from each box; 0 inside it."""
    sides = np.maximum(boxes[:, None, :2] - points, points - boxes[:, None, 2:])
    return np.hypot(*sides.clip(0).transpose(2, 0, 1))
