"""Names in the scatter must be readable."""

from __future__ import annotations

import numpy as np
import pytest

from taskeff.report.name_placement import Box, place

FRAME = Box(0, 0, 700, 400)


@pytest.mark.parametrize("seed", range(5))
def test_names_keep_clear_of_each_other_and_of_the_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in rng.uniform((20, 20), (680, 380), (22, 2))]
    boxes = place(points, [(90.0, 12.0)] * 22, FRAME)
    for i, box in enumerate(boxes):
        assert box.outside(FRAME) == pytest.approx(0)
        assert all(box.overlap(other) == 0 for other in boxes[:i])
        assert all(box.overlap(Box(x - 2, y - 2, x + 2, y + 2)) == 0 for x, y in points)


def test_a_name_leaves_a_line_when_there_is_room() -> None:
    line = Box(0, 199, 700, 201)
    (box,) = place([(350.0, 200.0)], [(90.0, 12.0)], FRAME, [line])
    assert box.overlap(line) == 0


def test_a_point_in_the_corner_keeps_its_name_inside() -> None:
    (box,) = place([(699.0, 399.0)], [(90.0, 12.0)], FRAME)
    assert box.outside(FRAME) == 0


def test_nothing_to_place() -> None:
    assert place([], [], FRAME) == []


def test_two_close_points_keep_their_own_names() -> None:
    points = [(300.0, 200.0), (325.0, 196.0)]
    for own, box in enumerate(place(points, [(60.0, 12.0)] * 2, FRAME)):
        assert box.distance(points[own]) < box.distance(points[1 - own])
