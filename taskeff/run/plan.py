"""What a run has to measure: its tasks loaded and checked, its cells, which of them are done.

Everything that can be wrong with a run's files is found here, before any worker is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from taskeff.config import RunConfig
from taskeff.coslow.fingerprint import signal_hash
from taskeff.coslow.result import RESULT, check_result
from taskeff.errors import ConfigError, TaskeffError, together
from taskeff.finetune.cells import Cell, cell_folder, cell_hash, read_results
from taskeff.hub import offline_reason
from taskeff.models import check_weights, family_identity, load_architecture, load_tokenizer
from taskeff.run.checks import (
    Problems,
    account_of,
    prompt_problems,
    short_note,
    size_problems,
)
from taskeff.storage import Store
from taskeff.tasks.account import Account
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.source import is_on_hub
from taskeff.tasks.task import Task, TaskSpec, load_task, read_specs

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Plan:
    """A run's tasks and cells; `identity` names model, revision and chat template, `accounts` says
    what became of each task's rows."""

    config: RunConfig
    store: Store
    tasks: Mapping[str, Task]
    identity: Mapping[str, Any]
    accounts: Mapping[str, Account]

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
        seeds = self.config.training.seeds
        cells = [
            Cell(name, budget, seed)
            for name in self.tasks
            for seed in seeds
            for budget in sorted({0, *self.budgets(name)})
            if budget or seed == seeds[0]
        ]
        data = {name: task.data_hash for name, task in self.tasks.items()}
        return {c: cell_hash(c, self.config, data[c.task], self.identity) for c in cells}

    def budgets(self, task: str) -> tuple[int, ...]:
        """The budgets that the task is measured at: the run's, as far as its rows go."""
        return self.tasks[task].budgets(self.config.training.budgets)

    @property
    def ceiling(self) -> float | dict[str, float | None] | None:
        """The score that counts as 1, as `curve.ceiling` asks: see `task_curves`."""
        if self.config.curve.ceiling == "human":
            return {name: task.spec.ceiling for name, task in self.tasks.items()}
        return 1.0 if self.config.curve.ceiling == "one" else None

    @property
    def notes(self) -> list[str]:
        """What to know of the tasks' rows, and of those too few for the run's largest budget."""
        short = (short_note(task, self.config) for task in self.tasks.values())
        return [*(n for task in self.tasks.values() for n in task.notes), *filter(None, short)]

    @property
    def row_lines(self) -> Iterator[str]:
        """How many rows were read and used in all, and of each task that lost some, why."""
        found = self.accounts.values()
        yield f"rows: {sum(a.rows for a in found)} read, {sum(a.used for a in found)} used"
        for name, account in self.accounts.items():
            if account.used < account.rows or account.escaped:
                yield from account.lines(self.tasks[name].spec.label)

    def results(self, cells: Iterable[Cell] | None = None) -> dict[Cell, dict[str, Any]]:
        """The results published so far, of all cells or of these; a request per cell."""
        wanted = self.cells if cells is None else {cell: self.cells[cell] for cell in cells}
        return read_results(self.store, wanted)

    @cached_property
    def coslow_hashes(self) -> dict[str, str]:
        """Task -> the hash of its CoS-Low's settings."""
        return {
            name: signal_hash(
                task.data_hash,
                self.identity,
                self.config.model.dtype,
                self.config.coslow,
                tasks_seed=self.config.tasks.seed,
                shard_rows=self.config.scoring.shard_rows,
            )
            for name, task in self.tasks.items()
        }

    def coslow_results(self, tasks: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """The CoS-Low results published so far, of all tasks or of these; a request per task."""
        wanted = self.tasks if tasks is None else tasks
        files = {name: (*self._coslow_path(name), RESULT) for name in wanted}
        return self.store.find_json(files, check_result)

    def folder(self, of: Cell | str) -> Store:
        """Where the artefacts of a cell, or of a task's CoS-Low, lie."""
        if isinstance(of, Cell):
            return cell_folder(self.store, of, self.cells[of])
        return self.store.child(*self._coslow_path(of))

    def _coslow_path(self, task: str) -> tuple[str, ...]:
        return "coslow", f"task={task}", self.coslow_hashes[task]


def make_plan(
    config: RunConfig,
    *,
    only_tasks: Sequence[str] | None = None,
    only_budgets: Sequence[int] | None = None,
    load: Callable[[TaskSpec, int], Task] = load_task,
) -> Plan:
    """Load and check everything the run names.

    Args:
        only_tasks, only_budgets: narrow the run to these cells.
        load: (task file, `tasks.seed`) -> the task with its rows.

    Raises:
        TaskeffError: everything that is wrong, each thing with its name and the fix.
    """
    return examine(config, only_tasks=only_tasks, only_budgets=only_budgets, load=load).plan()


@dataclass(frozen=True)
class Examined:
    """What a run names, as far as it could be loaded, and everything that is wrong with it.

    Attributes:
        tasks: those that could be loaded, by name.
        prompters: of these tasks, by name; none where the tokenizer could not be loaded.
        accounts: what became of these tasks' rows, by name.
        architecture: the model's `config.json`, None where it could not be read.
    """

    config: RunConfig
    store: Store
    tasks: Mapping[str, Task]
    prompters: Mapping[str, Prompter]
    accounts: Mapping[str, Account]
    architecture: PreTrainedConfig | None
    problems: tuple[TaskeffError, ...]

    def plan(self) -> Plan:
        """The plan of a run that nothing is wrong with.

        Raises:
            TaskeffError: everything that is wrong.
        """
        if self.problems:
            raise together(self.problems)
        tokenizer = next(iter(self.prompters.values())).tokenizer
        identity = family_identity(self.config.model, tokenizer)
        return Plan(self.config, self.store, self.tasks, identity, self.accounts)


def examine(
    config: RunConfig,
    *,
    only_tasks: Sequence[str] | None = None,
    only_budgets: Sequence[int] | None = None,
    without_model: bool = False,
    without_rows: Collection[str] = (),
    load: Callable[[TaskSpec, int], Task] = load_task,
) -> Examined:
    """Load and check everything the run names, going on after each thing that is wrong.

    Args:
        only_tasks, only_budgets: narrow the run to these cells.
        without_model: do not try to load what belongs to the model.
        without_rows: tasks whose rows not to load.
        load: see `make_plan`.

    Raises:
        TaskeffError: there is nothing to check.
    """
    cells_only = bool(only_tasks or only_budgets)
    config = _located(_narrowed(config, only_tasks, only_budgets))
    store = Store(config.storage).child(config.name)
    found = Problems()
    with found.kept():
        store.check_writable()
    specs, wrong = read_specs([*config.tasks.calibration, *config.tasks.held_out])
    found.add(wrong)
    hub = _Hub([] if without_model else [config.model.path], specs)
    tokenizer = architecture = None
    if not without_model:
        with found.kept(), hub.asked(config.model.path):
            architecture = load_architecture(config.model)
    if architecture is not None:
        with found.kept():
            check_weights(config.model)
        with found.kept():
            tokenizer = load_tokenizer(config.model)
    tasks: dict[str, Task] = {}
    for spec in specs:
        if spec.task not in without_rows:
            with found.kept(), hub.asked(spec.task):
                tasks[spec.task] = load(spec, config.tasks.seed)
    with found.kept():
        hub.check()
    prompters: dict[str, Prompter] = {}
    accounts: dict[str, Account] = {}
    for name, task in tasks.items():
        found.add(size_problems(task, config, coslow=not cells_only))
        if tokenizer is not None:
            prompters[name] = Prompter(tokenizer, task.spec.description)
            found.add(prompt_problems(task, prompters[name], architecture, config))
        accounts[name] = account_of(task, prompters.get(name))
    return Examined(config, store, tasks, prompters, accounts, architecture, tuple(found.distinct))


class _Hub:
    """What a run reads of the hub; where that does not answer, one error for all of it.

    Args:
        models: ids or folders.
    """

    def __init__(self, models: Sequence[str], specs: Sequence[TaskSpec]):
        on_hub = {path for path in models if not os.path.isdir(path)}
        on_hub |= {spec.task for spec in specs if is_on_hub(spec)}
        self._why = offline_reason() if on_hub else None
        self._names = on_hub if self._why else set[str]()
        self._missing: list[str] = []

    @contextmanager
    def asked(self, name: str) -> Iterator[None]:
        """Reading `name`, a model or task; what is not in the caches is said once, by `check`."""
        try:
            yield
        except TaskeffError:
            if name not in self._names:
                raise
            self._missing.append(name)

    def check(self) -> None:
        """Raise ConfigError if something could not be read because the hub does not answer."""
        if self._missing:
            raise ConfigError(
                f"the hub was not reached ({self._why}) and is not asked again; not in its cache "
                f"here: {', '.join(self._missing)}; connect, or set HF_ENDPOINT to a mirror"
            )


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
