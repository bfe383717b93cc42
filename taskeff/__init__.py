"""How many labelled examples will this task need? Answered before any fine-tune.

The public API, loaded on first use: importing taskeff brings in neither torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskeff.config import CosLowConfig, ModelConfig, RunConfig
    from taskeff.config_file import load_config
    from taskeff.distributed.coslow import OnRay
    from taskeff.distributed.executor import RayExecutor
    from taskeff.errors import TaskeffError
    from taskeff.estimate.advice import Prices
    from taskeff.estimate.budget import Estimate, target_share
    from taskeff.estimate.calibration import Calibration
    from taskeff.estimate.posterior import Pilot, Score
    from taskeff.estimate.question import predict
    from taskeff.rank_config import RankConfig
    from taskeff.run.driver import calibrate
    from taskeff.run.inline import InlineExecutor, InProcess
    from taskeff.run.labelling import score, select
    from taskeff.run.pilot import pilot, pilot_config
    from taskeff.run.ranking import rank

    __version__: str

__all__ = [
    "Calibration",
    "CosLowConfig",
    "Estimate",
    "InProcess",
    "InlineExecutor",
    "ModelConfig",
    "OnRay",
    "Pilot",
    "Prices",
    "RankConfig",
    "RayExecutor",
    "RunConfig",
    "Score",
    "TaskeffError",
    "__version__",
    "calibrate",
    "load_config",
    "pilot",
    "pilot_config",
    "predict",
    "rank",
    "score",
    "select",
    "target_share",
]

_HOMES = {
    "taskeff.config": ("CosLowConfig", "ModelConfig", "RunConfig"),
    "taskeff.rank_config": ("RankConfig",),
    "taskeff.config_file": ("load_config",),
    "taskeff.distributed.coslow": ("OnRay",),
    "taskeff.distributed.executor": ("RayExecutor",),
    "taskeff.run.labelling": ("score", "select"),
    "taskeff.run.pilot": ("pilot", "pilot_config"),
    "taskeff.run.ranking": ("rank",),
    "taskeff.errors": ("TaskeffError",),
    "taskeff.estimate.advice": ("Prices",),
    "taskeff.estimate.budget": ("Estimate", "target_share"),
    "taskeff.estimate.calibration": ("Calibration",),
    "taskeff.estimate.posterior": ("Pilot", "Score"),
    "taskeff.estimate.question": ("predict",),
    "taskeff.run.driver": ("calibrate",),
    "taskeff.run.inline": ("InlineExecutor", "InProcess"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("taskeff.version").version()
    for module, names in _HOMES.items():
        if name in names:
            try:
                return getattr(importlib.import_module(module), name)
            except ModuleNotFoundError as error:
                raise importlib.import_module("taskeff.errors").missing(error) from None
    raise AttributeError(f"module 'taskeff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
