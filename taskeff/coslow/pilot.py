"""A selection's labelled rows -> the kernel's pilot on them: what `score --kernel` adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from taskeff.config import CosLowConfig
from taskeff.coslow.answers import AnswerRows, answer_rows, summed
from taskeff.coslow.kernel import KernelPilot, check_labels, kernel_pilot
from taskeff.coslow.pool import prompter_of
from taskeff.coslow.result import fitted, gram_of
from taskeff.tasks.task import Example

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


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


def measure_pilot(
    selection: Mapping[str, Any], rows: AnswerRows, model: PreTrainedModel
) -> KernelPilot:
    """The kernel's pilot on `rows`, with the gradients that CoS-Low is measured with.

    Every row is offered every answer: a cut to the likeliest keeps the label in, which nobody knows
    of a new row, and makes the accuracy too good (docs/kernel.md).
    """
    settings = CosLowConfig.model_validate(selection["settings"])
    matrix, _ = summed(gram_of(model, rows.examples, settings), rows.lengths)
    return kernel_pilot(
        matrix,
        rows.labels,
        rows.answers,
        offered=rows.offered.tolist(),
        ids=rows.ids,
        seed=settings.seed,
    )
