"""What a run has to measure: its tasks loaded and checked, its cells, which of them are done.

Everything that can be wrong with a run's files is found here, before any worker is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from taskeff.config import RunConfig
from taskeff.curves.cells import Cell, Row, cell_hash, read_result
from taskeff.errors import ConfigError, DataError
from taskeff.models import family_identity, load_tokenizer
from taskeff.store import Store
from taskeff.tasks.task import Task, load_specs, load_task

MIN_CALIBRATION_TASKS = 2


@dataclass(frozen=True)
class Plan:
    """A run's tasks and cells; `identity` names model, revision and chat template."""

    config: RunConfig
    store: Store
    tasks: Mapping[str, Task]
    identity: Mapping[str, Any]

    @property
    def calibration(self) -> list[str]:
        """Names of the tasks that the calibration is fitted on."""
        return list(self.tasks)[: len(self.config.tasks.calibration)]

    @property
    def held_out(self) -> list[str]:
        """Names of the tasks kept out of the fit."""
        return list(self.tasks)[len(self.config.tasks.calibration) :]

    @cached_property
    def cells(self) -> dict[Cell, str]:
        """Every cell and its hash; the zero-shot cell is measured once, under the first seed."""
        training = self.config.training
        budgets = sorted({0, *training.budgets})
        cells = [
            Cell(name, budget, seed)
            for name in self.tasks
            for seed in training.seeds
            for budget in budgets
            if budget or seed == training.seeds[0]
        ]
        return {c: self.hash_of(c) for c in cells}

    def hash_of(self, cell: Cell) -> str:
        """The hash of the cell's settings."""
        return cell_hash(cell, self.config, self.tasks[cell.task].data_hash, self.identity)

    def results(self) -> dict[Cell, dict[str, Any]]:
        """The results published so far."""
        found = {c: read_result(self.store, c, hash_) for c, hash_ in self.cells.items()}
        return {cell: result for cell, result in found.items() if result is not None}

    def pending(self) -> list[Row]:
        """Rows with cells still to be measured, by task and seed."""
        done = self.results().keys()
        budgets: dict[tuple[str, int], list[int]] = {}
        for cell in self.cells:
            if cell not in done:
                budgets.setdefault((cell.task, cell.seed), []).append(cell.budget)
        return [Row(task, seed, tuple(found)) for (task, seed), found in sorted(budgets.items())]


def make_plan(
    config: RunConfig,
    *,
    only_tasks: Sequence[str] | None = None,
    only_budgets: Sequence[int] | None = None,
) -> Plan:
    """Load and check everything the run names.

    Args:
        only_tasks, only_budgets: narrow the run to these cells.

    Raises:
        TaskeffError: the first thing that is wrong, naming it and the fix.
    """
    config = _located(_narrowed(config, only_tasks, only_budgets))
    store = Store(config.storage).child(config.name)
    store.check_writable()
    specs = load_specs([*config.tasks.calibration, *config.tasks.held_out])
    tokenizer = load_tokenizer(config.model)
    tasks = {spec.task: load_task(spec, config.tasks.seed) for spec in specs}
    for task in tasks.values():
        _check_task(task, config)
    identity = family_identity(config.model, tokenizer)
    return Plan(config, store, tasks, identity)


def _located(config: RunConfig) -> RunConfig:
    """Workers run in other folders: a model's folder is named by its full path."""
    if not os.path.isdir(config.model.path):
        return config
    model = config.model.model_copy(update={"path": os.path.abspath(config.model.path)})
    return config.model_copy(update={"model": model})


def _narrowed(
    config: RunConfig, tasks: Sequence[str] | None, budgets: Sequence[int] | None
) -> RunConfig:
    if tasks:
        known = [*config.tasks.calibration, *config.tasks.held_out]
        for name in tasks:
            if name not in known:
                raise ConfigError(f"task {name!r} is not in this run; it has: {', '.join(known)}")
        section = config.tasks.model_copy(
            update={
                "calibration": tuple(n for n in config.tasks.calibration if n in tasks),
                "held_out": tuple(n for n in config.tasks.held_out if n in tasks),
            }
        )
        config = config.model_copy(update={"tasks": section})
    if budgets:
        # The curve's cap stays that of the whole run.
        curve = config.curve.model_copy(update={"cap": config.cap})
        training = config.training.model_copy(update={"budgets": tuple(sorted(set(budgets)))})
        config = config.model_copy(update={"training": training, "curve": curve})
    if not (config.tasks.calibration or config.tasks.held_out):
        raise ConfigError("tasks.calibration: no tasks; name at least two")
    return config


def _check_task(task: Task, config: RunConfig) -> None:
    largest = max(config.training.budgets)
    if largest > len(task.train):
        raise DataError(
            f"task {task.name!r}: budget {largest} is above its {len(task.train)} training rows; "
            "lower training.budgets or add rows"
        )
    if len(task.train) < config.coslow.n_examples:
        raise DataError(
            f"task {task.name!r}: its pool of {len(task.train)} rows is smaller than "
            f"coslow.n_examples {config.coslow.n_examples}"
        )
