"""Rule-made tasks of logic, in the style of BIG-bench."""

from __future__ import annotations

import random

from taskeff.tasks.suite.sampling import Row, generate


def boolean_expressions(
    rng: random.Random, *, terms: int = 4, rows: int = 1500
) -> list[Row]:
    """Expressions in and, or, not and brackets; columns `expression`, `label` (True or False)."""

    def make(label: str) -> Row | None:
        text, value = _expression(rng, terms)
        return {"expression": text, "label": label} if str(value) == label else None

    return generate(rng, make, ("True", "False"), rows)


def _expression(rng: random.Random, terms: int) -> tuple[str, bool]:
    """An expression of `terms` constants, fully bracketed, with its value."""
    if terms == 1:
        text, value = rng.choice([("True", True), ("False", False)])
    else:
        left = rng.randint(1, terms - 1)
        (a, x), (b, y) = _expression(rng, left), _expression(rng, terms - left)
        operator = rng.choice(["and", "or"])
        text = f"( {a} {operator} {b} )"
        value = (x and y) if operator == "and" else (x or y)
    return (f"not {text}", not value) if rng.random() < 0.3 else (text, value)
