"""Metric name -> function."""

from __future__ import annotations

from collections.abc import Sequence


def normalise(text: str) -> str:
    """First line, stripped, lower-cased, without a trailing full stop (arXiv 2512.24991)."""
    lines = text.strip().splitlines()
    return lines[0].strip().lower().removesuffix(".").strip() if lines else ""


def score(metric: str, predictions: Sequence[str], targets: Sequence[str]) -> float:
    """The mean score in [0, 1]."""
    return sum(normalise(p) == normalise(t) for p, t in zip(predictions, targets)) / len(targets)
