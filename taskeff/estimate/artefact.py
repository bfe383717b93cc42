"""`calibration.json`: writing, reading, and the coefficients the paper published.

The file holds no time, path or host name: two runs of the same calibration compare byte for byte.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskeff.errors import EstimateError
from taskeff.estimate.calibration import Calibration, TaskPoint, fit_calibration
from taskeff.estimate.regression import Line
from taskeff.estimate.rise import Rise
from taskeff.estimate.shapes import Power, shape_from_dict

if TYPE_CHECKING:
    from taskeff.storage import Store

SCHEMA = 1
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def calibration_to_dict(calibration: Calibration) -> dict[str, Any]:
    """The content of `calibration.json`: no time, path or host, so reruns compare equal."""
    left_out: list[float] = [] if calibration.left_out is None else calibration.left_out.tolist()
    by_name = dict(zip((task.name for task in calibration.fitted), left_out, strict=True))
    residuals = [t.auc - by_name[t.name] for t in calibration.fitted] if left_out else None
    return {
        "schema": SCHEMA,
        "family": calibration.family,
        "fingerprint": dict(calibration.fingerprint),
        "cap": calibration.cap,
        "curve": {"kind": calibration.curve.kind, "shape": calibration.curve.to_dict()},
        "fit": {
            "kind": calibration.line.kind,
            "slope": calibration.line.slope,
            "intercept": calibration.line.intercept,
        },
        "loo": {
            "mae": calibration.mae,
            "mean_baseline": calibration.mean_baseline,
            "residuals": residuals,
            "r": None if calibration.cos_low is None else calibration.cos_low.r,
            "r_interval": None
            if calibration.cos_low is None
            else calibration.cos_low.to_dict()["r_interval"],
        },
        "controls": {name: worth.to_dict() for name, worth in sorted(calibration.controls.items())},
        "seed": calibration.seed,
        "source": calibration.source,
        "caveat": calibration.caveat,
        "warnings": list(calibration.warnings),
        "tasks": [
            {
                "name": task.name,
                "auc": task.auc,
                "cos_low": task.cos_low,
                "loo_auc": by_name.get(task.name),
                "status": task.status,
                "controls": dict(sorted(task.controls.items())),
                "rise": None if task.rise is None else task.rise.to_dict(),
            }
            for task in calibration.tasks
        ],
    }


def save_calibration(calibration: Calibration, target: Store | str | os.PathLike[str]) -> None:
    """Write `calibration.json` into a store or folder, or the file at a `*.json` path.

    Raises:
        StorageError: it cannot be written.
    """
    store, name = _locate(target)
    store.write_json(calibration_to_dict(calibration), name)


def load_calibration(source: Store | str | os.PathLike[str]) -> Calibration:
    """A calibration: a bundled family's name, a store or folder, or a `*.json` file.

    Raises:
        EstimateError: the name is no bundled family and no file, or the file is not a
            calibration.
    """
    if isinstance(source, str):
        published, ours = published_families(), measured_families()
        if source in published:
            return _published(source, published[source])
        if source in ours:
            return calibration_from_dict(json.loads(ours[source].read_text("utf-8")), source)
        if "/" not in source and not os.path.exists(source):
            raise EstimateError(
                f"{source!r} is neither a bundled family ({', '.join(sorted(published | ours))}) "
                "nor a calibration file; name one of these"
            )
    store, name = _locate(source)
    return calibration_from_dict(store.read_json(name), name)


def calibration_from_dict(value: Mapping[str, Any], where: str = "calibration") -> Calibration:
    """The calibration whose `to_dict` this is.

    Raises:
        EstimateError: another schema, or a field missing.
    """
    if value.get("schema") != SCHEMA:
        raise EstimateError(
            f"{where}: schema {value.get('schema')!r}, expected {SCHEMA}; calibrate again"
        )
    try:
        kind = value["fit"]["kind"]
        curve = shape_from_dict(value["curve"]["kind"], value["curve"]["shape"])
        if value["source"] is None:
            points = [
                TaskPoint(
                    t["name"],
                    t["auc"],
                    t["cos_low"],
                    t["status"],
                    t["controls"],
                    None if t["rise"] is None else Rise(**t["rise"]),
                )
                for t in value["tasks"]
            ]
            fitted = fit_calibration(
                points,
                curve=curve,
                cap=value["cap"],
                family=value["family"],
                fingerprint=value["fingerprint"],
                kind=kind,
                seed=value["seed"],
            )
            return dataclasses.replace(fitted, caveat=value.get("caveat"))
        return Calibration(
            family=value["family"],
            fingerprint=value["fingerprint"],
            cap=value["cap"],
            curve=curve,
            line=Line(kind, value["fit"]["slope"], value["fit"]["intercept"]),
            mae=value["loo"]["mae"],
            seed=value["seed"],
            source=value["source"],
        )
    except (KeyError, TypeError) as error:
        raise EstimateError(f"{where}: unlike a calibration ({error}); calibrate again") from None


def published_families() -> dict[str, dict[str, Any]]:
    """The bundled coefficients of the paper: family -> model, slope, intercept, mae, source."""
    text = resources.files("taskeff.estimate").joinpath("published.json").read_text("utf-8")
    return json.loads(text)


def measured_families() -> dict[str, Path]:
    """The calibrations of our own that the package carries: family -> its file."""
    folder = Path(__file__).parent / "families"
    return {file.stem: file for file in sorted(folder.glob("*.json"))}


def _published(family: str, entry: Mapping[str, Any]) -> Calibration:
    return Calibration(
        family=family,
        fingerprint={
            "model": entry["model"],
            "lora_rank": 64,
            "lora_alpha": 32,
            "lora_targets": _TARGETS,
            "n_examples": 32,
            "quantile": 0.1,
        },
        cap=5000,
        curve=Power(),
        line=Line("ols", entry["slope"], entry["intercept"]),
        mae=entry["mae"],
        source=entry["source"],
    )


def _locate(where: Store | str | os.PathLike[str]) -> tuple[Store, str]:
    from taskeff.storage import Store

    if isinstance(where, Store):
        return where, "calibration.json"
    text = os.fspath(where)
    if not text.endswith(".json"):
        return Store(text), "calibration.json"
    folder, _, name = text.rpartition("/")
    return Store(folder or "."), name
