"""A selection's labelled rows -> the kernel's pilot on them: what `score --kernel` adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from taskeff.config import CosLowConfig
from taskeff.coslow.answers import MOST_ANSWERS, AnswerRows, answer_rows, log_likelihoods, summed
from taskeff.coslow.confidence import prompt_room, truncated
from taskeff.coslow.kernel import KernelPilot, check_labels, kernel_pilot
from taskeff.coslow.pool import prompter_of
from taskeff.coslow.result import gram_of
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
    shorten = None
    if selection["settings"]["on_long"] == "truncate":
        room = prompt_room(architecture, selection["max_new_tokens"])
        if room is not None:
            shorten = partial(truncated, room=room)
    prompter = prompter_of(tokenizer, selection["description"], rendered=selection["rendered"])
    rows = answer_rows(prompter, examples, selection["choices"], shorten=shorten)
    check_labels(rows.labels, rows.answers, rows.ids)
    return rows


def measure_pilot(
    selection: Mapping[str, Any], rows: AnswerRows, model: PreTrainedModel
) -> KernelPilot:
    """The kernel's pilot on `rows`, with the gradients that CoS-Low is measured with.

    Of more than 8 answers a row is offered its label and those that the model finds likeliest.
    """
    if len(rows.answers) > MOST_ANSWERS:
        rows = rows.cut(MOST_ANSWERS, log_likelihoods(model, rows.examples))
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
