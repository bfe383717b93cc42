"""Each cell's metrics to MLflow or Weights & Biases, where the run names one."""

from __future__ import annotations

from ray import tune

from taskeff.config import RunConfig


def trackers(config: RunConfig) -> list[tune.Callback]:
    """Ray's own logger callbacks for the trackers that `tracking` names."""
    tracking = config.tracking
    found: list[tune.Callback] = []
    if tracking.mlflow_uri:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        found.append(MLflowLoggerCallback(tracking.mlflow_uri, experiment_name=config.name))
    if tracking.wandb_project:
        from ray.air.integrations.wandb import WandbLoggerCallback

        found.append(WandbLoggerCallback(project=tracking.wandb_project, group=config.name))
    return found
