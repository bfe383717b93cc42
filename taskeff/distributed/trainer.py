"""Ray Train: a job's cells on a worker group."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import ray
from ray import train
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from taskeff.config import ClusterConfig, RunConfig
from taskeff.errors import StorageError, TaskeffError
from taskeff.finetune.cells import Cell, seconds_of
from taskeff.memory import return_memory
from taskeff.run.logs import published_log
from taskeff.run.schedule import Job
from taskeff.storage import Store

log = logging.getLogger(__name__)


class Reports(TuneReportCallback):
    """Carries workers' reports to the Tune trial, and their deaths too."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        self._training_actor_item_queue.put(
            {"death": reason(next(iter(worker_exceptions.values())))}
        )


def reason(error: BaseException) -> str:
    """The one line of an error, Ray's included, that says what happened."""
    workers = getattr(error, "worker_failures", None)
    if workers:
        return reason(next(iter(workers.values())))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def run_job(
    job: Job,
    tasks: Mapping[str, ray.ObjectRef],
    hashes: Mapping[Cell, str],
    config: RunConfig,
    store: Store,
    scratch: str,
) -> None:
    """Measure a job's cells one after the other on a Ray Train worker group, in a Tune trial.

    A dead worker's job starts again where its published cells end, `max_failures` times. What the
    user must mend is reported as `errors` (task and seed -> reason); the others are measured.

    Args:
        tasks: the `Task`s in the object store, by name.
        hashes: of the job's cells.
        scratch: where Ray keeps its own books.

    Raises:
        TrainingFailedError: the group died too often.
    """
    cluster = config.cluster
    mine = {part.task: tasks[part.task] for part in job.parts}
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config={
            "job": job,
            "tasks": mine,
            "hashes": hashes,
            "config": config,
            "store": store,
        },
        scaling_config=scaling(cluster),
        run_config=train.RunConfig(
            name=job.name,
            storage_path=scratch,
            failure_config=train.FailureConfig(max_failures=cluster.max_failures),
            callbacks=[Reports()],
        ),
    )
    trainer.fit()


def scaling(cluster: ClusterConfig) -> train.ScalingConfig:
    """What one job's worker group asks of the cluster."""
    resources: dict[str, float] = {"CPU": cluster.cpus_per_worker}
    if cluster.gpus_per_worker:
        resources["GPU"] = cluster.gpus_per_worker
    return train.ScalingConfig(
        num_workers=cluster.workers_per_job,
        use_gpu=cluster.gpus_per_worker > 0,
        resources_per_worker=resources,
        accelerator_type=cluster.accelerator if cluster.gpus_per_worker else None,
        placement_strategy="PACK",  # on one node where they fit it
    )


def _train_loop(loop: dict[str, Any]) -> None:
    # Trial and controller processes load this module too, and need neither torch nor transformers.
    import torch

    from taskeff.finetune.measure import measure

    config: RunConfig = loop["config"]
    torch.set_num_threads(config.cluster.threads_per_worker)
    train.report({"started": True})
    errors: dict[str, str] = {}
    for part in loop["job"].parts:
        try:
            with published_log(loop["store"], part.name):
                measure(
                    part,
                    ray.get(loop["tasks"][part.task]),
                    config,
                    loop["store"],
                    loop["hashes"],
                    on_result=_report,
                    device=None if config.cluster.gpus_per_worker else "cpu",
                )
        except TaskeffError as error:
            if _may_pass(error):
                # The group starts again, `max_failures` times.
                raise
            # What the user must mend fails again however often it is tried: say so, go on.
            errors[str(part)] = str(error)
        # Adapters hold their model in cycles: without this the next one stands beside it.
        return_memory()
    if errors:
        train.report({"errors": errors})


def _may_pass(error: TaskeffError) -> bool:
    """Whether a storage, or the network under a model, may answer another time."""
    return isinstance(error, StorageError) or isinstance(error.__cause__, OSError)


def _report(result: dict[str, Any]) -> None:
    return_memory()
    log.info(
        "budget %s: score %s, training %s", result["budget"], result["score"], result["training"]
    )
    train.report(
        {
            "task": result["task"],
            "budget": result["budget"],
            "seed": result["seed"],
            "score": result["score"],
            "seconds": seconds_of(result),
        }
    )
