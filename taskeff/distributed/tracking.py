"""Each cell's metrics to MLflow or Weights & Biases, where the run names one."""

from __future__ import annotations

import importlib.util

from ray import tune

from taskeff.config import RunConfig
from taskeff.errors import ConfigError


def trackers(config: RunConfig) -> list[tune.Callback]:
    """Ray's own logger callbacks for the trackers that `tracking` names.

    Raises:
        ConfigError: a tracker is named whose package is not installed.
    """
    tracking = config.tracking
    found: list[tune.Callback] = []
    if tracking.mlflow_uri:
        _need("mlflow", "tracking.mlflow_uri")
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        found.append(MLflowLoggerCallback(tracking.mlflow_uri, experiment_name=config.name))
    if tracking.wandb_project:
        _need("wandb", "tracking.wandb_project")
        from ray.air.integrations.wandb import WandbLoggerCallback

        found.append(WandbLoggerCallback(project=tracking.wandb_project, group=config.name))
    return found


def check_tracking(config: RunConfig) -> None:
    """Raise ConfigError if a tracker is named whose package is not installed."""
    trackers(config)


def _need(package: str, setting: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{setting} needs the package {package!r}: pip install 'taskeff[{package}]', "
            "or drop the setting"
        )
