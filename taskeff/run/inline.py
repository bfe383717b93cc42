"""A calibration in this process, without Ray: for one machine, a laptop or a box with one GPU.

The same plan, cells, hashes and storage as the run on Ray: either goes on where the other stopped.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from taskeff.clock import clock
from taskeff.config import RunConfig
from taskeff.coslow.measure import measure_signal, signal_folder
from taskeff.errors import ConfigError, TaskeffError
from taskeff.estimate.calibration import Calibration
from taskeff.finetune.cells import Cell, Row, measure, read_result
from taskeff.run.archive import read_signal, signal_hashes
from taskeff.run.plan import Plan, make_plan
from taskeff.run.results import begin, check_fittable, conclude
from taskeff.tasks.task import Task

Part = tuple[int, int]
ALL: Part = (0, 1)


@dataclass(frozen=True)
class _Job:
    """One cell or, without a cell, one task's CoS-Low."""

    task: str
    seed: int
    cost: float
    cell: Cell | None

    @property
    def name(self) -> str:
        if self.cell is None:
            return f"{self.task:<24} CoS-Low "
        return f"{self.task:<24} n={self.cell.budget:<5} seed {self.seed}"


def calibrate_here(
    config: RunConfig, console: Console | None = None, *, part: Part = ALL
) -> Calibration | None:
    """`taskeff.calibrate` in this process, seed by seed and cheap cells first.

    An interrupted run so has whole curves of some tasks, rather than pieces of all. Several
    processes may share the work, each with its own `part`; the fit is then left to a last call
    without one.

    Args:
        part: (i, n) measures every n-th job from the i-th.

    Returns:
        The calibration; None after a part.

    Raises:
        TaskeffError: something is wrong with the run (before anything is measured), or some jobs
            failed; what the others measured is kept.
    """
    console = console or Console()
    started = time.monotonic()
    check_fittable(config)
    if config.grid == "adaptive":
        raise ConfigError("grid: adaptive needs Ray; set grid=full, or run `taskeff calibrate`")
    if not 0 <= part[0] < part[1]:
        raise ConfigError(f"part {part[0]}/{part[1]}: give i/n with 0 <= i < n")
    plan = make_plan(config)
    begin(plan, config, console)
    hashes = signal_hashes(plan)
    _measure_all(plan, hashes, part, console)
    if part != ALL:
        return None
    signals = {name: read_signal(plan, name, hashes[name]) for name in plan.tasks}
    found = {name: signal for name, signal in signals.items() if signal is not None}
    return conclude(plan, found, time.monotonic() - started, console)


def _measure_all(plan: Plan, hashes: Mapping[str, str], part: Part, console: Console) -> None:
    jobs = _jobs(plan)[part[0] :: part[1]]
    done = [_is_done(plan, job, hashes) for job in jobs]
    todo = [job for job, is_done in zip(jobs, done, strict=True) if not is_done]
    console.print(f"{len(todo)} of {len(jobs)} cells and CoS-Lows to measure, in this process")
    scorer = _SignalScorer(plan)
    failures: dict[str, str] = {}
    started, left, spent = time.monotonic(), sum(job.cost for job in todo), 0.0
    for number, job in enumerate(todo, 1):
        before = time.monotonic()
        try:
            _measure_one(plan, job, hashes, scorer)
        except TaskeffError as error:
            failures[job.name.strip()] = str(error)
            console.print(Text.assemble((f"{job.name} failed:", "red"), f" {error}"))
            continue
        spent += job.cost
        pace = (time.monotonic() - started) / spent
        console.print(
            f"  [{number:>3}/{len(todo)}] {job.name}  {time.monotonic() - before:6.1f} s   "
            f"about {clock(pace * (left - spent))} left",
            highlight=False,
            soft_wrap=True,
        )
    if failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise TaskeffError(
            f"{len(failures)} jobs failed, what the others measured is kept: {reasons}"
        )


def _jobs(plan: Plan) -> list[_Job]:
    """Every job of the run, in the order in which they are measured; CoS-Low with the first seed,
    after what is cheaper."""
    settings = plan.config.coslow
    test_cap = plan.config.evaluation.test_cap
    jobs = [
        _Job(c.task, c.seed, _cost(plan.tasks[c.task], 3 * c.budget, test_cap), c)
        for c in plan.cells
    ]
    first = plan.config.training.seeds[0]
    # Confidence reads the pool once; two sets of examples are passed forwards and backwards.
    jobs += [
        _Job(name, first, _cost(task, 6 * settings.n_examples, settings.pool_cap), None)
        for name, task in plan.tasks.items()
    ]
    return sorted(jobs, key=lambda job: (job.seed, job.cost, job.task))


def _cost(task: Task, trained: int, read: int | None) -> float:
    """Characters passed through the model, training counted three times: a stand-in for a job's
    duration."""
    rows = task.test[:50]
    per_row = sum(len(example.text) for example in rows) / len(rows)
    available = len(task.train) if read is None else min(read, len(task.train))
    return per_row * (trained + available)


def _is_done(plan: Plan, job: _Job, hashes: Mapping[str, str]) -> bool:
    if job.cell is None:
        return read_signal(plan, job.task, hashes[job.task]) is not None
    return read_result(plan.store, job.cell, plan.cells[job.cell]) is not None


def _measure_one(
    plan: Plan, job: _Job, hashes: Mapping[str, str], scorer: Callable[[str, str], None]
) -> None:
    import torch

    torch.set_num_threads(plan.config.cluster.threads_per_worker)
    if job.cell is None:
        scorer(job.task, hashes[job.task])
        return
    budget = job.cell.budget
    measure(
        Row(job.task, job.seed, (budget,)),
        plan.tasks[job.task],
        plan.config,
        plan.store,
        {budget: plan.cells[job.cell]},
    )
    # Adapters hold their model in cycles: without this the next cell's stands beside it.
    gc.collect()


class _SignalScorer:
    """Measures CoS-Low with one copy of the model, loaded when it is first needed."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._loaded: tuple[Any, Any] | None = None

    def __call__(self, name: str, hash_: str) -> None:
        from taskeff.models import load_model, load_tokenizer
        from taskeff.tasks.prompts import Prompter

        plan = self._plan
        if self._loaded is None:
            self._loaded = load_model(plan.config.model), load_tokenizer(plan.config.model)
        model, tokenizer = self._loaded
        task = plan.tasks[name]
        prompter = Prompter(tokenizer, task.spec.description)
        measure_signal(model, task, prompter, plan.config, signal_folder(plan.store, name, hash_))
