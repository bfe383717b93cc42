"""The committed measurements -> the family that the package carries, with what it is worth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.replication.targets import PRIMARY, TaskScores
from taskeff.config import RunConfig
from taskeff.errors import EstimateError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.evidence import with_evidence
from taskeff.estimate.run_tables import FitSettings, fit_run
from taskeff.finetune.cells import recipe_of

FAMILIES = Path("taskeff/estimate/families")
MIN_TASKS = 12


def ship(tasks: Sequence[TaskScores], config: RunConfig, folder: Path) -> str:
    """Write the family's file; returns its caveat.

    Raises:
        EstimateError: fewer tasks have a finished seed than the plan asks for.
    """
    calibration = calibrated(tasks, config, folder)
    FAMILIES.mkdir(parents=True, exist_ok=True)
    calibration.save(FAMILIES / f"{config.model.name}.json")
    return calibration.caveat or ""


def calibrated(tasks: Sequence[TaskScores], config: RunConfig, folder: Path) -> Calibration:
    """The primary analysis as a calibration."""
    usable = {t.name: t for t in tasks if t.signal["cos_low"] is not None and t.seeds(config.cap)}
    curves = {
        name: curve
        for name, task in usable.items()
        if (curve := task.curve(*PRIMARY, config.cap, task.seeds(config.cap)))
    }
    if len(curves) < MIN_TASKS:
        raise EstimateError(
            f"{len(curves)} tasks have a seed at {config.cap} labels; the plan ships from "
            f"{MIN_TASKS} on"
        )
    settings = FitSettings(
        cap=config.cap,
        ceiling=1.0,
        shape=config.curve.kind,
        fit=config.curve.fit,
        family=config.model.name,
        fingerprint={
            **json.loads((folder / "fingerprint.json").read_text(encoding="utf-8")),
            "recipe": recipe_of(config),
        },
    )
    signals = {name: usable[name].signal for name in curves}
    zero_shots = {name: usable[name].zero_shot_label or 0.0 for name in curves}
    fitted = with_evidence(
        fit_run(curves, signals, settings, zero_shots),
        curves,
        dict.fromkeys(curves, 1.0),
        {name: usable[name].first_run for name in curves},
    )
    seeds = [len(usable[name].seeds(config.cap)) for name in curves]
    return dataclasses.replace(fitted, caveat=_caveat(fitted, seeds, len(tasks), config))


def _caveat(fitted: Calibration, seeds: Sequence[int], attempted: int, config: RunConfig) -> str:
    worth = fitted.cos_low
    if worth is None or worth.r is None or fitted.mae is None or fitted.mean_baseline is None:
        return "CoS-Low does not vary over this family's tasks"
    asked = len(config.training.seeds)
    finished = len(seeds) == attempted and min(seeds) == asked
    between = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)}-{max(seeds)}"
    ends = "" if worth.r_interval is None else " [{:.2f}, {:.2f}]".format(*worth.r_interval)
    return (
        f"{'' if finished else 'interim: '}this family rests on {len(seeds)} tasks of "
        f"{attempted} with {between} of {asked} subset seeds, adapter fine-tunes up to "
        f"{config.cap} labels; over them CoS-Low has r {worth.r:.2f}{ends} and a left-out error "
        f"of {fitted.mae:.3f} against {fitted.mean_baseline:.3f} for predicting the mean: see "
        "docs/replication.md"
    )
