"""LC-PFN (Adriaensen et al. 2023, arXiv 2310.20447) as one more predictor, where it is installed.

`lcpfn` 0.1.3 asks for torch <= 1.11 and numpy < 2 and downloads its weights when first used, so it
is no extra of this project: install it beside (``pip install --no-deps lcpfn``) and run its
download once. Its curves run over epochs 1 to 100; ours are read as 100 equal steps in log2 n.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.estimates.predictors import Fitter, Fold, Predictor, Question
from taskeff.estimate.scoring import Answer

STEPS = 100
CHANCES = tuple(np.linspace(0.05, 0.95, 19).tolist())


def load() -> tuple[Fitter | None, str]:
    """The predictor, or None and why there is none."""
    try:
        import lcpfn
        import torch
    except ImportError as error:
        return None, f"not installed ({error})"
    try:
        model = lcpfn.LCPFN()
    except Exception as error:  # noqa: BLE001  whatever stops a third party's loading is the reason
        return None, f"its weights do not load ({type(error).__name__}: {error})"

    def quantiles(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
        columns = [torch.tensor(v, dtype=torch.float32)[:, None] for v in (x, y, at)]
        return model.predict_quantiles(*columns, list(CHANCES)).numpy()

    return fitter(quantiles), ""


def fitter(quantiles: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]) -> Fitter:
    """The predictor behind a model of learning curves.

    Args:
        quantiles: (x [pilots], y [pilots], at [points]) -> [points, len(CHANCES)], scores.
    """

    def fit(fold: Fold) -> Predictor:
        x = np.arange(STEPS + 1) / STEPS

        def answer(question: Question) -> Answer:
            top = question.ceiling or 1.0
            room = max(top - question.zero_shot.score, 1e-6)
            budgets = np.array([0.0, *(float(p.budget) for p in question.pilots)])
            at = STEPS * np.log(np.maximum(budgets, 1.0)) / np.log(fold.cap)
            scores = np.array([question.zero_shot.score, *(p.score for p in question.pilots)])
            found = np.asarray(quantiles(at, scores, np.arange(1.0, STEPS + 1)))
            share = (np.maximum.accumulate(found, axis=0) - question.zero_shot.score) / room
            share = np.clip(np.vstack([np.zeros(len(CHANCES)), share]), 0.0, 1.0)
            middle = share[:, len(CHANCES) // 2]
            hit = np.flatnonzero(middle >= question.target)
            labels = fold.cap ** float(x[hit[0]]) if len(hit) else float(fold.cap)
            return Answer(
                auc=float(np.sum((middle[1:] + middle[:-1]) / 2) / STEPS),
                labels=labels,
                reach=float(np.mean(share[-1] >= question.target)),
            )

        return answer

    return fit
