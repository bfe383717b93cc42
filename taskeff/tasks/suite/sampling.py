"""Drawing rows: the one place where builders bound, balance and order what they return."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from taskeff.errors import DataError

Row = dict[str, str]

TRIES_PER_ROW = 200

PEOPLE = [
    "Alice", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Iris", "Jack", "Karen",
    "Leo", "Maya", "Noah", "Olga", "Paul",
]  # fmt: skip


def balanced(rng: random.Random, rows: Iterable[Row], per_label: int) -> list[Row]:
    """At most `per_label` of the given rows for each value of their `label` column.

    Rows are sorted before they are drawn, so the answer depends on the seed and the set of rows,
    never on the order in which a package lists its data. Returned shuffled.
    """
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: tuple(row.items())):
        groups.setdefault(row["label"], []).append(row)
    drawn = [
        row
        for label in sorted(groups)
        for row in rng.sample(groups[label], min(per_label, len(groups[label])))
    ]
    rng.shuffle(drawn)
    return drawn


def generate(
    rng: random.Random, make: Callable[[str], Row | None], labels: Iterable[str], rows: int
) -> list[Row]:
    """`rows` distinct rows, the labels in turn, from `make(label)`.

    `make` draws one candidate that should carry the label, or returns None where its draw came
    out otherwise. Raises DataError when the rule cannot yield that many distinct rows.
    """
    cycle = list(labels)
    seen: dict[tuple[str, ...], Row] = {}
    for _ in range(rows * TRIES_PER_ROW):
        row = make(cycle[len(seen) % len(cycle)])
        if row is not None:
            seen.setdefault(tuple(row.values()), row)
        if len(seen) >= rows:
            drawn = list(seen.values())
            rng.shuffle(drawn)
            return drawn
    raise DataError(
        f"the rule yields only {len(seen)} distinct rows, {rows} were asked: lower rows"
    )


def unambiguous(labelled: Iterable[tuple[str, str]], column: str) -> list[Row]:
    """Rows of (text, label) pairs, leaving out every text that occurs with two labels."""
    labels: dict[str, set[str]] = {}
    for text, label in labelled:
        labels.setdefault(text, set()).add(label)
    return [
        {column: text, "label": min(found)} for text, found in labels.items() if len(found) == 1
    ]
