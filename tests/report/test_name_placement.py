"""Names in the scatter must be readable."""

from __future__ import annotations

import numpy as np
import pytest

from taskeff.report.name_placement import distance, overlap, place

FRAME = np.array([[0.0, 0, 700, 400]])
NO_LINES = np.zeros((0, 4))


def placed(points: np.ndarray, width: float = 90.0, lines: np.ndarray = NO_LINES) -> np.ndarray:
    """The boxes, having seen that they lie in the frame."""
    boxes = place(points, np.tile([width, 12.0], (len(points), 1)), FRAME, lines)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], np.tile([width, 12], (len(points), 1)))
    assert overlap(boxes, FRAME) == pytest.approx(np.full(len(points), width * 12))
    return boxes


@pytest.mark.parametrize("seed", range(5))
def test_names_keep_clear_of_each_other_and_of_the_points(seed: int) -> None:
    points = np.random.default_rng(seed).uniform((20, 20), (680, 380), (22, 2))
    boxes = placed(points)
    for i in range(1, 22):
        assert overlap(boxes[[i]], boxes[:i]) == 0
    assert overlap(boxes, np.hstack([points - 2, points + 2])).max() == 0


def test_a_name_leaves_a_line_when_there_is_room() -> None:
    line = np.array([[0.0, 199, 700, 201]])
    assert overlap(placed(np.array([(350.0, 200.0)]), lines=line), line) == 0


def test_a_point_in_the_corner_keeps_its_name_inside() -> None:
    placed(np.array([(699.0, 399.0)]))


def test_two_close_points_keep_their_own_names() -> None:
    points = np.array([(300.0, 200.0), (325.0, 196.0)])
    away = distance(placed(points, 60.0), points)
    assert away[0, 0] < away[0, 1]
    assert away[1, 1] < away[1, 0]
