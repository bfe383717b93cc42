"""A measured run -> its tables, its calibration, the held-out tasks' estimates, its page."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from rich.console import Console

from taskeff.coslow.result import TABLE
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.evidence import with_evidence
from taskeff.estimate.left_out import predict_task, prediction_rows
from taskeff.estimate.run_tables import (
    FitSettings,
    ceiling_of,
    first_runs,
    fit_run,
    label_zero_shots,
    task_curves,
)
from taskeff.finetune.cells import Cell, recipe_of, versions
from taskeff.report.collect import write_report
from taskeff.report.sentences import works
from taskeff.run.data_sets import run_fingerprint
from taskeff.run.plan import Plan
from taskeff.run.progress import say


def conclude(
    plan: Plan,
    results: Mapping[Cell, Mapping[str, Any]],
    signals: Mapping[str, Mapping[str, Any]],
    seconds: float,
    console: Console,
    imputed: Mapping[str, Mapping[int, float]],
) -> Calibration:
    """Fit, publish and say what a run measured.

    Args:
        results: cell -> its result, of all cells that were measured.
        signals: task -> its CoS-Low result.
        seconds: how long the run took.
        imputed: task -> budget -> posterior mean score of the cells that an adaptive grid skipped.
    """
    config, store = plan.config, plan.store
    # A budget with a seed missing is imputed as a whole: whoever stopped and went on gets the
    # numbers of whoever did not.
    rows = [
        curve_row(results[cell], plan)
        for cell in plan.cells
        if cell in results and cell.budget not in imputed.get(cell.task, ())
    ]
    unknown = dict.fromkeys(("label_score", "n_test", "hash"))
    kind = {"seed": config.training.seeds[0], "role": "calibration", "status": "imputed"}
    rows += [
        {**unknown, **kind, "task": task, "budget": budget, "score": score}
        for task, scores in imputed.items()
        for budget, score in sorted(scores.items())
    ]
    store.write_table(pa.Table.from_pylist(rows), "curves.parquet")
    measured = [{key: signals[name][key] for key in TABLE} for name in plan.tasks]
    store.write_table(pa.Table.from_pylist(measured), "coslow.parquet")
    curves = task_curves(rows, cap=config.cap, ceiling=plan.ceiling)
    settings = FitSettings(
        cap=config.cap,
        ceiling=plan.ceiling,
        shape=config.curve.kind,
        fit=config.curve.fit,
        family=config.model.name,
        fingerprint={**run_fingerprint(plan), "recipe": recipe_of(config)},
    )
    fitted = {name: curves[name] for name in plan.calibration}
    calibration = with_evidence(
        fit_run(fitted, signals, settings, label_zero_shots(rows)),
        fitted,
        {name: ceiling_of(plan.ceiling, name) for name in fitted},
        first_runs(rows),
    )
    calibration.save(store)
    held_out = [
        predict_task(
            calibration, curves[name], signals[name]["cos_low"], ceiling_of(plan.ceiling, name)
        )
        for name in plan.held_out
    ]
    store.write_table(pa.Table.from_pylist(prediction_rows(held_out)), "estimates.parquet")
    store.write_json(_run_record(plan, seconds), "run.json")
    _summary(calibration, console)
    console.print(f"report: {write_report(store)}", soft_wrap=True)
    return calibration


def curve_row(result: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """A published result as a row of `curves.parquet`."""
    kept = ("task", "budget", "seed", "score", "label_score", "n_test", "hash")
    role = "held_out" if result["task"] in plan.held_out else "calibration"
    return {**{key: result[key] for key in kept}, "role": role, "status": "measured"}


def _run_record(plan: Plan, seconds: float) -> dict[str, Any]:
    return {
        "identity": dict(plan.identity),
        "ceiling": plan.ceiling,
        "held_out": plan.held_out,
        "rows": {name: account.to_dict() for name, account in plan.accounts.items()},
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
    console.print(works(calibration), highlight=False, soft_wrap=True)
    for name, control in sorted(calibration.controls.items()):
        shown = "not defined" if control.r is None else f"{control.r:+.2f}"
        console.print(f"  control {name:<16} r {shown}, error {control.mae:.3f}", highlight=False)
    for warning in calibration.warnings:
        say(console, "warning:", warning)
