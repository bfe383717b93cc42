"""Gram matrix -> CoS-Low, its bootstrap interval, its companions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taskeff.errors import DataError

MIN_EXAMPLES = 8
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CosLow:
    """CoS-Low of one set of examples.

    Attributes:
        median: CoS-Low, the median pairwise gradient cosine.
        mean: the mean pairwise cosine: less noisy, and defined where the median jumps.
        interval: bootstrap interval of the median at `level`, resampling examples.
    """

    median: float
    mean: float
    interval: tuple[float, float]
    level: float
    n_examples: int
    seed: int


def coslow(cosines: Floats, *, level: float = 0.8, draws: int = 1000, seed: int = 0) -> CosLow:
    """CoS-Low from the cosines between examples' gradients (arXiv 2512.24991).

    Args:
        cosines: (N, N) float64, N examples.

    Raises:
        DataError: fewer than 8 examples, or a cosine that is not a number (a zero gradient).
    """
    n = len(cosines)
    if n < MIN_EXAMPLES:
        raise DataError(f"CoS-Low needs at least {MIN_EXAMPLES} examples, there are {n}")
    if not np.isfinite(cosines).all():
        bad = np.flatnonzero(~np.isfinite(cosines).all(axis=1)).tolist()
        raise DataError(f"examples {bad} have a zero or non-finite gradient; drop or relabel them")
    upper = np.triu_indices(n, 1)
    pairs = cosines[upper]
    rng = np.random.default_rng(seed)
    medians = np.empty(draws)
    for draw in range(draws):
        drawn = rng.integers(0, n, n)
        first, second = drawn[upper[0]], drawn[upper[1]]
        # An example's cosine with its own copy is 1 and says nothing of other examples.
        medians[draw] = np.median(cosines[first, second][first != second])
    tail = (1 - level) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return CosLow(
        median=float(np.median(pairs)),
        mean=float(pairs.mean()),
        interval=(float(low), float(high)),
        level=level,
        n_examples=n,
        seed=seed,
    )
