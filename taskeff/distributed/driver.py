"""plan -> curves -> CoS-Low -> fit -> report, for one family. CLI and jobs only call it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from taskeff.conclude import begin, check_fittable, conclude
from taskeff.config import RunConfig
from taskeff.curves.plan import Plan, make_plan
from taskeff.distributed.grid import run_grid
from taskeff.distributed.scoring import measure_signals
from taskeff.distributed.session import ray_session
from taskeff.errors import ClusterError
from taskeff.estimate.calibration import Calibration


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
    begin(plan, config, console)
    with ray_session():
        _curves(plan, console)
        signals = measure_signals(plan, console)
    return conclude(plan, signals, time.monotonic() - started, console)


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
    with ray_session():
        _curves(plan, console or Console())
    return plan


def _curves(plan: Plan, console: Console) -> None:
    outcome = run_grid(plan, console)
    if outcome.failures:
        names = ", ".join(sorted(outcome.failures))
        raise ClusterError(
            f"{len(outcome.failures)} jobs failed ({names}); what the others measured is kept: "
            "mend the cause and run the same command again"
        )
    left = sum(len(row.budgets) for row in plan.pending())
    if left:
        raise ClusterError(f"stopped with {left} cells to go; the same command measures them")
