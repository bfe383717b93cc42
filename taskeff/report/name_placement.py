"""Places the names of a scatter's points so that they neither cover each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
_DIRECTIONS = (0, 180, 35, -35, 145, -145, 90, -90)
_RADII = (8, 15, 24, 36, 50)
_MARKER = 5.0
# Costs per unit of covered area, and of distance: a covered name is worse than a far one.
_ON_NAME, _ON_POINT, _ON_LINE, _OFF_FRAME = 100, 20, 0.4, 500
# A name about as near to another point as to its own is read as that point's.
_MISLEADING = 60
_ROUNDS = 3


@dataclass(frozen=True)
class Box:
    """A rectangle in the drawing's own units, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that two boxes share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def distance(self, point: Point) -> float:
        """How far a point is from the box; 0 inside it."""
        dx = max(self.left - point[0], 0.0, point[0] - self.right)
        dy = max(self.bottom - point[1], 0.0, point[1] - self.top)
        return math.hypot(dx, dy)

    def outside(self, frame: Box) -> float:
        """The area that sticks out of a frame."""
        return (self.right - self.left) * (self.top - self.bottom) - self.overlap(frame)


def place(
    points: Sequence[Point], sizes: Sequence[Point], frame: Box, lines: Iterable[Box] = ()
) -> list[Box]:
    """One box for each point, of the given size, near its point and off the lines if it can be.

    Greedy from the most crowded point outwards, then each name once more in the light of all the
    others: exact placement is NP-hard, and with the few dozen tasks of a calibration this leaves
    no overlap unless points coincide.
    """
    strokes = list(lines)
    placed: dict[int, Box] = {}
    order = sorted(range(len(points)), key=lambda i: (-_crowd(i, points), i))
    for index in order * _ROUNDS:
        placed.pop(index, None)
        others = [*points[:index], *points[index + 1 :]]
        candidates = [
            (_cost(box, points[index], others, placed.values(), strokes, frame) + radius, box)
            for radius in _RADII
            for angle in _DIRECTIONS
            for box in [_beside(points[index], sizes[index], angle, radius)]
        ]
        placed[index] = min(candidates, key=lambda candidate: candidate[0])[1]
    return [placed[index] for index in range(len(points))]


def _cost(
    box: Box,
    own: Point,
    others: Sequence[Point],
    names: Iterable[Box],
    strokes: Sequence[Box],
    frame: Box,
) -> float:
    markers = [Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in (own, *others)]
    reach = box.distance(own) + _MARKER
    return (
        _ON_NAME * sum(box.overlap(name) for name in names)
        + _ON_POINT * sum(box.overlap(marker) for marker in markers)
        + _ON_LINE * sum(box.overlap(stroke) for stroke in strokes)
        + _OFF_FRAME * box.outside(frame)
        + _MISLEADING * sum(box.distance(other) < reach for other in others)
    )


def _crowd(index: int, points: Sequence[Point]) -> float:
    x, y = points[index]
    return sum(
        1 / (1 + math.hypot(x - other[0], y - other[1]) / 20)
        for position, other in enumerate(points)
        if position != index
    )


def _beside(point: Point, size: Point, angle: float, radius: float) -> Box:
    dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = point[0] + radius * dx, point[1] + radius * dy
    left = x - size[0] * (1 - dx) / 2 if abs(dx) < 0.2 else (x if dx > 0 else x - size[0])
    bottom = y - size[1] / 2 if abs(dy) < 0.2 else (y if dy > 0 else y - size[1])
    return Box(left, bottom, left + size[0], bottom + size[1])
