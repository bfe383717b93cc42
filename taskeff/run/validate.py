"""Everything about a run that can fail, looked at before a GPU is asked for."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from taskeff.config import RunConfig
from taskeff.errors import TaskeffError
from taskeff.models import parameter_count, window
from taskeff.run.checks import (
    Problems,
    check_fittable,
    missing_packages,
    rounding_note,
    rows_used,
    short_note,
    vocabulary_problems,
)
from taskeff.run.cost import needed
from taskeff.run.online import hub_problems
from taskeff.run.placement import Demand, lanes_of
from taskeff.run.plan import Examined, examine
from taskeff.tasks.account import Account
from taskeff.tasks.metrics import normalise
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.source import row_of
from taskeff.tasks.task import Task, read_specs

LONGEST = 16  # rows with the most bytes, among which the longest prompt is looked for


@dataclass(frozen=True)
class TaskSummary:
    """One task as the run will see it.

    Attributes:
        label: name and file.
        rows: rows of the training, validation and test split.
        account: rows read, and why some are in none of the splits.
        budgets: labels it will be measured at, zero-shot aside.
        longest: tokens of its longest prompt with answer, among the rows with the most bytes.
        example: (prompt, answer) of one training row as the model reads it; the answer bears the
            loss. None without a tokenizer, or where the template fails.
    """

    label: str
    rows: tuple[int, int, int]
    account: Account
    budgets: tuple[int, ...]
    longest: int | None
    example: tuple[str, str] | None


@dataclass(frozen=True)
class Validation:
    """What a run would do, what to know of it, and everything that is wrong with it.

    Attributes:
        cells: fine-tunes, and a zero-shot score per task.
        parameters: the model's, from its config.json; None where that could not be read.
        need: what a job's workers need; None where it is not known or more than there is.
        window: positions the model was made for; None if unknown or unlimited.
    """

    tasks: tuple[TaskSummary, ...]
    cells: int
    parameters: int | None
    need: Demand | None
    window: int | None
    notes: tuple[str, ...]
    problems: tuple[TaskeffError, ...]


def validate(config: RunConfig, *, online: bool = False) -> Validation:
    """Check files, columns, templates, lengths, labels, budgets, model and storage.

    Args:
        online: ask the hub about every id, revision and column first; what it refuses is then
            not downloaded.

    Raises:
        TaskeffError: the run names no task at all.
    """
    found = Problems()
    refused: dict[str, TaskeffError] = {}
    if online:
        specs, _ = read_specs([*config.tasks.calibration, *config.tasks.held_out])
        with found.kept():
            refused = hub_problems(config.model, specs)
        found.add(refused.values())
    examined = examine(config, without_model="" in refused, without_rows=refused.keys())
    found.add(examined.problems)
    found.add(missing_packages(config))
    with found.kept():
        check_fittable(config)
    parameters = need = rounding = None
    if examined.architecture is not None:
        with found.kept():
            parameters = parameter_count(examined.architecture)
            need = needed(config)
            lanes_of(config.cluster, need)
        rounding = rounding_note(config, examined.architecture)
        if examined.prompters:
            prompter = next(iter(examined.prompters.values()))
            found.add(vocabulary_problems(prompter, examined.architecture))
    return Validation(
        tasks=tuple(_summary(task, examined) for task in examined.tasks.values()),
        cells=_cells(examined),
        parameters=parameters,
        need=need,
        window=examined.architecture and window(examined.architecture),
        notes=(
            *([rounding] if rounding else ()),
            *(note for task in examined.tasks.values() for note in _notes(task, examined)),
        ),
        problems=tuple(found.distinct),
    )


def _cells(examined: Examined) -> int:
    # Counted here: a plan's own cells carry hashes, for which a folder's weights are read.
    training = examined.config.training
    trained = sum(
        len(set(task.budgets(training.budgets)) - {0}) * len(training.seeds)
        for task in examined.tasks.values()
    )
    return trained + len(examined.tasks)


def _summary(task: Task, examined: Examined) -> TaskSummary:
    prompter = examined.prompters.get(task.name)
    example = longest = None
    if prompter is not None:
        try:
            example = prompter.marked(prompter.encode_example(task.train[0], end_of_turn=True))
            longest = _longest(task, prompter, examined.config)
        except TaskeffError:
            example = longest = None  # among the problems already
    return TaskSummary(
        label=task.spec.label,
        rows=(len(task.train), len(task.validation), len(task.test)),
        account=examined.accounts[task.name],
        budgets=task.budgets(examined.config.training.budgets),
        longest=longest,
        example=example,
    )


def _longest(task: Task, prompter: Prompter, config: RunConfig) -> int:
    rows = heapq.nlargest(LONGEST, rows_used(task, config), key=lambda e: len(e.text.encode()))
    encoded = [prompter.encode_example(row, end_of_turn=True) for row in rows]
    return max(len(row.prompt_ids) + len(row.answer_ids) for row in encoded)


def _notes(task: Task, examined: Examined) -> Iterator[str]:
    label, config = task.spec.label, examined.config
    yield from task.notes
    if note := short_note(task, config):
        yield note
    # Answers of a task without choices are as many as its rows: only whether two differ is asked.
    first = task.train[0].target
    if all(example.target == first for example in task.train):
        yield f"{label}: every training row's answer is {first!r}"
    cap = config.evaluation.test_cap
    if task.spec.doc_to_choice:
        trained = {example.target or "" for example in task.train}
        tested = {example.target or "" for example in itertools.islice(task.test, cap)}
        if unseen := sorted(tested - trained):
            shown = ", ".join(unseen[:5])
            yield f"{label}: answers of the test that no training row has: {shown}"
    rows = itertools.islice(task.test, cap)
    changed = next((e for e in rows if not normalise(e.target or "")), None)
    if changed is not None and task.spec.metric in ("exact_match", "accuracy", "f1"):
        yield (
            f"{label}: {row_of(task.spec, changed.id)}: the answer {changed.target!r} is empty "
            "once normalised, so it can never be given"
        )
