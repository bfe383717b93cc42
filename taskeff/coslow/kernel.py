"""Gram matrix of answer gradients -> what a fine-tune on these labels would score. Pure numpy.

The empirical neural tangent kernel: a fine-tune of the linearised model is kernel regression on
the gradients of every allowed answer of every labelled row (Jacot et al. 2018; Malladi et al. 2023,
arXiv 2210.05643). Leave-one-out over the labels at hand is its accuracy, subsets of them give its
learning curve; nothing is trained.

Shapes: N labelled rows, C answers of a row.
"""

# pyright: basic
# numpy and scipy declare only a part of their types.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score

from taskeff.errors import DataError

MIN_ROWS = 8
RIDGE = 0.1  # of the mean diagonal; fixed before it was measured (docs/kernel.md)
RIDGES = (0.001, 0.01, 0.1, 1.0)  # that the sensitivity is reported for
LEVEL = 0.8  # of the accuracy's interval
SAME = 1e-5  # of the mean diagonal: two answers that are no further apart have the same gradient
SMALLEST = 4  # labels of the learning curve's first point

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """The learning curve at `n` labels.

    Attributes:
        accuracy: of rows that the regression has not seen, mean over subsets.
        error: its standard error: the rows it is tested on, and the subsets it is trained on.
        subsets: how many subsets of n labels were trained on.
    """

    n: int
    accuracy: float
    error: float
    subsets: int


@dataclass(frozen=True)
class KernelPilot:
    """A pilot without a fine-tune.

    Attributes:
        accuracy: share of rows whose label the others predict (leave-one-out).
        interval: Wilson's interval of it at `level`, as if the N predictions were independent.
        macro_f1: mean F1 over the answers that are labelled or predicted.
        confusion: rows by label (first index) and predicted answer, in the order of `answers`.
        curve: by labels; the last point, N - 1, is `accuracy`.
        n_offered: answers offered to a row: all. A cut to the likeliest keeps the label in, which
            nobody knows of a new row, and makes the accuracy too good (docs/kernel.md).
        predicted: each row's predicted answer.
        margins: each row's score of its own label above the best other answer's: below 0 where
            the other rows speak against the label.
        suspects: ids of the rows of negative margin, the least likely label first.
        ridge: added to the diagonal, in units of the mean diagonal of the centred matrix, `scale`.
        sensitivity: (ridge, leave-one-out accuracy) of others.
    """

    accuracy: float
    interval: tuple[float, float]
    level: float
    macro_f1: float
    n_rows: int
    n_offered: int
    answers: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    curve: tuple[Point, ...]
    predicted: tuple[str, ...]
    margins: tuple[float, ...]
    suspects: tuple[str, ...]
    ridge: float
    scale: float
    sensitivity: tuple[tuple[float, float], ...]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class AnswerKernel:
    """The centred, scaled matrix of N rows with C answers each, and the rows' labels.

    Attributes:
        matrix: (N C, N C) float64 of mean diagonal 1.
        own: (N,) int64, the place of each row's label among its answers.
        scale: the mean diagonal that was divided by.
    """

    matrix: Floats
    own: Ints
    scale: float

    @property
    def n_answers(self) -> int:
        """C."""
        return len(self.matrix) // len(self.own)

    @property
    def targets(self) -> Floats:
        """(N, C) float64 one-hot labels, centred over the answers."""
        return np.eye(self.n_answers)[self.own] - 1 / self.n_answers

    def left_out_scores(self, ridge: float = RIDGE) -> Floats:
        """(N, C) float64: each row's scores by the regression on all other rows, in closed form.

        Without block i the regression predicts t_i - [G^-1]_ii^-1 [G^-1 t]_i there, G being
        matrix + ridge I: the residual of leave-one-out for a block instead of a row.
        """
        n, c = self.targets.shape
        inverse = self._solve(np.eye(n * c), ridge)
        weights = (inverse @ self.targets.reshape(-1)).reshape(n, c, 1)
        rows = np.arange(n)
        blocks = inverse.reshape(n, c, n, c)[rows, :, rows]
        return self.targets - np.linalg.solve(blocks, weights)[..., 0]

    def scores(self, train: Ints, test: Ints, ridge: float = RIDGE) -> Floats:
        """(len(test), C) float64: scores of the rows `test` by the regression on `train`."""
        n, c = len(self.own), self.n_answers
        blocks = self.matrix.reshape(n, c, n, c)
        known = blocks[train][:, :, train].reshape(len(train) * c, -1)
        across = blocks[test][:, :, train].reshape(len(test) * c, -1)
        part = AnswerKernel(known, self.own[train], self.scale)
        return (across @ part._solve(part.targets.reshape(-1), ridge)).reshape(-1, c)

    def left_out_accuracy(self, ridge: float = RIDGE) -> float:
        """Share of the rows whose label the others predict."""
        return float(np.mean(self.left_out_scores(ridge).argmax(1) == self.own))

    def curve(self, *, subsets: int = 100, seed: int = 0) -> list[Point]:
        """Accuracy at n = 4, 8, 16, ... labels by seeded subsets, and at N - 1 by leave-one-out.

        A point's error is sqrt(p (1 - p) / N + v n / N): N rows are tested on, and N / n subsets
        are disjoint; v, the variance of accuracy between subsets of n labels, is what their spread
        exceeds that of N - n tested rows by. Leave-one-out has no spread and takes the v before it.
        """
        n_rows = len(self.own)
        rng = np.random.default_rng(seed)
        points: list[Point] = []
        variance, n = 0.0, SMALLEST
        while n < n_rows - 1:
            found = np.array([self._once(rng.permutation(n_rows), n) for _ in range(subsets)])
            mean = float(found.mean())
            spread = float(found.var(ddof=1)) if subsets > 1 else 0.0
            variance = max(0.0, spread - mean * (1 - mean) / (n_rows - n))
            points.append(Point(n, mean, _error(mean, n_rows, variance * n / n_rows), subsets))
            n *= 2
        last = self.left_out_accuracy()
        points.append(Point(n_rows - 1, last, _error(last, n_rows, variance), n_rows))
        return points

    def _once(self, order: Ints, n: int) -> float:
        train, test = order[:n], order[n:]
        return float(np.mean(self.scores(train, test).argmax(1) == self.own[test]))

    def _solve(self, right: Floats, ridge: float) -> Floats:
        try:
            return cho_solve(cho_factor(self.matrix + ridge * np.eye(len(self.matrix))), right)
        except LinAlgError:
            raise DataError(
                "the matrix of answer gradients has negative eigenvalues, so it is none of "
                "gradients; measure it again"
            ) from None


