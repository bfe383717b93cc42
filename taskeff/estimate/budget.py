"""Labels needed: from CoS-Low and pilot scores to a number, its certainty and its cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from taskeff.errors import EstimateError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.fingerprint import compare_fingerprints
from taskeff.estimate.shapes import CurveShape, Power
from taskeff.estimate.special import Floats

CurveKind = Literal["power", "beta"]


@dataclass(frozen=True)
class Pilot:
    """A fine-tune already made on the task.

    Attributes:
        budget: labels it was trained on, at least 1.
        score: its test score, in [0, 1].
        n_test: number of test examples behind the score; None when unknown.
    """

    budget: int
    score: float
    n_test: int | None = None


def target_share(target_score: float, *, zero_shot: float, ceiling: float) -> float:
    """A target score as the share of the range from `zero_shot` to `ceiling` that it asks for.

    Raises:
        EstimateError: the three are not 0 <= zero_shot < target_score <= 1, zero_shot < ceiling.
    """
    if not 0.0 <= zero_shot < ceiling <= 1.0:
        raise EstimateError(
            f"zero-shot {zero_shot} and ceiling {ceiling} leave no range; give "
            "0 <= zero-shot < ceiling <= 1"
        )
    if not zero_shot < target_score <= 1.0:
        raise EstimateError(
            f"target score {target_score} is not above the zero-shot score {zero_shot} and at most 1"
        )
    return (target_score - zero_shot) / (ceiling - zero_shot)
