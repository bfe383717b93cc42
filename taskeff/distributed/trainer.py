"""Ray Train: rows of cells on a worker group."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import train
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from taskeff.config import ClusterConfig, RunConfig
from taskeff.curves.cells import Row, measure
from taskeff.distributed.session import return_memory
from taskeff.errors import ClusterError, TaskeffError
from taskeff.store import Store


@dataclass(frozen=True)
class RowTask:
    """A row with what its worker needs: the `Task` in the object store, its cells' hashes."""

    row: Row
    task: ray.ObjectRef
    hashes: Mapping[int, str]

    @property
    def name(self) -> str:
        """The row's name in messages."""
        return f"{self.row.task}-{self.row.seed}"


def run_rows(rows: Sequence[RowTask], config: RunConfig, store: Store, scratch: str) -> None:
    """Measure rows one after the other on a Ray Train worker group, inside a Tune trial.

    A dead worker's rows start again where their published cells end, `max_failures` times.

    Args:
        scratch: where Ray keeps its own books.

    Raises:
        ClusterError: what the user must mend in some rows; the others are measured.
    """
    cluster = config.cluster
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config={"rows": list(rows), "config": config, "store": store},
        scaling_config=scaling(cluster),
        run_config=train.RunConfig(
            name=rows[0].name,
            storage_path=scratch,
            failure_config=train.FailureConfig(max_failures=cluster.max_failures),
            callbacks=[TuneReportCallback()],
        ),
    )
    result = trainer.fit()
    if result.metrics and "errors" in result.metrics:
        raise ClusterError("; ".join(result.metrics["errors"]))


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
    errors: list[str] = []
    for one in loop["rows"]:
        try:
            measure(
                one.row,
                ray.get(one.task),
                config,
                loop["store"],
                one.hashes,
                on_result=_report,
                device=None if config.cluster.gpus_per_worker else "cpu",
            )
        except TaskeffError as error:
            # What the user must mend fails again however often it is tried: say so, go on.
            errors.append(f"{one.name}: {error}")
        # Adapters hold their model in cycles: without this the next row's stands beside it.
        return_memory()
    if errors:
        train.report({"errors": errors})


def _report(result: dict[str, Any]) -> None:
    return_memory()
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