def answer_kernel(
    matrix: Floats, own: Sequence[int], *, names: Sequence[Sequence[str]] | None = None
) -> AnswerKernel:
    """Centre the answers' gradients over each row's answers, divide by the mean diagonal.

    Only differences between a row's answers bear on which of them is chosen.

    Args:
        matrix: (N C, N C) float64 inner products of gradients of log p(answer | row), a row's
            answers side by side.
        own: the place of each row's label among its C answers.
        names: each row's id followed by its answers, for errors.

    Raises:
        DataError: the matrix is not square, finite and symmetric or not of N rows, a row has one
            answer, or two answers of a row have the same gradient.
    """
    values, places = np.asarray(matrix, dtype=np.float64), np.asarray(own, dtype=np.int64)
    n = len(places)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not n or len(values) % n:
        raise DataError(
            f"the matrix of answer gradients has shape {values.shape}; {n} rows of C answers "
            f"make {n} C x {n} C"
        )
    c = len(values) // n
    if c < 2:
        raise DataError("one answer alone leaves nothing to predict; list at least two")
    if not np.isfinite(values).all():
        # One such gradient spoils a column in every row; only the diagonal tells whose it is.
        row, answer = divmod(int(np.argmin(np.isfinite(values.diagonal()))), c)
        raise DataError(f"{_named(names, row, answer)}: the gradient is not finite; drop the row")
    if not np.allclose(values, values.T, rtol=1e-6, atol=1e-6 * np.abs(values).max()):
        raise DataError("the matrix of answer gradients is not symmetric; measure it again")
    blocks = values.reshape(n, c, n, c)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    blocks = blocks - blocks.mean(axis=3, keepdims=True)
    _check_distinct(values.reshape(n, c, n, c), names)
    centred = blocks.reshape(n * c, n * c)
    scale = float(np.trace(centred) / (n * c))
    return AnswerKernel((centred + centred.T) / (2 * scale), places, scale)


