"""A task's labelled rows for a pilot: those of its own source, and those handed out by `select`.

Least confident rows are no fair sample: they count as training rows, and nothing is scored on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taskeff.coslow.handoff import read_part
from taskeff.coslow.selection import read_selection
from taskeff.coslow.sheet import open_sheet
from taskeff.errors import DataError
from taskeff.storage import Store
from taskeff.tasks.account import REPEATED, UNLABELLED
from taskeff.tasks.examples import Example, rows_at
from taskeff.tasks.rows import cuts, shuffle_rows
from taskeff.tasks.spec import TaskSpec
from taskeff.tasks.task import Task, load_task

FILES = (".jsonl", ".json", ".csv", ".tsv")
TEST_SHARE = 0.5
"""Of a random draw's rows, where the task file has no `test_size`: a pilot knows no more of the
curve than its test rows tell."""


@dataclass(frozen=True)
class HandOff:
    """Rows of one `select` that have a label by now.

    Attributes:
        where: the folder or file, as its user names it.
        fair: drawn from the whole pool, not from its least confident rows.
        unlabelled: rows handed out that have none yet.
    """

    where: str
    rows: tuple[Example, ...]
    fair: bool
    unlabelled: int


def read_hand_off(where: str, spec: TaskSpec) -> HandOff:
    """The labelled rows of a folder that `select` wrote, or of a filled file in it.

    Raises:
        TaskeffError: no selection, or one of another task or of rendered prompts; a file that
            `score` would refuse for more than missing labels; no label, or one that the task file
            does not list.
    """
    folder, _, name = where.rstrip("/").rpartition("/")
    if not name.endswith(FILES):
        folder, name = where, ""
    folder = folder or "."
    sheet = open_sheet(folder)
    selection: Mapping[str, Any] = read_selection(Store(folder))
    if selection["task"] != spec.task or selection["rendered"]:
        drawn = "prompts that are rendered already" if selection["rendered"] else "rows"
        raise DataError(
            f"{where}: {drawn} of {selection['task']!r}, not rows of {spec.label}; give a folder "
            "that `taskeff select --task` wrote for this task"
        )
    records = read_part(where, sheet.records) if name else sheet.records
    rows = tuple(Example(r["id"], r["text"], r["label"]) for r in records if r["label"])
    if not rows:
        raise DataError(
            f"{where}: none of its {len(records)} rows has a label yet; taskeff label {folder}"
        )
    for row in rows:
        if spec.doc_to_choice and row.target not in spec.doc_to_choice:
            raise DataError(
                f"{where}: {row.id}: label {row.target!r} is not in doc_to_choice "
                f"{list(spec.doc_to_choice)} of {spec.label}"
            )
    fair = selection["fingerprint"].get("strategy", "low") == "random"
    return HandOff(where, rows, fair, len(records) - len(rows))


def labelled_task(spec: TaskSpec, seed: int, hand_offs: Sequence[HandOff]) -> Task:
    """The task with every labelled row there is.

    A task file with answers keeps its own test and validation rows; what was handed out and is not
    among its rows is added to train on. One without has its rows from the hand-offs: a share of the
    random draws' rows to score on, the rest to train on and to validate.

    Raises:
        DataError: no labels, or none that a model may be scored on.
    """
    if spec.doc_to_target is not None:
        task = load_task(spec, seed)
        return _with_more(task, hand_offs) if hand_offs else task
    if not hand_offs:
        raise DataError(
            f"{spec.label}: no labels: name the column with the answer in doc_to_target, or give "
            "rows of `taskeff select` that are labelled by now with --labels"
        )
    return _split(spec, seed, hand_offs)


def _with_more(task: Task, hand_offs: Sequence[HandOff]) -> Task:
    held = {row.text for split in (task.validation, task.test) for row in split}
    answers = {row.text: row.target for row in task.train}
    added: list[Example] = []
    notes: list[str] = []
    for one in hand_offs:
        new = [row for row in one.rows if row.text not in held and row.text not in answers]
        differ = sum(answers.get(row.text, row.target) != row.target for row in one.rows)
        kept_out = sum(row.text in held for row in one.rows)
        added += new
        answers |= {row.text: row.target for row in new}
        notes.append(
            f"{_counted(one)}: {len(new)} more to train on, {kept_out} are held back to test or "
            f"validate, {len(one.rows) - len(new) - kept_out} were there already"
            + (f", {differ} of them with another label, which is kept" if differ else "")
        )
    train = [*task.train, *added] if added else task.train
    left_out = {
        **task.left_out,
        REPEATED: task.left_out.get(REPEATED, 0) + sum(len(o.rows) for o in hand_offs) - len(added),
        UNLABELLED: sum(one.unlabelled for one in hand_offs),
    }
    return Task(task.spec, train, task.validation, task.test, (*task.notes, *notes), left_out)


def _split(spec: TaskSpec, seed: int, hand_offs: Sequence[HandOff]) -> Task:
    seen: dict[str, Example] = {}
    fair: set[str] = set()
    notes: list[str] = []
    for one in hand_offs:
        new = [row for row in one.rows if row.text not in seen]
        differ = sum(r.text in seen and seen[r.text].target != r.target for r in one.rows)
        seen |= {row.text: row for row in new}
        fair |= {row.text for row in one.rows if one.fair}
        repeated = len(one.rows) - len(new)
        notes.append(
            _counted(one)
            + (f", {repeated} of them in another folder too" if repeated else "")
            + (f", {differ} with another label, which is left out" if differ else "")
        )
    rows = list(seen.values())
    order = np.arange(len(rows))
    shuffle_rows(spec.task, seed, order)
    drawn = [i for i in order if rows[i].text in fair]
    sized = _cut_from_all(spec)
    n_test, _ = cuts(sized, len(drawn)) if drawn else (0, 0)
    tested = set(drawn[:n_test])
    rest = np.array([i for i in order if i not in tested], np.int64)
    _, n_validation = cuts(sized, len(rest))
    if not tested:
        raise DataError(
            f"{spec.label}: {len(rows)} labelled rows, all among the least confident of the pool: "
            "they count as training rows, but scores on them would mislead. Label some at random "
            "to score on (taskeff select --strategy random --n 100 --out MORE, then --labels MORE "
            "too), or name the column with the answer in doc_to_target"
        )
    if len(rest) <= n_validation:
        raise DataError(
            f"{spec.label}: {len(rows)} labelled rows leave none to train on beside {len(tested)} "
            f"to score on and {n_validation} for validation; label more"
        )
    test = [rows[i] for i in drawn[:n_test]]
    validation, train = (
        list(rows_at(rows, part)) for part in (rest[:n_validation], rest[n_validation:])
    )
    left_out = {
        REPEATED: sum(len(one.rows) for one in hand_offs) - len(rows),
        UNLABELLED: sum(one.unlabelled for one in hand_offs),
    }
    return Task(spec, train, validation, test, tuple(notes), left_out)


def _cut_from_all(spec: TaskSpec) -> TaskSpec:
    """The task with test and validation rows cut from the labelled ones."""
    size = {} if "test_size" in spec.model_fields_set else {"test_size": TEST_SHARE}
    return spec.model_copy(update={**size, "test_split": None, "validation_split": None})


def _counted(one: HandOff) -> str:
    left = f", {one.unlabelled} without a label are left out" if one.unlabelled else ""
    kind = "at random" if one.fair else "for their low confidence"
    return f"{one.where}: {len(one.rows)} labelled rows, drawn {kind}{left}"
