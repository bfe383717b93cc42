"""plan -> curves -> CoS-Low -> fit -> report, for one family. CLI and jobs only call it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console

from taskeff.config import RunConfig
from taskeff.distributed.grid import run_grid
from taskeff.distributed.reports import FOLDER as LOGS
from taskeff.distributed.scoring import measure_signals
from taskeff.distributed.session import ray_session
from taskeff.distributed.tracking import check_tracking
from taskeff.errors import ClusterError
from taskeff.estimate.calibration import Calibration
from taskeff.finetune.cells import Cell
from taskeff.lease import Lease
from taskeff.run.adaptive import Imputed, next_step
from taskeff.run.cost import check_placement
from taskeff.run.plan import Plan, make_plan
from taskeff.run.results import begin, check_fittable, conclude


def calibrate(config: RunConfig, console: Console | None = None) -> Calibration:
    """Measure what is missing, fit the family, predict the held-out tasks, write the report.

    Finished cells are never measured again; running a finished calibration again only rewrites
    the fit and the page.

    Raises:
        TaskeffError: something is wrong with the run (before any worker starts), or some rows
            failed; what the others measured is kept.
    """
    console = console or Console()
    started = time.monotonic()
    check_fittable(config)
    plan = make_plan(config)
    check_placement(config)
    check_tracking(config)
    with Lease(plan.store, config.cluster.lease_seconds) as lease:
        begin(plan, config, console)
        imputed: Imputed = {}
        with ray_session(config.cluster):
            if config.grid == "adaptive":
                signals = measure_signals(plan, console)
                imputed = _adaptive(plan, signals, console, lease)
            else:
                _curves(plan, console, lease)
                signals = measure_signals(plan, console)
        lease.check()
        return conclude(plan, signals, time.monotonic() - started, console, imputed)


def measure_cells(
    config: RunConfig,
    *,
    only_tasks: Sequence[str] | None = None,
    only_budgets: Sequence[int] | None = None,
    console: Console | None = None,
) -> Plan:
    """Train and publish the run's cells, or some of them; nothing is fitted.

    Raises:
        ClusterError: some rows failed; what the others measured is kept.
    """
    plan = make_plan(config, only_tasks=only_tasks, only_budgets=only_budgets)
    check_placement(config)
    check_tracking(config)
    with (
        Lease(plan.store, config.cluster.lease_seconds) as lease,
        ray_session(config.cluster),
    ):
        _curves(plan, console or Console(), lease)
    return plan


def _adaptive(
    plan: Plan, signals: Mapping[str, Mapping[str, Any]], console: Console, lease: Lease
) -> Imputed:
    """Measure round by round until every row is determined; what need not be measured."""
    while (step := next_step(plan, plan.results(), signals)).cells:
        _curves(plan, console, lease, step.cells)
    skipped = sum(map(len, step.imputed.values())) * len(plan.config.training.seeds)
    console.print(f"curves: {skipped} of {len(plan.cells)} cells are determined by the others")
    return step.imputed


def _curves(
    plan: Plan, console: Console, lease: Lease, only: Collection[Cell] | None = None
) -> None:
    outcome = run_grid(plan, console, only=only, check=lease.check)
    if outcome.failures:
        names = ", ".join(sorted(outcome.failures))
        raise ClusterError(
            f"{len(outcome.failures)} rows failed ({names}); what the others measured is kept: "
            f"mend the cause and run the same command again. Logs: {plan.store.path(LOGS)}"
        )
    left = set(plan.cells if only is None else only) - plan.results().keys()
    if left:
        raise ClusterError(f"stopped with {len(left)} cells to go; the same command measures them")
