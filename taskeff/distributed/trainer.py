"""Ray Train: one row of cells on a worker group."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray
from ray import train
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from taskeff.config import ClusterConfig, RunConfig
from taskeff.curves.cells import Row, measure
from taskeff.errors import ClusterError, TaskeffError
from taskeff.store import Store


def run_row(
    row: Row,
    config: RunConfig,
    store: Store,
    task: ray.ObjectRef,
    hashes: Mapping[int, str],
    scratch: str,
) -> None:
    """Measure the row's cells on a Ray Train worker group; call it inside a Tune trial.

    A dead worker's row starts again where its published cells end, `max_failures` times.

    Args:
        task: the `Task` in the object store.
        scratch: where Ray keeps its own books.
    """
    cluster = config.cluster
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config={
            "row": row,
            "config": config,
            "store": store,
            "task": task,
            "hashes": dict(hashes),
        },
        scaling_config=scaling(cluster),
        run_config=train.RunConfig(
            name=f"{row.task}-{row.seed}",
            storage_path=scratch,
            failure_config=train.FailureConfig(max_failures=cluster.max_failures),
            callbacks=[TuneReportCallback()],
        ),
    )
    result = trainer.fit()
    if result.metrics and "error" in result.metrics:
        raise ClusterError(result.metrics["error"])


def scaling(cluster: ClusterConfig) -> train.ScalingConfig:
    """What one row's worker group asks of the cluster."""
    resources: dict[str, float] = {"CPU": cluster.cpus_per_worker}
    if cluster.gpus_per_worker:
        resources["GPU"] = cluster.gpus_per_worker
    return train.ScalingConfig(
        num_workers=cluster.workers_per_row,
        use_gpu=cluster.gpus_per_worker > 0,
        resources_per_worker=resources,
    )


def _train_loop(loop: dict[str, Any]) -> None:
    import torch

    config: RunConfig = loop["config"]
    torch.set_num_threads(config.cluster.threads_per_worker)
    try:
        measure(
            loop["row"],
            ray.get(loop["task"]),
            config,
            loop["store"],
            loop["hashes"],
            on_result=_report,
            device=None if config.cluster.gpus_per_worker else "cpu",
        )
    except TaskeffError as error:
        # What the user must mend fails again however often it is tried: end the row, say why.
        train.report({"error": str(error)})


def _report(result: dict[str, Any]) -> None:
    seconds = result["evaluation_seconds"] + (result["training"] or {}).get("seconds", 0.0)
    train.report(
        {
            "task": result["task"],
            "budget": result["budget"],
            "seed": result["seed"],
            "score": result["score"],
            "seconds": seconds,
            "worker_pid": os.getpid(),
        }
    )
