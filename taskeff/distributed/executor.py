"""A calibration on Ray: cells by Tune and Train, CoS-Lows by Data (`OnRay`).

Tune decides which jobs run, in what order, and tells what failed and why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.train import TrainingFailedError

from taskeff.config import RunConfig
from taskeff.distributed.coslow import OnRay
from taskeff.distributed.monitor import Monitor
from taskeff.distributed.trainer import reason, run_job
from taskeff.finetune.cells import Cell, by_task_and_seed
from taskeff.run.checks import missing_packages
from taskeff.run.cost import check_placement
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress
from taskeff.run.schedule import Job, Schedule, make_schedule
from taskeff.storage import FULL

# A trial only waits for its trainer. On the head node it holds no worker's CPU, wakes no autoscaler
# and outlives every spot machine.
TRIAL_RESOURCES = {"node:__internal_head__": 0.001}


class RayExecutor(OnRay):
    """Jobs side by side, as many as the cluster may hold; Ray starts when it is first needed.

    Raises:
        ClusterError: the cluster can never hold one job.
        ConfigError: a setting needs a package that is not installed.

    Examples:
        >>> executor = taskeff.RayExecutor(taskeff.load_config("run.yaml"))
        >>> executor.lanes >= 1
        True
    """

    def __init__(self, config: RunConfig):
        self.lanes = check_placement(config)
        for missing in missing_packages(config):
            raise missing
        super().__init__(cluster=config.cluster)

    def cells(self, plan: Plan, cells: Mapping[Cell, float], progress: Progress) -> None:
        """See `taskeff.run.executor`. Cells of a job that died are tried again on their own as
        long as that gets anywhere.

        Raises:
            ClusterError: nothing could be placed within `cluster.placement_timeout`.
        """
        self.connect()
        per_job = plan.config.cluster.task_seeds_per_job
        schedule = make_schedule(cells, self.lanes, per_job=per_job)
        progress.console.print(f"  {len(schedule.jobs)} jobs, {self.lanes} at a time")
        while schedule.jobs:
            crashed = _run(plan, schedule, progress, self.lanes)
            schedule = make_schedule(_again(plan, crashed, progress, cells), self.lanes)


def _run(plan: Plan, schedule: Schedule, progress: Progress, lanes: int) -> dict[Job, str]:
    """One pass over `schedule`: the jobs that died, with the reason."""
    by_name = {job.name: job for job in schedule.jobs}
    config, store = plan.config, plan.store
    names = {part.task for job in schedule.jobs for part in job.parts}
    tasks = {name: ray.put(plan.tasks[name]) for name in names}
    hashes = {
        name: {cell: plan.cells[cell] for part in job.parts for cell in part.cells}
        for name, job in by_name.items()
    }
    scratch = store.path("ray") if store.is_local else store.child("ray").uri

    def trial(parameters: dict[str, Any]) -> None:
        name = parameters["job"]
        try:
            run_job(by_name[name], tasks, hashes[name], config, store, scratch)
        except TrainingFailedError as error:
            # Reported, not raised: Tune starts a raising trial again, a trial whose process died
            # is what that is meant for.
            tune.report({"crash": reason(error)})

    monitor = Monitor(progress, config)
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
    plan: Plan, crashed: Mapping[Job, str], progress: Progress, seconds: Mapping[Cell, float]
) -> dict[Cell, float]:
    """What is worth another try: of jobs that got somewhere, or that several tasks and seeds
    shared, whose culprit may be another one. The rest has failed."""
    done = plan.results(cell for job in crashed for part in job.parts for cell in part.cells)
    again: dict[Cell, float] = {}
    for job, why in crashed.items():
        for part in job.parts:
            left = [cell for cell in part.cells if cell not in done]
            if not left or str(part) in progress.failures:
                continue
            if FULL not in why and (len(left) < len(part.budgets) or len(job.parts) > 1):
                again |= {cell: seconds[cell] for cell in left}
            else:
                progress.failed(str(part), why)
    if again:
        names = ", ".join(map(str, by_task_and_seed(again)))
        progress.say("trying again, each on its own:", names)
    return again


def trackers(config: RunConfig) -> list[tune.Callback]:
    """Ray's own logger callbacks for the trackers that `tracking` names: each cell's metrics."""
    tracking = config.tracking
    found: list[tune.Callback] = []
    if tracking.mlflow_uri:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        found.append(MLflowLoggerCallback(tracking.mlflow_uri, experiment_name=config.name))
    if tracking.wandb_project:
        from ray.air.integrations.wandb import WandbLoggerCallback

        found.append(WandbLoggerCallback(project=tracking.wandb_project, group=config.name))
    return found
