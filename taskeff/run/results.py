"""A measured run -> its tables, its calibration, the held-out tasks' estimates, its page."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import yaml
from rich.console import Console
from rich.text import Text

from taskeff.config import RunConfig
from taskeff.coslow.measure import fingerprint
from taskeff.errors import ConfigError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.left_out import estimate_rows, predict_task
from taskeff.estimate.run_tables import (
    FitSettings,
    ceiling_of,
    fit_run,
    label_zero_shots,
    task_curves,
)
from taskeff.finetune.cells import versions
from taskeff.report.collect import write_report
from taskeff.run.plan import MIN_CALIBRATION_TASKS, Plan


def check_fittable(config: RunConfig) -> None:
    """What can be known beforehand of whether a line can be fitted.

    Raises:
        ConfigError: fewer than two calibration tasks.
    """
    if len(config.tasks.calibration) < MIN_CALIBRATION_TASKS:
        raise ConfigError(
            f"tasks.calibration: {len(config.tasks.calibration)} task(s); "
            f"a line needs at least {MIN_CALIBRATION_TASKS}"
        )


def begin(plan: Plan, config: RunConfig, console: Console) -> None:
    """Say what is worth knowing of the plan; publish the resolved configuration as given."""
    for note in plan.notes:
        console.print(Text.assemble(("note:", "yellow"), f" {note}"), soft_wrap=True)
    plan.store.write_bytes(_yaml(config).encode(), "config.yaml")


def run_fingerprint(plan: Plan) -> dict[str, Any]:
    """What the run's CoS-Lows are measured with."""
    return fingerprint(plan.identity, plan.config.model, plan.config.coslow)


def conclude(
    plan: Plan,
    signals: Mapping[str, Mapping[str, Any]],
    seconds: float,
    console: Console,
    imputed: Mapping[str, Mapping[int, float]] | None = None,
) -> Calibration:
    """Fit, publish and say what a run measured.

    Args:
        signals: task -> its CoS-Low result.
        seconds: how long the run took.
        imputed: task -> budget -> posterior mean score of the cells that an adaptive grid skipped.
    """
    calibration = _fit(plan, signals, imputed or {})
    plan.store.write_json(_run_record(plan, seconds), "run.json")
    _summary(calibration, console)
    console.print(f"report: {write_report(plan.store)}", soft_wrap=True)
    return calibration


def _fit(
    plan: Plan,
    signals: Mapping[str, Mapping[str, Any]],
    imputed: Mapping[str, Mapping[int, float]],
) -> Calibration:
    """Publish the tables, the calibration and the held-out tasks' estimates."""
    config, store = plan.config, plan.store
    rows = [curve_row(result, plan) for result in plan.results().values()]
    rows += [
        _imputed_row(plan, task, budget, score)
        for task, scores in imputed.items()
        for budget, score in sorted(scores.items())
    ]
    store.write_table(pa.Table.from_pylist(rows), "curves.parquet")
    store.write_table(pa.Table.from_pylist(list(signals.values())), "coslow.parquet")
    curves = task_curves(rows, cap=config.cap, ceiling=plan.ceiling)
    settings = FitSettings(
        cap=config.cap,
        ceiling=plan.ceiling,
        shape=config.curve.kind,
        fit=config.curve.fit,
        family=config.model.name,
        fingerprint=run_fingerprint(plan),
    )
    calibration = fit_run(
        {name: curves[name] for name in plan.calibration},
        signals,
        settings,
        label_zero_shots(rows),
    )
    calibration.save(store)
    held_out = [
        predict_task(
            calibration, curves[name], signals[name]["cos_low"], ceiling_of(plan.ceiling, name)
        )
        for name in plan.held_out
    ]
    store.write_table(pa.Table.from_pylist(estimate_rows(held_out)), "estimates.parquet")
    return calibration


def curve_row(result: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """A published result as a row of `curves.parquet`."""
    kept = ("task", "budget", "seed", "score", "label_score", "n_test", "hash")
    role = "held_out" if result["task"] in plan.held_out else "calibration"
    return {**{key: result[key] for key in kept}, "role": role, "status": "measured"}


def _imputed_row(plan: Plan, task: str, budget: int, score: float) -> dict[str, Any]:
    return {
        "task": task,
        "budget": budget,
        "seed": plan.config.training.seeds[0],
        "score": score,
        "label_score": None,
        "n_test": None,
        "hash": None,
        "role": "calibration",
        "status": "imputed",
    }


def _yaml(config: RunConfig) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _run_record(plan: Plan, seconds: float) -> dict[str, Any]:
    return {
        "identity": dict(plan.identity),
        "ceiling": plan.ceiling,
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
