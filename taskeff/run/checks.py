"""What can be wrong with a task in one run: rows against budgets, prompts against the window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from taskeff.config import RunConfig
from taskeff.errors import ConfigError, DataError, ModelError, TaskeffError
from taskeff.models import window
from taskeff.tasks.account import Account
from taskeff.tasks.examples import Example, rows_at
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.source import row_of
from taskeff.tasks.spec import TaskSpec
from taskeff.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MIN_CALIBRATION_TASKS = 2


class Problems:
    """Everything found wrong so far, each thing once."""

    def __init__(self) -> None:
        self._found: dict[str, TaskeffError] = {}

    def add(self, problems: Iterable[TaskeffError]) -> None:
        """Keep these too."""
        for problem in problems:
            self._found.setdefault(str(problem), problem)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what goes wrong inside and go on after it."""
        try:
            yield
        except TaskeffError as error:
            self.add([error])

    @property
    def distinct(self) -> list[TaskeffError]:
        """All of them, in the order they were found."""
        return list(self._found.values())


def check_fittable(config: RunConfig) -> None:
    """What can be known beforehand of whether a line can be fitted.

    Raises:
        ConfigError: fewer than two calibration tasks.
    """
    if len(config.tasks.calibration) < MIN_CALIBRATION_TASKS:
        raise ConfigError(
            f"tasks.calibration: {len(config.tasks.calibration)} task(s); "
            f"a line needs at least {MIN_CALIBRATION_TASKS}"
        )


def missing_packages(config: RunConfig) -> Iterator[ConfigError]:
    """Packages that settings need and that are not installed."""
    needed = {
        "training.strategy=deepspeed": config.training.strategy == "deepspeed",
        "tracking.mlflow_uri": config.tracking.mlflow_uri,
        "tracking.wandb_project": config.tracking.wandb_project,
    }
    for setting, package in zip(needed, ("deepspeed", "mlflow", "wandb"), strict=True):
        if needed[setting] and find_spec(package) is None:
            yield ConfigError(
                f"{setting} needs the package {package!r}: pip install 'taskeff[{package}]', here "
                "and on every worker, or drop the setting"
            )


def size_problems(task: Task, config: RunConfig, *, coslow: bool = True) -> Iterator[TaskeffError]:
    """Budgets and, where CoS-Low is measured, its draw against the task's rows."""
    rows, largest = len(task.train), max(config.training.budgets)
    if largest > rows and config.tasks.short == "error":
        yield DataError(
            f"{task.spec.label}: budget {largest} is above its {rows} training rows; lower "
            "training.budgets, add rows, or set tasks.short=stop to measure it up to all its rows"
        )
    if coslow and rows < config.coslow.n_examples:
        yield DataError(
            f"{task.spec.label}: its pool of {rows} rows is smaller than coslow.n_examples "
            f"{config.coslow.n_examples}; add rows or lower that"
        )


def short_note(task: Task, config: RunConfig) -> str | None:
    """What happens to a task that stops before the run's largest budget; None if it does not."""
    wanted = config.training.budgets
    budgets = task.budgets(wanted)
    left_out = sorted(set(wanted) - set(budgets))
    if not left_out:
        return None
    held = f"its curve ends at {budgets[-1]} and is held at its last score up to {config.cap}"
    if 4 * budgets[-1] < config.cap:
        held += "; that is below a quarter, so the fit leaves it out"
    return (
        f"{task.spec.label}: {len(task.train)} training rows, so budgets "
        f"{', '.join(map(str, left_out))} are not measured; {held}"
    )


def rounding_note(config: RunConfig, architecture: PreTrainedConfig) -> str | None:
    """That most steps of bfloat16 weights round away; None where they do not."""
    if config.masters != "none":
        return None
    # AdamW's step is about the learning rate. A bfloat16 has 8 bits: from this size on, its next
    # neighbour is more than two steps away.
    rate = config.training.learning_rate
    stuck = 2.0 ** math.ceil(math.log2(2**8 * rate))
    deviation = getattr(architecture.get_text_config(decoder=True), "initializer_range", 0.02)
    lost = math.erfc(stuck / (deviation * math.sqrt(2)))
    if lost < 0.5:
        return None
    return (
        f"training.masters none: a step of {rate:g} is lost on about {lost:.0%} of bfloat16 "
        f"weights (those above {stuck:.2g}, at a deviation of {deviation:g}); "
        "training.masters float32 keeps them, for twice the memory"
    )


