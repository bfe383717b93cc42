"""Gram matrix -> CoS-Low, its bootstrap intervals, its companions. Pure numpy.

Shapes: N examples.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taskeff.errors import DataError

MIN_EXAMPLES = 8
DUPLICATE = 1 - 1e-6  # a cosine from here on means the same gradient twice
Floats = npt.NDArray[np.float64]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CosLow:
    """CoS-Low of one set of examples.

    Attributes:
        median: CoS-Low, the median pairwise gradient cosine.
        mean: the mean pairwise cosine: less noisy, and defined where the median jumps.
        interval: bootstrap interval of the median at `level`, resampling examples.
        mean_interval: the same of the mean.
        balanced: the median with every pair of labels given equal weight; None without labels.
        n_examples: examples used, the excluded ones not counted.
        excluded: ids of examples whose gradient is zero or not finite.
        duplicates: pairs of ids whose gradients are the same.
    """

    median: float
    mean: float
    interval: tuple[float, float]
    level: float
    n_examples: int
    mean_interval: tuple[float, float]
    balanced: float | None = None
    excluded: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()


def coslow(
    cosines: Floats,
    *,
    level: float = 0.8,
    draws: int = 1000,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> CosLow:
    """CoS-Low from the cosines between examples' gradients (arXiv 2512.24991).

    Args:
        cosines: (N, N) float64; a row that is not finite marks an example without a gradient,
            which is left out with a warning.
        ids: names of the examples, for warnings; default their numbers.
        labels: each example's label, for `balanced`.

    Raises:
        DataError: `cosines` is not square, `ids` or `labels` do not match it, `level` is no
            share, or fewer than 8 examples have a gradient.
    """
    names = _names(cosines, ids, labels, level)
    # Without a gradient an example has no cosine even with itself.
    usable = np.isfinite(cosines.diagonal())
    usable &= np.isfinite(cosines[:, usable]).all(axis=1)
    excluded = tuple(name for name, ok in zip(names, usable, strict=True) if not ok)
    if excluded:
        log.warning(
            "left out, for a zero or non-finite gradient: %s; check their labels",
            ", ".join(excluded),
        )
    kept: list[int] = np.flatnonzero(usable).tolist()
    n = len(kept)
    if n < MIN_EXAMPLES:
        raise DataError(
            f"CoS-Low needs at least {MIN_EXAMPLES} examples with a gradient, there are {n}"
            + (f" (left out: {', '.join(excluded)})" if excluded else "")
            + "; label more"
        )
    matrix = np.asarray(cosines, dtype=np.float64)[np.ix_(kept, kept)]
    names = [names[i] for i in kept]
    first, second = np.triu_indices(n, 1)
    pairs = matrix[first, second]
    twice: list[int] = np.flatnonzero(pairs >= DUPLICATE).tolist()
    same = tuple((names[int(first[k])], names[int(second[k])]) for k in twice)
    if same:
        log.warning(
            "the same gradient twice: %s; remove repeated rows",
            ", ".join(f"{a} = {b}" for a, b in same),
        )
    intervals = _bootstrap(matrix, level, draws, seed)
    return CosLow(
        median=float(np.median(pairs)),
        mean=mean_cosine(matrix),
        interval=intervals[0],
        level=level,
        n_examples=n,
        mean_interval=intervals[1],
        balanced=None if labels is None else _balanced(matrix, [labels[i] for i in kept]),
        excluded=excluded,
        duplicates=same,
    )


def few(labels: Sequence[str]) -> bool:
    """Whether there are few enough different labels, four examples each, to balance them."""
    return 2 <= len(set(labels)) <= len(labels) // 4


def mean_cosine(cosines: Floats) -> float:
    """Mean pairwise cosine: (|sum of unit gradients|^2 - N) / (N (N - 1))."""
    n = len(cosines)
    return float((cosines.sum() - np.trace(cosines)) / (n * (n - 1)))


def _bootstrap(
    matrix: Floats, level: float, draws: int, seed: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of median and mean, examples resampled: pairs are not independent."""
    n = len(matrix)
    first, second = np.triu_indices(n, 1)
    rng = np.random.default_rng(seed)
    found: list[tuple[float, float]] = []
    while len(found) < draws:
        drawn = rng.integers(0, n, n)
        a, b = drawn[first], drawn[second]
        # An example's cosine with its own copy is 1 and says nothing of other examples.
        pairs = matrix[a, b][a != b]
        if pairs.size:
            found.append((float(np.median(pairs)), float(pairs.mean())))
    tail = (1 - level) / 2
    low, high = np.quantile(np.array(found), [tail, 1 - tail], axis=0).tolist()
    return (low[0], high[0]), (low[1], high[1])


def _balanced(matrix: Floats, labels: Sequence[str]) -> float:
    """Weighted median as if every label were equally frequent.

    A label seen once has no pair of its own; its share goes to the pairs there are.
    """
    kinds, of = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    counts = np.bincount(of, minlength=len(kinds)).astype(np.float64)
    first, second = np.triu_indices(len(matrix), 1)
    a, b = of[first], of[second]
    # Ordered pairs: n_a n_b across labels, n_a (n_a - 1) within one; each kind weighs the same.
    weights = 1 / (counts[a] * np.where(a == b, counts[b] - 1, counts[b]))
    return weighted_median(matrix[first, second], weights)


def weighted_median(values: Floats, weights: Floats) -> float:
    """The value that halves the weight; the middle of two where it falls between them."""
    order = np.argsort(values)
    values, share = values[order], np.cumsum(weights[order]) / weights.sum()
    at = int(np.searchsorted(share, 0.5 - 1e-12))
    if abs(share[at] - 0.5) < 1e-12 and at + 1 < len(values):
        return float((values[at] + values[at + 1]) / 2)
    return float(values[at])


def _names(
    cosines: Floats, ids: Sequence[str] | None, labels: Sequence[str] | None, level: float
) -> list[str]:
    n = len(cosines)
    if cosines.shape != (n, n):
        raise DataError(f"cosines must be a square matrix, not of shape {cosines.shape}")
    for what, given in (("ids", ids), ("labels", labels)):
        if given is not None and len(given) != n:
            raise DataError(f"{len(given)} {what} for {n} examples; give one each")
    if not 0 < level < 1:
        raise DataError(f"level {level} is no share; give one between 0 and 1, 0.8 say")
    return [str(i) for i in range(n)] if ids is None else [str(i) for i in ids]
