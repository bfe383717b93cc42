"""plan -> curves -> CoS-Low -> fit -> report, for one family. CLI and jobs only call it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml
from rich.console import Console
from rich.text import Text

from taskeff.config import RunConfig
from taskeff.coslow.measure import fingerprint
from taskeff.curves.cells import versions
from taskeff.curves.plan import MIN_CALIBRATION_TASKS, Plan, make_plan
from taskeff.distributed.capacity import check_placement
from taskeff.distributed.grid import run_grid
from taskeff.distributed.reports import FOLDER as LOGS
from taskeff.distributed.scoring import measure_signals
from taskeff.distributed.session import ray_session
from taskeff.distributed.tracking import check_tracking
from taskeff.errors import ClusterError, ConfigError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.run import FitSettings, estimate_rows, fit_run, task_curves
from taskeff.lease import Lease
from taskeff.report.collect import write_report


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
    if len(config.tasks.calibration) < MIN_CALIBRATION_TASKS:
        raise ConfigError(
            f"tasks.calibration: {len(config.tasks.calibration)} task(s); "
            f"a line needs at least {MIN_CALIBRATION_TASKS}"
        )
    plan = make_plan(config)
    check_placement(config)
    check_tracking(config)
    with Lease(plan.store, config.cluster.lease_seconds) as lease:
        plan.store.write_bytes(_yaml(config).encode(), "config.yaml")
        with ray_session(config.cluster):
            _curves(plan, console, lease)
            signals = measure_signals(plan, console)
        lease.check()
        calibration = _fit(plan, signals)
        plan.store.write_json(_run_record(plan, time.monotonic() - started), "run.json")
        _summary(calibration, console)
        console.print(f"report: {write_report(plan.store)}", soft_wrap=True)
    return calibration


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


def _curves(plan: Plan, console: Console, lease: Lease) -> None:
    outcome = run_grid(plan, console, check=lease.check)
    if outcome.failures:
        names = ", ".join(sorted(outcome.failures))
        raise ClusterError(
            f"{len(outcome.failures)} rows failed ({names}); what the others measured is kept: "
            f"mend the cause and run the same command again. Logs: {plan.store.path(LOGS)}"
        )
    left = sum(len(row.budgets) for row in plan.pending())
    if left:
        raise ClusterError(f"stopped with {left} cells to go; the same command measures them")


def _fit(plan: Plan, signals: Mapping[str, Mapping[str, Any]]) -> Calibration:
    """Publish the tables, the calibration and the held-out tasks' estimates."""
    config, store = plan.config, plan.store
    rows = [_curve_row(result, plan) for result in plan.results().values()]
    store.write_table(pa.Table.from_pylist(rows), "curves.parquet")
    store.write_table(pa.Table.from_pylist(list(signals.values())), "coslow.parquet")
    curves = task_curves(rows, cap=config.cap, ceiling=_ceiling(config))
    settings = FitSettings(
        cap=config.cap,
        ceiling=_ceiling(config),
        shape=config.curve.kind,
        fit=config.curve.fit,
        family=config.model.name,
        fingerprint=fingerprint(plan.identity, config.model.dtype, config.coslow),
    )
    calibration = fit_run({name: curves[name] for name in plan.calibration}, signals, settings)
    calibration.save(store)
    held_out = {name: curves[name] for name in plan.held_out}
    estimates = estimate_rows(calibration, held_out, signals, _ceiling(config))
    store.write_table(pa.Table.from_pylist(estimates), "estimates.parquet")
    return calibration


def _ceiling(config: RunConfig) -> float | None:
    return 1.0 if config.curve.ceiling == "one" else None


def _curve_row(result: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    kept = ("task", "budget", "seed", "score", "label_score", "n_test", "hash")
    role = "held_out" if result["task"] in plan.held_out else "calibration"
    return {**{key: result[key] for key in kept}, "role": role, "status": "measured"}


def _yaml(config: RunConfig) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _run_record(plan: Plan, seconds: float) -> dict[str, Any]:
    return {
        "identity": dict(plan.identity),
        "ceiling": _ceiling(plan.config),
        "held_out": plan.held_out,
        "seeds": list(plan.config.training.seeds),
        "versions": versions(),
        "git_commit": _git_commit(),
        "seconds": seconds,
        "cores": os.cpu_count(),
    }


def _git_commit() -> str | None:
    """The commit of the source tree this module lies in, `+` if it has changes; None outside."""
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        found = subprocess.run(
            ["git", "-C", folder, "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _summary(calibration: Calibration, console: Console) -> None:
    worth = calibration.cos_low
    if worth is None or calibration.mae is None or calibration.mean_baseline is None:
        return
    r = "not defined" if worth.r is None else f"{worth.r:+.2f}"
    interval = "" if worth.r_interval is None else " [{:+.2f}, {:+.2f}]".format(*worth.r_interval)
    console.print(
        f"fit over {len(calibration.fitted)} tasks: r {r}{interval}, "
        f"leave-one-task-out error {calibration.mae:.3f} "
        f"against {calibration.mean_baseline:.3f} for predicting the mean",
        highlight=False,
        soft_wrap=True,
    )
    for name, control in sorted(calibration.controls.items()):
        shown = "not defined" if control.r is None else f"{control.r:+.2f}"
        console.print(f"  control {name:<16} r {shown}, error {control.mae:.3f}", highlight=False)
    for warning in calibration.warnings:
        console.print(Text.assemble(("warning:", "yellow"), f" {warning}"), soft_wrap=True)
