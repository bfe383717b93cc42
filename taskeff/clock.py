"""Time left as people read it."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """`MM:SS`, with hours before them where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:" if hours else "") + f"{minutes:02}:{rest:02}"
