"""Labelled rows x allowed answers -> the kernel's pilot on them: what `score --kernel` adds.

Shapes: N labelled rows, C answers of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from taskeff.config import CosLowConfig
from taskeff.coslow.gram import Floats, Gram
from taskeff.coslow.kernel import KernelPilot, check_labels, kernel_pilot
from taskeff.coslow.pool import prompter_of
from taskeff.coslow.result import fitted, gram_of
from taskeff.errors import DataError
from taskeff.tasks.prompts import Prompter, TokenizedExample
from taskeff.tasks.task import Example

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerRows:
    """N rows, each with all C answers of the task.

    Attributes:
        examples: N C of them, a row's answers side by side: they share its prompt.
        labels, ids: of the rows.
    """

    examples: tuple[TokenizedExample, ...]
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    ids: tuple[str, ...]

    @property
    def lengths(self) -> Floats:
        """(N C,) float64 answer tokens."""
        return np.array([len(example.answer_ids) for example in self.examples], dtype=np.float64)


def rows_of(
    selection: Mapping[str, Any],
    examples: Sequence[Example],
    architecture: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> AnswerRows:
    """The labelled rows with every answer of the task, encoded as CoS-Low's are.

    Raises:
        DataError: a task without a list of answers, or labels that tell nothing apart.
    """
    prompter = prompter_of(tokenizer, selection["description"], rendered=selection["rendered"])
    rows = answer_rows(prompter, examples, selection["choices"])
    check_labels(rows.labels, rows.answers, rows.ids)
    return replace(rows, examples=tuple(fitted(selection, rows.examples, architecture)))


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
        seen: dict[tuple[int, ...], str] = {}
        for answer in answers:
            name = f"{row.id}: {answer}"
            found = prompter.encode(row.text, answer, end_of_turn=False, example_id=name)
            same = seen.setdefault(found.answer_ids, answer)
            if same is not answer:
                raise DataError(
                    f"row {row.id}: the answers {same!r} and {answer!r} are the same tokens; "
                    "drop one"
                )
            examples.append(found)
    return AnswerRows(
        examples=tuple(examples),
        labels=tuple(str(row.target) for row in rows),
        answers=tuple(answers),
        ids=tuple(row.id for row in rows),
    )


def measure_pilot(
    selection: Mapping[str, Any], rows: AnswerRows, model: PreTrainedModel
) -> KernelPilot:
    """The kernel's pilot on `rows`, with the gradients that CoS-Low is measured with."""
    settings = CosLowConfig.model_validate(selection["settings"])
    matrix, _ = summed(gram_of(model, rows.examples, settings), rows.lengths)
    return kernel_pilot(matrix, rows.labels, rows.answers, ids=rows.ids, seed=settings.seed)


def summed(gram: Gram, lengths: Floats) -> tuple[Floats, Floats]:
    """Inner products and values of log p(answer | row) from a Gram of mean losses.

    A mean loss is -log p divided by the answer's tokens, and so is its gradient: exact.

    Returns:
        (N C, N C) and (N C,) float64.
    """
    return gram.matrix * np.outer(lengths, lengths), -gram.losses * lengths
