"""Labelled rows x allowed answers -> the Gram matrix of the gradients of log p(answer | row).

Shapes: N labelled rows, C answers offered for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from taskeff.coslow.gradients import Gram
from taskeff.errors import DataError
from taskeff.tasks.prompts import TokenizedExample

if TYPE_CHECKING:
    from taskeff.tasks.prompts import Prompter
    from taskeff.tasks.task import Example

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AnswerRows:
    """N rows, each with C of the task's answers.

    Attributes:
        examples: N C of them, a row's answers side by side: they share its prompt.
        labels: each row's label.
        answers: all of the task's answers.
        offered: (N, C) int64, each row's answers as places in `answers`, rising.
        ids: of the rows.
    """

    examples: tuple[TokenizedExample, ...]
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    offered: npt.NDArray[np.int64]
    ids: tuple[str, ...]

    @property
    def lengths(self) -> Floats:
        """(N C,) float64 answer tokens."""
        return np.array([len(example.answer_ids) for example in self.examples], dtype=np.float64)


def answer_rows(
    prompter: Prompter,
    rows: Sequence[Example],
    answers: Sequence[str] | None,
) -> AnswerRows:
    """Every labelled row with every answer, in tokens; no end of turn, as CoS-Low has none.

    Args:
        answers: what the task allows; None where it lists none.

    Raises:
        DataError: the task lists no two answers, an answer has no tokens, or two have the same.
    """
    if not answers or len(answers) < 2:
        raise DataError(
            "the kernel predicts one of a list of answers, and this task lists none; "
            "list them in doc_to_choice, or do without it for a task of open answers"
        )
    examples: list[TokenizedExample] = []
    for row in rows:
        found = [
            prompter.encode(row.text, answer, end_of_turn=False, example_id=f"{row.id}: {answer}")
            for answer in answers
        ]
        _check_distinct(found, answers, row.id)
        examples += found
    return AnswerRows(
        examples=tuple(examples),
        labels=tuple(str(row.target) for row in rows),
        answers=tuple(answers),
        offered=np.tile(np.arange(len(answers)), (len(rows), 1)),
        ids=tuple(row.id for row in rows),
    )


def summed(gram: Gram, lengths: Floats) -> tuple[Floats, Floats]:
    """Inner products and values of log p(answer | row) from a Gram of mean losses.

    A mean loss is -log p divided by the answer's tokens, and so is its gradient: exact.

    Returns:
        (N C, N C) and (N C,) float64.
    """
    return gram.matrix * np.outer(lengths, lengths), -gram.losses * lengths


def _check_distinct(examples: Sequence[TokenizedExample], answers: Sequence[str], row: str) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for example, answer in zip(examples, answers, strict=True):
        same = seen.setdefault(example.answer_ids, answer)
        if same is not answer:
            raise DataError(
                f"row {row}: the answers {same!r} and {answer!r} are the same tokens; drop one"
            )
