"""Labelled rows x allowed answers -> the Gram matrix of the gradients of log p(answer | row).

Shapes: N labelled rows, C answers offered for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from taskeff.coslow.gradients import Gram
from taskeff.errors import DataError
from taskeff.lm.packing import answer_logits, batches
from taskeff.tasks.prompts import TokenizedExample

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from taskeff.tasks.prompts import Prompter
    from taskeff.tasks.task import Example

MOST_ANSWERS = 8  # of a row; of more the label and those that the model finds likeliest
MAX_TOKENS = 1024  # that go through the model at once where only likelihoods are asked for

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

    def cut(self, most: int, likelihoods: Floats) -> AnswerRows:
        """At most `most` answers a row: its label and those of the highest likelihood.

        The label is always offered, so the scores of the cut rows are too good by what the model
        would have missed; docs/kernel.md has how much.

        Args:
            likelihoods: (N C,) float64 of the answers offered so far.
        """
        n, c = self.offered.shape
        if c <= most:
            return self
        likely = likelihoods.reshape(n, c).copy()
        places = {answer: k for k, answer in enumerate(self.answers)}
        label = np.array([places[one] for one in self.labels])
        likely[self.offered == label[:, None]] = np.inf
        kept = np.sort(np.argsort(-likely, axis=1, kind="stable")[:, :most], axis=1)
        rows = np.arange(n)[:, None]
        flat = (rows * c + kept).reshape(-1)
        return replace(
            self,
            examples=tuple(self.examples[i] for i in flat),
            offered=self.offered[rows, kept],
        )


def answer_rows(
    prompter: Prompter,
    rows: Sequence[Example],
    answers: Sequence[str] | None,
    *,
    shorten: Callable[[tuple[int, ...]], Sequence[int]] | None = None,
) -> AnswerRows:
    """Every labelled row with every answer, in tokens; no end of turn, as CoS-Low has none.

    Args:
        answers: what the task allows; None where it lists none.
        shorten: what cuts a prompt to the model's window.

    Raises:
        DataError: the task lists no two answers, a label is none of them, an answer has no tokens,
            or two have the same.
    """
    if not answers or len(answers) < 2:
        raise DataError(
            "the kernel predicts one of a list of answers, and this task lists none; "
            "list them in doc_to_choice, or do without it for a task of open answers"
        )
    for row in rows:
        if row.target not in answers:
            raise DataError(
                f"row {row.id}: label {row.target!r} is none of {list(answers)}; correct the label"
            )
    examples: list[TokenizedExample] = []
    for row in rows:
        found = [
            prompter.encode(row.text, answer, end_of_turn=False, example_id=f"{row.id}: {answer}")
            for answer in answers
        ]
        _check_distinct(found, answers, row.id)
        examples += found
    if shorten is not None:
        examples = [replace(one, prompt_ids=tuple(shorten(one.prompt_ids))) for one in examples]
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


def log_likelihoods(
    model: PreTrainedModel, examples: Sequence[TokenizedExample], *, max_tokens: int = MAX_TOKENS
) -> Floats:
    """log p(answer | prompt) of each example by a forward pass, in order.

    Returns:
        (len(examples),) float64.
    """
    found = np.zeros(len(examples))
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for members, batch in batches(examples, max_tokens=max_tokens):
                there = batch.to(next(model.parameters()).device)
                logits = answer_logits(model, there).float()
                chosen = logits.log_softmax(-1).gather(1, there.targets[:, None])[:, 0]
                sizes = [len(examples[member].answer_ids) for member in members]
                parts = chosen.double().cpu().split(sizes)
                found[members] = [float(part.sum()) for part in parts]
    finally:
        model.train(training)
    return found


def _check_distinct(examples: Sequence[TokenizedExample], answers: Sequence[str], row: str) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for example, answer in zip(examples, answers, strict=True):
        same = seen.setdefault(example.answer_ids, answer)
        if same is not answer:
            raise DataError(
                f"row {row}: the answers {same!r} and {answer!r} are the same tokens; drop one"
            )
