"""Ray Tune: which rows run, in what order; what failed and why."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune
from rich.console import Console
from rich.text import Text

from taskeff.curves.cells import Row
from taskeff.curves.plan import Plan
from taskeff.distributed.trainer import RowTask, run_rows

TRIAL_CPUS = 0.01  # a trial only waits for its trainer; a whole CPU would starve it


@dataclass(frozen=True)
class GridOutcome:
    """What a pass over the grid left behind."""

    measured: int
    failures: dict[str, str] = field(default_factory=dict)


def run_grid(plan: Plan, console: Console) -> GridOutcome:
    """Measure every pending cell, rows side by side; finished cells are never measured again.

    A row that fails leaves the others alone and is named in the outcome.
    """
    rows = plan.pending()
    total = len(plan.cells)
    done = total - sum(len(row.budgets) for row in rows)
    if not rows:
        console.print(f"curves: all {total} cells are measured already")
        return GridOutcome(0)
    cluster = plan.config.cluster
    jobs = _jobs(plan, rows, cluster.rows_per_job)
    console.print(
        f"curves: {total - done} of {total} cells to measure: {len(rows)} rows in {len(jobs)} "
        f"jobs, {cluster.max_concurrent_jobs} at a time"
    )
    config, store = plan.config, plan.store
    scratch = plan.store.path("ray") if plan.store.is_local else plan.store.child("ray").uri

    def trial(parameters: dict[str, Any]) -> None:
        run_rows(jobs[parameters["job"]], config, store, scratch)

    progress = _Progress(console, total, done)
    results = tune.Tuner(
        tune.with_resources(trial, {"CPU": TRIAL_CPUS}),
        param_space={"job": tune.grid_search(list(jobs))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=cluster.max_concurrent_jobs,
            trial_dirname_creator=lambda trial: trial.config["job"],
        ),
        run_config=tune.RunConfig(
            name=f"grid-{int(time.time())}",
            storage_path=scratch,
            callbacks=[progress],
            verbose=0,
        ),
    ).fit()
    failures = {r.config["job"]: _reason(r.error) for r in results if r.error and r.config}
    for name, reason in sorted(failures.items()):
        console.print(Text.assemble((f"job {name} failed:", "red"), f" {reason}"), soft_wrap=True)
    return GridOutcome(progress.done - done, failures)


def _jobs(plan: Plan, rows: list[Row], per_job: int) -> dict[str, list[RowTask]]:
    """Rows dealt out to jobs, longest first, so that jobs end together."""
    references = {name: ray.put(plan.tasks[name]) for name in {row.task for row in rows}}
    hashes: dict[tuple[str, int], dict[int, str]] = {}
    for cell, hash_ in plan.cells.items():
        hashes.setdefault((cell.task, cell.seed), {})[cell.budget] = hash_
    given = [RowTask(r, references[r.task], hashes[r.task, r.seed]) for r in rows]
    n_jobs = -(-len(given) // per_job)
    dealt = [given[first::n_jobs] for first in range(n_jobs)]
    return {job[0].name: job for job in dealt}


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class _Progress(tune.Callback):
    """One line per finished cell, with the time left at the pace so far."""

    def __init__(self, console: Console, total: int, done: int):
        self.console = console
        self.total = total
        self.done = self._first = done
        self._started = time.monotonic()

    def __getstate__(self):
        # Tune keeps a copy of its callbacks for Tuner.restore, which is not used here.
        return {**self.__dict__, "console": None}

    def on_trial_result(self, iteration, trials, trial, result, **info):
        if "budget" not in result:
            return
        self.done += 1
        pace = (time.monotonic() - self._started) / (self.done - self._first)
        left = time.strftime("%M:%S", time.gmtime(pace * (self.total - self.done)))
        self.console.print(
            f"  [{self.done:>3}/{self.total}] {result['task']:<24} n={result['budget']:<5} "
            f"seed {result['seed']}  score {result['score']:.3f}  "
            f"{result['seconds']:5.1f} s   about {left} left",
            highlight=False,
            soft_wrap=True,
        )
