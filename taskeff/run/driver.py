"""A calibration from its configuration to its page, whatever measures it.

check -> plan -> lease -> cells and CoS-Lows, full or adaptive -> fit -> report. Every door goes
through `calibrate`: the command line, jobs, Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from taskeff.config import RunConfig
from taskeff.errors import ConfigError, TaskeffError, redact, redacted
from taskeff.estimate.calibration import Calibration
from taskeff.finetune.cells import Cell
from taskeff.lease import Lease, Part
from taskeff.run.adaptive import Imputed, next_step
from taskeff.run.checks import check_fittable
from taskeff.run.cost import cheap_first, expected, parameter_count
from taskeff.run.data_sets import data_sets, follow
from taskeff.run.executor import Executor
from taskeff.run.limits import LimitError, Limits
from taskeff.run.logs import FOLDER as LOGS
from taskeff.run.placement import coslow_actors
from taskeff.run.plan import Plan, make_plan
from taskeff.run.progress import Progress, say
from taskeff.run.results import conclude
from taskeff.screen import Screen


def calibrate(
    config: RunConfig,
    executor: Callable[[RunConfig], Executor],
    console: Console | None = None,
    *,
    part: Part | None = None,
    only_tasks: Sequence[str] | None = None,
    only_budgets: Sequence[int] | None = None,
) -> Calibration | None:
    """Measure what is missing, fit the family, predict the held-out tasks, write the report.

    What is published is never measured again; running a finished calibration again only rewrites
    the fit and the page. Executors measure the same, so either goes on where the other stopped.

    Args:
        executor: `RayExecutor` or `InlineExecutor`.
        part: (i, n) measures every n-th thing from the i-th and fits nothing. Parts of one n may
            run at the same time (see `taskeff.lease`); a last call without one fits.
        only_tasks, only_budgets: measure these cells and fit nothing.

    Returns:
        The calibration; None where nothing is fitted: `part`, `only_tasks`, `only_budgets`, or a
        limit of `cluster` was reached.

    Raises:
        TaskeffError: something is wrong with the run (before anything is measured), another driver
            holds it, or something failed; what was measured is kept.

    Examples:
        >>> family = taskeff.calibrate(taskeff.load_config("run.yaml"), taskeff.InlineExecutor)
        rows: ... read, ...
        >>> len(family.tasks)
        2
    """
    console = console or Screen()
    part = None if part == (0, 1) else part
    cells_only = bool(only_tasks or only_budgets)
    _check(config, part, cells_only=cells_only)
    plan = make_plan(config, only_tasks=only_tasks, only_budgets=only_budgets)
    if cells_only:
        measure_cells(plan, config, executor, console, part=part)
        return None
    return measure_family(plan, config, executor, console, part=part)


def measure_family(
    plan: Plan,
    config: RunConfig,
    executor: Callable[[RunConfig], Executor],
    console: Console,
    *,
    part: Part | None = None,
) -> Calibration | None:
    """`calibrate` of a plan that was made and checked.

    Args:
        config: what is stored as the run's configuration.

    Returns:
        The calibration; None where nothing is fitted.

    Raises:
        TaskeffError: as `calibrate`.
    """
    started = time.monotonic()
    with _driving(plan, config, executor, console, part) as run:
        imputed: Imputed = {}
        with run.executor:
            if config.grid == "adaptive":
                run.measure_coslow()
                imputed = run.measure_adaptively()
            else:
                run.measure_cells(run.cells)
                run.measure_coslow()
        if part:
            return None
        run.lease.check()
        seconds = time.monotonic() - started
        return conclude(run.plan, run.results, run.signals, seconds, console, imputed)
    return None


def measure_cells(
    plan: Plan,
    config: RunConfig,
    executor: Callable[[RunConfig], Executor],
    console: Console,
    *,
    part: Part | None = None,
) -> dict[Cell, dict[str, Any]] | None:
    """Measure the cells that a plan lacks, and no CoS-Low.

    Args:
        config: what is stored as the run's configuration.

    Returns:
        cell -> its result; None where a limit of `cluster` was reached.

    Raises:
        TaskeffError: as `calibrate`.
    """
    with _driving(plan, config, executor, console, part) as run:
        with run.executor:
            run.measure_cells(run.cells)
        return run.results
    return None


@contextmanager
def _driving(
    plan: Plan,
    config: RunConfig,
    executor: Callable[[RunConfig], Executor],
    console: Console,
    part: Part | None,
) -> Iterator[_Run]:
    """The run under its lease; where a limit is reached, what is inside ends there."""
    measuring = executor(plan.config)
    with Lease(plan.store, config.cluster.lease_seconds, part=part) as lease:
        plan = begin(plan, config, console)
        limits = Limits(config, measuring.lanes)
        try:
            yield _Run(plan, measuring, console, lease, limits, part)
        except LimitError as reached:
            # Not an error: a job that failed would be started again, and spend as much once more.
            console.print(Text(f"stopped: {reached}", "yellow"), soft_wrap=True)


def begin(plan: Plan, config: RunConfig, console: Console) -> Plan:
    """Say what became of the rows and what to know of the plan; publish what workers read from the
    storage: the resolved configuration as given, and the tasks' rows.

    Returns:
        The plan, its tasks reading their rows from there.
    """
    for line in plan.row_lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for note in plan.notes:
        say(console, "note:", note)
    resolved = yaml.safe_dump(redacted(config.model_dump(mode="json")), sort_keys=False)
    plan.store.write_bytes(resolved.encode(), "config.yaml")
    return replace(plan, tasks={name: t.publish(plan.store) for name, t in plan.tasks.items()})


def _check(config: RunConfig, part: Part | None, *, cells_only: bool) -> None:
    if not cells_only:
        check_fittable(config)
    if part and not 0 <= part[0] < part[1]:
        raise ConfigError(f"part {part[0]}/{part[1]}: give i/n with 0 <= i < n")
    if part and config.grid == "adaptive" and not cells_only:
        raise ConfigError(
            "grid: adaptive decides by all results what to measure next, which parts do not have; "
            "set grid=full, or run it without --part"
        )


class _Run:
    """What a run has measured so far, its own share of the work, and how it measures more."""

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        console: Console,
        lease: Lease,
        limits: Limits,
        part: Part | None,
    ):
        self.plan, self.executor, self.lease = plan, executor, lease
        self._console, self._limits = console, limits
        i, n = part or (0, 1)
        jobs: list[Cell | str] = [*cheap_first(plan, plan.cells), *plan.tasks]
        self.cells = [job for job in jobs[i::n] if isinstance(job, Cell)]
        self._tasks = [job for job in jobs[i::n] if isinstance(job, str)]
        self.results = plan.results()
        self.signals: dict[str, dict[str, Any]] = {}

    def _check(self) -> None:
        self.lease.check()
        self._limits.check()

    @cached_property
    def _parameters(self) -> float:
        return parameter_count(self.plan.config)

    def measure_cells(self, wanted: Collection[Cell]) -> None:
        """Measure those of `wanted` that have no result."""
        missing = [cell for cell in wanted if cell not in self.results]
        done = sum(cell in self.results for cell in self.cells)
        self.results |= self._measure(
            ("curves", "cells"),
            missing,
            (done, len(self.cells)),
            self.executor.cells,
            self.plan.results,
        )

    def measure_coslow(self) -> None:
        """Measure the CoS-Lows that have no result."""
        self.signals = self.plan.coslow_results(self._tasks)
        missing = [name for name in self._tasks if name not in self.signals]
        total = len(self._tasks)
        self._measure(
            ("CoS-Low", "tasks"),
            missing,
            (total - len(missing), total),
            self._coslow,
            lambda _: self.signals,
        )

    def _coslow(self, plan: Plan, tasks: Mapping[str, float], progress: Progress) -> None:
        config = plan.config
        made = data_sets(plan, sorted(tasks, key=lambda name: (tasks[name], name)))
        actors = coslow_actors(config)
        events = self.executor.data_sets(made, config.model, config.coslow, actors)
        self.signals |= follow(plan, events, progress)

    def measure_adaptively(self) -> Imputed:
        """Measure round by round until every task is determined; what need not be measured."""
        while (step := next_step(self.plan, self.results, self.signals)).cells:
            self.measure_cells(step.cells)
        skipped = step.skipped(len(self.plan.config.training.seeds))
        self._console.print(
            f"curves: {skipped} of {len(self.cells)} cells are determined by the others"
        )
        return step.imputed

    def _measure(
        self,
        words: tuple[str, str],
        missing: Sequence[Any],
        counts: tuple[int, int],
        measure: Callable[..., None],
        published: Callable[[Sequence[Any]], dict[Any, dict[str, Any]]],
    ) -> dict[Any, dict[str, Any]]:
        """One pass: `missing` is measured and its results are read, each once.

        Args:
            words: what is measured, and what is counted.
            counts: how many are done, and how many there are in all.
        """
        (what, things), (done, total) = words, counts
        if not missing:
            self._console.print(f"{what}: all {total} {things} are measured already")
            return {}
        self._console.print(f"{what}: {len(missing)} of {total} {things} to measure")
        seconds, _ = expected(self.plan, missing, self.results, self._parameters)
        lanes, check = self.executor.lanes, self._check
        with Progress(
            self._console, seconds, total=total, done=done, lanes=lanes, check=check
        ) as progress:
            measure(self.plan, seconds, progress)
        if progress.failures:
            reasons = "".join(f"\n- {n}: {why}" for n, why in sorted(progress.failures.items()))
            raise TaskeffError(
                f"{what}: {len(progress.failures)} failed, what the others measured is kept: mend "
                "the cause and run the same command again. Logs: "
                f"{redact(self.plan.store.child(LOGS).uri)}{reasons}"
            )
        found = published(missing)
        if left := sum(one not in found for one in missing):
            raise TaskeffError(
                f"stopped with {left} {things} to go; the same command measures them"
            )
        return found
