"""Ray Tune: which rows run, in what order; what failed and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune
from ray.train import TrainingFailedError
from rich.console import Console

from taskeff.distributed.monitor import Monitor, Progress
from taskeff.distributed.reports import reason
from taskeff.distributed.tracking import trackers
from taskeff.distributed.trainer import RowTask, run_rows
from taskeff.finetune.cells import Cell, Row
from taskeff.run.cost import check_placement, expected, parameter_count
from taskeff.run.plan import Plan
from taskeff.run.schedule import Job, Schedule, make_schedule, row_name
from taskeff.storage import FULL

# A trial only waits for its trainer. On the head node it holds no worker's CPU, wakes no autoscaler
# and outlives every spot machine.
TRIAL_RESOURCES = {"node:__internal_head__": 0.001}


@dataclass(frozen=True)
class GridOutcome:
    """What a pass over the grid left behind."""

    measured: int
    failures: Mapping[str, str] = field(default_factory=dict)
    """Row -> reason."""


def run_grid(
    plan: Plan,
    console: Console,
    *,
    only: Collection[Cell] | None = None,
    check: Callable[[], None] | None = None,
) -> GridOutcome:
    """Measure every pending cell, rows side by side; finished cells are never measured again.

    A row that fails leaves the others alone and is named in the outcome. Rows of a job that died
    are tried again on their own as long as that gets anywhere.

    Args:
        only: leave other cells alone.
        check: called now and then; what it raises ends the grid.

    Raises:
        ClusterError: nothing could be placed within `cluster.placement_timeout`.
    """
    results = plan.results()
    total, done = len(plan.cells), len(results)
    if done == total:
        console.print(f"curves: all {total} cells are measured already")
        return GridOutcome(0)
    cluster = plan.config.cluster
    lanes = check_placement(plan.config)
    seconds = dict(expected(plan, results, parameter_count(plan.config)).seconds)
    if only is not None:
        seconds = {cell: duration for cell, duration in seconds.items() if cell in only}
    schedule = make_schedule(seconds, lanes, rows_per_job=cluster.rows_per_job)
    rows = {row_name(row) for job in schedule.jobs for row in job.rows}
    console.print(
        f"curves: {len(seconds)} of {total} cells to measure: {len(rows)} rows in "
        f"{len(schedule.jobs)} jobs, {lanes} at a time"
    )
    progress = Progress(console, seconds, total=total, done=done, lanes=lanes)
    failures: dict[str, str] = {}
    with progress:
        while schedule.jobs:
            crashed = _run(plan, schedule, progress, lanes, check)
            failures |= progress.take_row_errors()
            schedule = _again(plan, crashed, progress, failures, seconds, lanes)
    for name, why in sorted(failures.items()):
        progress.say(f"row {name} failed:", why, "red")
    return GridOutcome(progress.done - done, failures)


def _run(
    plan: Plan,
    schedule: Schedule,
    progress: Progress,
    lanes: int,
    check: Callable[[], None] | None,
) -> dict[Job, str]:
    """One pass over `schedule`: the jobs that died, with the reason."""
    by_name = {job.name: job for job in schedule.jobs}
    tasks = _row_tasks(plan, schedule)
    config, store = plan.config, plan.store
    scratch = store.path("ray") if store.is_local else store.child("ray").uri

    def trial(parameters: dict[str, Any]) -> None:
        name = parameters["job"]
        try:
            run_rows(name, tasks[name], config, store, scratch)
        except TrainingFailedError as error:
            # Reported, not raised: Tune starts a raising trial again, a trial whose process died
            # is what that is meant for.
            tune.report({"crash": reason(error)})

    monitor = Monitor(progress, config, check)
    outcome = tune.Tuner(
        tune.with_resources(trial, TRIAL_RESOURCES),
        param_space={"job": tune.grid_search(list(by_name))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=lanes,
            trial_dirname_creator=lambda trial: trial.config["job"],
        ),
        run_config=tune.RunConfig(
            name=f"grid-{time.time_ns() // 1_000_000}",
            storage_path=scratch,
            failure_config=tune.FailureConfig(max_failures=config.cluster.max_failures),
            callbacks=[monitor, *trackers(config)],
            verbose=0,
        ),
    ).fit()
    died = {by_name[name]: why for name, why in monitor.crashes.items()}
    for result in outcome:
        if result.error and result.config:
            died[by_name[result.config["job"]]] = reason(result.error)
    return died


def _again(
    plan: Plan,
    crashed: Mapping[Job, str],
    progress: Progress,
    failures: dict[str, str],
    seconds: Mapping[Cell, float],
    lanes: int,
) -> Schedule:
    """What is worth another try: the rows of jobs that got somewhere or that shared a job, whose
    culprit may be another row. The rest is added to `failures`."""
    done = plan.results().keys()
    cells: dict[Cell, float] = {}
    for job, why in crashed.items():
        for row in job.rows:
            left = [c for c in cells_of(row) if c not in done]
            if not left or row_name(row) in failures:
                continue
            if FULL not in why and (len(left) < len(row.budgets) or len(job.rows) > 1):
                cells |= {cell: seconds[cell] for cell in left}
            else:
                failures[row_name(row)] = why
    if cells:
        rows = sorted({f"{cell.task}-{cell.seed}" for cell in cells})
        progress.say("trying again, each on its own:", ", ".join(rows), "yellow")
    return make_schedule(cells, lanes)


def cells_of(row: Row) -> list[Cell]:
    """The row's cells."""
    return [Cell(row.task, budget, row.seed) for budget in row.budgets]


def _row_tasks(plan: Plan, schedule: Schedule) -> dict[str, list[RowTask]]:
    rows = [row for job in schedule.jobs for row in job.rows]
    references = {name: ray.put(plan.tasks[name]) for name in {row.task for row in rows}}

    def of(row: Row) -> RowTask:
        hashes = {cell.budget: plan.cells[cell] for cell in cells_of(row)}
        return RowTask(row, references[row.task], hashes)

    return {job.name: [of(row) for row in job.rows] for job in schedule.jobs}
