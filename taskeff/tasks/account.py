"""Rows in, rows used, rows left out and why: what every verb says of its rows, and stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SHOWN = 5  # rows left out that a line each is said for
# Why rows are left out, as it is said after their number.
REPEATED = "that repeat another"
NOT_KEPT = "by doc_to_keep"
HELD_OUT = "kept for validation and test"
BEYOND_CAP = "beyond pool_cap, by a draw"
UNSCORED = "without a confidence"
NO_GRADIENT = "without a gradient"
UNLABELLED = "without a label"
TOO_LONG = "too long"
UNREADABLE = "that cannot be read or rendered"


@dataclass(frozen=True)
class Account:
    """What became of rows.

    Attributes:
        rows: read.
        left_out: why -> how many.
        problems: the first rows with a fault, each by file and line with its reason.
        escaped: rows used that hold the model's own markers, see `taskeff.tasks.prompts`.
    """

    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    problems: Sequence[str] = ()
    escaped: int = 0

    @property
    def used(self) -> int:
        """Rows that are not left out."""
        return self.rows - sum(self.left_out.values())

    def lines(self, what: str) -> list[str]:
        """For a person to read; `what` names the rows."""
        why = ", ".join(f"{n} {reason}" for reason, n in self.left_out.items() if n)
        said = [f"{what}: {self.rows} rows, {self.used} used" + (f"; left out: {why}" * bool(why))]
        said += [f"  {problem}" for problem in self.problems[:SHOWN]]
        return [*said, *(f"note: {one}" for one in self.escape_notes)]

    @property
    def escape_notes(self) -> list[str]:
        """That rows hold the model's own markers, where some do."""
        if not self.escaped:
            return []
        return [
            f"{self.escaped} rows hold markers of the model's own (of a turn's end, say); "
            "these are encoded as text, broken by a zero-width space"
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: rows, used, left_out (why -> how many, where there are any), escaped."""
        left_out = {why: n for why, n in self.left_out.items() if n}
        return {
            "rows": self.rows,
            "used": self.used,
            "left_out": left_out,
            "escaped": self.escaped,
        }