def prompt_problems(
    task: Task, prompter: Prompter, architecture: PreTrainedConfig | None, config: RunConfig
) -> Iterator[TaskeffError]:
    """Template, answers and lengths of the rows that the run may read.

    Args:
        architecture: the model's configuration; without it lengths are not checked.
    """
    spec = task.spec
    try:
        answer_lengths = _answer_lengths(task, prompter)
    except ModelError as error:
        yield error  # the template's fault: the same for every task
        return
    except DataError as error:
        yield DataError(f"{spec.label}: {error}")
        return
    for choice, length in answer_lengths.items():
        if spec.doc_to_choice and choice in spec.doc_to_choice and length > spec.max_new_tokens:
            yield DataError(
                f"{spec.label}: the answer {choice!r} takes {length} tokens, more than "
                f"max_new_tokens {spec.max_new_tokens}, so it is never given; raise max_new_tokens"
            )
    limit = None if architecture is None else window(architecture)
    if limit is not None:
        too_long, longest, which = 0, 0, ""
        for example in rows_used(task, config):
            if used := _tokens_above(limit, spec, prompter, example):
                too_long += 1
                longest, which = max((longest, which), (used, example.id), key=lambda one: one[0])
        if too_long:
            others = f" ({too_long} such rows; this is the longest)" * (too_long > 1)
            yield DataError(
                f"{spec.label}: {row_of(spec, which)}: prompt and answer take {longest} tokens, "
                f"the model's window has {limit}{others}; shorten the text in doc_to_text, drop "
                "the row with doc_to_keep, or name a model with a longer window"
            )


def rows_used(task: Task, config: RunConfig) -> Iterator[Example]:
    """The rows that the run trains on, validates on, tests on or scores for CoS-Low."""
    largest = task.budgets(config.training.budgets)[-1]
    used = np.zeros(len(task.train), bool)
    used[task.pool_rows(config.coslow.pool_cap, config.coslow.seed)] = True
    for seed in config.training.seeds:
        used[task.subset_rows(largest, seed)] = True
    yield from rows_at(task.train, np.flatnonzero(used))
    yield from itertools.islice(task.validation, task.n_validation(largest))
    yield from itertools.islice(task.test, config.evaluation.test_cap)


def account_of(task: Task, prompter: Prompter | None) -> Account:
    """What became of a task's rows; markers are looked for where there is a prompter."""
    escaped = 0
    if prompter is not None:
        with suppress(ModelError):  # among the problems already
            rows = itertools.chain(task.train, task.validation, task.test)
            escaped = sum(prompter.escapes(row.text, row.target or "") for row in rows)
    return Account(task.used + sum(task.left_out.values()), task.left_out, escaped=escaped)


def vocabulary_problems(
    prompter: Prompter, architecture: PreTrainedConfig
) -> Iterator[TaskeffError]:
    """A tokenizer with more tokens than the model has embeddings is another model's."""
    size = getattr(architecture.get_text_config(decoder=True), "vocab_size", None)
    largest = max(prompter.tokenizer.get_vocab().values())
    if size is not None and largest >= size:
        yield ConfigError(
            f"the tokenizer's largest token id is {largest}, the model's vocabulary has {size}; "
            "model.path holds the tokenizer of another model"
        )


def _answer_lengths(task: Task, prompter: Prompter) -> dict[str, int]:
    """Answer -> its tokens, for every allowed answer and one target of each beginning."""
    text = task.train[0].text
    # What it starts with decides whether a target merges with the prompt's end.
    rows = itertools.chain(task.train, task.test)
    starts = {(example.target or "")[:1]: example for example in rows}
    answers = {example.target or "": example.id for example in starts.values()}
    answers |= dict.fromkeys(task.spec.doc_to_choice or (), "doc_to_choice")
    return {
        answer: len(prompter.encode(text, answer, end_of_turn=False, example_id=id_).answer_ids)
        for answer, id_ in answers.items()
    }


def _tokens_above(limit: int, spec: TaskSpec, prompter: Prompter, example: Example) -> int | None:
    """Tokens of prompt and answer where they exceed `limit`, else None."""
    target = example.target or ""
    room = limit - spec.max_new_tokens
    # A token is at least one byte long: most rows need not be tokenised to be known to fit.
    if prompter.overhead + len(example.text.encode()) + len(target.encode()) <= room:
        return None
    encoded = prompter.encode_example(example, end_of_turn=True)
    used = len(encoded.prompt_ids) + max(len(encoded.answer_ids), spec.max_new_tokens)
    return used if used > limit else None
