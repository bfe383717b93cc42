"""Time left as people read it."""

import pytest

from taskeff.clock import clock


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "00:00"), (59.9, "00:59"), (90, "01:30"), (3600, "1:00:00")]
)
def test_hours_only_where_there_are_any(seconds, shown):
    assert clock(seconds) == shown
