"""Ray Train: rows of cells on a worker group."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import train
from ray.train.torch import TorchTrainer

from taskeff.config import ClusterConfig, RunConfig
from taskeff.distributed.reports import JobReports, row_log
from taskeff.errors import StorageError, TaskeffError
from taskeff.finetune.cells import Row, measure
from taskeff.memory import return_memory
from taskeff.storage import Store

log = logging.getLogger(__name__)


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


def run_rows(
    name: str, rows: Sequence[RowTask], config: RunConfig, store: Store, scratch: str
) -> None:
    """Measure rows one after the other on a Ray Train worker group, inside a Tune trial.

    A dead worker's rows start again where their published cells end, `max_failures` times. Rows
    that the user must mend are reported as `errors` (row -> reason); the others are measured.

    Args:
        name: the job's.
        scratch: where Ray keeps its own books.

    Raises:
        TrainingFailedError: the group died too often.
    """
    cluster = config.cluster
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config={"rows": list(rows), "config": config, "store": store},
        scaling_config=scaling(cluster),
        run_config=train.RunConfig(
            name=name,
            storage_path=scratch,
            failure_config=train.FailureConfig(max_failures=cluster.max_failures),
            callbacks=[JobReports()],
        ),
    )
    trainer.fit()


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
    train.report({"started": True})
    errors: dict[str, str] = {}
    for one in loop["rows"]:
        try:
            with row_log(loop["store"], one.name):
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
            if _may_pass(error):
                # The group starts again, `max_failures` times.
                raise
            # What the user must mend fails again however often it is tried: say so, go on.
            errors[one.name] = str(error)
        except (MemoryError, RuntimeError) as error:
            # Of several workers one alone may run out: then all must start again together.
            if not _out_of_memory(error) or config.cluster.workers_per_row > 1:
                raise
            said = str(error).splitlines()  # a MemoryError may say nothing
            errors[one.name] = (
                f"out of memory ({said[0] if said else type(error).__name__}); lower "
                "training.max_tokens_per_pack and evaluation.max_tokens_per_pack, shorten the "
                "task's longest rows or give a row more workers"
            )
        # Adapters hold their model in cycles: without this the next row's stands beside it.
        return_memory()
    if errors:
        train.report({"errors": errors})


def _may_pass(error: TaskeffError) -> bool:
    """Whether a storage, or the network under a model, may answer another time."""
    return isinstance(error, StorageError) or isinstance(error.__cause__, OSError)


def _out_of_memory(error: BaseException) -> bool:
    import torch

    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        word in str(error) for word in words
    )


def _report(result: dict[str, Any]) -> None:
    return_memory()
    log.info(
        "budget %s: score %s, training %s", result["budget"], result["score"], result["training"]
    )
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