def kernel_pilot(
    matrix: Floats,
    labels: Sequence[str],
    answers: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    subsets: int = 100,
    seed: int = 0,
) -> KernelPilot:
    """Leave-one-out accuracy, learning curve and doubtful labels of N labelled rows.

    Args:
        matrix: see `answer_kernel`.
        labels: each row's label, one of `answers`.
        answers: all allowed answers, C, in the order of the matrix.
        ids: names of the rows; default their numbers.

    Raises:
        DataError: as `answer_kernel`; or fewer than 8 rows or than answers, or labels that are all
            the same or none of the answers.
    """
    n, c = len(labels), len(answers)
    names = [str(i) for i in (range(n) if ids is None else ids)]
    check_labels(labels, answers, names)
    own = np.array([list(answers).index(one) for one in labels])
    kernel = answer_kernel(matrix, own.tolist(), names=[[name, *answers] for name in names])
    scores = kernel.left_out_scores()
    predicted = scores.argmax(1)
    is_own = np.eye(c, dtype=bool)[own]
    margins = scores[is_own] - np.where(is_own, -np.inf, scores).max(1)
    hits = int((predicted == own).sum())
    ends = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return KernelPilot(
        accuracy=hits / n,
        interval=(float(ends.low), float(ends.high)),
        level=LEVEL,
        macro_f1=float(f1_score(own, predicted, average="macro")),
        n_rows=n,
        n_offered=c,
        answers=tuple(answers),
        confusion=tuple(map(tuple, confusion_matrix(own, predicted, labels=range(c)).tolist())),
        curve=tuple(kernel.curve(subsets=subsets, seed=seed)),
        predicted=tuple(answers[int(i)] for i in predicted),
        margins=tuple(margins.tolist()),
        suspects=tuple(names[i] for i in np.argsort(margins, kind="stable") if margins[i] < 0),
        ridge=RIDGE,
        scale=kernel.scale,
        sensitivity=tuple((value, kernel.left_out_accuracy(value)) for value in RIDGES),
        seed=seed,
    )


def check_labels(labels: Sequence[str], answers: Sequence[str], ids: Sequence[str]) -> None:
    """That there are enough rows and that their labels differ; DataError says what is missing."""
    if len(ids) != len(labels):
        raise DataError(f"{len(ids)} ids for {len(labels)} labels; give one each")
    for name, label in zip(ids, labels, strict=True):
        if label not in answers:
            raise DataError(
                f"row {name}: label {label!r} is none of {list(answers)}; correct the label"
            )
    least = max(MIN_ROWS, len(answers))
    if len(labels) < least:
        raise DataError(
            f"{len(labels)} labelled rows for {len(answers)} answers; "
            f"the kernel needs at least {least}: label more"
        )
    if len(set(labels)) < 2:
        raise DataError(
            f"every row has the label {labels[0]!r}, so there is nothing to tell apart; "
            "label rows of other answers too"
        )


def _error(accuracy: float, tested: int, subset_variance: float) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / tested + subset_variance)


def _check_distinct(blocks: Floats, names: Sequence[Sequence[str]] | None) -> None:
    n, c = blocks.shape[:2]
    rows = np.arange(n)
    own = blocks[rows, :, rows]
    squares = own[:, range(c), range(c)]
    distances = squares[:, :, None] + squares[:, None, :] - 2 * own
    same = (distances <= SAME * squares.mean()) & ~np.eye(c, dtype=bool)
    if same.any():
        row, a, b = (int(i) for i in np.argwhere(same)[0])
        raise DataError(
            f"{_named(names, row, a)} has the same gradient as {_named(names, row, b)}; "
            "drop an answer that is made of the same tokens as another"
        )


def _named(names: Sequence[Sequence[str]] | None, row: int, answer: int) -> str:
    if names is None:
        return f"row {row}, answer {answer}"
    return f"row {names[row][0]}, answer {names[row][answer + 1]!r}"
